"""What makes two ONNX models the same: a digest of what they compute from what, whoever exported them.

Pure, but for tensors whose data lie in files beside the model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import numpy_helper

from shipway.registry.convert import external
from shipway.registry.convert.graph import real_inputs, spec_of
from shipway.registry.nouns import Digest

_GENERATED = re.compile(r"\d+")  # counters in names differ from one export to the next


def canonical_digest(model: onnx.ModelProto, base: Path | None = None) -> Digest:
    """A name for what the model computes from what: operators, attributes, weights and interface.

    Names of nodes and of internal tensors, the order of independent nodes, text and IR version do not count;
    nor do the counters in the names of inputs and outputs (``softmax_11.tmp_0``), which differ between two
    exports of the same weights. Each tensor is named by the digest of the operator that makes it and of what
    that reads (a Merkle tree), the model by its outputs'. Data outside of it lie in the folder ``base``.
    """
    graph = model.graph
    scope = {v.name: f"input {index}" for index, v in enumerate(real_inputs(graph))}
    heads = _hash_graph(graph, scope, base)
    interface = [
        (_GENERATED.sub("#", spec.name), spec.dtype, spec.shape)
        for spec in map(spec_of, [*real_inputs(graph), *graph.output])
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
            # The same thing as an initializer.
            scope[node.output[0]] = _hash_tensor(node.attribute[0].t, base)
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
