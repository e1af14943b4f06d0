"""Suppression of overlapping boxes."""

from __future__ import annotations

import numpy as np

from shipway.registry.convert.repairs.emit import Emitter

_ALL = np.iinfo(np.int64).max


def emit_nms(emit: Emitter) -> None:
    """``paddle.vision.ops.nms``: boxes (n, 4), sorted already, to the numbers of those kept."""
    (boxes,) = emit.joint.takes
    count = emit.squeeze(emit.shape(boxes, 0))
    falling = emit.node("Range", count, emit.constant(0), emit.constant(-1))
    scores = emit.node("Reshape", emit.cast(falling, "float32"), emit.constant([1, 1, -1]))
    batched = emit.node("Unsqueeze", boxes, emit.constant([0]))
    threshold = emit.constant([emit.joint.attributes["threshold"]], np.float32)
    kept = emit.node("NonMaxSuppression", batched, scores, emit.constant([_ALL]), threshold)
    emit.give(emit.node("Gather", kept, emit.constant(2), axis=1))


def emit_multiclass_nms(emit: Emitter) -> None:
    """``multiclass_nms3`` over a batch: boxes (b, n, 4) and scores (b, c, n) to rows of
    class, score and box, image after image, the number kept in each image, and where each came from.

    In each class the best ``nms_top_k`` above the threshold suppress each other; in each image the best
    ``keep_top_k`` stay, ordered by class, then by score (phi's multiclass_nms3_kernel.cc).
    """
    boxes, scores = emit.joint.takes[:2]
    attributes = emit.joint.attributes
    batch, classes, count = (emit.shape(scores, axis) for axis in range(3))
    lowest = emit.constant(np.finfo(np.float32).min, np.float32)
    if attributes["nms_top_k"] > 0:
        most = emit.node("Min", emit.constant([attributes["nms_top_k"]]), count)
        best = emit.top(scores, most, axis=2)[0]
        bound = emit.reduce("ReduceMin", best, [2], keep=True)
        scores = emit.node("Where", emit.node("Less", scores, bound), lowest, scores)
    chosen = emit.node(
        "NonMaxSuppression",
        boxes,
        scores,
        emit.constant([_ALL]),
        emit.constant([attributes["nms_threshold"]], np.float32),
        emit.constant([attributes["score_threshold"]], np.float32),
    )
    # Only what was chosen has a score in a copy of the scores; the best of each image are taken from it.
    values = emit.node("GatherND", scores, chosen)
    nothing = emit.node("Expand", lowest, emit.node("Shape", scores))
    flat = emit.reshape(emit.node("ScatterND", nothing, chosen, values), batch, -1)
    total = emit.node("Mul", classes, count)
    keep = attributes["keep_top_k"]
    kept = emit.node("Min", emit.constant([keep if keep > 0 else _ALL]), total)
    values, places = emit.top(flat, kept, axis=1)
    ranks = emit.node("Range", emit.constant(0), emit.squeeze(kept), emit.constant(1))
    labels = emit.node("Div", places, count)
    order = emit.top(emit.node("Add", emit.node("Mul", labels, kept), ranks), kept, axis=1, largest=0)[1]
    values, places, labels = (
        emit.node("GatherElements", each, order, axis=1) for each in (values, places, labels)
    )
    valid = emit.node("Greater", values, lowest)
    where = emit.node("Mod", places, count)
    picked = emit.node("GatherND", boxes, emit.node("Unsqueeze", where, emit.constant([-1])), batch_dims=1)
    columns = [
        emit.node("Unsqueeze", each, emit.constant([-1])) for each in (emit.cast(labels, "float32"), values)
    ]
    rows = emit.reshape(emit.node("Concat", *columns, picked, axis=-1), -1, 6)
    stays = emit.node("Reshape", valid, emit.constant([-1]))
    first = emit.node(
        "Mul", emit.node("Range", emit.constant(0), emit.squeeze(batch), emit.constant(1)), count
    )
    source = emit.node("Add", where, emit.node("Reshape", first, emit.constant([-1, 1])))
    source = emit.node("Compress", emit.node("Reshape", source, emit.constant([-1, 1])), stays, axis=0)
    number = emit.reduce("ReduceSum", emit.cast(valid, "int32"), [1], keep=False)
    emit.give(emit.node("Compress", rows, stays, axis=0), emit.cast(source, "int32"), number)
