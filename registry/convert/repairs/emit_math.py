"""Elementwise operators and reductions that converters do not map, in standard ONNX operators."""

from __future__ import annotations

import math
from collections.abc import Callable

from shipway.registry.convert.repairs.emit import Emitter


def emit_celu(emit: Emitter) -> None:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)), as Paddle defines it."""
    emit.result("Celu", emit.joint.takes[0], alpha=float(emit.joint.attributes["alpha"]))


def emit_expm1(emit: Emitter) -> None:
    """exp(x) - 1 as 2 exp(x / 2) sinh(x / 2), which keeps its digits near zero."""
    half = emit.node("Mul", emit.joint.takes[0], emit.number(0.5))
    product = emit.node("Mul", emit.node("Exp", half), emit.node("Sinh", half))
    emit.result("Mul", product, emit.number(2.0))


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
    beta = emit.number(emit.joint.attributes["beta"])
    scaled = emit.node("Mul", x, beta)
    soft = emit.node("Div", emit.node("Softplus", scaled), beta)
    above = emit.node("Greater", scaled, emit.number(emit.joint.attributes["threshold"]))
    emit.result("Where", above, x, soft)


def emit_gelu(emit: Emitter) -> None:
    """The tanh form of GELU: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    (x,) = emit.joint.takes
    cube = emit.node("Mul", emit.node("Mul", x, x), x)
    inner = emit.node("Add", x, emit.node("Mul", cube, emit.number(0.044715)))
    bent = emit.node("Tanh", emit.node("Mul", inner, emit.number(math.sqrt(2 / math.pi))))
    grown = emit.node("Mul", x, emit.node("Add", bent, emit.number(1.0)))
    emit.result("Mul", grown, emit.number(0.5))


def emit_expand(emit: Emitter) -> None:
    """``expand`` to a list of sizes, one integer each; -1 keeps what is there, as 1 does in ONNX."""
    x, *sizes = emit.joint.takes
    flat = [emit.reshape(emit.cast(size, "int64"), 1) for size in sizes]
    wanted = emit.node("Concat", *flat, axis=0)
    emit.result("Expand", x, emit.node("Max", wanted, emit.constant([1])))


def same(operator: str) -> Callable[[Emitter], None]:
    """An operator that ONNX has under another name, of the same inputs."""

    def emit_same(emit: Emitter) -> None:
        emit.result(operator, *emit.joint.takes)

    return emit_same


def but_for_nan(operator: str) -> Callable[[Emitter], None]:
    """The larger or the smaller, and where one of the two is no number, the other: ONNX's gives NaN there."""

    def emit_but_for_nan(emit: Emitter) -> None:
        x, y = emit.joint.takes
        taken = emit.joint.taken[0]
        if taken is not None and taken.dtype.startswith("int"):
            emit.result(operator, x, y)
            return
        left, right = (
            emit.node("Where", emit.node("IsNaN", value), other, value) for value, other in ((x, y), (y, x))
        )
        emit.result(operator, left, right)

    return emit_but_for_nan


def emit_trunc(emit: Emitter) -> None:
    """x without what is behind the point."""
    (x,) = emit.joint.takes
    emit.result("Mul", emit.node("Sign", x), emit.node("Floor", emit.node("Abs", x)))


def emit_heaviside(emit: Emitter) -> None:
    """0 below zero, y at zero, 1 above."""
    x, y = emit.joint.takes
    zero, one = emit.number(0), emit.number(1)
    sides = emit.node("Where", emit.node("Greater", x, zero), one, zero)
    emit.result("Where", emit.node("Equal", x, zero), y, sides)


def emit_logit(emit: Emitter) -> None:
    """log(x / (1 - x)), x first held at least ``eps`` away from 0 and 1."""
    (x,) = emit.joint.takes
    margin, one = emit.joint.attributes["eps"], emit.number(1)
    held = emit.node("Clip", x, emit.number(margin), emit.number(1 - margin)) if margin else x
    emit.result("Log", emit.node("Div", held, emit.node("Sub", one, held)))


def emit_stanh(emit: Emitter) -> None:
    """b tanh(a x)."""
    (x,) = emit.joint.takes
    a, b = (emit.number(emit.joint.attributes[name]) for name in ("scale_a", "scale_b"))
    emit.result("Mul", emit.node("Tanh", emit.node("Mul", x, a)), b)


def emit_hardtanh(emit: Emitter) -> None:
    """x held between two bounds."""
    bounds = (emit.number(emit.joint.attributes[name]) for name in ("t_min", "t_max"))
    emit.result("Clip", emit.joint.takes[0], *bounds)


def emit_rrelu(emit: Emitter) -> None:
    """In evaluation a leaky ReLU whose slope is the middle of the range."""
    slope = (emit.joint.attributes["lower"] + emit.joint.attributes["upper"]) / 2
    emit.give(emit.node("LeakyRelu", emit.joint.takes[0], alpha=float(slope)))


def emit_maxout(emit: Emitter) -> None:
    """The largest of each group of channels."""
    (x,) = emit.joint.takes
    taken = emit.joint.taken[0]
    rank = len(taken.shape) if taken is not None else 4
    axis, groups = emit.joint.attributes["axis"] % rank, emit.joint.attributes["groups"]
    sizes: list[int | str] = [emit.shape(x, number) for number in range(rank)]
    sizes[axis : axis + 1] = [-1, groups]
    emit.give(emit.reduce("ReduceMax", emit.reshape(x, *sizes), [axis + 1], keep=False))


def emit_label_smooth(emit: Emitter) -> None:
    """(1 - epsilon) x + epsilon / classes."""
    x, prior = emit.joint.takes
    epsilon = emit.joint.attributes["epsilon"]
    taken = emit.joint.taken[0]
    classes = taken.shape[-1] if taken is not None else 0
    spread = emit.node("Mul", prior, emit.number(epsilon)) if prior else emit.number(epsilon / classes)
    emit.result("Add", emit.node("Mul", x, emit.number(1 - epsilon)), spread)


def emit_cumprod(emit: Emitter) -> None:
    """Running products: each the product of a row of which what comes later is 1."""
    (x,) = emit.joint.takes
    taken = emit.joint.taken[0]
    rank = len(taken.shape) if taken is not None else 1
    axis = emit.joint.attributes["dim"] % rank
    places = emit.node("Range", emit.constant(0), emit.squeeze(emit.shape(x, axis)), emit.constant(1))
    ends = emit.node("Unsqueeze", places, emit.constant([-1]))
    tail = [1] * (rank - 1 - axis)
    size = emit.shape(x, axis)
    reached = emit.reshape(emit.node("LessOrEqual", places, ends), size, size, *tail)
    rows = emit.node("Unsqueeze", x, emit.constant([axis]))
    emit.give(
        emit.reduce("ReduceProd", emit.node("Where", reached, rows, emit.number(1)), [axis + 1], keep=False)
    )


def reduced(operator: str) -> Callable[[Emitter], None]:
    """A reduction over everything to a scalar, which converters give a dimension of one."""

    def emit_reduced(emit: Emitter) -> None:
        x = emit.joint.takes[0]
        given, taken = emit.joint.given[0], emit.joint.taken[0]
        dtype = given.dtype if given is not None else "float32"
        if dtype == "bool":
            x = emit.cast(x, "int32")
        elif taken is not None and taken.dtype != dtype:
            x = emit.cast(x, dtype)
        emit.give(emit.cast(emit.node(operator, x, keepdims=0), dtype))

    return emit_reduced


def emit_dist(emit: Emitter) -> None:
    """The distance of two tensors, taken as vectors."""
    apart = emit.node("Sub", *emit.joint.takes)
    emit.give(emit.node("ReduceL2", apart, keepdims=0))


def emit_full_like(emit: Emitter) -> None:
    """A number in a shape of which one dimension is that of the input."""
    (x,) = emit.joint.takes
    attributes = emit.joint.attributes
    given = emit.joint.given[0]
    dtype = given.dtype if given is not None else "float32"
    sizes: list[int | str] = list(attributes["shape"])
    sizes[attributes["output_dim_idx"]] = emit.shape(x, attributes["input_dim_idx"])
    parts = [emit.constant([size]) if isinstance(size, int) else size for size in sizes]
    value = emit.constant(attributes["value"], dtype)
    emit.result("Expand", value, emit.node("Concat", *parts, axis=0))


def emit_frobenius_norm(emit: Emitter) -> None:
    """The root of the sum of squares, over all or over axes that are known."""
    attributes = emit.joint.attributes
    taken = emit.joint.taken[0]
    rank = len(taken.shape) if taken is not None else 0
    axes = list(range(rank)) if attributes["reduce_all"] else list(emit.joint.constants.get(1) or ())
    if not axes:
        raise ValueError("a norm over axes that are not known beforehand")
    emit.give(emit.reduce("ReduceL2", emit.joint.takes[0], axes, bool(attributes["keep_dim"])))
