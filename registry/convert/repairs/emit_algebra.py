"""Linear algebra that converters do not map, in standard ONNX operators."""

from __future__ import annotations

import numpy as np

from shipway.registry.convert.repairs.emit import Emitter


def emit_addmm(emit: Emitter) -> None:
    """beta * input + alpha * x @ y."""
    added, x, y = emit.joint.takes
    product = emit.node("MatMul", x, y)
    scaled = (
        _times(emit, each, emit.joint.attributes[name])
        for each, name in ((added, "beta"), (product, "alpha"))
    )
    emit.result("Add", *scaled)


def _times(emit: Emitter, value: str, factor: float) -> str:
    return value if factor == 1 else emit.node("Mul", value, emit.number(factor))


def emit_multi_dot(emit: Emitter) -> None:
    """Matrices multiplied one after the other."""
    product, *others = emit.joint.takes
    for other in others:
        product = emit.node("MatMul", product, other)
    emit.give(product)


def emit_dot(emit: Emitter) -> None:
    """The inner product along the last axis."""
    emit.give(emit.reduce("ReduceSum", emit.node("Mul", *emit.joint.takes), [-1], keep=False))


def emit_matmul(emit: Emitter) -> None:
    """A product of matrices, either of them transposed first."""
    sides = []
    for position, name in enumerate(("transpose_x", "transpose_y")):
        value, taken = emit.joint.takes[position], emit.joint.taken[position]
        rank = len(taken.shape) if taken is not None else 0
        if emit.joint.attributes[name] and rank > 1:
            perm = [*range(rank - 2), rank - 1, rank - 2]
            value = emit.node("Transpose", value, perm=perm)
        sides.append(value)
    emit.result("MatMul", *sides)


def emit_bilinear(emit: Emitter) -> None:
    """For each output a product x W y, and a bias where there is one."""
    x, y, weight, bias = emit.joint.takes
    product = emit.node("Einsum", x, weight, y, equation="bi,oij,bj->bo")
    emit.give(emit.node("Add", product, bias) if bias else product)


def emit_cross(emit: Emitter) -> None:
    """The cross product along an axis of three."""
    x, y = emit.joint.takes
    axis = emit.joint.attributes["axis"]
    first, second = emit.constant([1, 2, 0]), emit.constant([2, 0, 1])
    terms = []
    for left, right in ((first, second), (second, first)):
        picked = (emit.node("Gather", value, places, axis=axis) for value, places in ((x, left), (y, right)))
        terms.append(emit.node("Mul", *picked))
    emit.result("Sub", *terms)


def emit_diagonal(emit: Emitter) -> None:
    """The diagonal of two axes, as the last axis of what is given."""
    emit.give(_diagonal(emit))


def emit_trace(emit: Emitter) -> None:
    """The sum of a diagonal."""
    emit.give(emit.reduce("ReduceSum", _diagonal(emit), [-1], keep=False))


def _diagonal(emit: Emitter) -> str:
    """Elements (i, i + offset): the two axes last, flattened, and every (columns + 1)-th taken."""
    taken = emit.joint.taken[0]
    if taken is None:
        raise ValueError("a diagonal of a value whose rank is not known")
    rank = len(taken.shape)
    attributes = emit.joint.attributes
    first, second = attributes["axis1"] % rank, attributes["axis2"] % rank
    rest = [axis for axis in range(rank) if axis not in (first, second)]
    last = emit.node("Transpose", emit.joint.takes[0], perm=[*rest, first, second])
    offset = int(attributes["offset"])
    rows, columns = emit.shape(last, rank - 2), emit.shape(last, rank - 1)
    down, right = max(-offset, 0), max(offset, 0)
    high = emit.node("Sub", rows, emit.constant([down]))
    wide = emit.node("Sub", columns, emit.constant([right]))
    count = emit.squeeze(emit.node("Min", high, wide))
    steps = emit.node("Range", emit.constant(0), count, emit.constant(1))
    apart = emit.node("Mul", steps, emit.node("Add", columns, emit.constant([1])))
    begin = emit.node("Add", emit.node("Mul", columns, emit.constant([down])), emit.constant([right]))
    shape = [emit.shape(last, axis) for axis in range(rank - 2)]
    flat = emit.reshape(last, *shape, -1)
    return emit.node("Gather", flat, emit.node("Add", apart, begin), axis=rank - 2)


def emit_diag_embed(emit: Emitter) -> None:
    """The last axis as the main diagonal of the last two axes, zeros elsewhere."""
    (x,) = emit.joint.takes
    taken = emit.joint.taken[0]
    rank = len(taken.shape) if taken is not None else 1
    size = emit.squeeze(emit.shape(x, rank - 1))
    places = emit.node("Range", emit.constant(0), size, emit.constant(1))
    columns = emit.node("Unsqueeze", places, emit.constant([-1]))
    mask = emit.node("Equal", places, columns)
    spread = emit.node("Unsqueeze", x, emit.constant([-1]))
    emit.result("Where", mask, spread, emit.number(0))


def emit_p_norm(emit: Emitter) -> None:
    """(sum |x|^p)^(1/p) along an axis, or of all elements; of infinite p the largest, of -infinite the least.

    An order that JSON can't say comes as None: infinity (``linalg.norm`` takes no other that is none).
    """
    (x,) = emit.joint.takes
    attributes = emit.joint.attributes
    taken = emit.joint.taken[0]
    rank = len(taken.shape) if taken is not None else 0
    axes = list(range(rank)) if attributes["asvector"] else [attributes["axis"] % rank]
    keep = bool(attributes["keepdim"])
    order = attributes["porder"]
    size = emit.node("Abs", x)
    if order is None:
        emit.give(emit.reduce("ReduceMax", size, axes, keep))
    elif order in (1, 2):
        emit.give(emit.reduce(f"ReduceL{order:.0f}", x, axes, keep))
    else:
        powers = emit.node("Pow", size, emit.constant(order, np.float32))
        total = emit.reduce("ReduceSum", powers, axes, keep)
        emit.result("Pow", total, emit.constant(1 / order, np.float32))
