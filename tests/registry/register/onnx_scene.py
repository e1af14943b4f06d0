"""ONNX models of a few nodes, said in one line."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper


def value(name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    made = helper.make_graph(nodes, "g", inputs, outputs, weights or [])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
