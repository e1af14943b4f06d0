"""What the runtimes of the targets take is held against a model before anything else is done with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.convert import opsets
from shipway.registry.errors import UnsupportedModelError
from shipway.registry.verbs.register import register
from shipway.targets.base import RuntimeLimits

Build = Callable[..., onnx.ModelProto]


def with_limits(root: Path, monkeypatch: pytest.MonkeyPatch, **changed: object) -> Project:
    """A project whose only target, ``box``, has these limits instead of its own."""
    project = load_text("project: demo\ntargets: {box: {kind: jetson-ort}}\n", root / "project")
    kind = type(project.target("box"))
    own = project.target("box").limits()
    altered: RuntimeLimits = dataclasses.replace(own, **changed)  # type: ignore[arg-type]
    monkeypatch.setattr(kind, "limits", lambda self: altered)
    return project


def narrow_types(kind: int, opset: int) -> onnx.ModelProto:
    """``y`` is ``x`` and a constant of a narrow type, widened."""
    packed = helper.make_tensor("packed", kind, [2], [1, 1])
    nodes = [
        helper.make_node("Cast", ["packed"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "wide"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [packed])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)


def refused(project: Project, path: Path) -> UnsupportedModelError:
    with pytest.raises(UnsupportedModelError, match="net needs more than target 'box' runs") as caught:
        register(project, path, "net")
    assert project.store.names() == []
    assert caught.value.remedy
    return caught.value


def test_an_operator_that_a_runtime_has_not(
    tmp_path: Path, mlp: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = with_limits(tmp_path, monkeypatch, unsupported=frozenset({"Softmax"}))
    onnx.save(mlp(), tmp_path / "net.onnx")
    assert refused(project, tmp_path / "net.onnx").why == "It has no Softmax."


def test_an_operator_of_a_domain_that_nobody_registers(
    tmp_path: Path, mlp: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = with_limits(tmp_path, monkeypatch)
    model = mlp()
    model.graph.node[1].domain = "acme"
    model.opset_import.append(helper.make_opsetid("acme", 1))
    onnx.save(model, tmp_path / "net.onnx")
    assert refused(project, tmp_path / "net.onnx").why == "It has no acme::Relu."


def test_an_ir_version_that_a_type_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = with_limits(tmp_path, monkeypatch, ir=9)
    onnx.save(narrow_types(TensorProto.INT4, 21), tmp_path / "net.onnx")
    assert refused(project, tmp_path / "net.onnx").why == "It needs IR version 10 (INT4); that loads 9."


def test_an_ir_version_that_is_only_said(tmp_path: Path, mlp: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    project = with_limits(tmp_path, monkeypatch, ir=9)
    model = mlp()
    model.ir_version = 11
    onnx.save(model, tmp_path / "net.onnx")
    version = register(project, tmp_path / "net.onnx", "net").version
    assert version.ir == 9
    assert version.passed
    fp32 = version.variant("fp32")
    assert fp32 is not None
    assert onnx.load(project.store.open(fp32.files[0])).ir_version == 9


@pytest.mark.parametrize(
    ("kind", "least"), [(TensorProto.FLOAT8E4M3FN, 9), (TensorProto.UINT4, 10), (TensorProto.FLOAT4E2M1, 11)]
)
def test_the_ir_version_goes_by_the_newest_type(kind: int, least: int) -> None:
    assert opsets.least_ir(narrow_types(kind, 23)) == (least, TensorProto.DataType.Name(kind))


def test_a_cast_and_an_inner_graph_count_too(mlp: Build) -> None:
    model = mlp()
    assert opsets.least_ir(model) == (8, "")
    inner = helper.make_graph(
        [helper.make_node("Cast", ["r"], ["four"], to=TensorProto.INT4)],
        "then",
        [],
        [helper.make_tensor_value_info("four", TensorProto.INT4, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner))
    assert opsets.least_ir(model) == (10, "INT4")
