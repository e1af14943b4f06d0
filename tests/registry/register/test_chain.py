"""What a link says of a form whose numbers are allowed, and prove nothing or not enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_scene import model_of, value

from shipway.registry.convert import graph
from shipway.registry.errors import VerificationError
from shipway.registry.nouns import Tolerance
from shipway.registry.verify import chain, reference

FP32, INT8 = Tolerance(1e-5, 1e-5), Tolerance(1e-2, 1e-1)
_random = np.random.default_rng(1)
PLACES = _random.standard_normal((1, 16, 8)).astype(np.float32)
WEIGHTS = _random.standard_normal((8, 8)).astype(np.float32)


def saved(path: Path, factor: float, *, batch: int = 0, tail: str = "Identity") -> Path:
    """A network of exactly 16 places, whatever its input says of itself, and ``batch`` (0: any)."""
    nodes = [
        helper.make_node("Add", ["x", "places"], ["a"]),
        helper.make_node("MatMul", ["a", "weights"], ["b"]),
        helper.make_node("Reshape", ["b", "shape"], ["c"]),
        helper.make_node("Mul", ["c", "factor"], ["d"]),
        helper.make_node(tail, ["d"], ["y"]),
    ]
    weights = {
        "places": PLACES,
        "weights": WEIGHTS,
        "shape": np.array([batch, -1]),
        "factor": np.float32(factor),
    }
    inputs, outputs = [value("x", "N", "T", 8)], [value("y", "N", 128)]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    onnx.save(model_of(nodes, inputs, outputs, initializers), path)
    return path


def proof_of(path: Path, *samples: np.ndarray) -> chain.GoldenSet:
    info = graph.info(graph.load(path), 0)
    given = reference.OnnxReference(path)
    cases = [{"x": sample} for sample in samples]
    return chain.golden_set(given, info.inputs, info.outputs, limits={}, tolerance=FP32, samples=cases)


def test_a_batch_that_the_conversion_froze_does_not_pass(tmp_path: Path) -> None:
    good, frozen = saved(tmp_path / "good.onnx", 1), saved(tmp_path / "frozen.onnx", 1, batch=1)
    sample = np.ones((1, 16, 8), np.float32)
    for proof in (proof_of(good), proof_of(good, sample), proof_of(good, sample, sample)):
        assert proof.link(good, "onnx", FP32).passed
        link = proof.link(frozen, "onnx", FP32)
        assert not link.passed
        assert "y: shape [1, 256] instead of [2, 128]" in link.notes


def test_a_collapsed_form_is_refused_though_its_error_is_allowed(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.onnx", 0.0005)
    proof = proof_of(good)
    spread = float(np.ptp(np.concatenate([made[0] for made in proof.outputs])) / 2)
    assert spread < INT8.atol
    near, gone = saved(tmp_path / "near.onnx", 0.0004), saved(tmp_path / "gone.onnx", 0)
    assert proof.link(near, "int8", INT8).passed
    assert proof.excess(near, INT8) < 1
    link = proof.link(gone, "int8", INT8)
    assert not link.passed
    assert link.outputs[0].flat
    assert INT8.allows(link.outputs[0].max_abs, link.outputs[0].scale)
    assert proof.excess(gone, INT8) > 1
    # With an rtol of 1 zeros are allowed, knowingly.
    assert proof.link(gone, "int8", Tolerance(0.01, 1)).passed
    assert proof.excess(gone, Tolerance(0.01, 1)) < 1


@pytest.mark.parametrize(("factor", "tail"), [(0.0, "Identity"), (50.0, "Ceil"), (1.0, "IsNaN")])
def test_what_could_not_be_otherwise_proves_nothing(tmp_path: Path, factor: float, tail: str) -> None:
    model = onnx.load(saved(tmp_path / "good.onnx", factor, tail=tail))
    if tail == "IsNaN":
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.BOOL
    onnx.save(model, tmp_path / "good.onnx")
    link = proof_of(tmp_path / "good.onnx").link(tmp_path / "good.onnx", "onnx", FP32)
    assert link.passed is (tail == "Ceil")
    if link.passed:
        chain.require_proof(link, "net")
        return
    with pytest.raises(VerificationError, match="Nothing is proved of net") as caught:
        chain.require_proof(link, "net")
    assert "varies by 0" in caught.value.why
    assert "--samples" in caught.value.remedy


def test_wrong_numbers_are_not_said_to_prove_nothing(tmp_path: Path) -> None:
    link = proof_of(saved(tmp_path / "good.onnx", 1)).link(saved(tmp_path / "bad.onnx", 2), "onnx", FP32)
    assert not link.passed
    chain.require_proof(link, "net")
