"""Branches and loops on data as ONNX's If and Loop, of blocks that were converted one by one."""

from __future__ import annotations

import onnx
from onnx import helper

from shipway.registry.convert.repairs.emit import Emitter


def emit_if(emit: Emitter) -> None:
    """``pd_op.if``: the first block where the condition holds, else the second (ONNX If)."""
    then, otherwise = (emit.graphs[name] for name in emit.joint.blocks)
    emit.result("If", emit.joint.takes[0], then_branch=then, else_branch=otherwise)


def emit_while(emit: Emitter) -> None:
    """``pd_op.while``: condition and values in, the body gives the next ones (ONNX Loop without a limit).

    ONNX's body takes the turn's number and the condition before the values.
    """
    (name,) = emit.joint.blocks
    graph = onnx.GraphProto()
    graph.CopyFrom(emit.graphs[name])
    carried = list(graph.input)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(f"{name}/turn", onnx.TensorProto.INT64, []))
    graph.input.append(helper.make_tensor_value_info(f"{name}/goes on", onnx.TensorProto.BOOL, []))
    graph.input.extend(carried)
    condition, *values = emit.joint.takes
    # Said to be a scalar: of a loop deep inside ONNX Runtime does not find that out by itself, and gives up.
    emit.result("Loop", "", emit.squeeze(condition), *values, body=graph)
