"""Which opset and which IR version an ONNX model needs, whatever it says it is of."""

from __future__ import annotations

import onnx

from shipway.registry.convert import graph


def newer_than(model: onnx.ModelProto, opset: int) -> dict[str, int]:
    """The operators of ONNX's own domain that came or changed after ``opset``, with the opset that did it."""
    own = graph.info(model, 0).opset
    found: dict[str, int] = {}
    for node in graph.nodes(model.graph):
        if node.domain in ("", "ai.onnx"):
            try:
                since = onnx.defs.get_schema(node.op_type, own).since_version
            except onnx.defs.SchemaError:
                continue  # the runtime says what is wrong with it
            if since > opset:
                found[node.op_type] = since
    return found


_TYPES_SINCE = {  # IR version: the types that came with it (enum Version in onnx.proto)
    9: ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"),
    10: ("UINT4", "INT4"),
    11: ("FLOAT4E2M1",),
    12: ("FLOAT8E8M0",),
    13: ("UINT2", "INT2"),
    14: ("FLOAT6E2M3", "FLOAT6E3M2"),
}


def least_ir(model: onnx.ModelProto) -> tuple[int, str]:
    """The lowest IR version that can hold what is in the model, and what needs it; 8 where it could be older.

    What came in between (metadata, overloads that are not used) an older reader passes over.
    """
    since = {
        onnx.TensorProto.DataType.Value(name): (version, name)
        for version, names in _TYPES_SINCE.items()
        for name in names
        if name in onnx.TensorProto.DataType.keys()  # noqa: SIM118 - an enum of protobuf, no mapping
    }
    kinds = {tensor.data_type for tensor in graph.tensors(model.graph)}
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    kinds |= {value.type.tensor_type.elem_type for value in values}
    for node in graph.nodes(model.graph):
        kinds |= {attribute.i for attribute in node.attribute if attribute.name in ("to", "dtype")}
    least = max((since[kind] for kind in kinds if kind in since), default=(8, ""))
    if any(function.overload for function in model.functions):
        least = max(least, (10, "overloaded functions"))
    return least


def set_opset(model: onnx.ModelProto, opset: int) -> None:
    """Say that ``model`` is of ``opset``: the same thing where no operator is ``newer_than`` it."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
