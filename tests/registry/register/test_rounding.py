"""int8 weights whose rounding errors make up for each other."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shipway.registry.convert import rounding
from shipway.registry.verify import measure

RANDOM = np.random.default_rng(5)


def related(rows: int, columns: int) -> np.ndarray:
    """Inputs that go together, as those inside a network do."""
    few = np.random.default_rng(0).standard_normal((rows, columns // 8))
    mixed = few @ np.random.default_rng(1).standard_normal((columns // 8, columns))
    return (mixed + 0.1 * np.random.default_rng(2).standard_normal(mixed.shape)).astype(np.float32)


def widened(steps: np.ndarray, weight: np.ndarray, axis: int) -> np.ndarray:
    return steps.astype(np.float32) * rounding.scales(weight, axis)


@pytest.mark.parametrize("axis", [0, 1])
def test_outputs_stay_closer_than_with_plain_rounding(axis: int) -> None:
    """Also behind the border between two blocks of columns."""
    rows = related(500, 200)
    weight = RANDOM.standard_normal((40, 200)).astype(np.float32)
    shaped = weight if axis == 0 else np.ascontiguousarray(weight.T)
    double = rows.astype(np.float64)
    errors = []
    for steps in (
        rounding.plainly(shaped, axis),
        rounding.with_feedback(shaped, axis, double.T @ double),
    ):
        assert steps.dtype == np.int8
        assert np.abs(steps.astype(int)).max() <= 127
        found = np.moveaxis(widened(steps, shaped, axis), axis, 0)
        errors.append(float(np.square(rows @ (found - weight).T).mean()))
    assert errors[1] < errors[0] / 3


def test_a_channel_of_zeros_and_inputs_that_are_always_zero() -> None:
    weight = RANDOM.standard_normal((4, 6)).astype(np.float32)
    weight[1] = 0
    moments = np.zeros((6, 6))
    moments[0, 0] = 1.0
    steps = rounding.with_feedback(weight, 0, moments)
    assert np.isfinite(widened(steps, weight, 0)).all()
    assert not steps[1].any()


def test_infinite_inputs_are_rounded_for_plainly() -> None:
    weight = RANDOM.standard_normal((4, 6)).astype(np.float32)
    steps = rounding.with_feedback(weight, 0, np.full((6, 6), np.inf))
    assert np.array_equal(steps, rounding.plainly(weight, 0))


def network(path: Path) -> dict[str, rounding.Weight]:
    """Convolutions with pads and strides and in groups, a Gemm turned, a product; what their weights are."""
    weights = {
        "conv": RANDOM.standard_normal((6, 4, 3, 2)),
        "grouped": RANDOM.standard_normal((6, 1, 3, 3)),
        "gemm": RANDOM.standard_normal((5, 6)),
        "product": RANDOM.standard_normal((5, 3)),
    }
    floats = {name: value.astype(np.float32) for name, value in weights.items()}
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"], strides=[2, 1], pads=[1, 0, 1, 1]),
        helper.make_node("Conv", ["a", "grouped"], ["b"], group=6, pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "gemm"], ["e"], transB=1),
        helper.make_node("MatMul", ["e", "product"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 9, 7])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("a", "e", "y")],
        [numpy_helper.from_array(value, name) for name, value in floats.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    readers = rounding.readers(graph)
    axes = {"conv": 0, "grouped": 0, "gemm": 0, "product": 1}
    return {name: rounding.Weight(floats[name], axes[name], readers.get(name, ())) for name in floats}


def test_rows_times_weights_are_what_the_layer_gives(tmp_path: Path) -> None:
    weights = network(tmp_path / "net.onnx")
    x = RANDOM.standard_normal((2, 4, 9, 7)).astype(np.float32)
    made = measure.run(measure.session(tmp_path / "net.onnx"), [{"x": x}])[0]
    assert not weights["grouped"].readers
    [conv] = weights["conv"].readers
    expected = made[0].transpose(0, 2, 3, 1).reshape(-1, 6)
    found = conv.rows(x) @ weights["conv"].values.reshape(6, -1).T
    assert np.allclose(found, expected, atol=1e-5)
    [product] = weights["product"].readers
    assert np.allclose(product.rows(made[1]) @ weights["product"].values, made[2], atol=1e-5)
    assert weights["gemm"].readers == (rounding.Reader("d"),)
    assert weights["product"].readers == (rounding.Reader("e", axis=1),)


def test_every_weight_is_rounded_and_nothing_left_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In groups that fit the memory, each exactly once; where a layer is not understood, plainly."""
    weights = network(tmp_path / "net.onnx")
    cases = [{"x": RANDOM.standard_normal((2, 4, 9, 7)).astype(np.float32)} for _ in range(2)]
    whole = dict(rounding.rounded(tmp_path / "net.onnx", weights, cases, tmp_path))
    monkeypatch.setattr(rounding, "_AT_ONCE", 1)
    apart = dict(rounding.rounded(tmp_path / "net.onnx", weights, cases, tmp_path))
    assert set(whole) == set(apart) == set(weights)
    for name, steps in whole.items():
        assert np.array_equal(steps, apart[name])
        assert steps.shape == weights[name].values.shape
    plain = {name: rounding.plainly(weight.values, weight.axis) for name, weight in weights.items()}
    assert np.array_equal(whole["grouped"], plain["grouped"])
    assert not np.array_equal(whole["conv"], plain["conv"])
    without = dict(rounding.rounded(tmp_path / "net.onnx", weights, [], tmp_path))
    assert all(np.array_equal(without[name], plain[name]) for name in plain)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_layers_of_many_inputs_are_rounded_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = network(tmp_path / "net.onnx")
    monkeypatch.setattr(rounding, "_MOST_INPUTS", 20)
    cases = [{"x": RANDOM.standard_normal((1, 4, 9, 7)).astype(np.float32)}]
    found = dict(rounding.rounded(tmp_path / "net.onnx", weights, cases, tmp_path))
    assert np.array_equal(found["conv"], rounding.plainly(weights["conv"].values, 0))


def test_a_weight_that_is_read_both_ways_is_rounded_for_those_along_its_axis(tmp_path: Path) -> None:
    """Tied weights: a product, then a Gemm with the same matrix turned round."""
    values = RANDOM.standard_normal((6, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "tied"], ["h"]),
            helper.make_node("Gemm", ["h", "tied"], ["y"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, "tied")],
    )
    path = tmp_path / "tied.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    readers = rounding.readers(graph)["tied"]
    x = related(64, 16)[:, :6]
    given = {1: x.astype(np.float64), 0: (x @ values).astype(np.float64)}
    for axis, rows in given.items():
        weight = rounding.Weight(values, axis, readers)
        [(_, steps)] = rounding.rounded(path, {"tied": weight}, [{"x": x}], tmp_path)
        assert np.array_equal(steps, rounding.with_feedback(values, axis, rows.T @ rows))


def test_rows_of_a_large_picture_are_thinned_before_they_are_copied() -> None:
    reader = rounding.Reader("x", (3, 3), (1, 2), (1, 1, 1, 1))
    picture = RANDOM.standard_normal((1, 16, 512, 512)).astype(np.float32)
    tracemalloc.start()
    some = reader.rows(picture)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * picture.nbytes  # all places take 4.5 times as much
    step = 512 * 256 // 4096
    assert some.shape == (4096, 16 * 9)
    padded = np.pad(picture[0], ((0, 0), (1, 1), (1, 1)))
    for number in (0, 5, 4095):
        top, left = divmod(number * step, 256)
        assert np.array_equal(some[number], padded[:, top : top + 3, 2 * left : 2 * left + 3].ravel())
