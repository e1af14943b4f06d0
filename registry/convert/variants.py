"""Other precisions of the canonical model. What comes out is a claim; ``verify`` decides if it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from shipway.registry import privacy
from shipway.registry.convert import graph, narrow
from shipway.registry.convert.narrow import Judge
from shipway.registry.convert.quantiser import Quantiser
from shipway.registry.errors import ConversionError
from shipway.registry.verify.golden import Case

privacy.no_telemetry()

_DELICATE = (
    "Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "BatchNormalization",
    "ReduceMean", "ReduceSum", "GlobalAveragePool", "Exp", "Sigmoid", "Pow", "Div", "Sqrt",
)  # fmt: skip
"""Operators in which float16 overflows or drops small terms."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to make a precision: ``make`` reads the canonical model's file and returns a new model, with
    what is to be said of it."""

    name: str
    make: Callable[[Path, Judge], tuple[onnx.ModelProto, str]]


def recipes(
    precision: str,
    model: onnx.ModelProto,
    quantiser: Quantiser,
    cases: Sequence[Case] = (),
    *,
    real: bool = False,
) -> list[Recipe]:
    """The ways to make ``precision`` that suit the model, the one that gains most first.

    ``quantiser`` does what takes much memory or time. ``cases`` are inputs to calibrate on, ``real`` says
    that they are the user's samples: only these tell the ranges inside. Raises ConversionError on a precision
    that there is not.
    """
    if precision == "fp16":
        return [
            Recipe("weights and arithmetic in float16", lambda path, _: (quantiser.fp16(path), "")),
            Recipe(
                "float16, but for sums and exponentials",
                lambda path, _: (quantiser.fp16(path, _DELICATE), ""),
            ),
            Recipe("weights in float16, arithmetic in float32", _fp16_weights),
        ]
    if precision == "int8":
        name = "weights in int8, arithmetic in float32"
        found = [Recipe(name, lambda path, judge: _int8_weights(path, judge, cases, quantiser))]
        if not any(node.op_type.startswith("Conv") for node in model.graph.node):
            # with convolutions it is slower than float32: 43 ms instead of 6 for PP-OCRv4 rec on one core
            name = "weights and arithmetic in int8, dynamic ranges"
            found.insert(0, Recipe(name, lambda path, _: (quantiser.dynamic(path), "")))
        if real:
            name = "weights and arithmetic in int8, ranges from the samples"
            found.insert(0, Recipe(name, lambda path, _: (quantiser.static(path, cases), "")))
        return found
    raise _no_precision(precision)


def _no_precision(precision: str) -> ConversionError:
    return ConversionError(
        f"There is no precision {precision!r}.",
        why="There is fp32, fp16 and int8.",
        remedy="Set another precision for the target in deploy.yaml.",
    )


def _fp16_weights(path: Path, judge: Judge) -> tuple[onnx.ModelProto, str]:
    return narrow.what_passes(graph.load(path), narrow.halved, judge)


def _int8_weights(
    path: Path, judge: Judge, cases: Sequence[Case], quantiser: Quantiser
) -> tuple[onnx.ModelProto, str]:
    """Symmetric, one scale for each output channel (or row of a table), rounded for what ``cases`` give.

    Widened by Cast and Mul, which every runtime works out once when it loads the model. DequantizeLinear
    would be run each time: 7.6 ms instead of 4.7 for PP-OCRv4 rec. Weights of few inputs, as of depthwise
    convolutions, are in float16: with int8 they lose most and gain least; so are those that the numbers need.
    """
    steps = quantiser.rounded(path, cases)
    return narrow.what_passes(
        graph.load(path),
        lambda tensor, axis: narrow.stepped(tensor, axis, steps.get(tensor.name)),
        judge,
        narrow.halved,
    )


def outside(precision: str, path: Path, place: Path) -> str:
    """The weights of a model that is too large for one file in ``precision``, at ``place``; what was done.

    Raises ConversionError on a precision that there is not, or where there is nothing to gain.
    """
    ways: dict[str, tuple[str, narrow.Narrow]] = {
        "fp16": ("weights in float16, arithmetic in float32", narrow.halved),
        "int8": ("weights in int8, arithmetic in float32", narrow.stepped),
    }
    if precision not in ways:
        raise _no_precision(precision)
    name, way = ways[precision]
    narrow.outside(path, place, way)
    return name
