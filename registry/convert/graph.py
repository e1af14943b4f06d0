"""An ONNX graph: read, described for a runtime's limits, given readable axes, named by its content.

Raises ConversionError where a file is no ONNX model; everything else here is pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from shipway.registry.errors import ConversionError
from shipway.registry.nouns import Digest, TensorSpec
from shipway.targets.base import OnnxInfo

_GENERATED = re.compile(r"\d+")  # counters in names differ from one export to the next


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
        inputs=tuple(_spec(value) for value in _real_inputs(model.graph)),
        outputs=tuple(_spec(value) for value in model.graph.output),
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


# readable axes


def name_axes(model: onnx.ModelProto, asked: Sequence[TensorSpec] = ()) -> None:
    """Give dynamic axes of the inputs readable names and fix those that ``asked`` (``--input``) fixes.

    ``N`` for a leading axis, ``H`` and ``W`` of images, ``T`` of sequences, ``d<axis>`` for others; two
    axes that the model itself keeps apart (but for ``N``) stay apart, as in ``T`` and ``T_mask``. The outputs
    follow where they use the same symbol; other dynamic axes of theirs become ``d<axis>``.
    """
    wanted = {spec.name: spec for spec in asked}
    renamed: dict[str, int | str] = {}
    taken: dict[str, str] = {}
    for value in _real_inputs(model.graph):
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


# ranges


def id_limits(model: onnx.ModelProto) -> dict[str, int]:
    """For each integer input that indexes a table of weights (an embedding): how many rows the table has."""
    graph = model.graph
    tables = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    origin = {value.name: value.name for value in _real_inputs(graph)}
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


# identity


def canonical_digest(model: onnx.ModelProto, base: Path | None = None) -> Digest:
    """A name for what the model computes from what: operators, attributes, weights and interface.

    Names of nodes and of internal tensors, the order of independent nodes, text and IR version do not count;
    nor do the counters in the names of inputs and outputs (``softmax_11.tmp_0``), which differ between two
    exports of the same weights. Each tensor is named by the digest of the operator that makes it and of what
    that reads (a Merkle tree), the model by its outputs'. Data outside of it lie in the folder ``base``.
    """
    graph = model.graph
    scope = {v.name: f"input {index}" for index, v in enumerate(_real_inputs(graph))}
    heads = _hash_graph(graph, scope, base)
    interface = [
        (_GENERATED.sub("#", spec.name), spec.dtype, spec.shape)
        for spec in map(_spec, [*_real_inputs(graph), *graph.output])
    ]
    opsets = sorted((opset.domain, opset.version) for opset in model.opset_import)
    functions = sorted(f.SerializeToString(deterministic=True).hex() for f in model.functions)
    return Digest(_sha("model", opsets, interface, functions, heads))


def _hash_graph(graph: onnx.GraphProto, outer: Mapping[str, str], base: Path | None) -> list[str]:
    """The names (by content) of a graph's outputs, given those of everything visible from outside."""
    scope = dict(outer)
    for tensor in graph.initializer:
        scope[tensor.name] = _hash_tensor(tensor, base)
    for sparse in graph.sparse_initializer:
        scope[sparse.values.name] = _sha(
            "sparse", _hash_tensor(sparse.values, base), _hash_tensor(sparse.indices, base)
        )
    for node in graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value":
            scope[node.output[0]] = _hash_tensor(
                node.attribute[0].t, base
            )  # the same thing as an initializer
            continue
        attributes = sorted((a.name, _hash_attribute(a, scope, base)) for a in node.attribute)
        reads = [scope.get(name, f"? {name}") if name else "" for name in node.input]
        name = _sha("node", node.domain, node.op_type, attributes, reads)
        for index, output in enumerate(node.output):
            if output:
                scope[output] = f"{name}:{index}"
    return [scope.get(value.name, f"? {value.name}") for value in graph.output]


def _hash_attribute(attribute: onnx.AttributeProto, scope: Mapping[str, str], base: Path | None) -> str:
    if attribute.type == onnx.AttributeProto.GRAPH:
        graph = attribute.g
        inner = {v.name: f"parameter {index}" for index, v in enumerate(graph.input)}
        return _sha("graph", _hash_graph(graph, {**scope, **inner}, base))
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _hash_tensor(attribute.t, base)
    copy = onnx.AttributeProto()
    copy.CopyFrom(attribute)
    copy.doc_string = ""
    return _sha("attribute", copy.SerializeToString(deterministic=True).hex())


def _hash_tensor(tensor: onnx.TensorProto, base: Path | None) -> str:
    if tensor.data_location == onnx.TensorProto.EXTERNAL and base is not None:
        from shipway.registry.convert import external

        return external.digest(tensor, base)
    digest = hashlib.sha256(f"tensor {tensor.data_type} {list(tensor.dims)} ".encode())
    if tensor.HasField("raw_data"):
        digest.update(tensor.raw_data)
    elif tensor.data_type == onnx.TensorProto.STRING:
        digest.update(repr(list(tensor.string_data)).encode())
    else:
        # packed fields hold the same values in another form: raw little-endian bytes are the common one
        digest.update(numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data)
    return digest.hexdigest()


def _sha(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


# walking


def _real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Inputs that a caller gives: those that older IR versions list for initializers are none."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in _subgraphs(node):
            yield from nodes(inner)


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
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


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    if not kind.elem_type:
        raise ConversionError(
            f"{value.name!r} of the model is no tensor.",
            remedy="shipway takes models whose inputs and outputs are tensors.",
        )
    dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    shape = tuple(
        int(dim.dim_value)
        if dim.HasField("dim_value") and dim.dim_value >= 0
        else dim.dim_param or f"d{axis}"
        for axis, dim in enumerate(kind.shape.dim)
    )
    return TensorSpec(value.name, dtype, shape)
