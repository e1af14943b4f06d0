"""Other precisions of the canonical model. What comes out is a claim; ``verify`` decides if it counts."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from shipway.registry import privacy
from shipway.registry.convert import graph, rounding
from shipway.registry.errors import ConversionError
from shipway.registry.verify.golden import Case

privacy.no_telemetry()

_DELICATE = (
    "Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "BatchNormalization",
    "ReduceMean", "ReduceSum", "GlobalAveragePool", "Exp", "Sigmoid", "Pow", "Div", "Sqrt",
)  # fmt: skip
"""Operators in which float16 overflows or drops small terms."""


Judge = Callable[[onnx.ModelProto, bool], float]
"""How far out a model's worst output is: at most 1.0 passes. True: a quick look, at one golden case only."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to make a precision: ``make`` reads the canonical model's file and returns a new model, with
    what is to be said of it."""

    name: str
    make: Callable[[Path, Judge], tuple[onnx.ModelProto, str]]


def recipes(
    precision: str, model: onnx.ModelProto, cases: Sequence[Case] = (), *, real: bool = False
) -> list[Recipe]:
    """The ways to make ``precision`` that suit the model, the one that gains most first.

    ``cases`` are inputs to calibrate on, ``real`` says that they are the user's samples: only these tell the
    ranges inside. Raises ConversionError on a precision that there is not.
    """
    if precision == "fp16":
        return [
            Recipe("weights and arithmetic in float16", lambda path, _: (_fp16(path), "")),
            Recipe("float16, but for sums and exponentials", lambda path, _: (_fp16(path, _DELICATE), "")),
            Recipe("weights in float16, arithmetic in float32", _fp16_weights),
        ]
    if precision == "int8":
        name = "weights in int8, arithmetic in float32"
        found = [Recipe(name, lambda path, judge: _int8_weights(path, judge, cases))]
        if not any(node.op_type.startswith("Conv") for node in model.graph.node):
            # with convolutions it is slower than float32: 43 ms instead of 6 for PP-OCRv4 rec on one core
            name = "weights and arithmetic in int8, dynamic ranges"
            found.insert(0, Recipe(name, lambda path, _: (_int8_dynamic(path), "")))
        if real:
            name = "weights and arithmetic in int8, ranges from the samples"
            found.insert(0, Recipe(name, lambda path, _: (_int8_static(path, cases), "")))
        return found
    raise ConversionError(
        f"There is no precision {precision!r}.",
        why="There is fp32, fp16 and int8.",
        remedy="Set another precision for the target in deploy.yaml.",
    )


def _fp16(path: Path, keep: Sequence[str] = ()) -> onnx.ModelProto:
    """Inputs and outputs stay float32: every target feeds the model in the same way."""
    from onnxruntime.transformers import float16

    with _quiet():
        converted: onnx.ModelProto = float16.convert_float_to_float16(
            graph.load(path),
            keep_io_types=True,
            op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *keep],
        )
    return converted


def _fp16_weights(path: Path, judge: Judge) -> tuple[onnx.ModelProto, str]:
    return _narrow_what_passes(graph.load(path), lambda tensor, _: _halved(tensor), judge)


def _halved(tensor: onnx.TensorProto) -> _Narrowed | None:
    values = numpy_helper.to_array(tensor)
    if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        return None  # it would become infinite
    half = numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}_fp16")
    return [half], [_widened(half.name, tensor.name)]


def _int8_weights(path: Path, judge: Judge, cases: Sequence[Case]) -> tuple[onnx.ModelProto, str]:
    """Symmetric, one scale for each output channel (or row of a table), rounded for what ``cases`` give.

    Widened by Cast and Mul, which every runtime works out once when it loads the model. DequantizeLinear
    would be run each time: 7.6 ms instead of 4.7 for PP-OCRv4 rec. Weights of few inputs, as of depthwise
    convolutions, are in float16: with int8 they lose most and gain least; so are those that the numbers need.
    """
    model = graph.load(path)
    axes, readers = _channel_axes(model.graph), rounding.readers(model.graph)
    weights = {
        tensor.name: rounding.Weight(
            numpy_helper.to_array(tensor), axes[tensor.name], readers.get(tensor.name, ())
        )
        for tensor in model.graph.initializer
        if tensor.name in axes and _is_heavy(tensor)
    }
    steps = dict(rounding.rounded(path, weights, cases))

    def narrow(tensor: onnx.TensorProto, axis: int | None) -> _Narrowed | None:
        if axis is None:
            return None
        if weights[tensor.name].inputs < _FEW_INPUTS:
            return _halved(tensor)
        parts = {
            "int8": steps[tensor.name],
            "scale": rounding.scales(weights[tensor.name].values, axis),
        }
        made = [numpy_helper.from_array(part, f"{tensor.name}_{key}") for key, part in parts.items()]
        wide = f"{tensor.name}_steps"
        product = helper.make_node("Mul", [wide, made[1].name], [tensor.name])
        return made, [_widened(made[0].name, wide), product]

    return _narrow_what_passes(model, narrow, judge, _halved)


def _widened(narrow: str, wide: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [narrow], [wide], to=onnx.TensorProto.FLOAT)


_Narrowed = tuple[list[onnx.TensorProto], list[onnx.NodeProto]]
_Narrow = Callable[[onnx.TensorProto, int | None], _Narrowed | None]
"""Makes a weight narrow, given its axis of channels (None where it has none), or leaves it alone (None)."""

_FEWEST = 256  # elements: what is smaller weighs nothing
_FEW_INPUTS = 32  # of one output: below it a scale of its own weighs half of what int8 saves


def _is_heavy(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) >= _FEWEST


def _narrow_what_passes(
    model: onnx.ModelProto,
    narrow: _Narrow,
    judge: Judge,
    otherwise: Callable[[onnx.TensorProto], _Narrowed | None] | None = None,
) -> tuple[onnx.ModelProto, str]:
    """All weights narrow if the numbers allow it; else as many as they allow, those first that cost least.

    The cost of a weight is the error that it makes alone for each byte that it saves. Whole groups are tried
    first and halved where they fail. The others are made less narrow, by ``otherwise``, if they all can be.
    """
    axes = _channel_axes(model.graph)
    made = {}
    for tensor in model.graph.initializer:
        if _is_heavy(tensor):
            narrowed = narrow(tensor, axes.get(tensor.name))
            if narrowed is not None:
                made[tensor.name] = narrowed
    if not made:
        raise ConversionError(
            "No weight can be made narrower.",
            why=f"The model has none of {_FEWEST} elements or more in a product or a convolution.",
        )
    whole = _with(model, made)
    if judge(whole, False) <= 1:
        return whole, ""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in made}
    spare = {name: less for name in made if otherwise and (less := otherwise(tensors[name]))}
    if spare and judge(_with(model, spare), False) > 1:
        spare = {}
    cost = {
        name: judge(_with(model, {name: made[name]}), True) / math.prod(tensors[name].dims) for name in made
    }
    ranked = sorted(made, key=lambda name: (cost[name], name))
    chosen: list[str] = []

    def grow(group: list[str]) -> None:
        attempt = _with(model, spare | {name: made[name] for name in (*chosen, *group)})
        if judge(attempt, False) <= 1:
            chosen.extend(group)
        elif len(group) > 1:
            grow(group[: len(group) // 2])
            grow(group[len(group) // 2 :])

    middle = len(ranked) // 2
    for half in (ranked[:middle], ranked[middle:]):
        if half:
            grow(half)
    if not chosen:
        return whole, ""
    kept = len(ranked) - len(chosen)
    narrowed = _with(model, spare | {name: made[name] for name in chosen})
    instead = "are float16" if spare else "stay float32"
    return narrowed, f"{kept} of {len(ranked)} weights {instead}: with them the numbers fail"


def _with(model: onnx.ModelProto, made: Mapping[str, _Narrowed]) -> onnx.ModelProto:
    """A copy with these weights narrow, each widened again under its old name for whoever reads it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [tensor for tensor in copy.graph.initializer if tensor.name not in made]
    nodes = list(copy.graph.node)
    del copy.graph.initializer[:], copy.graph.node[:]
    for tensors, widen in made.values():
        kept.extend(tensors)
        copy.graph.node.extend(widen)
    copy.graph.initializer.extend(kept)
    copy.graph.node.extend(nodes)
    return copy


def _channel_axes(of: onnx.GraphProto) -> dict[str, int]:
    """For each weight of a product, a convolution or a table: the axis along which one scale each is kept."""
    axes: dict[str, int] = {}
    dims = {tensor.name: len(tensor.dims) for tensor in of.initializer}
    for node in of.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            axes.setdefault(node.input[1], 0 if node.op_type == "Conv" else 1)
        elif node.op_type == "MatMul" and dims.get(node.input[1]) == 2:
            axes.setdefault(node.input[1], 1)
        elif node.op_type == "Gemm":
            turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            axes.setdefault(node.input[1], 0 if turned else 1)
        elif node.op_type == "Gather" and dims.get(node.input[0]) == 2:
            axes.setdefault(node.input[0], 0)
    return axes


def _int8_dynamic(path: Path) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out = path.with_name("int8-dynamic.onnx")
    try:
        with _quiet():
            quantize_dynamic(str(path), str(out), per_channel=True, weight_type=QuantType.QInt8)
        return graph.load(out)
    finally:
        out.unlink(missing_ok=True)


def _int8_static(path: Path, samples: Sequence[Case]) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(samples)

        def get_next(self) -> Case | None:
            return next(self._left, None)

    out = path.with_name("int8-static.onnx")
    try:
        with _quiet():
            quantize_static(
                str(path),
                str(out),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
            )
        return graph.load(out)
    finally:
        out.unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises on the root logger and prints."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        try:
            yield
        finally:
            root.setLevel(level)
