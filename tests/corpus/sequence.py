"""Recurrent networks and transformers."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from case import Input, case, image
from paddle import nn

_TIME = Input("x", "float32", (None, None, 12), (2, 7, 12))


class _Recurrent(nn.Layer):
    def __init__(self, kind: type[nn.Layer], direction: str) -> None:
        super().__init__()
        self.rnn = kind(12, 16, num_layers=2, direction=direction)
        self.head = nn.Linear(32 if direction == "bidirect" else 16, 8)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y, _ = self.rnn(x)
        return self.head(y)


@case("lstm", "recurrent", _TIME)
def lstm() -> nn.Layer:
    return _Recurrent(nn.LSTM, "bidirect")


@case("gru", "recurrent", _TIME)
def gru() -> nn.Layer:
    return _Recurrent(nn.GRU, "forward")


@case("simple-rnn", "recurrent", _TIME)
def simple_rnn() -> nn.Layer:
    return _Recurrent(nn.SimpleRNN, "bidirect")


@case("lstm-states", "recurrent", _TIME, Input("h", "float32", (1, None, 16), (1, 2, 16)))
class LstmStates(nn.Layer):
    """One direction, the first state given, the last states returned."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(12, 16)

    def forward(self, x: paddle.Tensor, h: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        y, (last, cell) = self.rnn(x, (h, paddle.tanh(h)))
        return y, last, cell


@case("ctc-recogniser", "recurrent", Input("x", "float32", (None, 3, 32, None), (2, 3, 32, 80)))
class CtcRecogniser(nn.Layer):
    """A CRNN: convolutions, squeeze of the height, a bidirectional LSTM, softmax over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2D(3, 16, 3, (2, 1), 1), nn.BatchNorm2D(16), nn.Hardswish())
        self.pool = nn.MaxPool2D((16, 2), (16, 2))
        self.rnn = nn.LSTM(16, 16, direction="bidirect")
        self.head = nn.Linear(32, 20)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = paddle.transpose(paddle.squeeze(self.pool(self.convs(x)), 2), [0, 2, 1])
        y, _ = self.rnn(y)
        return F.softmax(self.head(y), axis=2)


@case(
    "bert",
    "transformer",
    Input("ids", "int64", (None, None), (2, 9), 0, 100),
    Input("types", "int64", (None, None), (2, 9), 0, 2),
    Input("mask", "int64", (None, None), (2, 9), 0, 2),
)
class Bert(nn.Layer):
    """Token, type and position embeddings, a padding mask, two encoder layers, tokens and a pooled vector."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.types = nn.Embedding(100, 32), nn.Embedding(2, 32)
        self.positions = nn.Embedding(64, 32)
        self.norm = nn.LayerNorm(32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.pooler = nn.Linear(32, 32)

    def forward(
        self, ids: paddle.Tensor, types: paddle.Tensor, mask: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        places = paddle.cumsum(paddle.ones_like(ids), axis=1) - 1
        x = self.norm(self.tokens(ids) + self.types(types) + self.positions(places))
        hidden = (1.0 - paddle.cast(mask, "float32")) * -1e4
        y = self.encoder(x, paddle.unsqueeze(hidden, [1, 2]))
        return y, paddle.tanh(self.pooler(y[:, 0]))


@case("vit", "transformer", image(32, 32))
class VisionTransformer(nn.Layer):
    """Patches, a class token, hand-written attention by matmul, reshape and transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2D(3, 32, 8, 8)
        self.token = self.create_parameter([1, 1, 32])
        self.place = self.create_parameter([1, 17, 32])
        self.norm = nn.LayerNorm(32)
        self.qkv, self.out, self.head = nn.Linear(32, 96), nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = paddle.transpose(paddle.flatten(self.patches(x), 2), [0, 2, 1])
        batch = paddle.shape(y)[0]
        y = paddle.concat([paddle.expand(self.token, [batch, -1, -1]), y], 1) + self.place
        qkv = paddle.reshape(self.qkv(self.norm(y)), [batch, -1, 3, 4, 8])
        query, key, value = paddle.unbind(paddle.transpose(qkv, [2, 0, 3, 1, 4]), 0)
        weights = F.softmax(paddle.matmul(query, key, transpose_y=True) * 8**-0.5, -1)
        mixed = paddle.reshape(paddle.transpose(paddle.matmul(weights, value), [0, 2, 1, 3]), [batch, -1, 32])
        return self.head((y + self.out(mixed))[:, 0])


@case("swin-window", "transformer", Input("x", "float32", (None, 16, 16, 24), (2, 16, 16, 24)))
class SwinWindow(nn.Layer):
    """Shifted windows: roll, partition, attention with a learnt bias, merge, roll back."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = self.create_parameter([1, 16, 16])
        self.qkv = nn.Linear(24, 72)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = paddle.roll(x, [-2, -2], [1, 2])
        y = paddle.transpose(paddle.reshape(y, [-1, 4, 4, 4, 4, 24]), [0, 1, 3, 2, 4, 5])
        query, key, value = paddle.split(self.qkv(paddle.reshape(y, [-1, 16, 24])), 3, axis=-1)
        weights = F.softmax(paddle.bmm(query, paddle.transpose(key, [0, 2, 1])) / 24**0.5 + self.bias)
        y = paddle.reshape(paddle.bmm(weights, value), [-1, 4, 4, 4, 4, 24])
        y = paddle.reshape(paddle.transpose(y, [0, 1, 3, 2, 4, 5]), [-1, 16, 16, 24])
        return x + paddle.roll(y, [2, 2], [1, 2])


@case("llama-block", "transformer", Input("ids", "int64", (None, None), (2, 8), 0, 50))
class LlamaBlock(nn.Layer):
    """A decoder's block: RMS norm, rotary positions, a causal mask, a gated feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 32)
        self.scale = self.create_parameter([32], default_initializer=nn.initializer.Constant(1.0))
        self.qkv = nn.Linear(32, 96, bias_attr=False)
        self.gate, self.up, self.down = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 32)

    def rms(self, x: paddle.Tensor) -> paddle.Tensor:
        return x * paddle.rsqrt(paddle.mean(paddle.square(x), -1, keepdim=True) + 1e-6) * self.scale

    def rotate(self, x: paddle.Tensor) -> paddle.Tensor:
        """Rotary embedding of (batch, time, 32), the halves turned by position."""
        places = paddle.cast(paddle.arange(paddle.shape(x)[1]), "float32")
        rates = 1.0 / (10000.0 ** (paddle.arange(16, dtype="float32") / 16.0))
        angles = paddle.unsqueeze(places, 1) * paddle.unsqueeze(rates, 0)
        left, right = paddle.chunk(x, 2, -1)
        sin, cos = paddle.sin(angles), paddle.cos(angles)
        return paddle.concat([left * cos - right * sin, right * cos + left * sin], -1)

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        x = self.tokens(ids)
        query, key, value = paddle.split(self.qkv(self.rms(x)), 3, -1)
        scores = paddle.matmul(self.rotate(query), self.rotate(key), transpose_y=True) / 32**0.5
        future = paddle.triu(paddle.full_like(scores, -1e4), 1)
        x = x + paddle.matmul(F.softmax(scores + future, -1), value)
        return x + self.down(F.silu(self.gate(self.rms(x))) * self.up(self.rms(x)))
