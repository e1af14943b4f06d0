"""The first layer that differs is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from shipway.registry.nouns import Tolerance
from shipway.registry.verify.bisect import first_difference

Build = Callable[..., onnx.ModelProto]
CASE = {"x": np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)}
TOLERANCE = Tolerance(1e-5, 1e-5)


def shifted(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with a weight that is off by 1e-3."""
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(1e-3), name))
    return model


@pytest.mark.parametrize(("weight", "layer"), [("b1", "Gemm 'first'"), ("w2", "MatMul 's'")])
def test_the_layer_that_was_altered_is_named(tmp_path: Path, mlp: Build, weight: str, layer: str) -> None:
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    onnx.save(mlp(), good)
    onnx.save(shifted(mlp(), weight), bad)
    found = first_difference(good, bad, CASE, TOLERANCE, tmp_path)
    assert found.startswith(f"first layer that differs: {layer}, max abs 0.0")
    assert {path.name for path in tmp_path.iterdir()} == {"good.onnx", "bad.onnx"}
    assert first_difference(good, good, CASE, TOLERANCE, tmp_path) == ""


def test_a_graph_that_can_not_be_run_says_nothing(tmp_path: Path, mlp: Build) -> None:
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    onnx.save(mlp(), good)
    broken = mlp()
    broken.graph.node[1].CopyFrom(helper.make_node("NoSuchOperator", ["h"], ["r"]))
    onnx.save(broken, bad)
    assert first_difference(good, bad, CASE, TOLERANCE, tmp_path) == ""
