"""Networks from torch and torchvision, through both of torch's exporters.

The newer exporter gets an open batch and a new opset, in which activations and normalisations are operators of their
own; the older one a batch of 1 and opset 14, in which most are decomposed: so each network comes in the two forms that
are found in the wild.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from conformance.export.alive import enliven
from conformance.export.modules import Detector, Recurrent, TextTransformer, UNet

SEED = 0
STATISTICS = 32
"""Samples that the networks are enlivened on."""
OLD_OPSET, NEW_OPSET = 14, 20
CLASSES = 10

Inputs = Callable[[int], Tensor]


def images(side: int) -> Inputs:
    """Return what makes standard normal images."""
    return lambda count: torch.randn(count, 3, side, side)


def _vgg11() -> nn.Module:
    network = torchvision.models.vgg11(num_classes=CLASSES)
    # Images of 64x64 end as 2x2; the original's dense layers alone would fill half a gigabyte.
    network.avgpool = nn.Identity()
    network.classifier = nn.Sequential(
        nn.Linear(512 * 4, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES)
    )
    return network


def _vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=CLASSES
    )


RECIPES: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=CLASSES), images(64)),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=CLASSES), images(64)),
    "mobilenet_v3": (lambda: torchvision.models.mobilenet_v3_small(num_classes=CLASSES), images(64)),
    "efficientnet_b0": (lambda: torchvision.models.efficientnet_b0(num_classes=CLASSES), images(64)),
    "vgg11": (_vgg11, images(64)),
    "squeezenet": (lambda: torchvision.models.squeezenet1_1(num_classes=CLASSES), images(64)),
    "shufflenet_v2": (lambda: torchvision.models.shufflenet_v2_x1_0(num_classes=CLASSES), images(64)),
    "densenet121": (lambda: torchvision.models.densenet121(num_classes=CLASSES), images(64)),
    "googlenet": (
        lambda: torchvision.models.googlenet(num_classes=CLASSES, aux_logits=False, init_weights=False),
        images(64),
    ),
    "unet": (UNet, images(32)),
    "detector": (Detector, images(64)),
    "vit": (_vit, images(32)),
    "transformer": (TextTransformer, lambda count: torch.randint(0, 100, (count, 12))),
    "lstm": (Recurrent, lambda count: torch.randn(count, 12, 8)),
}


def networks() -> dict[str, Callable[[Path], None]]:
    """Return what writes each network, by its name."""
    return {
        f"{name}_{exporter}": partial(_export, name, new=exporter == "dynamo")
        for name in RECIPES
        for exporter in ("dynamo", "torchscript")
    }


def _export(name: str, path: Path, *, new: bool) -> None:
    torch.manual_seed(SEED)
    build, inputs = RECIPES[name]
    network = build()
    enliven(network, (inputs(STATISTICS),))
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operator is in no opset
    names = {"input_names": ["input"], "output_names": ["output"]}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if new:
            shapes = ({0: torch.export.Dim("N")},)
            torch.onnx.export(
                network, (inputs(2),), path, dynamo=True, opset_version=NEW_OPSET, dynamic_shapes=shapes,
                external_data=False, verbose=False, **names,
            )  # fmt: skip
        else:
            torch.onnx.export(network, (inputs(1),), path, dynamo=False, opset_version=OLD_OPSET, **names)
