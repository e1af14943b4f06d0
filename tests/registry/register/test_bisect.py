"""The first layer that differs is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from shipway.registry.config.load import load_text
from shipway.registry.convert import optimise
from shipway.registry.nouns import Tolerance
from shipway.registry.verbs.register import register
from shipway.registry.verify.bisect import OnnxForm, explain, first_difference

Build = Callable[..., onnx.ModelProto]
CASE = {"x": np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)}
TOLERANCE = Tolerance(1e-5, 1e-5)


def shifted(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with a weight that is off by 1e-3."""
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(1e-3), name))
    return model


def forms(folder: Path, good: onnx.ModelProto, bad: onnx.ModelProto) -> tuple[OnnxForm, OnnxForm]:
    made = []
    for name, model in (("good", good), ("bad", bad)):
        onnx.save(model, folder / f"{name}.onnx")
        made.append(OnnxForm(folder / f"{name}.onnx", folder, {"h": "/Net/Linear/"}))
    return made[0], made[1]


@pytest.mark.parametrize(
    ("weight", "operator", "layer", "tensor"),
    [("b1", "Gemm", "/Net/Linear/", "h"), ("w2", "MatMul", "", "s")],
)
def test_the_layer_that_was_altered_is_named(
    tmp_path: Path, mlp: Build, weight: str, operator: str, layer: str, tensor: str
) -> None:
    good, bad = forms(tmp_path, mlp(), shifted(mlp(), weight))
    found = first_difference(good, bad, CASE, TOLERANCE)
    assert found is not None
    assert (found.operator, found.layer, found.tensor, found.looked_at) == (operator, layer, tensor, 4)
    assert 1e-4 < found.measured.max_abs < 1e-1
    head, columns, row = found.table().splitlines()
    assert head == "first layer that differs, of 4 that both forms have:"
    assert columns.split() == ["operator", "layer", "tensor", "max_abs", "allowed", "scale"]
    assert row.startswith(operator)
    assert row.index(f" {tensor} ") + 1 == columns.index("tensor")
    assert {path.name for path in tmp_path.iterdir()} == {"good.onnx", "bad.onnx"}


def test_where_no_layer_differs_it_is_said(tmp_path: Path, mlp: Build) -> None:
    good, bad = forms(tmp_path, mlp(), mlp())
    assert first_difference(good, bad, CASE, TOLERANCE) is None
    assert "no layer differs: all 4 tensors" in explain(good, bad, CASE, TOLERANCE)


def test_a_graph_that_can_not_be_run_says_why(tmp_path: Path, mlp: Build) -> None:
    broken = mlp()
    broken.graph.node[1].CopyFrom(helper.make_node("NoSuchOperator", ["h"], ["r"]))
    good, bad = forms(tmp_path, mlp(), broken)
    said = explain(good, bad, CASE, TOLERANCE)
    assert said.startswith("the layers can't be compared: ")
    assert "NoSuchOperator" in said


def test_forms_without_a_common_name(tmp_path: Path, mlp: Build) -> None:
    other = mlp()
    other.graph.node[-1].output[0] = "z"
    other.graph.output[0].name = "z"
    del other.graph.node[:-1]
    other.graph.node[0].input[0] = "x"
    good, bad = forms(tmp_path, mlp(), other)
    assert "share no tensor" in explain(good, bad, CASE, TOLERANCE)


def test_an_optimiser_that_alters_a_layer(
    tmp_path: Path, mlp: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not used, and the version says which layer it was."""
    slim = optimise.slim
    monkeypatch.setattr(optimise, "slim", lambda model: shifted(slim(model), "b1"))
    onnx.save(mlp(), tmp_path / "net.onnx")
    version = register(load_text("project: demo", tmp_path / "p"), tmp_path / "net.onnx", "net", bisect=True)
    assert [link.target for link in version.version.links] == ["onnx"]
    [note] = version.version.extra["notes"]
    assert note.startswith("not optimised: the numbers were no longer the trained model's\nfirst layer that")
    assert re.search(r"^Gemm +first +h ", note, re.MULTILINE), note
