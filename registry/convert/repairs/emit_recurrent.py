"""Recurrent networks that converters do not map."""

from __future__ import annotations

from shipway.registry.convert.repairs.emit import Emitter

_ACTIVATIONS = {"RNN_TANH": "Tanh", "RNN_RELU": "Relu"}


def emit_simple_rnn(emit: Emitter) -> None:
    """``rnn`` in the modes RNN_TANH and RNN_RELU: layers of ONNX's RNN.

    Takes (time, batch, features), the first states (layers * directions, batch, hidden), and the weights:
    input and hidden matrices of every layer and direction, then their biases in the same order.
    """
    attributes = emit.joint.attributes
    directions = 2 if attributes["is_bidirec"] else 1
    layers, hidden = int(attributes["num_layers"]), int(attributes["hidden_size"])
    runs = layers * directions
    count = emit.joint.sizes[1]
    x, states = emit.joint.takes[0], emit.joint.takes[1]
    weights = emit.joint.takes[1 + count : 1 + count + 4 * runs]
    axes = emit.constant([0])

    def stack(names: list[str]) -> str:
        return emit.node("Concat", *(emit.node("Unsqueeze", name, axes) for name in names), axis=0)

    for layer in range(layers):
        first = layer * directions
        each = range(first, first + directions)
        biases = [
            emit.node("Concat", weights[2 * runs + 2 * run], weights[2 * runs + 2 * run + 1], axis=0)
            for run in each
        ]
        begin = emit.node("Slice", states, emit.constant([first]), emit.constant([first + directions]), axes)
        out = emit.node(
            "RNN",
            x,
            stack([weights[2 * run] for run in each]),
            stack([weights[2 * run + 1] for run in each]),
            stack(biases),
            "",
            begin,
            activations=[_ACTIVATIONS[attributes["mode"]]] * directions,
            direction="bidirectional" if directions == 2 else "forward",
            hidden_size=hidden,
        )
        out = emit.node("Transpose", out, perm=[0, 2, 1, 3])
        x = emit.reshape(out, emit.shape(out, 0), emit.shape(out, 1), directions * hidden)
    emit.give(x)
