"""Readable names for the axes of an ONNX model that vary: ``N``, ``H``, ``W``, ``T``, ... No I/O here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from shipway.registry.convert import graph
from shipway.registry.nouns import TensorSpec


def name_axes(model: onnx.ModelProto, asked: Sequence[TensorSpec] = ()) -> None:
    """Give dynamic axes of the inputs readable names and fix those that ``asked`` (``--input``) fixes.

    ``N`` for a leading axis, ``H`` and ``W`` of images, ``T`` of sequences, ``d<axis>`` for others; two
    axes that the model itself keeps apart (but for ``N``) stay apart, as in ``T`` and ``T_mask``. The outputs
    follow where they use the same symbol; other dynamic axes of theirs become ``d<axis>``.
    """
    wanted = {spec.name: spec for spec in asked}
    renamed: dict[str, int | str] = {}
    taken: dict[str, str] = {}
    for value in graph.real_inputs(model.graph):
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if dim.HasField("dim_value") and dim.dim_value >= 0:
                continue
            symbol = dim.dim_param or f"{value.name}.{axis}"
            choice: int | str | None = None
            if value.name in wanted:
                choice = wanted[value.name].shape[axis]
            if choice is None or choice == "?":
                choice = renamed.get(symbol) or _axis_name(value, axis)
                if isinstance(choice, str) and choice != "N" and taken.setdefault(choice, symbol) != symbol:
                    choice = f"{choice}_{value.name}"
            renamed.setdefault(symbol, choice)
            _set(dim, choice)
    fixed = any(isinstance(choice, int) for choice in renamed.values())
    for value in model.graph.output:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") or dim.dim_value < 0:
                _set(dim, renamed.get(dim.dim_param) or f"d{axis}")
    if renamed:
        del model.graph.value_info[:]  # their symbols are the old ones; every runtime infers its own
    if fixed:
        _infer_outputs(model)


def name_output_axes(
    model: onnx.ModelProto, seen: Sequence[tuple[Mapping[str, int], Sequence[Sequence[int]]]]
) -> None:
    """Call an output's axis after an input's where runs with different sizes showed that it equals it.

    ``seen``: for each run, the sizes of the inputs' named axes and the shapes of the outputs. An output that
    is declared with another number of axes than it has (Paddle: five of a grid_sample by affine_grid) is put
    right.
    """
    for index, value in enumerate(model.graph.output):
        ranks = {len(shapes[index]) for _, shapes in seen}
        if len(ranks) == 1 and ranks != {len(value.type.tensor_type.shape.dim)}:
            _set_rank(value, ranks.pop())
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") or dim.dim_param != f"d{axis}":
                continue
            for name in seen[0][0] if seen else ():
                pairs = {(sizes[name], shapes[index][axis]) for sizes, shapes in seen}
                if len(pairs) > 1 and all(size == found for size, found in pairs):
                    _set(dim, name)
                    break


def _set_rank(value: onnx.ValueInfoProto, rank: int) -> None:
    value.type.tensor_type.shape.Clear()
    for axis in range(rank):
        _set(value.type.tensor_type.shape.dim.add(), f"d{axis}")


def _axis_name(value: onnx.ValueInfoProto, axis: int) -> str:
    dims = value.type.tensor_type.shape.dim
    floating = value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    if axis == 0:
        return "N"
    if len(dims) == 4 and floating:
        last = dims[3].dim_value in (1, 3, 4) and not dims[1].dim_value
        return {(1, True): "H", (2, True): "W", (2, False): "H", (3, False): "W"}.get(
            (axis, last), f"d{axis}"
        )
    if len(dims) in (2, 3) and axis == 1:
        return "T"
    return f"d{axis}"


def _set(dim: Any, choice: int | str) -> None:
    if isinstance(choice, int):
        dim.dim_value = choice
    else:
        dim.dim_param = choice


def _infer_outputs(model: onnx.ModelProto) -> None:
    """Let fixed inputs show in the outputs, as far as ONNX's own inference sees it."""
    blank = onnx.ModelProto()
    blank.CopyFrom(model)
    for value in blank.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    try:
        inferred = onnx.shape_inference.infer_shapes(blank, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return
    for value, found in zip(model.graph.output, inferred.graph.output, strict=True):
        dims = zip(value.type.tensor_type.shape.dim, found.type.tensor_type.shape.dim, strict=False)
        for dim, other in dims:
            if other.HasField("dim_value"):
                dim.dim_value = other.dim_value
