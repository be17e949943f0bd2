"""Trains the detector of the zoo on scenes that are composed as it goes, exports it and records it in ``zoo.json``.

Usage: ``python -m snncc.models.recipes.train_detector [--scenes N] [--out FILE]``

Scenes are made of the 60,000 training images, and no scene is seen twice except mirrored. The last state is kept: the
test scenes choose nothing. The result is measured with the extra ``snncc[detection]``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from snncc import models
from snncc.errors import DataError
from snncc.models import scenes
from snncc.models.recipes import detector, fashion_mnist
from snncc.models.recipes.command import begin, finish, parser, resume, save
from snncc.models.recipes.export import export, logits
from snncc.models.recipes.train import parameter_groups
from snncc.tasks.annotations import read_annotations
from snncc.tasks.average_precision import AveragePrecision
from snncc.tasks.decoders import make_decoder

NAME = "fashion_detector"
SUMMARY = "YOLOv2 style: strided stem, six residual blocks, 24/48/72 channels, ReLU, five anchors, 128x128 scenes"
SCENES = 22_400
BATCH = 32  # half of it composed, half mirrored
RATE = 3e-3
WARM_UP = 100  # steps
DECAY = 0.35  # share of the steps, at the end, over which the learning rate falls to zero
WEIGHT_DECAY = 0.02
CHECK_EVERY = 50  # steps between lines of the log and checkpoints


@dataclass(frozen=True)
class Batch:
    """Scenes and what is on them.

    Attributes:
        images: float32 ``[N, 1, 128, 128]``.
        boxes: centre x, centre y, width, height ``[K, 4]``.
        classes: int64 ``[K]``.
        owner: scene of each item, int64 ``[K]``.
    """

    images: Tensor
    boxes: Tensor
    classes: Tensor
    owner: Tensor


def batch(items: scenes.Pixels, labels: fashion_mnist.Labels, seed: int, step: int) -> Batch:
    """Compose the scenes of one step, and mirror them."""
    half = BATCH // 2
    made = [scenes.compose(items, labels, np.random.RandomState([seed, step, i])) for i in range(half)]
    images = torch.from_numpy(np.stack([scene.image for scene in made])[:, None]).float()
    corner = torch.from_numpy(np.concatenate([scene.boxes for scene in made]))
    boxes = torch.cat([corner[:, :2] + corner[:, 2:] / 2, corner[:, 2:]], dim=1)
    mirrored = torch.cat([scenes.SIDE - boxes[:, :1], boxes[:, 1:]], dim=1)
    owner = torch.from_numpy(np.repeat(np.arange(half), [len(scene.classes) for scene in made]))
    classes = torch.from_numpy(np.concatenate([scene.classes for scene in made]))
    return Batch(
        torch.cat([images, images.flip(3)]).contiguous(memory_format=torch.channels_last),
        torch.cat([boxes, mirrored]),
        classes.repeat(2),
        torch.cat([owner, owner + half]),
    )


def train(
    network: nn.Module,
    items: scenes.Pixels,
    labels: fashion_mnist.Labels,
    steps: int,
    seed: int,
    checkpoint: Path | None = None,
) -> None:
    """Train in place with AdamW; the learning rate rises over `WARM_UP` steps, stays, and falls to zero at the end.

    Args:
        network: see `detector.FashionDetector`.
        items: training images uint8 ``[N, 28, 28]``.
        labels: classes ``[N]``.
        steps: number of batches.
        seed: of the scenes.
        checkpoint: file that keeps the state; if it is there, training goes on from it.
    """
    optimiser = torch.optim.AdamW(parameter_groups(network, WEIGHT_DECAY), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / WARM_UP, 1.0, (steps - step) / (DECAY * steps))
    )
    first = resume(checkpoint, network, optimiser, schedule, torch.default_generator)
    network.train()
    total, start = 0.0, time.perf_counter()
    for step in range(first, steps):
        given = batch(items, labels, seed, step)
        loss = detector.loss(network(given.images), given.boxes, given.classes, given.owner)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 20.0)
        optimiser.step()
        schedule.step()
        total += float(loss.detach())
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
            done = (step - first) % CHECK_EVERY + 1
            print(f"step {step + 1}/{steps}: loss {total / done:.4f}, {time.perf_counter() - start:.0f} s", flush=True)
            total, start = 0.0, time.perf_counter()
            save(checkpoint, step + 1, network, optimiser, schedule, torch.default_generator)


def main() -> int:
    """Command line; returns the exit code."""
    arguments = _parser().parse_args()
    file = begin(arguments, NAME)
    try:
        images, labels = fashion_mnist.load(arguments.data, "train")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    network = detector.FashionDetector().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train(network, images[:, 0], labels, arguments.scenes // BATCH, arguments.seed, arguments.checkpoint)
    settings = {"name": "yolov2", "anchors": detector.ANCHORS, "stride": detector.STRIDE}
    export(
        network, file, shape=(1, scenes.SIDE, scenes.SIDE), output="grid", metadata={"decoder": json.dumps(settings)}
    )
    precision = measure(file)
    print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB, mAP {precision:.4f} on the test scenes")
    facts: dict[str, str | float | int] = {
        "summary": SUMMARY,
        "dataset": "Fashion-MNIST scenes",
        "accuracy": round(precision, 4),
        "epochs": 1,
        "task": "detection",
    }
    finish(file, network, arguments, f"train_detector --scenes {arguments.scenes}", facts)
    return 0


def measure(file: Path) -> float:
    """Return COCO's mean average precision of an exported detector on the test scenes."""
    images, truth = models.scene_set("scenes")
    size = (scenes.SIDE, scenes.SIDE)
    decoder = make_decoder(None, None, onnx.load(file))
    found = [decoder({"grid": grid}, size) for grid in logits(file, images, 50)]
    return AveragePrecision(read_annotations(truth), size)(found).mean


def _parser() -> argparse.ArgumentParser:
    made = parser("the detector")
    made.add_argument("--scenes", type=int, default=SCENES, help="scenes to train on (%(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main())
