"""The networks of the speed benchmark that aren't bundled: their topologies with random weights that are kept alive."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conformance.export.alive import enliven
from numpy.typing import NDArray
from torch import Tensor, nn

SEED = 0
OPSET = 17


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class _Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016), with a projection where the size changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.relu = _conv_bn(inputs, outputs, 3, stride), nn.ReLU()
        self.second, self.out = _conv_bn(outputs, outputs, 3), nn.ReLU()
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.second(self.relu(self.first(x))) + self.shortcut(x))
        return result


def _stages(widths: list[int], blocks: int) -> list[nn.Module]:
    found: list[nn.Module] = []
    for number, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
        found += [_Block(before, width, 2 if number else 1), *(_Block(width, width, 1) for _ in range(blocks - 1))]
    return found


def resnet18() -> nn.Module:
    """Return ResNet-18 for 224x224 images."""
    stem = [_conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*stem, *_stages([64, 128, 256, 512], 2), *head)


def resnet20() -> nn.Module:
    """Return ResNet-20 for 32x32 images."""
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(_conv_bn(3, 16, 3), nn.ReLU(), *_stages([16, 32, 64], 3), *head)


def vgg16() -> nn.Module:
    """Return VGG-16 with batch normalisation for 224x224 images."""
    layers: list[nn.Module] = []
    width = 3
    for stage in ([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3):
        for outputs in stage:
            layers += [_conv_bn(width, outputs, 3), nn.ReLU()]
            width = outputs
        layers.append(nn.MaxPool2d(2))
    dense = [nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, nn.Flatten(), *dense)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (resnet18, 224),
    "vgg16": (vgg16, 224),
    "resnet20": (resnet20, 32),
}
"""What makes each network, and the side of its images."""


def images(name: str, count: int) -> NDArray[np.float32]:
    """Return standard normal images, the same ones each time."""
    side = NETWORKS[name][1]
    return np.random.default_rng(SEED).standard_normal((count, 3, side, side)).astype(np.float32)


def alive(name: str) -> nn.Module:
    """Return a network whose layers neither die out nor explode, in evaluation mode."""
    torch.manual_seed(SEED)
    network = NETWORKS[name][0]()
    enliven(network, (torch.from_numpy(images(name, 8)),))
    return network


def export(network: nn.Module, name: str, path: Path) -> None:
    """Write a network as ONNX with an open batch."""
    axes = {"image": {0: "N"}, "logits": {0: "N"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter announces its successor
        torch.onnx.export(
            network,
            (torch.from_numpy(images(name, 1)),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
