"""Control flow that depends on data.

The bounds are such that the three sets of inputs go through every branch.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from case import Input, case, image
from paddle import nn

_ROWS = Input("x", "float32", (None, 8), (3, 8))


@case("if-mean", "control flow", Input("x", "float32", (None, 8), (7, 8)))
class IfMean(nn.Layer):
    """Two branches with weights of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.yes, self.no = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = F.relu(self.stem(x))
        if x.mean() > 0:  # noqa: SIM108 - the statement is what is tried
            y = self.yes(y) + x
        else:
            y = paddle.tanh(self.no(y))
        return y * 2.0


@case("if-nested", "control flow", image(16, 16))
class IfNested(nn.Layer):
    """A branch inside a branch, two results, one of them a constant on one side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2D(3, 4, 3), nn.Conv2D(3, 4, 3)

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        flag = paddle.zeros([1])
        if x.max() > 2.7:
            y = self.conv(x)
            if y.mean() > 0.07:
                y = y * 0.5
                flag = flag + 2.0
        else:
            y = F.sigmoid(self.other(x))
            flag = flag + 1.0
        return y.mean([2, 3]), flag


@case("if-operators", "control flow", _ROWS)
class IfOperators(nn.Layer):
    """Branches with operators that few converters map, a loop inside one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(8, 8)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self.line(x)
        if y.max() > 1.15:
            y = F.celu(y) + paddle.amax(x, 1, keepdim=True)
        else:
            size = paddle.abs(y).sum()
            while size < 200.0:
                y = y * 1.5
                size = size + paddle.abs(y).sum()
            y = F.celu(paddle.tanh(y))
        return y + x


@case("while-grow", "control flow", _ROWS)
class WhileGrow(nn.Layer):
    """A loop whose number of turns depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(8, 8)

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        turns = paddle.zeros([1], "int64")
        total = paddle.abs(x).sum()
        while total < 300.0:
            x = x + paddle.tanh(self.line(x))
            total = total + paddle.abs(x).sum()
            turns = turns + 1
        return x / (1.0 + paddle.abs(x).max()), turns


@case("while-decode", "control flow", Input("start", "int64", (None, 1), (2, 1), 0, 20))
class WhileDecode(nn.Layer):
    """Greedy decoding: a loop that appends to a sequence, so that a carried shape grows."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.cell, self.head = nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 20)

    def forward(self, start: paddle.Tensor) -> paddle.Tensor:
        ids = start
        state = paddle.tanh(self.tokens(start)[:, 0])
        step = paddle.full([1], 0, "int64")
        while step < 6:
            state = paddle.tanh(self.cell(state) + self.tokens(ids[:, -1]))
            chosen = paddle.argmax(self.head(state), -1, keepdim=True)
            ids = paddle.concat([ids, chosen], 1)
            step = step + 1
        return ids


@case("while-nested", "control flow", _ROWS)
class WhileNested(nn.Layer):
    """Loops inside branches inside loops, with a layer in each, and a bound that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        step = paddle.zeros([1], "int64")
        limit = paddle.argmax(paddle.abs(x).sum([0, 2]) if x.ndim == 3 else paddle.abs(x).sum(0)) + 2
        while step < limit:
            y = self.line(x)
            if y.mean() > 0:
                x = x + paddle.tanh(y)
            else:
                size = paddle.abs(x).max()
                while size > 1.0:
                    x = x * 0.5
                    size = paddle.abs(x).max()
                x = x - self.other(x)
            step = step + 1
        return x, step


@case("generate", "control flow", Input("ids", "int64", (None, None), (2, 3), 0, 20))
class Generate(nn.Layer):
    """Greedy generation that attends to all that it wrote, until every row ended or a limit is reached."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(20, 16), nn.Linear(16, 20)
        self.qkv = nn.Linear(16, 48)

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        ended = paddle.zeros_like(ids[:, :1]).astype("bool")
        step = paddle.full([1], 0, "int64")
        going = paddle.full([1], True, "bool")
        while going:
            x = self.tokens(ids)
            query, key, value = paddle.split(self.qkv(x), 3, -1)
            weights = F.softmax(paddle.matmul(query[:, -1:], key, transpose_y=True) / 4.0, -1)
            scores = self.head(paddle.squeeze(paddle.matmul(weights, value), 1) + x[:, -1])
            chosen = paddle.argmax(scores, -1, keepdim=True)
            chosen = paddle.where(ended, paddle.zeros_like(chosen), chosen)
            ended = paddle.logical_or(ended, chosen == 3)
            ids = paddle.concat([ids, chosen], 1)
            step = step + 1
            going = paddle.logical_and(step < 8, paddle.logical_not(paddle.all(ended)))
        return ids
