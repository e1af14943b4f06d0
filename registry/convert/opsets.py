"""Which opset an ONNX model needs, whatever it says it is of."""

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


def set_opset(model: onnx.ModelProto, opset: int) -> None:
    """Say that ``model`` is of ``opset``: the same thing where no operator is ``newer_than`` it."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
