"""Fourier transforms as products with matrices of cosines and sines, which every runtime runs.

ONNX's DFT came with opset 17 and few runtimes for devices have it; a product takes n^2 steps instead of
n log n, which for the lengths of speech frames (512, say) is little beside the network. A complex tensor is a
float one with a last axis of two: real and imaginary part (as ``as_real`` gives). Definitions: numpy.fft.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from shipway.registry.convert.repairs.emit import Emitter


def _shape(emit: Emitter) -> tuple[int, ...]:
    taken = emit.joint.taken[0]
    if taken is None:
        raise ValueError(f"{emit.joint.kind} of a value whose shape is not known")
    return taken.shape


def _axes(emit: Emitter) -> list[int]:
    return [axis % len(_shape(emit)) for axis in emit.joint.attributes["axes"]]


def _parts(emit: Emitter, value: str) -> tuple[str, str]:
    """Real and imaginary part."""
    real, imaginary = (emit.node("Gather", value, emit.constant(part), axis=-1) for part in (0, 1))
    return real, imaginary


def _joined(emit: Emitter, real: str, imaginary: str) -> str:
    pair = (emit.node("Unsqueeze", part, emit.constant([-1])) for part in (real, imaginary))
    return emit.node("Concat", *pair, axis=-1)


def _waves(length: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2 pi j k / length, (length, rows): exact in what they are asked for."""
    turns = np.outer(np.arange(length), np.arange(rows)) % length
    angles = 2 * np.pi * turns / length
    return np.cos(angles), np.sin(angles)


def _times(emit: Emitter, value: str, matrix: np.ndarray, axis: int, rank: int) -> str:
    """A product along one axis: value (..., n, ...) with matrix (n, m)."""
    last = [number for number in range(rank) if number != axis] + [axis]
    back = [last.index(number) for number in range(rank)]
    moved = value if axis == rank - 1 else emit.node("Transpose", value, perm=last)
    product = emit.node("MatMul", moved, emit.constant(matrix, np.float32))
    return product if axis == rank - 1 else emit.node("Transpose", product, perm=back)


def _known(emit: Emitter, shape: tuple[int, ...], axis: int) -> int:
    if shape[axis] < 0:
        raise ValueError(f"{emit.joint.kind} over an axis whose length is not known beforehand")
    return shape[axis]


def _factor(emit: Emitter, lengths: list[int], forward: bool) -> float:
    """What a transform is multiplied by, by its normalisation."""
    count = math.prod(lengths)
    how = emit.joint.attributes["normalization"]
    if how == "ortho":
        return 1 / math.sqrt(count)
    return 1 / count if (how == "forward") == forward else 1.0


def _turned(
    emit: Emitter, pair: tuple[str, str], axis: int, length: int, rank: int, forward: bool
) -> tuple[str, str]:
    """A complex transform along one axis, without its factor."""
    cos, sin = _waves(length, length)
    sin = -sin if forward else sin
    real, imaginary = pair
    a, b = (_times(emit, part, cos, axis, rank) for part in pair)
    c, d = (_times(emit, part, sin, axis, rank) for part in (imaginary, real))
    return emit.node("Sub", a, c), emit.node("Add", b, d)


def emit_r2c(emit: Emitter) -> None:
    """Of real numbers: the last of the axes first, half of it where ``onesided``, then the others."""
    (x,) = emit.joint.takes
    shape, axes = _shape(emit), _axes(emit)
    rank, forward = len(shape), bool(emit.joint.attributes["forward"])
    length = _known(emit, shape, axes[-1])
    cos, sin = _waves(length, length // 2 + 1 if emit.joint.attributes["onesided"] else length)
    factor = _factor(emit, [_known(emit, shape, axis) for axis in axes], forward)
    sin = -sin if forward else sin
    pair = (_times(emit, x, cos * factor, axes[-1], rank), _times(emit, x, sin * factor, axes[-1], rank))
    for axis in axes[:-1]:
        pair = _turned(emit, pair, axis, _known(emit, shape, axis), rank, forward)
    emit.give(_joined(emit, *pair))


def emit_c2c(emit: Emitter) -> None:
    """Of complex numbers, forward or back."""
    (x,) = emit.joint.takes
    shape, forward = _shape(emit), bool(emit.joint.attributes["forward"])
    pair = _parts(emit, x)
    for axis in _axes(emit):
        pair = _turned(emit, pair, axis, _known(emit, shape, axis), len(shape), forward)
    factor = _factor(emit, [_known(emit, shape, axis) for axis in _axes(emit)], forward)
    emit.give(emit.node("Mul", _joined(emit, *pair), emit.constant(factor, np.float32)))


def emit_c2r(emit: Emitter) -> None:
    """Back from half a spectrum to real numbers: the last axis last, its inner bins counted twice."""
    (x,) = emit.joint.takes
    shape, axes, forward = _shape(emit), _axes(emit), bool(emit.joint.attributes["forward"])
    given = emit.joint.given[0]
    if given is None:
        raise ValueError("a transform to a value whose shape is not known")
    length, rank = _known(emit, given.shape, axes[-1]), len(shape)
    pair = _parts(emit, x)
    for axis in axes[:-1]:
        pair = _turned(emit, pair, axis, _known(emit, shape, axis), rank, forward)
    bins = _known(emit, shape, axes[-1])
    cos, sin = (wave[:bins] for wave in _waves(length, length))
    twice = np.full((bins, 1), 2.0)
    twice[0] = 1.0
    if length % 2 == 0:
        twice[length // 2 :] = 1.0
    twice *= _factor(emit, [*(shape[axis] for axis in axes[:-1]), length], forward)
    real = _times(emit, pair[0], twice * cos, axes[-1], rank)
    imaginary = _times(emit, pair[1], twice * sin, axes[-1], rank)
    emit.result("Add" if forward else "Sub", real, imaginary)


def emit_real(emit: Emitter) -> None:
    emit.give(_parts(emit, emit.joint.takes[0])[0])


def emit_imag(emit: Emitter) -> None:
    emit.give(_parts(emit, emit.joint.takes[0])[1])


def emit_complex(emit: Emitter) -> None:
    """A real and an imaginary part together."""
    emit.give(_joined(emit, *emit.joint.takes))


def emit_as_is(emit: Emitter) -> None:
    """``as_real`` and ``as_complex``: the pair is how complex numbers are held here."""
    emit.give(emit.joint.takes[0])


def emit_abs(emit: Emitter) -> None:
    """The length of each number."""
    emit.give(emit.reduce("ReduceL2", emit.joint.takes[0], [-1], keep=False))


def emit_angle(emit: Emitter) -> None:
    """The angle of each number, -pi to pi: atan(y / x), turned by half a circle left of the y axis."""
    x, y = _parts(emit, emit.joint.takes[0])
    zero, half = emit.constant(0, np.float32), emit.constant(math.pi, np.float32)
    quarter = emit.constant(math.pi / 2, np.float32)
    upper = emit.node("Where", emit.node("Less", y, zero), emit.node("Neg", half), half)
    turn = emit.node("Where", emit.node("Less", x, zero), upper, zero)
    inner = emit.node("Add", emit.node("Atan", emit.node("Div", y, x)), turn)
    steep = emit.node("Mul", emit.node("Sign", y), quarter)
    emit.result("Where", emit.node("Equal", x, zero), steep, inner)


def emit_conj(emit: Emitter) -> None:
    emit.result("Mul", emit.joint.takes[0], emit.constant([1, -1], np.float32))


def emit_transpose(emit: Emitter) -> None:
    perm = list(emit.joint.attributes["perm"])
    emit.result("Transpose", emit.joint.takes[0], perm=[*perm, len(perm)])


def emit_scale(emit: Emitter) -> None:
    """Times a number; a sum with one changes the real part."""
    x, factor = emit.joint.takes
    attributes = emit.joint.attributes
    added = emit.constant([attributes["bias"], 0], np.float32)
    if attributes["bias_after_scale"]:
        emit.result("Add", emit.node("Mul", x, factor), added)
    else:
        emit.result("Mul", emit.node("Add", x, added), factor)


def elementwise(operator: str) -> Callable[[Emitter], None]:
    """A sum or a difference, part by part."""

    def emit_elementwise(emit: Emitter) -> None:
        emit.result(operator, *emit.joint.takes)

    return emit_elementwise


def emit_multiply(emit: Emitter) -> None:
    """(a + bi)(c + di)."""
    (a, b), (c, d) = (_parts(emit, value) for value in emit.joint.takes)
    real = emit.node("Sub", emit.node("Mul", a, c), emit.node("Mul", b, d))
    imaginary = emit.node("Add", emit.node("Mul", a, d), emit.node("Mul", b, c))
    emit.give(_joined(emit, real, imaginary))
