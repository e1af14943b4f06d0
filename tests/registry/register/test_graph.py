"""ONNX graphs: described, bounded, written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_scene import model_of, value

from shipway.registry.convert import graph
from shipway.registry.convert.identity import canonical_digest
from shipway.registry.errors import ConversionError
from shipway.registry.nouns import TensorSpec

Build = Callable[..., onnx.ModelProto]


def test_info(mlp: Build) -> None:
    info = graph.info(mlp(), 42)
    assert (info.opset, info.ir, info.size) == (17, 8, 42)
    assert info.operators == ("Gemm", "MatMul", "Relu", "Softmax")
    assert info.inputs == (TensorSpec("x", "float32", ("batch", 8)),)
    assert info.outputs == (TensorSpec("y", "float32", ("batch", 4)),)


def test_operators_inside_branches_and_of_other_domains_count() -> None:
    def branch(name: str, op: str, domain: str = "") -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(op, ["x"], [name], domain=domain)], name, [], [value(name, 1)]
        )

    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("t", "Relu"), else_branch=branch("e", "Gelu", "com.microsoft")
    )
    model = model_of([node], [value("c", dtype=TensorProto.BOOL), value("x", 1)], [value("y", 1)])
    assert graph.info(model, 0).operators == ("If", "Relu", "com.microsoft::Gelu")
    renamed = model_of([node], [value("c", dtype=TensorProto.BOOL), value("x", 1)], [value("y", 1)])
    renamed.graph.node[0].attribute[0].g.node[0].op_type = "Tanh"
    assert canonical_digest(renamed) != canonical_digest(model)


@pytest.mark.parametrize("content", [b"", b"this is no model\n" * 5, b"\x08\x07", None])
def test_files_that_are_no_model(tmp_path: Path, mlp: Build, content: bytes | None) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(mlp().SerializeToString()[:-40] if content is None else content)
    with pytest.raises(ConversionError, match="can't be read as an ONNX model"):
        graph.load(path)


# identity


def test_bytes_do_not_tell_who_wrote_them(mlp: Build) -> None:
    one, two = mlp(), mlp()
    two.producer_name, two.doc_string, two.graph.name = "paddle", "made today", "other"
    two.graph.node[0].doc_string = "line 12"
    helper.set_model_props(two, {"date": "today"})
    assert graph.to_bytes(one) == graph.to_bytes(two)
    assert two.producer_name == "paddle"  # a copy was changed


def test_ids_are_bounded_by_their_table() -> None:
    table = numpy_helper.from_array(np.zeros((30, 4), np.float32), "table")
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "wide"], ["y"]),
    ]
    ids = value("ids", 1, "T", dtype=TensorProto.INT32)
    model = model_of(nodes, [ids], [value("y", 1, "T", 4)], [table])
    assert graph.id_limits(model) == {"ids": 30}


@pytest.mark.parametrize("dtype", [TensorProto.STRING, TensorProto.UNDEFINED])
def test_what_holds_no_numbers_is_refused(dtype: int) -> None:
    with pytest.raises(ConversionError, match=r"'x' of the model (holds strings|is no tensor)") as caught:
        graph.spec_of(value("x", "N", dtype=dtype))
    assert caught.value.remedy
