"""What a model of the corpus is: a name, a way to build it, and the inputs it takes.

The modules beside this one register their models with ``@case``. They run under Paddle 2.6 and 3.x alike.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

_FLAT = 1e-3  # a standard deviation below this can't be scaled up without amplifying noise


@dataclass(frozen=True)
class Input:
    """One input: ``shape`` has None where a dimension is dynamic, ``sample`` the shape to measure with.

    Integers are drawn from [low, high), floats from a standard normal or, with ``low``, uniformly. An
    ``image`` has patches of colour: every image of plain noise looks the same to a deep network. With
    ``text`` it has lines of made-up letters: in all else a detector of text finds nothing.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    sample: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    image: bool = False
    text: bool = False

    def draw(self, seed: int) -> np.ndarray:
        """A seeded array of ``sample``'s shape and the input's dtype."""
        random = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        if self.dtype == "bool":
            return random.random(self.sample) < 0.5
        if self.dtype.startswith("int"):
            return random.integers(int(self.low or 0), int(self.high or 10), self.sample).astype(self.dtype)
        if self.text:
            return (_letters(self.sample, random) + 0.02 * random.standard_normal(self.sample)).astype(
                self.dtype
            )
        if self.image:
            batch, channels, height, width = self.sample
            patches = random.standard_normal((batch, channels, 4, 4)).repeat(-(-height // 4), 2)
            patches = patches.repeat(-(-width // 4), 3)[:, :, :height, :width]
            return (patches + 0.3 * random.standard_normal(self.sample)).astype(self.dtype)
        if self.low is None:
            return random.standard_normal(self.sample).astype(self.dtype)
        return random.uniform(self.low, self.high, self.sample).astype(self.dtype)


def _letters(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """A stroke down and one across for each letter, dark on light."""
    page = np.full(shape, 0.8)
    for top in range(8, shape[2] - 20, 28):
        for left in range(8, shape[3] - 10, 12):
            across = top + random.integers(0, 14)
            page[:, :, top : top + 16, left : left + 3] = -0.8
            page[:, :, across : across + 3, left : left + 9] = -0.8
    return page


@dataclass(frozen=True)
class Case:
    """A model of the corpus. ``kind`` groups them in tables; ``calibrate`` asks for weights made sane."""

    name: str
    kind: str
    build: Callable[[], nn.Layer]
    inputs: tuple[Input, ...]
    calibrate: bool = True

    def layer(self) -> nn.Layer:
        """The model with seeded weights, in evaluation mode."""
        paddle.seed(zlib.crc32(self.name.encode()) % 2**31)
        layer = self.build()
        layer.eval()
        if self.calibrate:
            calibrate(layer, [paddle.to_tensor(self._many(spec)) for spec in self.inputs])
        return layer

    def _many(self, spec: Input) -> np.ndarray:
        """Samples to calibrate on: eight batches in one where the batch is dynamic."""
        if any(other.shape[0] is not None for other in self.inputs):
            return spec.draw(1)
        return np.concatenate([spec.draw(100 + seed) for seed in range(8)])

    def describe(self) -> dict[str, Any]:
        """The JSON that is written beside the saved model."""
        return {
            "name": self.name,
            "kind": self.kind,
            "paddle": paddle.__version__,
            "inputs": [asdict(spec) for spec in self.inputs],
        }


class Gained(nn.Layer):
    """A model with one weight: Paddle Inference 2.6 refuses a model that has none."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0))


CASES: dict[str, Case] = {}


def case(
    name: str, kind: str, *inputs: Input, calibrate: bool = True
) -> Callable[[Callable[[], nn.Layer]], Callable[[], nn.Layer]]:
    """Register a builder (a Layer's class or a function that returns one) under ``name``."""

    def register(build: Callable[[], nn.Layer]) -> Callable[[], nn.Layer]:
        if name in CASES:
            raise ValueError(f"two models called {name}")
        CASES[name] = Case(name, kind, build, inputs, calibrate)
        return build

    return register


def image(size: int | None, sample: int = 64, channels: int = 3, name: str = "x") -> Input:
    """A batch of images: the batch is dynamic, the sides too where ``size`` is None."""
    return Input(name, "float32", (None, channels, size, size), (2, channels, sample, sample), image=True)


def calibrate(layer: nn.Layer, inputs: list[paddle.Tensor]) -> None:
    """Scale a random network so that every layer's output has unit variance on ``inputs``.

    Random weights as they come give outputs of 1e3 or of 1e-8, on which no tolerance means anything. One
    forward pass suffices, as each layer sees what the calibrated ones before it give (the idea of
    layer-sequential unit-variance initialisation, https://arxiv.org/abs/1511.06422).
    """
    hooks = []

    def scale_weight(
        module: nn.Layer, _given: tuple[paddle.Tensor, ...], out: paddle.Tensor
    ) -> paddle.Tensor:
        deviation = float(out.std())
        if deviation < _FLAT:
            return out
        module.weight.set_value(module.weight / deviation)
        if module.bias is not None:
            module.bias.set_value(module.bias / deviation)
        return out / deviation

    def set_statistics(
        module: nn.BatchNorm2D, given: tuple[paddle.Tensor, ...], _out: paddle.Tensor
    ) -> paddle.Tensor:
        x = given[0]
        axes = [axis for axis in range(x.ndim) if axis != 1]
        mean, variance = x.mean(axes), x.var(axes, unbiased=False)
        # A channel that hardly varies beside its neighbours or its mean would blow rounding errors up, and
        # random networks under ReLU do so layer by layer (https://arxiv.org/abs/1902.08129) unless most of
        # what comes in is positive. Trained ones do neither.
        variance = paddle.maximum(variance, 0.2 * variance.mean() + 1e-3)
        variance = paddle.maximum(variance, 0.1 * mean * mean)
        module.bias.set_value(paddle.ones_like(module.bias))
        module._mean.set_value(mean)
        module._variance.set_value(variance)
        return F.batch_norm(
            x, mean, variance, module.weight, module.bias, training=False, epsilon=module._epsilon
        )

    for module in layer.sublayers(include_self=True):
        if isinstance(module, (nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D)):
            hooks.append(module.register_forward_post_hook(set_statistics))
        elif isinstance(module, (nn.Conv1D, nn.Conv2D, nn.Conv3D, nn.Conv2DTranspose, nn.Linear)):
            hooks.append(module.register_forward_post_hook(scale_weight))
    try:
        with paddle.no_grad():
            layer(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
