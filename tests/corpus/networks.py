"""Networks as users have them, small: heads, decoders, attention, what training leaves in the graph."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from case import Input, case, image
from dense import block
from detection import multiclass_nms
from paddle import nn
from paddle.quantization import QAT, QuantConfig
from paddle.quantization.quanters import FakeQuanterWithAbsMaxObserver


@case(
    "ppyoloe-head",
    "detection",
    Input("image", "float32", (None, 3, 64, 64), (2, 3, 64, 64), image=True),
    Input("scale_factor", "float32", (None, 2), (2, 2), 0.5, 2.0),
)
class PpYoloeHead(nn.Layer):
    """PP-YOLOE: two levels, distances as distributions over bins, boxes of the original, NMS of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = block(3, 16, 8, nn.Swish), block(16, 16, 2, nn.Swish)
        self.scores = nn.LayerList([nn.Conv2D(16, 4, 3, padding=1) for _ in range(2)])
        self.reaches = nn.LayerList([nn.Conv2D(16, 4 * 9, 3, padding=1) for _ in range(2)])
        self.bins = nn.Conv2D(9, 1, 1, bias_attr=False)

    def forward(
        self, image: paddle.Tensor, scale_factor: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        first = self.stem(image)
        levels = [first, self.down(first)]
        boxes, scores = [], []
        for level, y in enumerate(levels):
            score, reach, stride = self.scores[level], self.reaches[level], 8 << level
            size = 64 // stride
            places = paddle.arange(size, dtype="float32") + 0.5
            rows, columns = paddle.meshgrid(places, places)
            centres = paddle.reshape(paddle.stack([columns, rows], -1), [1, -1, 2])
            spread = paddle.transpose(paddle.reshape(reach(y), [-1, 4, 9, size * size]), [0, 2, 3, 1])
            reached = paddle.squeeze(self.bins(F.softmax(spread, 1)), 1)
            near, far = paddle.split(F.relu(reached), 2, -1)
            boxes.append(paddle.concat([centres - near, centres + far], -1) * stride)
            scores.append(F.sigmoid(paddle.reshape(score(y), [-1, 4, size * size])))
        height, width = paddle.split(scale_factor, 2, -1)
        scale = paddle.concat([width, height, width, height], -1)
        found = paddle.concat(boxes, 1) / paddle.reshape(scale, [-1, 1, 4])
        return multiclass_nms(found, paddle.concat(scores, -1))


@case("db-head", "dense", image(None))
class DbHead(nn.Layer):
    """DB text detection: three sizes brought together, transposed convolutions, a soft step."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.second, self.third = block(3, 8, 2), block(8, 12, 2), block(12, 16, 2)
        self.lines = nn.LayerList([nn.Conv2D(n, 8, 1, bias_attr=False) for n in (8, 12, 16)])
        self.shrink, self.edge = self.head(), self.head()

    def head(self) -> nn.Sequential:
        up = nn.Conv2DTranspose(8, 8, 2, 2)
        return nn.Sequential(block(24, 8), up, nn.BatchNorm2D(8), nn.ReLU(), nn.Conv2D(8, 1, 1), nn.Sigmoid())

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        first = self.stem(x)
        second = self.second(first)
        third = self.third(second)
        a, b, c = self.lines[0](first), self.lines[1](second), self.lines[2](third)
        b = b + F.upsample(c, scale_factor=2, mode="nearest", align_mode=1)
        a = a + F.upsample(b, scale_factor=2, mode="nearest", align_mode=1)
        big = [
            a,
            F.upsample(b, scale_factor=2, mode="nearest"),
            F.upsample(c, scale_factor=4, mode="nearest"),
        ]
        fused = paddle.concat(big, 1)
        shrink, edge = self.shrink(fused), self.edge(fused)
        return paddle.concat([shrink, paddle.reciprocal(1 + paddle.exp(-5.0 * (shrink - edge)))], 1)


@case("svtr", "transformer", Input("x", "float32", (None, 3, 32, 64), (2, 3, 32, 64), image=True))
class Svtr(nn.Layer):
    """SVTR: patches, attention to neighbours by a mask, attention to all, a mean over the height."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Sequential(block(3, 12, 2, nn.GELU), block(12, 24, 2, nn.GELU))
        self.place = self.create_parameter([1, 128, 24])
        self.norms = nn.LayerList([nn.LayerNorm(24, epsilon=1e-6) for _ in range(4)])
        self.qkv = nn.LayerList([nn.Linear(24, 72) for _ in range(2)])
        self.mix = nn.LayerList(
            [nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24)) for _ in range(2)]
        )
        self.head = nn.Linear(24, 20)
        rows, columns = paddle.meshgrid(paddle.arange(8), paddle.arange(16))
        rows, columns = paddle.flatten(rows), paddle.flatten(columns)
        far = ((rows.unsqueeze(1) - rows).abs() > 3) | ((columns.unsqueeze(1) - columns).abs() > 5)
        self.register_buffer("mask", far.astype("float32").unsqueeze([0, 1]) * -1e4)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = paddle.transpose(paddle.flatten(self.patches(x), 2), [0, 2, 1]) + self.place
        for number in range(2):
            qkv = paddle.reshape(self.qkv[number](self.norms[2 * number](y)), [0, -1, 3, 4, 6])
            qkv = paddle.transpose(qkv, [2, 0, 3, 1, 4])
            scores = paddle.matmul(qkv[0] * 6**-0.5, paddle.transpose(qkv[1], [0, 1, 3, 2]))
            weights = F.softmax(scores + self.mask if number == 0 else scores, -1)
            y = y + paddle.reshape(
                paddle.transpose(paddle.matmul(weights, qkv[2]), [0, 2, 1, 3]), [0, -1, 24]
            )
            y = y + self.mix[number](self.norms[2 * number + 1](y))
        y = paddle.reshape(paddle.transpose(y, [0, 2, 1]), [0, 24, 8, 16])
        line = paddle.transpose(paddle.squeeze(F.adaptive_avg_pool2d(y, [1, 16]), 2), [0, 2, 1])
        return F.softmax(self.head(line), -1)


@case("conformer", "transformer", Input("x", "float32", (None, None, 24), (2, 11, 24)))
class Conformer(nn.Layer):
    """A conformer's block: half steps of feed-forward, relative attention by a shift, a gated convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.LayerList([nn.LayerNorm(24) for _ in range(5)])
        self.feed = nn.LayerList(
            [nn.Sequential(nn.Linear(24, 48), nn.Swish(), nn.Linear(48, 24)) for _ in range(2)]
        )
        self.qkv, self.places = nn.Linear(24, 72), nn.Linear(24, 24, bias_attr=False)
        self.u, self.v = self.create_parameter([24]), self.create_parameter([24])
        self.wide, self.narrow = nn.Conv1D(24, 48, 1), nn.Conv1D(24, 24, 1)
        self.deep, self.norm = nn.Conv1D(24, 24, 5, padding=2, groups=24), nn.BatchNorm1D(24)

    def attend(self, x: paddle.Tensor) -> paddle.Tensor:
        query, key, value = paddle.split(self.qkv(x), 3, -1)
        length = paddle.shape(x)[1]
        ahead = paddle.arange(length - 1, -length, -1, dtype="int64")
        angles = paddle.unsqueeze(ahead.astype("float32"), 1) / 10 ** paddle.linspace(0, 2, 12)
        places = self.places(paddle.concat([paddle.sin(angles), paddle.cos(angles)], -1))
        by_place = paddle.matmul(query + self.v, places, transpose_y=True)
        shape = paddle.shape(by_place)
        padded = F.pad(by_place.unsqueeze(1), [1, 0, 0, 0]).squeeze(1)
        shifted = paddle.reshape(padded, paddle.stack([shape[0], shape[2] + 1, shape[1]]))[:, 1:]
        shifted = paddle.reshape(shifted, shape)[:, :, :length]
        scores = paddle.matmul(query + self.u, key, transpose_y=True) + shifted
        return paddle.matmul(F.softmax(scores / 24**0.5, -1), value)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = x + 0.5 * self.feed[0](self.norms[0](x))
        x = x + self.attend(self.norms[1](x))
        y = F.glu(self.wide(paddle.transpose(self.norms[2](x), [0, 2, 1])), axis=1)
        y = self.narrow(F.silu(self.norm(self.deep(y))))
        x = x + paddle.transpose(y, [0, 2, 1])
        return self.norms[4](x + 0.5 * self.feed[1](self.norms[3](x)))


@case(
    "transformer-decoder",
    "transformer",
    Input("ids", "int64", (None, None), (2, 6), 0, 40),
    Input("memory", "float32", (None, None, 32), (2, 9, 32)),
)
class Decoder(nn.Layer):
    """Paddle's own decoder layers with a causal mask, attending to what an encoder gave."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(40, 32, padding_idx=0)
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(32, 4, 64, normalize_before=True), 2, nn.LayerNorm(32)
        )
        self.head = nn.Linear(32, 40)

    def forward(self, ids: paddle.Tensor, memory: paddle.Tensor) -> paddle.Tensor:
        length = paddle.shape(ids)[1]
        future = paddle.triu(paddle.full([length, length], -1e4), 1)
        return self.head(self.decoder(self.tokens(ids) * 32**0.5, memory, future))


@case("sdpa", "transformer", Input("x", "float32", (None, None, 32), (2, 9, 32)))
class FusedAttention(nn.Layer):
    """``scaled_dot_product_attention``, causal and not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 96), nn.Linear(32, 96)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        for line, causal in ((self.first, True), (self.second, False)):
            query, key, value = (paddle.reshape(part, [0, 0, 4, 8]) for part in paddle.split(line(x), 3, -1))
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
            x = x + paddle.reshape(mixed, [0, 0, 32])
        return x


@case("swin-masked", "transformer", Input("x", "float32", (None, 8, 8, 16), (2, 8, 8, 16)))
class SwinMasked(nn.Layer):
    """Swin's mask for shifted windows, made in the graph by assigning to slices."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def windows(self, x: paddle.Tensor, channels: int) -> paddle.Tensor:
        y = paddle.transpose(paddle.reshape(x, [-1, 2, 4, 2, 4, channels]), [0, 1, 3, 2, 4, 5])
        return paddle.reshape(y, [-1, 16, channels])

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        regions = paddle.zeros([1, 8, 8, 1])
        number = 0
        for rows in (slice(0, -4), slice(-4, -2), slice(-2, None)):
            for columns in (slice(0, -4), slice(-4, -2), slice(-2, None)):
                regions[:, rows, columns, :] = number
                number += 1
        names = paddle.squeeze(self.windows(regions, 1), -1)
        apart = paddle.unsqueeze(names, 1) - paddle.unsqueeze(names, 2)
        mask = paddle.where(apart != 0, paddle.full_like(apart, -100.0), paddle.zeros_like(apart))
        y = self.windows(paddle.roll(x, [-2, -2], [1, 2]), 16)
        query, key, value = paddle.split(self.qkv(y), 3, -1)
        scores = paddle.matmul(query, key, transpose_y=True) / 4.0
        scores = paddle.reshape(scores, [-1, 4, 16, 16]) + paddle.unsqueeze(mask, 0)
        return paddle.matmul(F.softmax(paddle.reshape(scores, [-1, 16, 16]), -1), value)


@case(
    "deformable-attention",
    "transformer",
    Input("x", "float32", (None, 10, 16), (2, 10, 16)),
    image(16, 16, channels=16, name="y"),
)
class DeformableAttention(nn.Layer):
    """RT-DETR's attention: each query samples two levels at its own places; the best queries are picked."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2D(16, 16, 3, 2, 1)
        self.places, self.weights, self.value = nn.Linear(16, 32), nn.Linear(16, 16), nn.Conv2D(16, 16, 1)
        self.score = nn.Linear(16, 3)

    def forward(self, x: paddle.Tensor, y: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        places = paddle.reshape(F.tanh(self.places(x)), [-1, 10, 2, 2, 4, 2])
        weights = paddle.reshape(
            F.softmax(paddle.reshape(self.weights(x), [-1, 10, 2, 8]), -1), [-1, 10, 2, 2, 4]
        )
        sampled = []
        for level, features in enumerate((y, self.down(y))):
            size = 16 >> level
            value = paddle.reshape(self.value(features), [-1, 8, size, size])
            grid = paddle.flatten(paddle.transpose(places[:, :, :, level], [0, 2, 1, 3, 4]), 0, 1)
            sampled.append(F.grid_sample(value, grid, align_corners=False))
        mixed = paddle.flatten(paddle.transpose(weights, [0, 2, 1, 3, 4]), 0, 1)
        mixed = paddle.reshape(mixed, [-1, 1, 10, 8])
        out = (paddle.concat(sampled, -1) * mixed).sum(-1)
        out = x + paddle.transpose(paddle.reshape(out, [-1, 16, 10]), [0, 2, 1])
        scores = self.score(out)
        _, best = paddle.topk(scores.max(-1), 4, axis=1)
        return paddle.take_along_axis(out, paddle.expand(best.unsqueeze(-1), [-1, 4, 16]), 1), scores


@case("psp", "dense", image(None))
class PyramidPooling(nn.Layer):
    """PSPNet: pools to 1, 2, 3 and 6 places whatever the size of the picture, brought back to it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(block(3, 12, 2), block(12, 12))
        self.stages = nn.LayerList([block(12, 4) for _ in range(4)])
        self.head = nn.Conv2D(28, 3, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self.stem(x)
        size = paddle.shape(y)[2:]
        parts = [y]
        for number, places in enumerate((1, 2, 3, 6)):
            pooled = self.stages[number](F.adaptive_avg_pool2d(y, places))
            parts.append(F.interpolate(pooled, size, mode="bilinear", align_corners=False))
        return F.interpolate(self.head(paddle.concat(parts, 1)), paddle.shape(x)[2:], mode="bilinear")


@case("attention-decoder", "recurrent", Input("x", "float32", (None, 12, 16), (2, 12, 16)))
class AttentionDecoder(nn.Layer):
    """A recogniser's decoder: GRU cells unrolled, attending to the features, fed with what they chose."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(16 + 10, 16)
        self.key, self.query, self.score = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        state = paddle.mean(x, 1)
        chosen = paddle.zeros_like(state[:, 0]).astype("int64")
        found = []
        for _ in range(5):
            weights = F.softmax(self.score(F.tanh(self.key(x) + self.query(state).unsqueeze(1))), 1)
            seen = paddle.squeeze(paddle.matmul(weights, x, transpose_x=True), 1)
            _, state = self.cell(paddle.concat([seen, F.one_hot(chosen, 10)], 1), state)
            scores = self.head(state)
            chosen = paddle.argmax(scores, 1)
            found.append(scores)
        return F.softmax(paddle.stack(found, 1), -1)


@case(
    "gru-lengths",
    "recurrent",
    Input("x", "float32", (None, None, 12), (3, 7, 12)),
    Input("lengths", "int64", (None,), (3,), 3, 8),
)
class GruLengths(nn.Layer):
    """A bidirectional GRU and an LSTM over sequences of their own lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm = nn.GRU(12, 8, direction="bidirect"), nn.LSTM(16, 8)

    def forward(self, x: paddle.Tensor, lengths: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        y, _ = self.gru(x, sequence_length=lengths)
        z, (last, _) = self.lstm(y, sequence_length=lengths)
        return z, last


@case("weight-norm", "dense", Input("x", "float32", (None, 6, None), (2, 6, 20)), calibrate=False)
class WeightNorm(nn.Layer):
    """A vocoder's layers: weight and spectral norm in the graph, dilated and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.weight_norm(nn.Conv1D(6, 12, 3, padding=2, dilation=2))
        self.up = nn.utils.weight_norm(nn.Conv1DTranspose(12, 6, 4, 2, 1))
        self.last = nn.utils.spectral_norm(nn.Conv1D(6, 4, 3, padding=1))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = F.leaky_relu(self.first(x), 0.1)
        return F.tanh(self.last(F.leaky_relu(self.up(y), 0.1)))


@case("segnet", "dense", image(32, 32))
class SegNet(nn.Layer):
    """Max pooling whose indices put the values back on the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.head = block(3, 8), block(8, 8), nn.Conv2D(8, 3, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y, places = F.max_pool2d(self.down(x), 2, 2, return_mask=True)
        return self.head(F.max_unpool2d(self.up(y), places, 2, 2))


@case("channels-last", "dense", Input("x", "float32", (None, 16, 16, 3), (2, 16, 16, 3)), calibrate=False)
class ChannelsLast(nn.Layer):
    """A network in NHWC: convolution, batch norm, pooling, interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2D(3, 8, 3, padding=1, data_format="NHWC")
        self.norm = nn.BatchNorm2D(8, data_format="NHWC")
        self.head = nn.Conv2D(8, 4, 1, data_format="NHWC")

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2, data_format="NHWC")
        return F.interpolate(self.head(y), scale_factor=2, mode="bilinear", data_format="NHWC")


@case("quantised", "quantised", image(32, 32), calibrate=False)
def quantised() -> nn.Layer:
    """A network trained for int8, saved with its quantisation in the graph."""
    layer = nn.Sequential(
        nn.Conv2D(3, 8, 3, 2),
        nn.ReLU(),
        nn.Conv2D(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 13 * 13, 6),
    )
    observer = FakeQuanterWithAbsMaxObserver(moving_rate=0.9)
    trained = QAT(QuantConfig(activation=observer, weight=observer))
    layer = trained.quantize(layer)
    layer.train()
    for seed in range(4):
        layer(paddle.to_tensor(image(32, 32).draw(100 + seed)))
    layer.eval()
    return trained.convert(layer)
