"""Elementwise operators and reductions that converters do not map, in standard ONNX operators."""

from __future__ import annotations

import math

import numpy as np

from shipway.registry.convert.repairs.emit import Emitter


def _number(emit: Emitter, value: float) -> str:
    """A scalar of the first input's type."""
    taken = emit.joint.taken[0]
    dtype = np.dtype(taken.dtype if taken is not None else "float32")
    return emit.constant(value, dtype)


def emit_celu(emit: Emitter) -> None:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)), as Paddle defines it."""
    emit.result("Celu", emit.joint.takes[0], alpha=float(emit.joint.attributes["alpha"]))


def emit_expm1(emit: Emitter) -> None:
    """exp(x) - 1 as 2 exp(x / 2) sinh(x / 2), which keeps its digits near zero."""
    half = emit.node("Mul", emit.joint.takes[0], _number(emit, 0.5))
    product = emit.node("Mul", emit.node("Exp", half), emit.node("Sinh", half))
    emit.result("Mul", product, _number(emit, 2.0))


def emit_lerp(emit: Emitter) -> None:
    """x + weight (y - x)."""
    x, y, weight = emit.joint.takes
    emit.result("Add", x, emit.node("Mul", weight, emit.node("Sub", y, x)))


def emit_amax(emit: Emitter) -> None:
    """The largest along axes, all of them where none is named."""
    _extreme(emit, "ReduceMax")


def emit_amin(emit: Emitter) -> None:
    """The smallest along axes, all of them where none is named."""
    _extreme(emit, "ReduceMin")


def _extreme(emit: Emitter, op: str) -> None:
    taken = emit.joint.taken[0]
    axes = emit.joint.attributes["axis"] or range(len(taken.shape) if taken is not None else 0)
    emit.give(emit.reduce(op, emit.joint.takes[0], list(axes), bool(emit.joint.attributes["keepdim"])))


def emit_softplus(emit: Emitter) -> None:
    """log(1 + exp(beta x)) / beta, and x itself where beta x is above the threshold."""
    (x,) = emit.joint.takes
    beta = _number(emit, emit.joint.attributes["beta"])
    scaled = emit.node("Mul", x, beta)
    soft = emit.node("Div", emit.node("Softplus", scaled), beta)
    above = emit.node("Greater", scaled, _number(emit, emit.joint.attributes["threshold"]))
    emit.result("Where", above, x, soft)


def emit_gelu(emit: Emitter) -> None:
    """The tanh form of GELU: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    (x,) = emit.joint.takes
    cube = emit.node("Mul", emit.node("Mul", x, x), x)
    inner = emit.node("Add", x, emit.node("Mul", cube, _number(emit, 0.044715)))
    bent = emit.node("Tanh", emit.node("Mul", inner, _number(emit, math.sqrt(2 / math.pi))))
    grown = emit.node("Mul", x, emit.node("Add", bent, _number(emit, 1.0)))
    emit.result("Mul", grown, _number(emit, 0.5))


def emit_expand(emit: Emitter) -> None:
    """``expand`` to a list of sizes, one integer each; -1 keeps what is there, as 1 does in ONNX."""
    x, *sizes = emit.joint.takes
    flat = [emit.reshape(emit.cast(size, "int64"), 1) for size in sizes]
    wanted = emit.node("Concat", *flat, axis=0)
    emit.result("Expand", x, emit.node("Max", wanted, emit.constant([1])))
