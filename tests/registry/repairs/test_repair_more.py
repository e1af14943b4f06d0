"""More of the ONNX that replaces operators, against numpy's definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from shipway.registry.convert.repairs import emit_algebra, emit_fourier, emit_index, emit_math, emit_vision
from shipway.registry.convert.repairs.cut import Joint
from shipway.registry.convert.repairs.emit import DTYPES, Emitter
from shipway.registry.convert.repairs.pir import Type

RANDOM = np.random.default_rng(11)


def run(
    emit: Callable[[Emitter], None],
    inputs: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    given: Mapping[str, tuple[str, tuple[int, ...]]],
    *,
    complex_inputs: bool = False,
    opset: int = 17,
) -> list[np.ndarray]:
    """What the nodes of one joint compute; ``given`` by name: dtype and shape. All dimensions are dynamic."""

    def type_of(value: np.ndarray) -> Type:
        return Type("complex64", value.shape[:-1]) if complex_inputs else Type(str(value.dtype), value.shape)

    joint = Joint(
        kind="tried",
        attributes=attributes,
        takes=tuple(inputs),
        taken=tuple(type_of(value) for value in inputs.values()),
        gives=tuple(given),
        given=tuple(Type(dtype, shape) for dtype, shape in given.values()),
    )
    emitter = Emitter(joint, opset, "tried/", {})
    emit(emitter)
    graph = helper.make_graph(
        emitter.nodes,
        "tried",
        [
            helper.make_tensor_value_info(name, DTYPES[str(value.dtype)], [None] * value.ndim)
            for name, value in inputs.items()
        ],
        [helper.make_tensor_value_info(name, DTYPES[dtype], None) for name, (dtype, _) in given.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, dict(inputs))
    return found


def one(
    emit: Callable[[Emitter], None], *inputs: np.ndarray, dtype: str = "float32", **attributes: Any
) -> np.ndarray:
    named = {f"x{number}": value for number, value in enumerate(inputs)}
    (found,) = run(emit, named, attributes, {"y": (dtype, ())})
    return found


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def pair(values: np.ndarray) -> np.ndarray:
    return np.stack([values.real, values.imag], -1).astype(np.float32)


@pytest.mark.parametrize("norm", ["backward", "forward", "ortho"])
@pytest.mark.parametrize("length", [8, 9])
def test_transforms_are_numpys(norm: str, length: int) -> None:
    x = floats(3, 5, length)
    base = {"normalization": norm, "forward": True}
    half = np.fft.rfft2(x, axes=(1, 2), norm=norm)  # type: ignore[call-overload]
    (got,) = run(
        emit_fourier.emit_r2c, {"x": x}, {**base, "axes": [1, 2], "onesided": True}, {"y": ("float32", ())}
    )
    np.testing.assert_allclose(got, pair(half), atol=1e-5)
    whole = np.fft.fft(x, axis=-1, norm=norm)  # type: ignore[call-overload]
    (got,) = run(
        emit_fourier.emit_r2c, {"x": x}, {**base, "axes": [-1], "onesided": False}, {"y": ("float32", ())}
    )
    np.testing.assert_allclose(got, pair(whole), atol=1e-5)
    back = {**base, "forward": False}
    (got,) = run(
        emit_fourier.emit_c2c,
        {"x": pair(whole)},
        {**back, "axes": [2]},
        {"y": ("float32", ())},
        complex_inputs=True,
    )
    np.testing.assert_allclose(got[..., 0], x, atol=1e-5)
    np.testing.assert_allclose(got[..., 1], 0, atol=1e-5)
    (got,) = run(
        emit_fourier.emit_c2r,
        {"x": pair(half)},
        {**back, "axes": [1, 2], "last_dim_size": length},
        {"y": ("float32", x.shape)},
        complex_inputs=True,
    )
    np.testing.assert_allclose(got, x, atol=1e-5)


def test_angles_all_round() -> None:
    z = np.exp(1j * np.array([0.0, 0.5, 2.0, 3.0, -0.5, -2.0, -3.0, np.pi / 2, -np.pi / 2]))
    (got,) = run(emit_fourier.emit_angle, {"x": pair(z)}, {}, {"y": ("float32", ())}, complex_inputs=True)
    np.testing.assert_allclose(got, np.angle(z), atol=1e-6)


def test_complex_products() -> None:
    a, b = (floats(4) + 1j * floats(4) for _ in range(2))
    values = {"a": pair(a), "b": pair(b)}
    (got,) = run(emit_fourier.emit_multiply, values, {}, {"y": ("float32", ())}, complex_inputs=True)
    np.testing.assert_allclose(got, pair(a * b), atol=1e-6)


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
def test_diagonals(offset: int) -> None:
    x = floats(2, 3, 4, 5)
    attributes = {"offset": offset, "axis1": 1, "axis2": 3}
    np.testing.assert_array_equal(one(emit_algebra.emit_diagonal, x, **attributes), x.diagonal(offset, 1, 3))
    np.testing.assert_allclose(
        one(emit_algebra.emit_trace, x, **attributes), x.trace(offset, 1, 3), atol=1e-6
    )


def test_a_diagonal_spread_out() -> None:
    x = floats(2, 3)
    np.testing.assert_array_equal(one(emit_algebra.emit_diag_embed, x), np.stack([np.diag(row) for row in x]))


@pytest.mark.parametrize(("order", "numpys"), [(None, np.inf), (3.0, 3), (1.0, 1), (2.0, 2)])
def test_norms_of_any_order(order: float | None, numpys: float) -> None:
    x = floats(3, 4)
    got = one(emit_algebra.emit_p_norm, x, porder=order, axis=-1, keepdim=False, asvector=False)
    np.testing.assert_allclose(got, np.linalg.norm(x, numpys, -1), rtol=1e-5)
    whole = one(emit_algebra.emit_p_norm, x, porder=order, axis=-1, keepdim=False, asvector=True)
    assert whole.shape == ()
    np.testing.assert_allclose(whole, np.linalg.norm(x.ravel(), numpys), rtol=1e-5)


def test_products_of_vectors() -> None:
    x, y = floats(4, 3), floats(4, 3)
    np.testing.assert_allclose(one(emit_algebra.emit_cross, x, y, axis=1), np.cross(x, y), atol=1e-6)
    np.testing.assert_allclose(one(emit_algebra.emit_dot, x, y), (x * y).sum(-1), atol=1e-6)
    added = floats(4, 4)
    got = one(emit_algebra.emit_addmm, added, x, y.T.copy(), beta=0.5, alpha=2.0)
    np.testing.assert_allclose(got, 0.5 * added + 2 * x @ y.T, atol=1e-5)


@pytest.mark.parametrize(("right", "side"), [(False, "left"), (True, "right")])
def test_searchsorted(right: bool, side: Any) -> None:
    row, values = np.array([-1, 0, 0, 2], np.float32), np.array([[-2, -1, 0], [1, 2, 3]], np.float32)
    got = one(emit_index.emit_searchsorted, row, values, dtype="int64", right=right, out_int32=False)
    np.testing.assert_array_equal(got, np.searchsorted(row, values, side))


def test_put_by_a_mask_and_by_indices() -> None:
    x = floats(3, 4, 2)
    mask = x > 0
    value = np.array([9], np.float32)
    got = one(emit_index.emit_index_put, x, mask, value, accumulate=False)
    np.testing.assert_array_equal(got, np.where(mask, 9, x))
    rows, columns = np.array([0, 2, 0]), np.array([1, -1, 1])
    expected = x.copy()
    np.add.at(expected, (rows, columns), value)
    got = one(emit_index.emit_index_put, x, rows, columns, value, accumulate=True)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_put_by_a_mask_of_the_first_axes_and_added_to_what_is_there() -> None:
    x, value = floats(3, 3), np.array(9, np.float32)
    mask = np.array([True, False, True])
    expected = x.copy()
    expected[mask] += value
    got = one(emit_index.emit_index_put, x, mask, value, accumulate=True)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "indices",
    [
        [np.array([True, False, True])],  # with as many values as it has places
        [np.array([True, False, True]), np.array([0, 1])],
    ],
)
def test_masks_that_where_can_not_say_are_refused(indices: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="more than one value"):
        one(emit_index.emit_index_put, floats(3, 2), *indices, floats(2), accumulate=False)


@pytest.mark.parametrize(("operator", "expected"), [("Max", np.fmax), ("Min", np.fmin)])
def test_the_larger_of_two_where_one_is_no_number(operator: str, expected: Any) -> None:
    x, y = np.array([np.nan, 1, 3, np.nan], np.float32), np.array([2, np.nan, -4, np.nan], np.float32)
    np.testing.assert_array_equal(one(emit_math.but_for_nan(operator), x, y), expected(x, y))
    numbers = np.array([1, -5], np.int64), np.array([[0], [3]], np.int64)
    got = one(emit_math.but_for_nan(operator), *numbers, dtype="int64")
    np.testing.assert_array_equal(got, expected(*numbers))


def test_adding_at_indices_counts_each() -> None:
    x, index, y = floats(3, 4), np.array([1, 1, 3]), floats(3, 3)
    expected = x.copy()
    np.add.at(expected, (slice(None), index), y)
    np.testing.assert_allclose(one(emit_index.emit_index_add, x, index, y, axis=1), expected, atol=1e-6)


def test_what_is_left_out_of_unique_is_no_output() -> None:
    x = np.array([[3, 1], [1, 2]])
    given = {
        "values": ("int64", (-1,)),
        "first": ("int64", (-1,)),
        "which": ("int64", (-1,)),
        "often": ("int64", (-1,)),
    }
    got = run(emit_index.emit_unique, {"x": x}, {}, given)
    for found, expected in zip(got, np.unique(x, True, True, True), strict=True):
        np.testing.assert_array_equal(found.ravel(), np.asarray(expected).ravel())


def test_frames_overlap() -> None:
    x = floats(2, 11)
    got = one(emit_index.emit_frame, x, frame_length=4, hop_length=3, axis=-1)
    expected = np.stack([x[:, start : start + 4] for start in (0, 3, 6)], -1)
    np.testing.assert_array_equal(got, expected)


def test_running_products() -> None:
    x = floats(2, 4, 3)
    np.testing.assert_allclose(one(emit_math.emit_cumprod, x, dim=1), np.cumprod(x, 1), atol=1e-6)


def test_the_largest_of_groups_of_channels() -> None:
    x = floats(2, 6, 3)
    expected = x.reshape(2, 3, 2, 3).max(2)
    np.testing.assert_array_equal(one(emit_math.emit_maxout, x, axis=1, groups=2), expected)


def test_what_pooling_finds_is_put_back() -> None:
    x = floats(2, 3, 4, 6)
    given = {"y": ("float32", (2, 3, 2, 3)), "at": ("int32", (2, 3, 2, 3))}
    attributes = {"kernel_size": [2, 2], "strides": [2, 2], "paddings": [0, 0], "ceil_mode": False}
    largest, places = run(emit_vision.emit_max_pool_with_index, {"x": x}, attributes, given)
    np.testing.assert_array_equal(largest, x.reshape(2, 3, 2, 2, 3, 2).max((3, 5)))
    flat = x.reshape(2, 3, -1)
    np.testing.assert_array_equal(
        np.take_along_axis(flat, places.reshape(2, 3, -1), 2), largest.reshape(2, 3, -1)
    )
    back = one(emit_vision.emit_unpool, largest, places, np.array([4, 6]))
    np.testing.assert_array_equal(back, np.where(np.isin(x, largest), x, 0))


def test_adaptive_pooling_of_a_size_that_only_the_run_knows() -> None:
    x = floats(1, 2, 7, 5)
    joint = Joint(
        kind="tried",
        attributes={},
        takes=("x", ""),
        taken=(Type("float32", (-1, 2, -1, -1)), None),
        gives=("y",),
        given=(Type("float32", (-1, 2, 3, 2)),),
    )
    emitter = Emitter(joint, 17, "tried/", {})
    emit_vision.emit_adaptive_average(emitter)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        emitter.nodes,
        "tried",
        [value("x", DTYPES["float32"], [None] * 4)],
        [value("y", DTYPES["float32"], None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": x})
    for row, column in np.ndindex(3, 2):
        rows = slice(row * 7 // 3, -((row + 1) * 7 // -3))
        columns = slice(column * 5 // 2, -((column + 1) * 5 // -2))
        np.testing.assert_allclose(got[:, :, row, column], x[:, :, rows, columns].mean((2, 3)), atol=1e-6)
