"""The ONNX that replaces an operator, against the operator's definition in plain loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from shipway.registry.convert.repairs import emit_detection, emit_math, emit_recurrent, emit_vision
from shipway.registry.convert.repairs.cut import Joint
from shipway.registry.convert.repairs.emit import DTYPES, Emitter
from shipway.registry.convert.repairs.pir import Type

RANDOM = np.random.default_rng(7)


def run(
    emit: Callable[[Emitter], None],
    inputs: Mapping[str, np.ndarray | None],
    attributes: Mapping[str, Any],
    given: tuple[int, ...] = (),
    *,
    opset: int = 17,
    dtype: str = "float32",
    constants: Mapping[int, Any] | None = None,
    sizes: tuple[int, ...] = (),
) -> np.ndarray:
    """What the nodes of one joint compute. All dimensions are dynamic for the runtime."""
    joint = Joint(
        kind="tried",
        attributes=attributes,
        takes=tuple(name if value is not None else "" for name, value in inputs.items()),
        taken=tuple(None if v is None else Type(str(v.dtype), v.shape) for v in inputs.values()),
        gives=("y",),
        given=(Type(dtype, given),),
        constants=constants or {},
        sizes=sizes,
    )
    emitter = Emitter(joint, opset, "tried/", {})
    emit(emitter)
    here = {name: value for name, value in inputs.items() if value is not None}
    graph = helper.make_graph(
        emitter.nodes,
        "tried",
        [
            helper.make_tensor_value_info(name, DTYPES[str(value.dtype)], [None] * value.ndim)
            for name, value in here.items()
        ],
        [helper.make_tensor_value_info("y", DTYPES[dtype], [None] * len(given))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, here)
    result: np.ndarray = found
    return result


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def bilinear(image: np.ndarray, row: float, column: float) -> float:
    """A value between pixels; outside the image there are zeros."""
    total = 0.0
    for r, c in itertools.product(
        (math.floor(row), math.floor(row) + 1), (math.floor(column), math.floor(column) + 1)
    ):
        if 0 <= r < image.shape[0] and 0 <= c < image.shape[1]:
            total += image[r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize(
    ("groups", "offset_groups", "step", "pad", "dilation", "masked"),
    [(1, 1, (1, 1), (1, 1), (1, 1), True), (2, 2, (2, 1), (0, 2), (1, 2), False)],
)
def test_deformable_convolution(
    groups: int, offset_groups: int, step: Any, pad: Any, dilation: Any, masked: bool, opset: int
) -> None:
    x, weight = floats(2, 4, 7, 9), floats(6, 4 // groups, 3, 3)
    rows, columns = (
        (size + 2 * pad[i] - dilation[i] * 2 - 1) // step[i] + 1 for i, size in enumerate(x.shape[2:])
    )
    offset = floats(2, offset_groups * 18, rows, columns)
    mask = RANDOM.random((2, offset_groups * 9, rows, columns)).astype(np.float32) if masked else None
    expected = np.zeros((2, 6, rows, columns))
    for n, out, r, c in itertools.product(range(2), range(6), range(rows), range(columns)):
        first = out // (6 // groups) * (4 // groups)
        for i, kr, kc in itertools.product(range(4 // groups), range(3), range(3)):
            channel = first + i
            group, tap = channel // (4 // offset_groups), kr * 3 + kc
            down, across = offset[n, (group * 9 + tap) * 2, r, c], offset[n, (group * 9 + tap) * 2 + 1, r, c]
            value = bilinear(
                x[n, channel],
                r * step[0] - pad[0] + kr * dilation[0] + down,
                c * step[1] - pad[1] + kc * dilation[1] + across,
            )
            strength = 1.0 if mask is None else mask[n, group * 9 + tap, r, c]
            expected[n, out, r, c] += weight[out, i, kr, kc] * value * strength
    got = run(
        emit_vision.emit_deformable_conv,
        {"x": x, "offset": offset, "weight": weight, "mask": mask},
        {
            "strides": step,
            "paddings": pad,
            "dilations": dilation,
            "groups": groups,
            "deformable_groups": offset_groups,
        },
        expected.shape,
        opset=opset,
    )
    np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("aligned", [True, False])
def test_affine_grid(aligned: bool) -> None:
    theta = floats(2, 2, 3)
    expected = np.zeros((2, 4, 5, 2))
    for n, r, c in itertools.product(range(2), range(4), range(5)):
        place = [2 * c / 4 - 1, 2 * r / 3 - 1] if aligned else [(2 * c + 1) / 5 - 1, (2 * r + 1) / 4 - 1]
        expected[n, r, c] = theta[n] @ [*place, 1.0]
    size = np.array([2, 3, 4, 5], np.int32)
    got = run(
        emit_vision.emit_affine_grid,
        {"theta": theta, "size": size},
        {"align_corners": aligned},
        expected.shape,
    )
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(("have", "want"), [((7, 9), (5, 4)), ((48, 48), (5, 7)), ((3, 3), (5, 2))])
def test_adaptive_average(have: tuple[int, int], want: tuple[int, int]) -> None:
    x = floats(2, 3, *have)
    expected = np.zeros((2, 3, *want))
    for r, c in itertools.product(range(want[0]), range(want[1])):
        rows = slice(r * have[0] // want[0], math.ceil((r + 1) * have[0] / want[0]))
        columns = slice(c * have[1] // want[1], math.ceil((c + 1) * have[1] / want[1]))
        expected[:, :, r, c] = x[:, :, rows, columns].mean((2, 3))
    got = run(emit_vision.emit_adaptive_average, {"x": x, "sizes": np.array(want)}, {}, expected.shape)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_pixel_unshuffle() -> None:
    x = floats(2, 3, 4, 6)
    expected = np.zeros((2, 12, 2, 3), np.float32)
    for c, i, j in itertools.product(range(3), range(2), range(2)):
        expected[:, c * 4 + i * 2 + j] = x[:, c, i::2, j::2]
    got = run(emit_vision.emit_pixel_unshuffle, {"x": x}, {"downscale_factor": 2}, expected.shape)
    np.testing.assert_array_equal(got, expected)


def test_circular_padding() -> None:
    x = floats(1, 2, 1, 4, 5)
    expected = np.pad(x, [(0, 0), (0, 0), (0, 0), (0, 3), (2, 1)], mode="wrap")
    got = run(
        emit_vision.emit_circular_pad,
        {"x": x, "paddings": np.array([2, 1, 0, 3, 0, 0])},
        {},
        expected.shape,
        constants={1: [2, 1, 0, 3, 0, 0]},
    )
    np.testing.assert_array_equal(got, expected)


def test_nms_keeps_what_does_not_overlap_a_better_one() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 10, 10], [20, 0, 30, 10], [0, 0, 10, 9], [20, 5, 30, 15]])
    got = run(
        emit_detection.emit_nms, {"boxes": boxes.astype(np.float32)}, {"threshold": 0.4}, (0,), dtype="int64"
    )
    assert got.tolist() == [0, 2, 4]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes by their corners."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - common)


def multiclass(boxes: np.ndarray, scores: np.ndarray, first: int, keep: int) -> tuple[np.ndarray, list[int]]:
    """Rows and counts, image by image, as ``multiclass_nms3`` gives them, above a score of 0.2."""
    rows, counts = [], []
    for image in range(len(boxes)):
        found: list[tuple[int, float, int]] = []
        for label in range(scores.shape[1]):
            order = [int(at) for at in np.argsort(-scores[image, label]) if scores[image, label, at] > 0.2]
            kept: list[int] = []
            for at in order[:first]:
                if all(overlap(boxes[image, at], boxes[image, other]) <= 0.3 for other in kept):
                    kept.append(at)
            found += [(label, float(scores[image, label, at]), at) for at in kept]
        found = sorted(sorted(found, key=lambda each: -each[1])[:keep], key=lambda each: (each[0], -each[1]))
        rows += [[label, score, *boxes[image, at]] for label, score, at in found]
        counts.append(len(found))
    return np.array(rows, np.float32).reshape(-1, 6), counts


@pytest.mark.parametrize(("first", "keep"), [(100, 100), (3, 100), (100, 4), (-1, -1)])
def test_multiclass_suppression_over_a_batch(first: int, keep: int) -> None:
    corners = RANDOM.random((3, 12, 4)).astype(np.float32)
    boxes = np.concatenate([corners[..., :2], corners[..., :2] + 0.2 + corners[..., 2:]], -1)
    scores = RANDOM.random((3, 4, 12)).astype(np.float32)
    scores[1] = 0.0  # an image on which nothing is found
    expected, counts = multiclass(boxes, scores, first % 1000, keep % 1000)
    attributes = {
        "score_threshold": 0.2,
        "nms_threshold": 0.3,
        "nms_top_k": first,
        "keep_top_k": keep,
    }
    assert counts[1] == 0 < counts[0]
    got = run(
        emit_detection.emit_multiclass_nms, {"boxes": boxes, "scores": scores}, attributes, expected.shape
    )
    np.testing.assert_array_equal(got, expected)


def test_regions_belong_to_the_image_they_are_counted_for() -> None:
    x = np.stack([np.full((1, 8, 8), 1.0), np.full((1, 8, 8), 2.0), np.full((1, 8, 8), 3.0)]).astype(
        np.float32
    )
    boxes = np.array([[1, 1, 5, 5]] * 5, np.float32)
    counts = np.array([2, 0, 3], np.int32)
    attributes = {
        "aligned": True,
        "pooled_height": 2,
        "pooled_width": 2,
        "sampling_ratio": 2,
        "spatial_scale": 1.0,
    }
    got = run(
        emit_vision.emit_roi_align, {"x": x, "boxes": boxes, "counts": counts}, attributes, (5, 1, 2, 2)
    )
    assert got[:, 0, 0, 0].tolist() == [1.0, 1.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize(("axes", "keep"), [([1], False), ([0, 2], True), ([], False)])
def test_extremes(axes: list[int], keep: bool, opset: int) -> None:
    x = floats(2, 3, 4)
    axis = tuple(axes) or None
    for emit, function in ((emit_math.emit_amax, np.max), (emit_math.emit_amin, np.min)):
        expected = function(x, axis=axis, keepdims=keep)
        got = run(emit, {"x": x}, {"axis": axes, "keepdim": keep}, expected.shape, opset=opset)
        np.testing.assert_array_equal(got, expected)


def test_elementwise_operators() -> None:
    x = np.array([-30.0, -2.0, -1e-4, 0.0, 1e-4, 0.5, 3.0, 12.0], np.float32)
    wide = x.astype(np.float64)
    bent = 0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    tried: list[tuple[Callable[[Emitter], None], dict[str, Any], np.ndarray]] = [
        (emit_math.emit_celu, {"alpha": 1.5}, np.where(x > 0, wide, 1.5 * np.expm1(wide / 1.5))),
        (emit_math.emit_expm1, {}, np.expm1(wide)),
        (emit_math.emit_gelu, {"approximate": True}, bent),
        (
            emit_math.emit_softplus,
            {"beta": 2.0, "threshold": 5.0},
            np.where(2 * x > 5, wide, np.log1p(np.exp(2 * wide)) / 2),
        ),
    ]
    for emit, attributes, expected in tried:
        got = run(emit, {"x": x}, attributes, x.shape)
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-7, err_msg=emit.__name__)


def test_expand_to_a_list_of_sizes() -> None:
    x = floats(1, 3, 1)
    sizes = {"a": np.array(4, np.int32), "b": np.array([-1], np.int32), "c": np.array([5], np.int64)}
    got = run(emit_math.emit_expand, {"x": x, **sizes}, {}, (4, 3, 5), sizes=(1, 3))
    np.testing.assert_array_equal(got, np.broadcast_to(x, (4, 3, 5)))


def test_lerp() -> None:
    x, y, weight = floats(2, 3), floats(2, 3), floats(2, 3)
    got = run(emit_math.emit_lerp, {"x": x, "other": y, "w": weight}, {}, x.shape)
    np.testing.assert_allclose(got, x + weight * (y - x), atol=1e-6)


@pytest.mark.parametrize("both_ways", [False, True])
def test_simple_rnn(both_ways: bool) -> None:
    ways, layers, hidden = (2 if both_ways else 1), 2, 3
    x, states = floats(5, 2, 4), floats(layers * ways, 2, hidden)
    matrices, biases, out = [], [], x
    for layer in range(layers):
        turns = []
        for way in range(ways):
            w, r = floats(hidden, out.shape[2]), floats(hidden, hidden)
            b, c = floats(hidden), floats(hidden)
            matrices += [w, r]
            biases += [b, c]
            state, steps = states[layer * ways + way], []
            for step in out if way == 0 else out[::-1]:
                state = np.tanh(step @ w.T + b + state @ r.T + c)
                steps.append(state)
            turns.append(np.stack(steps if way == 0 else steps[::-1]))
        out = np.concatenate(turns, 2)
    weights = {f"w{number}": value for number, value in enumerate([*matrices, *biases])}
    attributes = {"is_bidirec": both_ways, "num_layers": layers, "hidden_size": hidden, "mode": "RNN_TANH"}
    got = run(
        emit_recurrent.emit_rnn,
        {"x": x, "states": states, **weights},
        attributes,
        out.shape,
        sizes=(1, 1, len(weights)),
    )
    np.testing.assert_allclose(got, out, atol=1e-6)
