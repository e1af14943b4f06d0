"""Writing ONNX nodes at a cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from shipway.registry.convert.repairs.cut import Joint

DTYPES = {
    "bool": onnx.TensorProto.BOOL,
    "uint8": onnx.TensorProto.UINT8,
    "int8": onnx.TensorProto.INT8,
    "int16": onnx.TensorProto.INT16,
    "int32": onnx.TensorProto.INT32,
    "int64": onnx.TensorProto.INT64,
    "float16": onnx.TensorProto.FLOAT16,
    "bfloat16": onnx.TensorProto.BFLOAT16,
    "float32": onnx.TensorProto.FLOAT,
    "float64": onnx.TensorProto.DOUBLE,
}


class Emitter:
    """Collects the nodes for one joint. ``graphs`` are the ONNX graphs of the joint's blocks, by name."""

    def __init__(self, joint: Joint, opset: int, prefix: str, graphs: Mapping[str, onnx.GraphProto]) -> None:
        self.joint = joint
        self.opset = opset
        self.graphs = graphs
        self.nodes: list[onnx.NodeProto] = []
        self._prefix = prefix
        self._count = count()

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        name = f"{self._prefix}{op}.{next(self._count)}"
        self._add(op, inputs, [name], attributes)
        return name

    def result(self, op: str, *inputs: str, **attributes: Any) -> None:
        """Add the node whose outputs are the joint's."""
        self._add(op, inputs, self.joint.gives, attributes)

    def give(self, *values: str) -> None:
        """Say which values are the joint's outputs, in order; those that nobody uses have no name."""
        for value, name in zip(values, self.joint.gives, strict=False):
            if name and value:
                self._add("Identity", [value], [name], {})

    def constant(self, value: Any, dtype: npt.DTypeLike = np.int64) -> str:
        """A constant tensor."""
        return self.node("Constant", value=numpy_helper.from_array(np.array(value, dtype)))

    def number(self, value: float) -> str:
        """A scalar of the type of the joint's first input."""
        taken = self.joint.taken[0]
        return self.constant(value, np.dtype(taken.dtype if taken is not None else "float32"))

    def many(self, op: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs and return their names."""
        names = [f"{self._prefix}{op}.{next(self._count)}" for _ in range(count)]
        self._add(op, inputs, names, attributes)
        return names

    def shape(self, value: str, axis: int) -> str:
        """One dimension of a value, as a tensor of one int64."""
        return self.node("Gather", self.node("Shape", value), self.constant([axis]), axis=0)

    def reshape(self, value: str, *dimensions: int | str) -> str:
        """Reshape to numbers and to dimensions that ``shape`` returned."""
        parts = [self.constant([item]) if isinstance(item, int) else item for item in dimensions]
        return self.node("Reshape", value, self.node("Concat", *parts, axis=0))

    def squeeze(self, value: str) -> str:
        """A tensor of one element as a scalar."""
        return self.node("Reshape", value, self.constant([]))

    def reduce(self, op: str, value: str, axes: Sequence[int], keep: bool) -> str:
        """A reduction over ``axes``: they moved from an attribute to an input in opset 18 (ReduceSum: 13)."""
        if self.opset >= 18 or op == "ReduceSum":
            return self.node(op, value, self.constant(list(axes)), keepdims=int(keep))
        return self.node(op, value, axes=list(axes), keepdims=int(keep))

    def top(self, value: str, count: str, *, axis: int, largest: int = 1) -> tuple[str, str]:
        """The first ``count`` in order along an axis: values and positions."""
        values, places = self.many("TopK", [value, count], 2, axis=axis, largest=largest, sorted=1)
        return values, places

    def cast(self, value: str, dtype: str) -> str:
        return self.node("Cast", value, to=DTYPES[dtype])

    def _add(self, op: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Any) -> None:
        name = f"{self._prefix}{op}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), name=name, **attributes))
