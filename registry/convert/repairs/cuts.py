"""Which operators are cut out and rebuilt in ONNX, and why: the table behind ``cut.py`` and ``stitch.py``.

Each line was measured with paddlepaddle 3.2.2 and paddle2onnx 2.0.1 on the corpus (tests/corpus).
"""

from __future__ import annotations

from shipway.registry.convert.repairs import (
    emit_control,
    emit_detection,
    emit_math,
    emit_recurrent,
    emit_vision,
    pir,
)
from shipway.registry.convert.repairs.cut_line import UNMAPPED, Cut, Types
from shipway.registry.convert.repairs.cuts_more import MORE
from shipway.registry.convert.repairs.pir import Op
from shipway.registry.convert.repairs.stitch import Emit


def _holds_a_cut(op: Op, types: Types) -> bool:
    """Whether something inside is to be cut out; if not, converters map a branch well."""
    return any(
        find(inner, types) is not None for block in pir.blocks_of(op) for inner in pir.walk(block["ops"])
    )


def _does_not_divide(op: Op, types: Types) -> bool:
    """Adaptive average pooling to several places, from a size that is dynamic or that they do not divide."""
    attributes = pir.attributes(op)
    if not attributes.get("adaptive") or attributes["pooling_type"] != "avg":
        return False
    taken, given = types[pir.inputs(op)[0]], types[pir.outputs(op)[0]]
    if taken is None or given is None or attributes["data_format"] != "NCHW":
        return False
    pairs = list(zip(taken.shape[2:], given.shape[2:], strict=True))
    if any(want <= 0 for _, want in pairs) or all(want == 1 for _, want in pairs):
        return False
    return any(have <= 0 or have % want for have, want in pairs)


def _not_plain_softplus(op: Op, _types: Types) -> bool:
    attributes = pir.attributes(op)
    return (attributes["beta"], attributes["threshold"]) != (1.0, 20.0)


def _two_dimensional(op: Op, types: Types) -> bool:
    given = types[pir.outputs(op)[0]]
    return given is not None and len(given.shape) in (4, 5)


def _static_channels(op: Op, types: Types) -> bool:
    taken = types[pir.inputs(op)[0]]
    return taken is not None and len(taken.shape) == 4 and taken.shape[1] > 0


def _batched_nms(op: Op, types: Types) -> bool:
    """Suppression over a batch that is not known to be one image, of boxes that all classes share."""
    boxes, scores, counts = pir.inputs(op)
    attributes = pir.attributes(op)
    taken = types.get(boxes)
    background = attributes["background_label"]
    plain = attributes["normalized"] and attributes["nms_eta"] == 1.0 and background < 0
    batched = taken is not None and len(taken.shape) == 3 and taken.shape[0] != 1
    return bool(scores) and not counts and plain and batched


def _simple_or_with_lengths(op: Op, _types: Types) -> bool:
    return pir.attributes(op)["mode"] in ("RNN_TANH", "RNN_RELU") or bool(pir.inputs(op)[3])


def _counted_boxes(op: Op, _types: Types) -> bool:
    return len(pir.inputs(op)) == 3 and all(pir.inputs(op))


CUTS = (
    Cut(
        "1.if",
        "if",
        emit_control.emit_if,
        "a branch holds an operator that is cut out, so the branches are converted one by one",
        _holds_a_cut,
    ),
    Cut(
        "1.while",
        "while",
        emit_control.emit_while,
        "paddle2onnx 2.0.1 writes a Loop that does not load where a scalar is carried round",
    ),
    Cut(
        "1.deformable_conv",
        "deformable-conv",
        emit_vision.emit_deformable_conv,
        "paddle2onnx 2.0.1 crashes without a mask, and needs opset 19 with one",
        _static_channels,
    ),
    Cut("1.affine_grid", "affine-grid", emit_vision.emit_affine_grid, UNMAPPED, _two_dimensional),
    Cut("1.pixel_unshuffle", "pixel-unshuffle", emit_vision.emit_pixel_unshuffle, UNMAPPED, _static_channels),
    Cut("1.nms", "nms", emit_detection.emit_nms, UNMAPPED),
    Cut(
        "1.multiclass_nms3",
        "multiclass-nms",
        emit_detection.emit_multiclass_nms,
        "paddle2onnx 2.0.1 and 1.2.4 map it for one image only: a batch does not run",
        _batched_nms,
    ),
    Cut(
        "1.pool2d",
        "adaptive-average",
        emit_vision.emit_adaptive_average,
        "paddle2onnx takes equal strides and windows: wrong numbers where the sizes do not divide",
        _does_not_divide,
    ),
    Cut(
        "1.roi_align",
        "roi-align",
        emit_vision.emit_roi_align,
        "paddle2onnx 2.0.1 and 1.2.4 take all boxes for those of the first image: wrong numbers",
        _counted_boxes,
    ),
    Cut(
        "1.rnn",
        "rnn",
        emit_recurrent.emit_rnn,
        "paddle2onnx 2.0.1 maps LSTM and GRU only, and leaves a hole for others (does not load); it takes no "
        "account of the sequences' lengths (wrong numbers)",
        _simple_or_with_lengths,
    ),
    Cut(
        "1.pad3d",
        "circular-pad",
        emit_vision.emit_circular_pad,
        "paddle2onnx 2.0.1 needs opset 19 for it, 1.2.4 does not map it",
        lambda op, types: (
            pir.attributes(op)["mode"] == "circular" and pir.attributes(op)["data_format"] == "NCDHW"
        ),
    ),
    Cut(
        "1.gelu",
        "gelu-tanh",
        emit_math.emit_gelu,
        "paddle2onnx writes the exact GELU where the tanh form was asked for (4e-4 off)",
        lambda op, types: bool(pir.attributes(op)["approximate"]),
    ),
    Cut(
        "1.expand",
        "expand-to-list",
        emit_math.emit_expand,
        "paddle2onnx 2.0.1 crashes on a list of sizes, as models of Paddle 2 have",
        lambda op, types: len(pir.inputs(op)) == 2 and types.get(pir.inputs(op)[1]) is None,
    ),
    Cut("1.celu", "celu", emit_math.emit_celu, UNMAPPED),
    Cut("1.expm1", "expm1", emit_math.emit_expm1, UNMAPPED),
    Cut("1.lerp", "lerp", emit_math.emit_lerp, UNMAPPED),
    Cut("1.amax", "amax", emit_math.emit_amax, UNMAPPED),
    Cut("1.amin", "amin", emit_math.emit_amin, UNMAPPED),
    Cut(
        "1.softplus",
        "softplus",
        emit_math.emit_softplus,
        "paddle2onnx 2.0.1 maps it with beta 1 and threshold 20 only",
        _not_plain_softplus,
    ),
    *MORE,
)

_BY_KIND = {line.kind: line for line in CUTS}
EMITS: dict[str, Emit] = {kind: line.emit for kind, line in _BY_KIND.items()}


def find(op: Op, types: Types) -> Cut | None:
    """The line of the table that asks for this operator to be cut out, if any."""
    line = _BY_KIND.get(pir.kind(op))
    return line if line is not None and line.when(op, types) else None
