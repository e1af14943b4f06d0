"""Operators on images whose channels come last, said for channels that come first, as converters want."""

from __future__ import annotations

from collections.abc import Iterator

from shipway.registry.convert.repairs import pir, pir_make
from shipway.registry.convert.repairs.pir import Op
from shipway.registry.convert.repairs.rules import Program, Rule

_KINDS = (
    "batch_norm",
    "bicubic_interp",
    "bilinear_interp",
    "conv2d",
    "conv2d_transpose",
    "depthwise_conv2d",
    "group_norm",
    "nearest_interp",
    "pixel_shuffle",
    "pool2d",
)
_FIRST, _LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def _layout(op: Op) -> Op | None:
    """The attribute that says where the channels are, of an operator to change."""
    if not op["#"].startswith("1.") or pir.kind(op)[2:] not in _KINDS:
        return None
    entries = [entry["AT"] for entry in op["A"] if entry["N"] == "data_format"]
    return entries[0] if entries and entries[0].get("D") == "NHWC" else None


def _places(program: Program) -> int:
    return sum(_layout(op) is not None for op in pir.walk(pir.main_block(program)["ops"]))


def _rewrite(program: Program) -> None:
    types = pir.raw_types(program)
    fresh = pir.fresh_numbers(types)
    pir.replace_ops(program, lambda op: _turned(op, types, fresh))


def _turned(op: Op, types: dict[int, Op], fresh: Iterator[int]) -> list[Op]:
    """The operator between two transpositions."""
    layout = _layout(op)
    if layout is None:
        return [op]
    layout["D"] = "NCHW"
    given, result = pir.inputs(op)[0], pir.outputs(op)[0]
    inner, outer = next(fresh), next(fresh)
    before = pir_make.transpose_op(given, inner, _FIRST, types[given])
    turned = pir.renumber([op], {result: outer})[0]
    turned["I"] = [{**turned["I"][0], "%": inner}, *turned["I"][1:]]
    first = pir.made(turned)[0]
    first["TT"] = pir_make.permuted(types[result], _FIRST)
    return [before, turned, pir_make.transpose_op(outer, result, _LAST, first["TT"])]


CHANNELS_LAST = Rule(
    name="channels-last",
    reference="paddle2onnx 2.0.1 aborts on NHWC, or takes it for NCHW",
    places=_places,
    rewrite=_rewrite,
)
