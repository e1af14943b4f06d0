"""Networks whose output is an image: U-Nets, necks, upscaling, sampling, unusual convolutions."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from case import Gained, Input, case, image
from paddle import nn
from paddle.vision.ops import DeformConv2D


def block(inputs: int, outputs: int, stride: int = 1, act: type[nn.Layer] = nn.ReLU) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    conv = nn.Conv2D(inputs, outputs, 3, stride=stride, padding=1, bias_attr=False)
    return nn.Sequential(conv, nn.BatchNorm2D(outputs), act())


class _UNet(nn.Layer):
    def __init__(self, mode: str, by_size: bool) -> None:
        super().__init__()
        self.mode, self.by_size = mode, by_size
        self.first, self.second, self.third = block(3, 8), block(8, 16, 2), block(16, 32, 2)
        self.up_second, self.up_first = block(48, 16), block(24, 8)
        self.head = nn.Conv2D(8, 2, 1)

    def grow(self, x: paddle.Tensor, like: paddle.Tensor) -> paddle.Tensor:
        """Interpolate by a factor, or to the size of the other tensor as most decoders do."""
        aligned = {"align_corners": True} if self.mode == "bilinear" and self.by_size else {}
        if self.by_size:
            return F.interpolate(x, size=paddle.shape(like)[2:], mode=self.mode, **aligned)
        return F.interpolate(x, scale_factor=2, mode=self.mode)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        first = self.first(x)
        second = self.second(first)
        third = self.third(second)
        second = self.up_second(paddle.concat([self.grow(third, second), second], 1))
        first = self.up_first(paddle.concat([self.grow(second, first), first], 1))
        return F.sigmoid(self.head(first))


@case("unet-nearest", "dense", image(None))
def unet_nearest() -> nn.Layer:
    return _UNet("nearest", by_size=False)


@case("unet-bilinear", "dense", image(None))
def unet_bilinear() -> nn.Layer:
    return _UNet("bilinear", by_size=False)


@case("unet-bilinear-fixed", "dense", Input("x", "float32", (1, 3, 64, 64), (1, 3, 64, 64)))
def unet_bilinear_fixed() -> nn.Layer:
    return _UNet("bilinear", by_size=False)


@case("unet-by-size", "dense", image(None))
def unet_by_size() -> nn.Layer:
    return _UNet("bilinear", by_size=True)


@case("yolo-neck", "dense", image(None))
class YoloNeck(nn.Layer):
    """A feature pyramid up and down again, with Swish and spatial pyramid pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8, 2, nn.Silu)
        self.p3, self.p4, self.p5 = (block(n, 2 * n, 2, nn.Silu) for n in (8, 16, 32))
        self.fuse = nn.Conv2D(4 * 64, 64, 1)
        self.up4, self.up3 = block(96, 32, 1, nn.Silu), block(48, 16, 1, nn.Silu)
        self.down = block(16, 32, 2, nn.Silu)
        self.heads = nn.LayerList([nn.Conv2D(16, 9, 1), nn.Conv2D(64, 9, 1)])

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        p3 = self.p3(self.stem(x))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        pooled = [F.max_pool2d(p5, size, 1, size // 2) for size in (5, 9, 13)]
        p5 = self.fuse(paddle.concat([p5, *pooled], 1))
        up4 = self.up4(paddle.concat([F.interpolate(p5, scale_factor=2), p4], 1))
        up3 = self.up3(paddle.concat([F.interpolate(up4, scale_factor=2), p3], 1))
        down = paddle.concat([self.down(up3), up4], 1)
        return self.heads[0](up3), self.heads[1](down)


@case("upscale-modes", "dense", image(None, 16))
class UpscaleModes(Gained):
    """Bicubic, aligned bilinear, half-pixel nearest size and downscaling."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        return (
            F.interpolate(x, scale_factor=2, mode="bicubic"),
            F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=True),
            F.interpolate(x, scale_factor=0.5, mode="bilinear"),
            F.interpolate(x, size=[20, 30], mode="bilinear", align_mode=1),
        )


@case("upscale-3d", "dense", Input("x", "float32", (None, 2, 6, 8, 8), (2, 2, 6, 8, 8)))
class Upscale3D(nn.Layer):
    """Trilinear interpolation after a 3-D convolution and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3D(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm3D(4)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = F.avg_pool3d(F.relu(self.norm(self.conv(x))), 2, 2)
        return F.interpolate(y, scale_factor=2, mode="trilinear", data_format="NCDHW")


@case("pixel-shuffle", "dense", image(24, 24))
class PixelShuffle(nn.Layer):
    """Super-resolution by depth to space, and back by space to depth."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2D(3, 12, 3, padding=1)
        self.prelu = nn.PReLU(12)

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        large = F.pixel_shuffle(self.prelu(self.conv(x)), 2)
        return large, F.pixel_unshuffle(large, 2)


@case("conv-transpose", "dense", image(None, 16))
class ConvTranspose(nn.Layer):
    """Transposed convolution with output padding, dilated and grouped convolution, 1-D convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Conv2DTranspose(3, 6, 3, stride=2, padding=1, output_padding=1)
        self.dilated = nn.Conv2D(6, 6, 3, padding="SAME", dilation=2, groups=3)
        self.flat = nn.Conv1D(6, 4, 5, padding=2)

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        y = self.dilated(F.leaky_relu(self.up(x)))
        return y, self.flat(paddle.flatten(y, 2))


@case("adaptive-pool", "dense", image(48, 48))
class AdaptivePool(Gained):
    """Adaptive pooling to sizes that divide the input's and to sizes that do not; pooling with ceil."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        return (
            F.adaptive_avg_pool2d(x, 6),
            F.adaptive_max_pool2d(x, 4),
            F.adaptive_avg_pool2d(x, 5),
            F.max_pool2d(x, 3, 2, ceil_mode=True),
            F.avg_pool2d(x, 3, 2, 1, exclusive=False),
        )


@case("grid-sample", "dense", image(None, 32))
class GridSample(nn.Layer):
    """A spatial transformer: an affine grid predicted from the image, then sampled."""

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Linear(3, 6)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        identity = paddle.to_tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        theta = identity + 0.1 * paddle.tanh(self.locate(x.mean([2, 3])))
        grid = F.affine_grid(paddle.reshape(theta, [-1, 2, 3]), paddle.shape(x), align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


@case(
    "grid-sample-given",
    "dense",
    image(None, 16),
    Input("grid", "float32", (None, None, None, 2), (2, 12, 10, 2), -1.2, 1.2),
)
class GridSampleGiven(Gained):
    """The modes of grid_sample on a grid that is an input."""

    def forward(self, x: paddle.Tensor, grid: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x = x * self.gain
        return (
            F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True),
            F.grid_sample(x, grid, mode="nearest", padding_mode="border", align_corners=True),
            F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False),
        )


class _Deform(nn.Layer):
    """A convolution that predicts offsets and masks, then a deformable one (DCN v2)."""

    def __init__(self, stride: int, dilation: int, groups: int, masked: bool) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.groups, self.masked = groups, masked
        kind = {"stride": stride, "dilation": dilation, "padding": dilation}
        self.offset = nn.Conv2D(8, groups * 18, 3, **kind)
        self.mask = nn.Conv2D(8, groups * 9, 3, **kind)
        self.conv = DeformConv2D(8, 12, 3, deformable_groups=groups, groups=groups, **kind)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self.stem(x)
        if self.masked:
            return self.conv(y, self.offset(y), F.sigmoid(self.mask(y)))
        return self.conv(y, self.offset(y))


@case("deform-conv", "deformable", image(None, 32))
def deform_conv() -> nn.Layer:
    return _Deform(1, 1, 1, masked=True)


@case("deform-conv-strided", "deformable", image(32, 32))
def deform_conv_strided() -> nn.Layer:
    return _Deform(2, 2, 2, masked=False)


@case("fft-mixer", "nobody", Input("x", "float32", (None, 16, 16), (2, 16, 16)))
class FftMixer(Gained):
    """FNet's mixing: a Fourier transform, which no converter maps."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = x * self.gain
        return paddle.real(paddle.fft.fft2(x)) / 16.0
