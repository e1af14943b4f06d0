"""Every family of ``paddle.vision.models``, as narrow as the family allows."""

from __future__ import annotations

import paddle
from case import Input, case, image
from paddle import nn
from paddle.vision import models
from paddle.vision.models.resnet import BasicBlock
from paddle.vision.models.vgg import make_layers

_CLASSES = 10


class _Headed(nn.Layer):
    """A backbone without its classifier, which in AlexNet and VGG is nine tenths of the weights."""

    def __init__(self, backbone: nn.Layer, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.head = nn.Linear(channels, _CLASSES)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(paddle.flatten(self.pool(self.backbone(x)), 1))


@case("lenet", "vision.models", Input("x", "float32", (None, 1, 28, 28), (3, 1, 28, 28)))
def lenet() -> nn.Layer:
    return models.LeNet(_CLASSES)


@case("alexnet", "vision.models", image(96, 96))
def alexnet() -> nn.Layer:
    return _Headed(models.AlexNet(num_classes=0), 256)


@case("vgg", "vision.models", image(64))
def vgg() -> nn.Layer:
    widths = [16, "M", 32, "M", 64, 64, "M", 128, 128, "M", 128, 128, "M"]
    return _Headed(models.VGG(make_layers(widths, batch_norm=True), num_classes=0, with_pool=False), 128)


@case("resnet", "vision.models", image(64))
def resnet() -> nn.Layer:
    return models.ResNet(BasicBlock, 18, num_classes=_CLASSES)


@case("resnext", "vision.models", image(64))
def resnext() -> nn.Layer:
    return models.resnext50_32x4d(num_classes=_CLASSES)


@case("mobilenet-v1", "vision.models", image(64))
def mobilenet_v1() -> nn.Layer:
    return models.mobilenet_v1(scale=0.25, num_classes=_CLASSES)


@case("mobilenet-v2", "vision.models", image(None))
def mobilenet_v2() -> nn.Layer:
    return models.mobilenet_v2(scale=0.25, num_classes=_CLASSES)


@case("mobilenet-v3-small", "vision.models", image(None))
def mobilenet_v3_small() -> nn.Layer:
    return models.mobilenet_v3_small(scale=0.5, num_classes=_CLASSES)


@case("mobilenet-v3-large", "vision.models", image(64))
def mobilenet_v3_large() -> nn.Layer:
    return models.mobilenet_v3_large(scale=0.35, num_classes=_CLASSES)


@case("densenet", "vision.models", image(64))
def densenet() -> nn.Layer:
    return models.densenet121(num_classes=_CLASSES)


@case("squeezenet", "vision.models", image(64))
def squeezenet() -> nn.Layer:
    return models.squeezenet1_1(num_classes=_CLASSES)


@case("googlenet", "vision.models", image(224, 224))
def googlenet() -> nn.Layer:
    return models.googlenet(num_classes=_CLASSES)


@case("inception-v3", "vision.models", image(128, 128))
def inception_v3() -> nn.Layer:
    return models.inception_v3(num_classes=_CLASSES)


@case("shufflenet-v2", "vision.models", image(64))
def shufflenet_v2() -> nn.Layer:
    return models.shufflenet_v2_x0_25(num_classes=_CLASSES)


@case("shufflenet-v2-swish", "vision.models", image(64))
def shufflenet_v2_swish() -> nn.Layer:
    return models.shufflenet_v2_swish(num_classes=_CLASSES)
