"""Small graphs around one group of operators each."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from case import Gained, Input, case, image
from paddle import nn

_ROWS = Input("x", "float32", (None, 6, 8), (3, 6, 8))


@case("two-in-three-out", "inputs", image(16, 16), Input("y", "float32", (None, 5), (2, 5)))
class TwoInThreeOut(nn.Layer):
    """Two inputs, three outputs, one of them an integer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.line = nn.Conv2D(3, 5, 3), nn.Linear(5, 5)

    def forward(self, x: paddle.Tensor, y: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        pooled = self.conv(x).mean([2, 3])
        mixed = self.line(y) + pooled
        return mixed, F.softmax(mixed, -1), paddle.argmax(mixed, -1)


@case(
    "int64-bool",
    "inputs",
    Input("ids", "int64", (None, None), (2, 6), 0, 30),
    Input("keep", "bool", (None, None), (2, 6)),
)
class Int64Bool(nn.Layer):
    """Integer and boolean inputs: embedding, masking, logic, a boolean output."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(30, 8)

    def forward(self, ids: paddle.Tensor, keep: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = self.tokens(ids) * paddle.unsqueeze(paddle.cast(keep, "float32"), -1)
        even = paddle.logical_and(keep, ids % 2 == 0)
        return x.sum(1), paddle.logical_not(even), paddle.where(keep, ids, paddle.zeros_like(ids))


@case("activations", "operators", _ROWS)
class Activations(Gained):
    """What networks use besides ReLU."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        return (
            F.swish(x) + F.silu(x) + F.hardswish(x) + F.mish(x),
            F.gelu(x) + F.gelu(x, approximate=True),
            F.elu(x) + F.selu(x) + F.celu(x) + F.softplus(x) + F.softsign(x),
            F.hardsigmoid(x) + F.hardtanh(x) + F.leaky_relu(x, 0.1) + F.relu6(x),
            F.log_softmax(x, -1) + F.log_sigmoid(x) + F.tanhshrink(x),
            F.softshrink(x) + F.hardshrink(x) + F.thresholded_relu(x),
            F.glu(x, -1),
        )


@case("einsum", "operators", _ROWS, Input("y", "float32", (None, 8, 5), (3, 8, 5)))
class Einsum(Gained):
    """A batched product, an outer product and a trace-like sum."""

    def forward(self, x: paddle.Tensor, y: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        product = paddle.einsum("bij,bjk->bik", x, y) / 3.0
        return product, paddle.einsum("bij,bik->bijk", x, product), paddle.einsum("bij->bi", x) / 3.0


@case("cumsum", "operators", _ROWS)
class Cumsum(Gained):
    """Running sums and products, reductions, norms."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        return (
            paddle.cumsum(x, 1),
            paddle.cumsum(paddle.flatten(x)),
            paddle.logsumexp(x, 2) + paddle.prod(x, 2) + paddle.amax(x, 2),
            paddle.norm(x, 2, -1) + F.normalize(x, axis=-1).sum(-1),
            paddle.std(x, 1) + paddle.var(x, 1),
            paddle.any(x > 2.0, 2),
        )


@case(
    "gather-scatter",
    "operators",
    Input("x", "float32", (3, 6, 8), (3, 6, 8)),
    Input("at", "int64", (4, 2), (4, 2), 0, 3),
    Input("rows", "int64", (3,), (3,), 0, 6),
)
class GatherScatter(Gained):
    """gather_nd, scatter_nd_add, gather along an axis, index_select, take and put along an axis, one_hot."""

    def forward(self, x: paddle.Tensor, at: paddle.Tensor, rows: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        picked = paddle.gather_nd(x, at)
        return (
            picked,
            paddle.scatter_nd_add(x, at, picked),
            paddle.gather(x, rows, 1) + paddle.index_select(x, rows, 1),
            paddle.take_along_axis(x, paddle.argsort(x, 1), 1),
            paddle.put_along_axis(x, paddle.argmax(x, 1, keepdim=True), paddle.full([3, 1, 8], 0.5), 1),
            F.one_hot(rows, 6),
        )


@case("scatter", "operators", Input("x", "float32", (6, 4), (6, 4)), Input("y", "float32", (3, 4), (3, 4)))
class Scatter(Gained):
    """scatter that overwrites and scatter that adds."""

    def forward(self, x: paddle.Tensor, y: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        x = x * self.gain
        rows = paddle.to_tensor([4, 0, 2])
        return paddle.scatter(x, rows, y), paddle.scatter(x, rows, y, overwrite=False)


@case("where-sort", "operators", _ROWS)
class WhereSort(Gained):
    """where, argsort, sort, topk of the smallest, argmin, clip, flip, comparison."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        least, at = paddle.topk(x, 3, axis=1, largest=False)
        return (
            paddle.where(x > 0, x, paddle.exp(paddle.clip(x, -3.0, 0.0))),
            paddle.argsort(x, -1, descending=True),
            paddle.sort(x, 1) + paddle.flip(x, [1]),
            least,
            at,
            paddle.argmin(x, 2),
        )


@case("pad-modes", "operators", image(None, 12))
class PadModes(Gained):
    """Constant, reflected, replicated and circular padding."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        return (
            F.pad(x, [1, 2, 0, 3], value=0.5),
            F.pad(x, [1, 2, 3, 1], mode="reflect"),
            F.pad(x, [1, 2, 3, 1], mode="replicate"),
            F.pad(x, [1, 2, 3, 1], mode="circular"),
            F.pad(x, [0, 0, 0, 0, 1, 1, 2, 2]),
        )


@case("norms", "operators", image(16, 16, channels=8))
class Norms(nn.Layer):
    """Group, instance, layer, RMS and local response normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.group, self.instance = nn.GroupNorm(4, 8), nn.InstanceNorm2D(8)
        self.layer = nn.LayerNorm(8)
        self.response = nn.LocalResponseNorm(3)

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        last = paddle.transpose(x, [0, 2, 3, 1])
        rms = last / paddle.sqrt(paddle.mean(last * last, -1, keepdim=True) + 1e-6)
        return self.group(x), self.instance(x), self.layer(last), rms, self.response(x)


@case("slices", "operators", _ROWS)
class Slices(Gained):
    """Strided, negative and assigning slices, unfold, tile, expand, stack, split, squeeze."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        changed = paddle.zeros_like(x)
        changed[:, 1:3] = x[:, 2:4]
        return (
            x[:, ::2, -3:] + x[:, 1::2, 1:4],
            changed,
            paddle.tile(x, [1, 2, 1]) + paddle.concat([x, x], 1),
            paddle.stack(paddle.unbind(x, 2), 0),
            paddle.expand(x[:, :1], [-1, 4, 8]),
            F.unfold(paddle.unsqueeze(x, 1), 3),
        )


@case("arithmetic", "operators", _ROWS)
class Arithmetic(Gained):
    """Elementwise mathematics, rounding, remainders and casts."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        positive = paddle.abs(x) + 0.5
        return (
            paddle.log(positive) + paddle.sqrt(positive) + paddle.rsqrt(positive) + paddle.pow(positive, 1.5),
            paddle.sin(x) + paddle.cos(x) + paddle.atan(x) + paddle.erf(x) + paddle.sinh(x),
            paddle.floor(x) + paddle.ceil(x) + paddle.round(x) + paddle.sign(x),
            paddle.mod(x, positive) + paddle.floor_divide(x, positive),
            paddle.log1p(positive) + paddle.expm1(x) + paddle.reciprocal(positive) + paddle.square(x),
            paddle.cast(x * 4.0, "int32"),
            paddle.maximum(x, paddle.full([1], 0.25)) + paddle.lerp(x, positive, 0.3),
        )


@case("select-nonzero", "operators", Input("x", "float32", (None,), (12,)))
class SelectNonzero(Gained):
    """Shapes that depend on data: masked_select and nonzero."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        x = x * self.gain
        return paddle.masked_select(x, x > 0.0), paddle.nonzero(x > 0.0)
