"""Heads of detectors: anchors, top-k, non-maximum suppression, regions."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from case import Gained, Input, case, image
from dense import block
from paddle import _C_ops, nn
from paddle.base.layer_helper import LayerHelper
from paddle.vision import ops

_BOXES = Input("boxes", "float32", (None, 4), (20, 4), 0.0, 60.0)


def _corners(boxes: paddle.Tensor) -> paddle.Tensor:
    """Boxes whose second corner lies beyond the first, from any four numbers."""
    first, second = boxes[..., :2], boxes[..., 2:]
    return paddle.concat([paddle.minimum(first, second), paddle.maximum(first, second) + 1.0], -1)


def _helper_op(kind: str, inputs: dict[str, object], outputs: dict[str, str], attrs: dict[str, object]):
    """Append an operator to a program of Paddle 2, as PaddleDetection does for those without a function."""
    helper = LayerHelper(kind)
    made = {name: helper.create_variable_for_type_inference(dtype) for name, dtype in outputs.items()}
    helper.append_op(type=kind, inputs=inputs, attrs=attrs, outputs=made)
    return tuple(made.values())


def multiclass_nms(boxes: paddle.Tensor, scores: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Boxes (batch, n, 4) and scores (batch, classes, n) to (kept, 6) and the number kept in each image."""
    attrs = {
        "score_threshold": 0.05,
        "nms_top_k": 100,
        "keep_top_k": 20,
        "nms_threshold": 0.5,
        "normalized": True,
        "nms_eta": 1.0,
        "background_label": -1,
    }
    if paddle.__version__.startswith("2.") and not paddle.in_dynamic_mode():
        kept, _, number = _helper_op(
            "multiclass_nms3",
            {"BBoxes": boxes, "Scores": scores},
            {"Out": boxes.dtype, "Index": "int32", "NmsRoisNum": "int32"},
            attrs,
        )
    else:
        kept, _, number = _C_ops.multiclass_nms3(boxes, scores, None, *attrs.values())
    return kept, number


@case("head-top-k", "detection", image(64))
class HeadTopK(nn.Layer):
    """An anchor-free head without suppression: the best places of a heat map and their boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8, 4)
        self.heat, self.size = nn.Conv2D(8, 4, 3, padding=1), nn.Conv2D(8, 2, 1)

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        y = self.stem(x)
        heat = F.sigmoid(self.heat(y))
        heat = heat * paddle.cast(heat == F.max_pool2d(heat, 3, 1, 1), "float32")
        scores, places = paddle.topk(paddle.flatten(heat, 1), 10)
        classes, cells = places // 256, places % 256
        sizes = paddle.transpose(paddle.flatten(self.size(y), 2), [0, 2, 1])
        chosen = paddle.take_along_axis(sizes, paddle.expand(paddle.unsqueeze(cells, -1), [-1, 10, 2]), 1)
        return scores, classes, chosen


@case("head-nms", "detection", Input("x", "float32", (1, 3, 64, 64), (1, 3, 64, 64), image=True))
class HeadNms(nn.Layer):
    """A PP-YOLOE-like head: boxes from distances, class scores, multiclass NMS inside the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8, 8)
        self.score, self.reach = nn.Conv2D(8, 3, 1), nn.Conv2D(8, 4, 1)

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        y = self.stem(x)
        rows, columns = paddle.meshgrid(paddle.arange(8), paddle.arange(8))
        centres = paddle.cast(paddle.stack([columns, rows], -1), "float32") * 8.0 + 4.0
        centres = paddle.reshape(centres, [1, 64, 2])
        reach = F.softplus(paddle.transpose(paddle.flatten(self.reach(y), 2), [0, 2, 1])) * 8.0
        boxes = paddle.concat([centres - reach[:, :, :2], centres + reach[:, :, 2:]], -1)
        return multiclass_nms(boxes / 64.0, F.sigmoid(paddle.flatten(self.score(y), 2)))


@case(
    "yolo-box",
    "detection",
    Input("x", "float32", (1, 3, 64, 64), (1, 3, 64, 64), image=True),
    Input("size", "int32", (1, 2), (1, 2), 60, 80),
)
class YoloBox(nn.Layer):
    """PP-YOLO's decoding operator and NMS."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8, 8)
        self.head = nn.Conv2D(8, 2 * (5 + 3), 1)

    def forward(self, x: paddle.Tensor, size: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        boxes, scores = ops.yolo_box(self.head(self.stem(x)), size, [10, 13, 16, 30], 3, 0.01, 8)
        return multiclass_nms(boxes, paddle.transpose(scores, [0, 2, 1]))


@case("yolo-decode", "detection", image(64), Input("size", "int32", (None, 2), (2, 2), 60, 80))
class YoloDecode(nn.Layer):
    """PP-YOLO's decoding operator alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8, 8)
        self.head = nn.Conv2D(8, 2 * (5 + 3), 1)

    def forward(self, x: paddle.Tensor, size: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        return ops.yolo_box(self.head(self.stem(x)), size, [10, 13, 16, 30], 3, 0.01, 8)


@case(
    "nms-batched",
    "detection",
    Input("boxes", "float32", (None, 20, 4), (2, 20, 4), 0.0, 60.0),
    Input("scores", "float32", (None, 3, 20), (2, 3, 20), 0.0, 1.0),
)
class NmsBatched(Gained):
    """Multiclass NMS over a batch whose size is dynamic."""

    def forward(self, boxes: paddle.Tensor, scores: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        return multiclass_nms(_corners(boxes * self.gain), scores)


@case("nms", "detection", _BOXES, Input("scores", "float32", (None,), (20,)))
class Nms(Gained):
    """``paddle.vision.ops.nms`` and a gather of what is kept."""

    def forward(self, boxes: paddle.Tensor, scores: paddle.Tensor) -> paddle.Tensor:
        boxes = boxes * self.gain
        boxes = _corners(boxes)
        order = paddle.argsort(scores, descending=True)
        kept = ops.nms(paddle.gather(boxes, order), 0.3)
        return paddle.gather(boxes, paddle.gather(order, kept))


@case("roi-align", "detection", image(64), _BOXES, Input("count", "int32", (None,), (2,), 10, 11))
class RoiAlign(nn.Layer):
    """Features of regions, as two-stage detectors take them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 4, 2)

    def forward(self, x: paddle.Tensor, boxes: paddle.Tensor, count: paddle.Tensor) -> paddle.Tensor:
        return ops.roi_align(self.stem(x), _corners(boxes), count, 5, 0.5, 2)
