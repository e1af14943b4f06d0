"""Elements picked, masked, counted and put, in the ways that users write."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from case import Gained, Input, case, image
from paddle import nn

_ROWS = Input("x", "float32", (None, 6, 8), (3, 6, 8))
_FIXED = Input("x", "float32", (3, 6, 8), (3, 6, 8))
_WHOLE = Input("ids", "int64", (None, 6), (3, 6), -9, 10)


@case("masks", "indexing", _ROWS)
class Masks(Gained):
    """Where a mask holds: filled, assigned, summed, counted."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        mask = x > 0.3
        changed = x + 0.0
        changed[mask] = -0.5
        return (
            changed,
            paddle.where(mask, x, paddle.zeros_like(x)).sum(2),
            mask.astype("int64").sum([1, 2]),
            paddle.logical_xor(mask, x < 0.6),
            x[mask],
        )


@case("index-lists", "indexing", _FIXED)
class IndexLists(Gained):
    """Lists of indices: one axis, two at once, put, and added."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        rows, columns = paddle.to_tensor([0, 2, 1]), paddle.to_tensor([5, 3, 0])
        changed = x + 0.0
        changed[rows] = 2.0
        return (
            x[:, columns],
            x[rows, columns],
            changed,
            paddle.index_add(x, columns, 1, x[:, :3]),
            paddle.index_sample(x[:, 0], paddle.argsort(x[:, 0], -1)),
            paddle.scatter_nd(paddle.to_tensor([[1], [2], [1]]), x, [4, 6, 8]),
        )


@case("slice-steps", "indexing", _ROWS)
class SliceSteps(Gained):
    """Steps, backwards too, and assignment to slices with steps."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        filled, given = x + 0.0, x + 0.0
        filled[:, ::2] = 1.5
        given[:, 1:5:2, -3:] = x[:, :2, :3]
        return (
            x[:, ::-1] + x[:, :, ::-1],
            filled,
            given,
            paddle.strided_slice(x, [1, 2], [5, 1], [0, 7], [-2, 3]),
        )


@case("search", "indexing", _ROWS)
class Search(Gained):
    """Buckets, the k-th smallest, lengths to masks, frequencies of values."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        edges = paddle.to_tensor([-1.0, 0.0, 1.0])
        value, place = paddle.kthvalue(x, 2, 1)
        lengths = paddle.argmax(x[:, :, 0], 1) + 1
        return paddle.bucketize(x, edges), value, place, F.sequence_mask(lengths, 8, "float32")


@case("integers", "indexing", _WHOLE, Input("by", "int64", (None, 6), (3, 6), 1, 10))
class Integers(Gained):
    """Whole numbers throughout: division, remainder, sorting, the different ones among them."""

    def forward(self, ids: paddle.Tensor, by: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        return (
            ids // by,
            ids % by,
            paddle.sort(ids, 1) + paddle.topk(ids, 6, 1)[0],
            paddle.unique(ids),
            paddle.cumsum(ids, 1),
            ids / by * self.gain,
        )


@case("algebra", "indexing", Input("x", "float32", (3, 5, 5), (3, 5, 5)))
class Algebra(Gained):
    """Diagonals, traces, products of several kinds, norms of several orders."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        return (
            paddle.diagonal(x, 1, 1, 2),
            paddle.trace(x, axis1=1, axis2=2),
            paddle.addmm(x[0], x[1], x[2], 0.5, 2.0),
            paddle.cross(x[:, :3], x[:, 2:], axis=1),
            paddle.norm(x, float("inf"), -1) + paddle.norm(x, 3, -1),
            paddle.norm(x),
            paddle.cumprod(x, 1),
        )


@case("bent", "operators", Input("x", "float32", (None, 4, 8), (3, 4, 8)))
class Bent(Gained):
    """Activations and functions that are rare."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.PReLU(4)
        # Paddle Inference 2.6 can't run rrelu.
        self.leak = nn.LeakyReLU() if paddle.__version__.startswith("2.") else nn.RReLU()

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        share = F.sigmoid(x)
        return (
            F.hardtanh(x, -0.5, 0.7) + self.leak(x) + paddle.stanh(x),
            F.maxout(paddle.unsqueeze(x, -1), 2, 1),
            paddle.asinh(x) + paddle.acosh(share + 1.5) + paddle.atanh(share * 0.5),
            paddle.trunc(x * 3.0) + paddle.frac(x),
            paddle.logit(share, 1e-3) + paddle.fmax(x, share) + paddle.heaviside(x, share),
            F.label_smooth(F.softmax(x)),
            self.slope(x),
        )


@case("scalars", "operators", _ROWS)
class Scalars(Gained):
    """Everything brought to one number, and that number used on."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        return paddle.max(x) - paddle.min(x), paddle.sum(x) / 10.0, paddle.logsumexp(x), x / paddle.norm(x)


@case("pool-kinds", "dense", image(None, 17, channels=4))
class PoolKinds(Gained):
    """Pooling with odd sizes, rounding up, padding that counts, and windows that do not divide."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        return (
            F.max_pool2d(x, 3, 2, ceil_mode=True),
            F.avg_pool2d(x, 3, 2, 1, exclusive=False) + F.avg_pool2d(x, 3, 2, 1),
            F.adaptive_avg_pool2d(x, [3, 2]),
            F.channel_shuffle(x, 2),
        )


@case("many-outputs", "inputs", Input("x", "float32", (None, 12), (3, 12)))
class ManyOutputs(nn.Layer):
    """A multi-task head: two dozen outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(12, 12)
        self.heads = nn.LayerList([nn.Linear(12, width) for width in range(1, 23)])

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        y = F.relu(self.stem(x))
        return (*(head(y) for head in self.heads), x + y)


@case("double", "inputs", Input("x", "float64", (None, 6, 8), (3, 6, 8)))
class Double(Gained):
    """Numbers of twice the width."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain.astype("float64")
        return paddle.matmul(x, x, transpose_y=True), F.softmax(x), paddle.exp(x).astype("float32")
