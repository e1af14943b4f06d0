"""Weights made narrower, each widened again for whoever reads it: as many as the numbers allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from shipway.registry.convert import external, graph, rounding
from shipway.registry.errors import ConversionError

Judge = Callable[[onnx.ModelProto, bool], float]
"""How far out a model's worst output is: at most 1.0 passes. True: a quick look, at one golden case only."""

Narrowed = tuple[list[onnx.TensorProto], list[onnx.NodeProto]]
Narrow = Callable[[onnx.TensorProto, int | None], Narrowed | None]
"""Makes a weight narrow, given its axis of channels (None where it has none), or leaves it alone (None)."""

_FEWEST = 256  # elements: what is smaller weighs nothing
_FEW_INPUTS = 32  # of one output: below it a scale of its own weighs half of what int8 saves


def is_heavy(tensor: onnx.TensorProto) -> bool:
    """Whether there is something to gain: floats, and not just a few."""
    return tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) >= _FEWEST


def halved(tensor: onnx.TensorProto, _axis: int | None = None) -> Narrowed | None:
    """In float16, unless it would become infinite."""
    values = numpy_helper.to_array(tensor)
    if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        return None
    half = numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}_fp16")
    return [half], [_widened(half.name, tensor.name)]


def stepped(
    tensor: onnx.TensorProto, axis: int | None, steps: rounding.Steps | None = None
) -> Narrowed | None:
    """In int8: ``steps`` as they were rounded, else plainly. One of few inputs is halved (``variants``)."""
    if axis is None:
        return None
    if math.prod(tensor.dims) // tensor.dims[axis] < _FEW_INPUTS:
        return halved(tensor)
    values = numpy_helper.to_array(tensor)
    parts = {
        "int8": rounding.plainly(values, axis) if steps is None else steps,
        "scale": rounding.scales(values, axis),
    }
    made = [numpy_helper.from_array(part, f"{tensor.name}_{key}") for key, part in parts.items()]
    wide = f"{tensor.name}_steps"
    product = helper.make_node("Mul", [wide, made[1].name], [tensor.name])
    return made, [_widened(made[0].name, wide), product]


def _widened(narrow: str, wide: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [narrow], [wide], to=onnx.TensorProto.FLOAT)


def what_passes(
    model: onnx.ModelProto, narrow: Narrow, judge: Judge, otherwise: Narrow | None = None
) -> tuple[onnx.ModelProto, str]:
    """All weights narrow if the numbers allow it; else as many as they allow, those first that cost least.

    The cost of a weight is the error that it makes alone for each byte that it saves. Whole groups are tried
    first and halved where they fail. The others are made less narrow, by ``otherwise``, if they all can be.
    """
    axes = channel_axes(model.graph)
    made = {}
    for tensor in model.graph.initializer:
        if is_heavy(tensor):
            narrowed = narrow(tensor, axes.get(tensor.name))
            if narrowed is not None:
                made[tensor.name] = narrowed
    if not made:
        raise nothing_heavy()
    whole = _with(model, made)
    if judge(whole, False) <= 1:
        return whole, ""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in made}
    spare = {name: less for name in made if otherwise and (less := otherwise(tensors[name], None))}
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


def outside(path: Path, place: Path, narrow: Narrow) -> None:
    """All weights narrow of a model whose data lie in a file beside it; so do the data of what is made.

    ``place`` is the new graph. One weight is in memory at a time. Raises ConversionError where there is none.
    """
    model = graph.load(path, data=False)
    axes = channel_axes(model.graph)
    made: dict[str, Narrowed] = {}
    with external.Writer(place.with_name(f"{place.name}.data"), path.parent) as data:
        for tensor in model.graph.initializer:
            narrowed = (
                narrow(external.whole(tensor, path.parent), axes.get(tensor.name))
                if is_heavy(tensor)
                else None
            )
            if narrowed is not None:
                made[tensor.name] = narrowed
                for part in narrowed[0]:
                    data.put(part)
        if not made:
            raise nothing_heavy()
        narrowed_model = _with(model, made)
        written = {part.name for parts, _ in made.values() for part in parts}
        for tensor in graph.tensors(narrowed_model.graph):
            if tensor.name not in written:
                data.put(tensor)
    place.write_bytes(graph.to_bytes(narrowed_model))


def nothing_heavy() -> ConversionError:
    return ConversionError(
        "No weight can be made narrower.",
        why=f"The model has none of {_FEWEST} elements or more in a product or a convolution.",
    )


def _with(model: onnx.ModelProto, made: Mapping[str, Narrowed]) -> onnx.ModelProto:
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


def to_round(of: onnx.GraphProto) -> dict[str, rounding.Weight]:
    """The weights that int8 is for, by name, with what reads them."""
    axes, readers = channel_axes(of), rounding.readers(of)
    return {
        tensor.name: rounding.Weight(
            numpy_helper.to_array(tensor), axes[tensor.name], readers.get(tensor.name, ())
        )
        for tensor in of.initializer
        if tensor.name in axes and is_heavy(tensor)
    }


def channel_axes(of: onnx.GraphProto) -> dict[str, int]:
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
