"""Recurrent networks that converters do not map."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shipway.registry.convert.repairs.emit import Emitter

_KINDS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "RNN_TANH": ("RNN", (0,), {"activations": ["Tanh"]}),
    "RNN_RELU": ("RNN", (0,), {"activations": ["Relu"]}),
    "LSTM": ("LSTM", (0, 3, 1, 2), {}),
    "GRU": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
}
"""ONNX's operator, its gates by their places in Paddle's (LSTM: i, f, c, o to i, o, f, c; GRU: r, z, c to
z, r, h), and its attributes. The equations are those of paddle.nn.LSTMCell and GRUCell."""


def emit_rnn(emit: Emitter) -> None:
    """``rnn``: layers of ONNX's RNN, LSTM or GRU, over whole sequences or, with lengths, the first of each.

    Takes (time, batch, features), the first states (layers * directions, batch, hidden), and the weights:
    input and hidden matrices of every layer and direction, then their biases in the same order. Gives
    (time, batch, directions * hidden) and the last states.
    """
    attributes = emit.joint.attributes
    directions = 2 if attributes["is_bidirec"] else 1
    layers, hidden = int(attributes["num_layers"]), int(attributes["hidden_size"])
    operator, gates, more = _KINDS[attributes["mode"]]
    runs = layers * directions
    _, count, many, *_ = emit.joint.sizes
    x, *rest = emit.joint.takes
    states, weights = rest[:count], rest[count : count + many]
    lengths = rest[count + many] if len(rest) > count + many else ""
    if lengths:
        lengths = emit.cast(lengths, "int32")
    axes = emit.constant([0])

    def ordered(name: str, matrix: bool) -> str:
        if gates == (0,):
            return name
        parts = emit.node("Gather", emit.reshape(name, len(gates), hidden, -1), emit.constant(gates), axis=0)
        return emit.reshape(parts, len(gates) * hidden, -1) if matrix else emit.reshape(parts, -1)

    def stack(names: Iterable[str]) -> str:
        return emit.node("Concat", *(emit.node("Unsqueeze", name, axes) for name in names), axis=0)

    lasts: list[list[str]] = [[] for _ in states]
    for layer in range(layers):
        first = layer * directions
        each = range(first, first + directions)
        biases = []
        for run in each:
            pair = (ordered(weights[2 * runs + 2 * run + side], matrix=False) for side in (0, 1))
            biases.append(emit.node("Concat", *pair, axis=0))
        bounds = (emit.constant([first]), emit.constant([first + directions]), axes)
        attributes = {"direction": "bidirectional" if directions == 2 else "forward", "hidden_size": hidden}
        out, *after = emit.many(
            operator,
            [
                x,
                stack(ordered(weights[2 * run], matrix=True) for run in each),
                stack(ordered(weights[2 * run + 1], matrix=True) for run in each),
                stack(biases),
                lengths,
                *(emit.node("Slice", state, *bounds) for state in states),
            ],
            1 + len(states),
            **attributes,
            **{key: value * directions if key == "activations" else value for key, value in more.items()},
        )
        for last, state in zip(lasts, after, strict=True):
            last.append(state)
        out = emit.node("Transpose", out, perm=[0, 2, 1, 3])
        x = emit.reshape(out, emit.shape(out, 0), emit.shape(out, 1), directions * hidden)
    emit.give(x, "", *(emit.node("Concat", *last, axis=0) for last in lasts))
