"""The networks of the zoo as PyTorch modules.

Every network of images takes raw pixels (float32 ``[N, 1, 28, 28]``, values 0 to 255) and returns logits ``[N, 10]``.
The normalisation is part of the network, so that an exported file needs no companion preprocessing and the compiler
meets the arithmetic in front of the first layer that real exports carry. The network of events takes a frame of counts,
or a mean of frames, as it is.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

CLASSES = 10
PIXEL_MAX = 255.0
# Mean and standard deviation of the 60,000 training images, after division by 255.
PIXEL_MEAN = 0.2860
PIXEL_STD = 0.3530


class Normalise(nn.Module):
    """Raw pixels to zero mean and unit variance: ``(image / 255 - mean) / std``."""

    def forward(self, image: Tensor) -> Tensor:
        """Normalises a batch of raw pixels, shape kept."""
        return (image / PIXEL_MAX - PIXEL_MEAN) / PIXEL_STD


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution with "same" padding, without bias because the batch normalisation after it has one."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    layers: dict[str, nn.Module] = {"conv": conv, "bn": nn.BatchNorm2d(outputs)}
    return named(layers)


def named(layers: dict[str, nn.Module]) -> nn.Sequential:
    """A sequence whose members carry names, which the export turns into node names."""
    sequence = nn.Sequential()
    for name, layer in layers.items():
        sequence.add_module(name, layer)
    return sequence


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions (He et al. 2015, figure 2).

    The shortcut is the identity where the shape stays, else a strided 1x1 convolution with batch normalisation
    (option B of the paper).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _conv_bn(inputs, outputs, 3, stride)
        self.relu1 = nn.ReLU(inplace=True)
        self.second = _conv_bn(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = nn.Identity() if same else _conv_bn(inputs, outputs, 1, stride)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H / stride, W / stride]``."""
        residual: Tensor = self.second(self.relu1(self.first(features)))
        output: Tensor = self.relu2(residual + self.shortcut(features))
        return output


class FashionResNet20(nn.Module):
    """ResNet-20 (He et al. 2015, section 4.2): three stages of three basic blocks at 28x28, 14x14 and 7x7."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.stem = _conv_bn(1, 16, 3)
        self.relu = nn.ReLU(inplace=True)
        self.stage1 = nn.Sequential(BasicBlock(16, 16, 1), BasicBlock(16, 16, 1), BasicBlock(16, 16, 1))
        self.stage2 = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32, 1), BasicBlock(32, 32, 1))
        self.stage3 = nn.Sequential(BasicBlock(32, 64, 2), BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(64, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Raw pixels to logits."""
        features = self.relu(self.stem(self.normalise(image)))
        features = self.stage3(self.stage2(self.stage1(features)))
        logits: Tensor = self.classifier(self.flatten(self.pool(features)))
        return logits


def _vgg_stage(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions with batch normalisation and ReLU, then a 2x2 max pooling."""
    return named(
        {
            "first": _conv_bn(inputs, outputs, 3),
            "relu1": nn.ReLU(inplace=True),
            "second": _conv_bn(outputs, outputs, 3),
            "relu2": nn.ReLU(inplace=True),
            "pool": nn.MaxPool2d(2),
        }
    )


class FashionVgg(nn.Module):
    """VGG style (Simonyan and Zisserman 2014): three stages of two convolutions, a hidden layer, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.stage1 = _vgg_stage(1, 32)
        self.stage2 = _vgg_stage(32, 64)
        self.stage3 = _vgg_stage(64, 96)
        self.flatten = nn.Flatten()
        # 28 -> 14 -> 7 -> 3: the last pooling drops a row and a column.
        self.hidden = nn.Linear(96 * 3 * 3, 128)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(128, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Raw pixels to logits."""
        features = self.stage3(self.stage2(self.stage1(self.normalise(image))))
        features = self.dropout(self.relu(self.hidden(self.flatten(features))))
        logits: Tensor = self.classifier(features)
        return logits


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Depthwise 3x3 and pointwise 1x1 convolution, each with batch normalisation and ReLU6."""
    return named(
        {
            "depthwise": _conv_bn(inputs, inputs, 3, stride, groups=inputs),
            "relu1": nn.ReLU6(inplace=True),
            "pointwise": _conv_bn(inputs, outputs, 1),
            "relu2": nn.ReLU6(inplace=True),
        }
    )


class FashionMobileNet(nn.Module):
    """MobileNetV1 style (Howard et al. 2017): depthwise-separable convolutions with ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.stem = _conv_bn(1, 32, 3)
        self.relu = nn.ReLU6(inplace=True)
        self.stage1 = nn.Sequential(_separable(32, 64, 2), _separable(64, 128, 1), _separable(128, 128, 1))
        self.stage2 = nn.Sequential(_separable(128, 256, 2), _separable(256, 256, 1), _separable(256, 256, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(256, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Raw pixels to logits."""
        features = self.relu(self.stem(self.normalise(image)))
        features = self.stage2(self.stage1(features))
        logits: Tensor = self.classifier(self.flatten(self.pool(features)))
        return logits


class EventsResNet(nn.Module):
    """Residual network for one frame of an event camera: a strided stem and three blocks at 17x17, 9x9 and 5x5."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_bn(2, 16, 3, 2)
        self.relu = nn.ReLU(inplace=True)
        self.stage1 = BasicBlock(16, 16, 1)
        self.stage2 = BasicBlock(16, 32, 2)
        self.stage3 = BasicBlock(32, 64, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(64, CLASSES)

    def forward(self, events: Tensor) -> Tensor:
        """Events per polarity and pixel, ``[N, 2, 34, 34]``, to logits."""
        features = self.stage3(self.stage2(self.stage1(self.relu(self.stem(events)))))
        logits: Tensor = self.classifier(self.flatten(self.pool(features)))
        return logits


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "fashion_resnet20": FashionResNet20,
    "fashion_vgg": FashionVgg,
    "fashion_mobilenet": FashionMobileNet,
}
