"""An ONNX graph: read, walked, described for a runtime's limits, and written.

Raises ConversionError where a file is no ONNX model; everything else here is pure. How axes are called is in
``axes``, what makes two graphs the same model in ``identity``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from shipway.registry.errors import ConversionError
from shipway.registry.nouns import TensorSpec
from shipway.targets.base import OnnxInfo

_MOST = (1 << 31) - (1 << 20)  # bytes: protobuf's limit, less what a few renamed axes may add


def load(path: Path, *, data: bool = True) -> onnx.ModelProto:
    """Read a model; ``data`` says whether external tensor data comes along. Raises ConversionError."""
    try:
        model = onnx.load(str(path), load_external_data=data)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise ConversionError(
            f"{path} can't be read as an ONNX model.",
            why=f"{str(error).splitlines()[0] if str(error) else type(error).__name__}: truncated, or "
            "another kind of file.",
            remedy="Was the copy or the download cut short? Save or fetch the model again.",
        ) from error
    if not model.graph.output or not model.opset_import:
        raise ConversionError(
            f"{path} can't be read as an ONNX model.",
            why="It has no outputs or no opset: truncated, or another kind of file.",
            remedy="Save or fetch the model again.",
        )
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The model's bytes, the same for the same content; who made it and free text are left out."""
    if model.ByteSize() > _MOST:
        raise ConversionError(
            "The model is larger than 2 GB.",
            why="A protobuf file can't be larger.",
            remedy="Save it with its data in a file of its own (onnx.save, save_as_external_data=True).",
        )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for stray in ("producer_name", "producer_version", "doc_string", "model_version", "domain"):
        copy.ClearField(stray)
    del copy.metadata_props[:]
    copy.graph.name = "model"
    copy.graph.doc_string = ""
    opsets = sorted(copy.opset_import, key=lambda opset: opset.domain)
    del copy.opset_import[:]
    copy.opset_import.extend(opsets)
    for node in copy.graph.node:
        node.doc_string = ""
    return bytes(copy.SerializeToString(deterministic=True))


def info(model: onnx.ModelProto, size: int) -> OnnxInfo:
    """What a runtime's limits are held against. ``size`` in bytes, external data included."""
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    return OnnxInfo(
        opset=opset,
        ir=model.ir_version,
        operators=tuple(sorted({_operator(node) for node in nodes(model.graph)})),
        inputs=tuple(spec_of(value) for value in real_inputs(model.graph)),
        outputs=tuple(spec_of(value) for value in model.graph.output),
        size=size,
    )


def external_names(model: onnx.ModelProto) -> list[str]:
    """The files that hold the tensors' data, as the model names them, each once."""
    names: dict[str, None] = {}
    for tensor in tensors(model.graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                names[entry.value] = None
    return list(names)


def id_limits(model: onnx.ModelProto) -> dict[str, int]:
    """For each integer input that indexes a table of weights (an embedding): how many rows the table has."""
    graph = model.graph
    tables = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    origin = {value.name: value.name for value in real_inputs(graph)}
    limits: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in ("Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten") and node.input:
            if node.input[0] in origin:
                origin[node.output[0]] = origin[node.input[0]]
            if node.op_type == "Identity" and node.input[0] in tables:
                tables[node.output[0]] = tables[node.input[0]]
        elif node.op_type == "Constant" and node.attribute and node.attribute[0].t.dims:
            tables[node.output[0]] = node.attribute[0].t.dims[0]
        elif node.op_type == "Gather" and node.input[0] in tables and node.input[1] in origin:
            name = origin[node.input[1]]
            limits[name] = min(limits.get(name, 1 << 31), tables[node.input[0]])
    return limits


# walking


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Inputs that a caller gives: those that older IR versions list for initializers are none."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those inside branches and loops too."""
    for node in graph.node:
        yield node
        for inner in _subgraphs(node):
            yield from nodes(inner)


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor with weights or constants, those inside branches and loops too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in _subgraphs(node):
            yield from tensors(inner)


def _operator(node: onnx.NodeProto) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def spec_of(value: onnx.ValueInfoProto) -> TensorSpec:
    """An input or output by name, type and shape; raises ConversionError for what is no tensor of numbers."""
    kind = value.type.tensor_type
    if not kind.elem_type:
        raise ConversionError(
            f"{value.name!r} of the model is no tensor.",
            remedy="shipway takes models whose inputs and outputs are tensors.",
        )
    if kind.elem_type == onnx.TensorProto.STRING:
        raise ConversionError(
            f"{value.name!r} of the model holds strings.",
            why="How far one text is from another no tolerance tells.",
            remedy="Save the model with numbers in the strings' place: ids of labels or of tokens.",
        )
    dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    shape = tuple(
        int(dim.dim_value)
        if dim.HasField("dim_value") and dim.dim_value >= 0
        else dim.dim_param or f"d{axis}"
        for axis, dim in enumerate(kind.shape.dim)
    )
    return TensorSpec(value.name, dtype, shape)
