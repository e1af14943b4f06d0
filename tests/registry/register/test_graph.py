"""ONNX graphs: identity, axes, ranges, bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shipway.registry.convert import graph
from shipway.registry.errors import ConversionError
from shipway.registry.nouns import TensorSpec

Build = Callable[..., onnx.ModelProto]


def value(name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    made = helper.make_graph(nodes, "g", inputs, outputs, weights or [])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


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
    assert graph.canonical_digest(renamed) != graph.canonical_digest(model)


@pytest.mark.parametrize("content", [b"", b"this is no model\n" * 5, b"\x08\x07", None])
def test_files_that_are_no_model(tmp_path: Path, mlp: Build, content: bytes | None) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(mlp().SerializeToString()[:-40] if content is None else content)
    with pytest.raises(ConversionError, match="can't be read as an ONNX model"):
        graph.load(path)


# identity


def test_names_inside_do_not_count(mlp: Build) -> None:
    assert graph.canonical_digest(mlp(prefix="p0_")) == graph.canonical_digest(mlp(prefix="linear_17.w_"))


def test_counters_in_interface_names_do_not_count_but_names_do(mlp: Build) -> None:
    def with_output(name: str) -> onnx.ModelProto:
        model = mlp()
        model.graph.node[-1].output[0] = model.graph.output[0].name = name
        return model

    first = graph.canonical_digest(with_output("softmax_11.tmp_0"))
    assert graph.canonical_digest(with_output("softmax_2.tmp_0")) == first
    assert graph.canonical_digest(with_output("scores")) != first


def test_order_of_nodes_and_form_of_weights_do_not_count(mlp: Build) -> None:
    model = mlp()
    expected = graph.canonical_digest(model)
    for tensor in model.graph.initializer:
        if tensor.name == "b1":
            values = numpy_helper.to_array(tensor).copy()
            tensor.ClearField("raw_data")
            tensor.float_data.extend(values.tolist())
    weights = list(model.graph.initializer)[::-1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    constant = helper.make_node("Constant", [], ["w2"], value=next(w for w in weights if w.name == "w2"))
    kept = [weight for weight in weights if weight.name != "w2"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.node.insert(0, constant)
    model.producer_name, model.doc_string, model.ir_version = "other", "text", 9
    assert graph.canonical_digest(model) == expected


def test_whatever_changes_the_numbers_counts(mlp: Build) -> None:
    digests = {graph.canonical_digest(mlp())}
    changed = mlp()
    weight = changed.graph.initializer[1]
    values = numpy_helper.to_array(weight).copy()
    values[3] = np.nextafter(values[3], np.float32(9))
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    digests.add(graph.canonical_digest(changed))
    axis = mlp()
    axis.graph.node[-1].attribute[0].i = 0
    digests.add(graph.canonical_digest(axis))
    operator = mlp()
    operator.graph.node[1].op_type = "Tanh"
    digests.add(graph.canonical_digest(operator))
    shape = mlp()
    shape.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    digests.add(graph.canonical_digest(shape))
    opset = mlp()
    opset.opset_import[0].version = 18
    digests.add(graph.canonical_digest(opset))
    assert len(digests) == 6


def test_swapped_inputs_are_another_model() -> None:
    def sub(*order: str) -> onnx.ModelProto:
        node = helper.make_node("Sub", list(order), ["y"])
        return model_of([node], [value("a", 2), value("b", 2)], [value("y", 2)])

    assert graph.canonical_digest(sub("a", "b")) != graph.canonical_digest(sub("b", "a"))


def test_bytes_do_not_tell_who_wrote_them(mlp: Build) -> None:
    one, two = mlp(), mlp()
    two.producer_name, two.doc_string, two.graph.name = "paddle", "made today", "other"
    two.graph.node[0].doc_string = "line 12"
    helper.set_model_props(two, {"date": "today"})
    assert graph.to_bytes(one) == graph.to_bytes(two)
    assert two.producer_name == "paddle"  # a copy was changed


# axes


def relu(*shape: int | str, out: tuple[int | str, ...] | None = None) -> onnx.ModelProto:
    node = helper.make_node("Relu", ["x"], ["y"])
    return model_of([node], [value("x", *shape)], [value("y", *(out or shape))])


D = "DynamicDimension."


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ((D + "0", 3, 48, D + "1"), ("N", 3, 48, "W")),
        ((D + "0", 3, D + "1", D + "2"), ("N", 3, "H", "W")),
        ((D + "0", D + "1", D + "2", 3), ("N", "H", "W", 3)),
        (("p2o." + D + "0", "p2o." + D + "1"), ("N", "T")),
        ((D + "0", D + "1", 64), ("N", "T", 64)),
        ((1, 3, 48, 320), (1, 3, 48, 320)),
        ((D + "0",), ("N",)),
        ((D + "0", 8, D + "1", D + "2", D + "3"), ("N", 8, "d2", "d3", "d4")),
    ],
)
def test_axes_get_names(shape: tuple[int | str, ...], named: tuple[int | str, ...]) -> None:
    model = relu(*shape)
    graph.name_axes(model)
    info = graph.info(model, 0)
    assert info.inputs[0].shape == named
    assert info.outputs[0].shape == named  # the same symbols


def test_two_inputs_share_only_the_batch() -> None:
    nodes = [helper.make_node("Identity", ["a"], ["y"]), helper.make_node("Identity", ["b"], ["z"])]
    model = model_of(
        nodes,
        [value("a", "s0", "s1"), value("b", "s2", "s3")],
        [value("y", "s0", "s1"), value("z", "s2", "q")],
    )
    graph.name_axes(model)
    info = graph.info(model, 0)
    assert [spec.shape for spec in info.inputs] == [("N", "T"), ("N", "T_b")]
    assert [spec.shape for spec in info.outputs] == [("N", "T"), ("N", "d1")]


def test_axes_are_fixed_and_named_as_asked() -> None:
    model = relu("s0", 3, 48, "s1")
    graph.name_axes(model, [TensorSpec("x", "float32", ("batch", 3, 48, 320))])
    info = graph.info(model, 0)
    assert info.inputs[0].shape == ("batch", 3, 48, 320)
    assert info.outputs[0].shape == ("batch", 3, 48, 320)


def test_output_axes_follow_what_runs_showed() -> None:
    model = relu("s0", 3, "s1", "s2", out=("o0", 3, "o1", "o2"))
    graph.name_axes(model)
    assert graph.info(model, 0).outputs[0].shape == ("d0", 3, "d2", "d3")
    seen = [
        ({"N": 1, "H": 64, "W": 96}, [(1, 3, 64, 12)]),
        ({"N": 2, "H": 128, "W": 192}, [(2, 3, 128, 24)]),
    ]
    graph.name_output_axes(model, seen)
    assert graph.info(model, 0).outputs[0].shape == ("N", 3, "H", "d3")


def test_one_run_shows_nothing() -> None:
    model = relu("s0", 3, "s1", "s2", out=("o0", 3, "o1", "o2"))
    graph.name_axes(model)
    graph.name_output_axes(model, [({"N": 1, "H": 64, "W": 96}, [(1, 3, 64, 96)])])
    assert graph.info(model, 0).outputs[0].shape == ("d0", 3, "d2", "d3")


def test_ids_are_bounded_by_their_table() -> None:
    table = numpy_helper.from_array(np.zeros((30, 4), np.float32), "table")
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "wide"], ["y"]),
    ]
    ids = value("ids", 1, "T", dtype=TensorProto.INT32)
    model = model_of(nodes, [ids], [value("y", 1, "T", 4)], [table])
    assert graph.id_limits(model) == {"ids": 30}
