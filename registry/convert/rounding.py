"""Weights rounded to int8 so that what a layer gives stays, rather than what the weights are.

A weight that was rounded leaves an error; the weights of the same output that are not rounded yet are moved
to make up for it, as far as the layer's inputs go together (GPTQ, https://arxiv.org/abs/2210.17323, with the
notation of its algorithm 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from shipway.registry.verify import measure
from shipway.registry.verify.golden import Case

Floats = NDArray[np.floating[Any]]
Steps = NDArray[np.int8]

LEVELS = 127  # symmetric int8: -127 to 127
_DAMPING = 0.01  # of the mean diagonal, as in the paper: keeps the inverse stable
_BLOCK = 128  # columns whose corrections are handed on together, as in the paper
_MOST_INPUTS = 2048  # of one output: more take seconds a layer, and are rounded plainly
_MOST_ROWS = 4096  # of a layer's inputs from one case: more say little more
_AT_ONCE = 512 << 20  # bytes of moments that are held at a time


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that multiplies a weight with a tensor: ``kernel`` is None for a product.

    ``axis`` is the weight's axis along which this layer's outputs lie.
    """

    tensor: str
    kernel: tuple[int, int] | None = None
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    axis: int = 0

    def rows(self, values: Floats) -> Floats:
        """The layer's inputs as rows, one for each place where its weight is applied; thinned out."""
        if self.kernel is None:
            rows = values.reshape(-1, values.shape[-1])
            return rows[:: _step(len(rows))]
        top, left, bottom, right = self.pads
        padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, self.kernel, axis=(2, 3))
        seen = np.moveaxis(seen[:, :, :: self.strides[0], :: self.strides[1]], 1, 3)
        places = math.prod(seen.shape[:3])
        # Thinned out before anything is copied: every place of a large picture takes gigabytes.
        some = seen[np.unravel_index(np.arange(0, places, _step(places)), seen.shape[:3])]
        return some.reshape(len(some), -1)


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight, its axis of output channels, and the layers that read it."""

    values: Floats
    axis: int
    readers: tuple[Reader, ...] = field(default=())

    @property
    def inputs(self) -> int:
        """How many numbers one output is made of."""
        return int(self.values.size // self.values.shape[self.axis])

    @property
    def understood(self) -> tuple[Reader, ...]:
        """The layers whose outputs lie along ``axis``: one that reads it the other way round has no say."""
        return tuple(reader for reader in self.readers if reader.axis == self.axis)


def _step(many: int) -> int:
    return max(1, -(-many // _MOST_ROWS))


def scales(weight: Floats, axis: int) -> Floats:
    """What one step of each output channel is worth, in a shape that spreads over ``weight``."""
    others = tuple(other for other in range(weight.ndim) if other != axis)
    found = np.abs(weight).max(axis=others, keepdims=True) / np.float32(LEVELS)
    spread: Floats = np.where(found > 0, found, np.float32(1)).astype(np.float32)
    return spread


def plainly(weight: Floats, axis: int) -> Steps:
    """Each number to the nearest step."""
    return _steps(weight / scales(weight, axis)).astype(np.int8)


def with_feedback(weight: Floats, axis: int, moments: Floats) -> Steps:
    """Rounded so that the outputs change least on inputs of these second moments, [inputs, inputs]."""
    turned = np.moveaxis(weight, axis, 0)
    left = turned.reshape(len(turned), -1).astype(np.float64)
    scale = np.moveaxis(scales(weight, axis), axis, 0).reshape(-1).astype(np.float64)
    if not np.isfinite(moments).all():
        return plainly(weight, axis)
    damped = moments + np.diag(np.full(len(moments), _DAMPING * np.mean(np.diag(moments)) + 1e-12))
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    steps = np.zeros_like(left)
    for start in range(0, len(moments), _BLOCK):
        end = min(start + _BLOCK, len(moments))
        errors = np.zeros((len(left), end - start))
        for column in range(start, end):
            steps[:, column] = _steps(left[:, column] / scale)
            error = (left[:, column] - steps[:, column] * scale) / factor[column, column]
            left[:, column + 1 : end] -= np.outer(error, factor[column, column + 1 : end])
            errors[:, column - start] = error
        left[:, end:] -= errors @ factor[start:end, end:]
    return np.moveaxis(steps.reshape(turned.shape).astype(np.int8), 0, axis)


def _steps(scaled: Floats) -> Floats:
    return np.clip(np.rint(scaled), -LEVELS, LEVELS)


def readers(graph: onnx.GraphProto) -> dict[str, tuple[Reader, ...]]:
    """For each weight of products and of convolutions without groups: the layers that read it."""
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found: dict[str, tuple[Reader, ...]] = {}
    for node in graph.node:
        reader = None
        if len(node.input) > 1 and node.input[1] in dims and node.input[0] not in dims:
            reader = _reader(node, dims[node.input[1]])
        if reader is not None:
            found[node.input[1]] = (*found.get(node.input[1], ()), reader)
    return found


def _reader(node: onnx.NodeProto, dims: tuple[int, ...]) -> Reader | None:
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "MatMul" and len(dims) == 2:
        return Reader(node.input[0], axis=1)
    if node.op_type == "Gemm" and not given.get("transA"):
        return Reader(node.input[0], axis=0 if given.get("transB") else 1)
    plain = given.get("group", 1) == 1 and given.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    if node.op_type == "Conv" and len(dims) == 4 and plain and set(given.get("dilations", [1])) == {1}:
        strides, pads = given.get("strides", [1, 1]), given.get("pads", [0, 0, 0, 0])
        return Reader(
            node.input[0], (dims[2], dims[3]), (strides[0], strides[1]), (pads[0], pads[1], pads[2], pads[3])
        )
    return None


def rounded(
    path: Path, weights: Mapping[str, Weight], cases: Sequence[Case], folder: Path
) -> Iterator[tuple[str, Steps]]:
    """Each weight of the model at ``path`` in int8, on what its layers are given in ``cases`` where known.

    Files are put into ``folder`` meanwhile. Raises ConversionError where the model does not run on them.
    """
    group: dict[str, Weight] = {}
    held = 0
    for name, weight in weights.items():
        if not cases or not weight.understood or weight.inputs > _MOST_INPUTS:
            yield name, plainly(weight.values, weight.axis)
            continue
        if group and held + 8 * weight.inputs**2 > _AT_ONCE:
            yield from _group(path, group, cases, folder)
            group, held = {}, 0
        group[name] = weight
        held += 8 * weight.inputs**2
    if group:
        yield from _group(path, group, cases, folder)


def _group(
    path: Path, group: Mapping[str, Weight], cases: Sequence[Case], folder: Path
) -> Iterator[tuple[str, Steps]]:
    moments = {name: np.zeros((weight.inputs, weight.inputs)) for name, weight in group.items()}
    wanted = {reader.tensor for weight in group.values() for reader in weight.understood}
    for case in cases:
        seen = _inside(path, wanted, case, folder)
        for name, weight in group.items():
            for reader in weight.understood:
                rows = reader.rows(seen[reader.tensor]).astype(np.float64)
                moments[name] += rows.T @ rows
    for name, weight in group.items():
        yield name, with_feedback(weight.values, weight.axis, moments[name])


def _inside(path: Path, wanted: set[str], case: Case, folder: Path) -> dict[str, Floats]:
    """What these tensors are on ``case``: inputs of the model, or inner ones that are made outputs."""
    model = onnx.load(str(path))
    names = sorted(wanted - set(case) - {value.name for value in model.graph.output})
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    place = folder / f"inside-{path.name}"
    onnx.save(model, str(place))
    try:
        session = measure.session(place)
        made = measure.run(session, [case])[0]
    finally:
        place.unlink()
    every = {**case, **dict(zip([value.name for value in session.get_outputs()], made, strict=True))}
    return {name: np.asarray(every[name]) for name in wanted}
