"""Picking, masking and rearranging elements, in standard ONNX operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from shipway.registry.convert.repairs.emit import Emitter

_MOST, _LEAST = np.iinfo(np.int64).max, np.iinfo(np.int64).min


def _rank(emit: Emitter, position: int = 0) -> int:
    taken = emit.joint.taken[position]
    if taken is None:
        raise ValueError(f"{emit.joint.kind} of a value whose rank is not known")
    return len(taken.shape)


def emit_masked_fill(emit: Emitter) -> None:
    """x, and a value where the mask holds."""
    x, mask, value = emit.joint.takes
    emit.result("Where", mask, value, x)


def emit_index_put(emit: Emitter) -> None:
    """``x[indices] = value``, or ``+= value``: by one mask and one value, or by indices of the first axes.

    Indices below zero count from the end, as ONNX's do (ScatterND). Raises ValueError on another form.
    """
    x, *indices, value = emit.joint.takes
    add = bool(emit.joint.attributes["accumulate"])
    kinds = [taken.dtype if taken is not None else "" for taken in emit.joint.taken[1:-1]]
    if "bool" in kinds:
        mask = _one_mask(emit, kinds)
        emit.result("Where", mask, emit.node("Add", x, value) if add else value, x)
        return
    shape = emit.node("Shape", indices[0])
    columns = [emit.node("Unsqueeze", index, emit.constant([-1])) for index in indices]
    places = emit.node("Concat", *columns, axis=-1)
    rest = emit.node("Slice", emit.node("Shape", x), emit.constant([len(indices)]), emit.constant([_MOST]))
    values = emit.node("Expand", value, emit.node("Concat", shape, rest, axis=0))
    reduction = {"reduction": "add"} if add else {}
    emit.result("ScatterND", x, places, values, **reduction)


def _one_mask(emit: Emitter, kinds: Sequence[str]) -> str:
    """The mask, with as many axes as x. Raises ValueError on several values: those are put in order."""
    value = emit.joint.taken[-1]
    if len(kinds) != 1 or value is None or math.prod(value.shape) != 1:
        raise ValueError(f"{emit.joint.kind} by a mask with more than one value or beside other indices")
    rank, mask = _rank(emit), _rank(emit, 1)
    if mask == rank:
        return emit.joint.takes[1]
    return emit.node("Unsqueeze", emit.joint.takes[1], emit.constant(range(mask, rank)))


def emit_index_add(emit: Emitter) -> None:
    """x with the slices of y added at the indices along an axis; an index that comes twice counts twice."""
    x, index, y = emit.joint.takes
    places = emit.node(
        "Reshape", index, emit.constant(_along(_rank(emit), emit.joint.attributes["axis"], -1))
    )
    places = emit.node("Expand", places, emit.node("Shape", y))
    axis = emit.joint.attributes["axis"] % _rank(emit)
    emit.result("ScatterElements", x, places, y, axis=axis, reduction="add")


def _along(rank: int, axis: int, size: int) -> list[int]:
    """A shape that is 1 but along one axis."""
    return [size if number == axis % rank else 1 for number in range(rank)]


def emit_expand_as(emit: Emitter) -> None:
    """x broadcast to the shape of y."""
    x, y = emit.joint.takes
    emit.result("Expand", x, emit.node("Shape", y))


def emit_flip(emit: Emitter) -> None:
    """The axes back to front."""
    axes = list(emit.joint.attributes["axis"])
    parts = ([-1] * len(axes), [_LEAST] * len(axes), axes, [-1] * len(axes))
    emit.result("Slice", emit.joint.takes[0], *(emit.constant(part) for part in parts))


def emit_crop(emit: Emitter) -> None:
    """A box out of x: its shape, and where it begins."""
    x, shape, begin = emit.joint.takes
    begin, shape = emit.cast(begin, "int64"), emit.cast(shape, "int64")
    emit.result("Slice", x, begin, emit.node("Add", begin, shape))


def emit_searchsorted(emit: Emitter) -> None:
    """How many of a sorted row are below each value; with ``right`` those equal to it count as well."""
    row, values = emit.joint.takes
    compare = "LessOrEqual" if emit.joint.attributes["right"] else "Less"
    below = emit.node(compare, row, emit.node("Unsqueeze", values, emit.constant([-1])))
    count = emit.reduce("ReduceSum", emit.cast(below, "int64"), [-1], keep=False)
    emit.give(emit.cast(count, "int32" if emit.joint.attributes["out_int32"] else "int64"))


def emit_sequence_mask(emit: Emitter) -> None:
    """Which of ``maxlen`` places lie before each length."""
    lengths, most = emit.joint.takes
    stop = emit.squeeze(emit.cast(most, "int64"))
    places = emit.node("Range", emit.constant(0), stop, emit.constant(1))
    columns = emit.node("Unsqueeze", emit.cast(lengths, "int64"), emit.constant([-1]))
    emit.give(emit.cast(emit.node("Less", places, columns), emit.joint.attributes["out_dtype"]))


def emit_unique(emit: Emitter) -> None:
    """The different values in order, where each stands first, which one each element is, how often it is."""
    x = emit.joint.takes[0]
    flat = emit.node("Reshape", x, emit.constant([-1]))
    names = emit.many("Unique", [flat], 4, sorted=1)
    given = emit.joint.given
    for position, name in enumerate(names):
        type = given[position] if position < len(given) else None
        if position and type is not None and type.dtype == "int32":
            names[position] = emit.cast(name, "int32")
    emit.give(*names)


def emit_kthvalue(emit: Emitter) -> None:
    """The k-th smallest along an axis, and where it stands."""
    attributes = emit.joint.attributes
    axis = attributes["axis"] % _rank(emit)
    least = emit.top(emit.joint.takes[0], emit.constant([attributes["k"]]), axis=axis, largest=0)
    last = emit.constant([-1] if attributes["keepdim"] else -1)
    emit.give(*(emit.node("Gather", each, last, axis=axis) for each in least))


def emit_channel_shuffle(emit: Emitter) -> None:
    """Channels dealt out in groups: (groups, rest) becomes (rest, groups)."""
    (x,) = emit.joint.takes
    groups = emit.joint.attributes["groups"]
    parts = emit.reshape(x, emit.shape(x, 0), groups, -1, emit.shape(x, 2), emit.shape(x, 3))
    dealt = emit.node("Transpose", parts, perm=[0, 2, 1, 3, 4])
    emit.result("Reshape", dealt, emit.node("Shape", x))


def emit_frame(emit: Emitter) -> None:
    """The last axis cut into frames that overlap: (..., length, frames)."""
    (x,) = emit.joint.takes
    length, hop = emit.joint.attributes["frame_length"], emit.joint.attributes["hop_length"]
    axis = _rank(emit) - 1
    over = emit.node("Sub", emit.squeeze(emit.shape(x, axis)), emit.constant(length - hop))
    starts = emit.node(
        "Range", emit.constant(0), emit.node("Div", over, emit.constant(hop)), emit.constant(1)
    )
    starts = emit.node("Mul", starts, emit.constant(hop))
    places = emit.node("Add", emit.constant(np.arange(length).reshape(-1, 1)), starts)
    emit.result("Gather", x, places, axis=axis)


def emit_set_all(emit: Emitter) -> None:
    """``x[:] = value`` over every axis: the value, broadcast to the shape of x."""
    x, value = emit.joint.takes[:2]
    emit.result("Expand", value, emit.node("Shape", x))
