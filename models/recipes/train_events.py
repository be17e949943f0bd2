"""Trains the event network of the zoo on recordings of Fashion-MNIST, exports it to ONNX and records it.

Usage: ``python -m snncc.models.recipes.train_events [--epochs N] [--out FILE]``

A recording is a voxel grid of `BINS` frames, of which the network takes one at a time. What it says of a recording is
read in two ways: from the mean of the frames, or as the mean of what it says of each. It is trained for both: each
recording gives the mean of all its frames, and the mean of a shorter window of them, down to a single frame. The
prefixes that a spiking network has seen after some of its timesteps are such windows, too.

The recordings of all 60,000 training images are used, which are simulated first and take 500 MB of memory, and the last
epoch is kept: the test recordings only give the accuracy of the finished file.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snncc import models
from snncc.errors import DataError
from snncc.events import voxel_grid
from snncc.models.recipes import fashion_mnist
from snncc.models.recipes.command import begin, finish, parser, resume, save
from snncc.models.recipes.event_frames import draw_moves, window_frames
from snncc.models.recipes.export import export, logits
from snncc.models.recipes.networks import EventsResNet
from snncc.models.recipes.saccades import CAMERA
from snncc.models.recipes.saccades import record as record_images
from snncc.models.recipes.train import parameter_groups
from snncc.models.recordings import Recordings

NAME = "fashion_events_resnet"
SUMMARY = "ResNet-8: a strided stem and three residual blocks, 16/32/64 channels, ReLU"
BINS = 8
WINDOWS = (1, 2, 4)
"""Frames of the shorter window, drawn anew each time."""


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum and a one-cycle learning rate.

    Attributes:
        epochs: passes over the recordings.
        batch: recordings in a step.
        peak_rate: highest learning rate of the cycle.
        weight_decay: of the weights of layers.
        label_smoothing: share of the target probability that is spread over all classes.
        window_weight: of the loss on the shorter windows; that on the mean frame has 1.
    """

    epochs: int = 3
    batch: int = 128
    peak_rate: float = 0.2
    weight_decay: float = 2e-4
    label_smoothing: float = 0.05
    window_weight: float = 0.5


def draw_windows(count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Returns two windows for each recording, ``[N, 2, 2]``: all frames, and a shorter one."""
    length = random.choice(WINDOWS, count)
    start = random.integers(0, BINS - length + 1)
    whole = np.broadcast_to([0, BINS], (count, 2))
    return np.stack([whole, np.stack([start, start + length], axis=1)], axis=1)


def train(
    network: nn.Module, recordings: Recordings, recipe: Recipe, epochs: int, seed: int, checkpoint: Path | None = None
) -> None:
    """Trains a network in place and prints a line per epoch.

    Args:
        network: takes frames float32 ``[N, 2, H, W]``.
        recordings: to train on.
        recipe: hyperparameters.
        epochs: passes over the recordings.
        seed: of the order, the augmentation and the windows.
        checkpoint: file that keeps the state after each epoch; if it is there, training goes on from it.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(recordings.label).long()
    steps = len(recordings) // recipe.batch
    optimiser = torch.optim.SGD(parameter_groups(network, recipe.weight_decay), lr=0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.peak_rate, epochs * steps, pct_start=0.25, cycle_momentum=False, final_div_factor=1e3
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    network.train()
    for epoch in range(resume(checkpoint, network, optimiser, schedule, generator), epochs):
        start = time.perf_counter()
        losses, right = np.zeros(2), np.zeros(2)
        random = np.random.default_rng(int(torch.randint(1 << 31, (1,), generator=generator)))
        order = random.permutation(len(recordings))
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            wanted = labels[chosen]
            # One call for both windows: the statistics of batch normalisation are those of both.
            scores = network(_batch(recordings, chosen, random)).chunk(2)
            each = [loss_function(score, wanted) for score in scores]
            loss = each[0] + recipe.window_weight * each[1]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses += [float(part.detach()) for part in each]
            right += [float((score.detach().argmax(1) == wanted).sum()) for score in scores]
        whole, window = right / (steps * recipe.batch)
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch + 1}/{epochs}: loss {losses[0] / steps:.4f}, accuracy {whole:.4f} on mean frames, "
            f"{window:.4f} on windows, {seconds:.0f} s",
            flush=True,
        )
        save(checkpoint, epoch + 1, network, optimiser, schedule, generator)


def _batch(recordings: Recordings, chosen: NDArray[np.int64], random: np.random.Generator) -> Tensor:
    """Returns the mean frames of augmented recordings, then their windows: ``[2 * N, 2, H, W]``."""
    moves = draw_moves(len(chosen), recordings.width, recordings.height, random)
    frames = window_frames(recordings, chosen, moves, draw_windows(len(chosen), random), BINS)
    both = torch.from_numpy(np.concatenate([frames[:, 0], frames[:, 1]]))
    return both.contiguous(memory_format=torch.channels_last)


def accuracies(file: Path, recordings: Recordings) -> tuple[float, float]:
    """Returns how often ONNX Runtime is right from the mean of the frames, and from the mean over the frames."""
    whole = each = 0
    for first in range(0, len(recordings), 500):
        some = range(first, min(first + 500, len(recordings)))
        label = recordings.label[first : first + 500]
        frames = np.stack([voxel_grid(recordings[i], BINS) for i in some])
        whole += int((logits(file, frames.mean(1)).argmax(1) == label).sum())
        per_frame = logits(file, frames.reshape(-1, *frames.shape[2:])).reshape(len(some), BINS, -1)
        each += int((per_frame.mean(1).argmax(1) == label).sum())
    return whole / len(recordings), each / len(recordings)


def main() -> int:
    """Command line; returns the exit code."""
    arguments = _parser().parse_args()
    file = begin(arguments, NAME)
    try:
        images, labels = fashion_mnist.load(arguments.data, "train")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    recordings = record_images(images, labels, range(len(images)), report=10_000)
    network = EventsResNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train(network, recordings, Recipe(), arguments.epochs, arguments.seed, arguments.checkpoint)
    export(network, file, name="events", shape=(2, CAMERA.height, CAMERA.width))
    whole, each = accuracies(file, models.event_set("events_test"))
    print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB, accuracy {whole:.4f} on mean frames, {each:.4f} on single")
    facts: dict[str, str | float | int] = {
        "summary": SUMMARY,
        "dataset": "Fashion-MNIST events",
        "accuracy": round(whole, 4),
        "epochs": arguments.epochs,
        "task": "events",
    }
    finish(file, network, arguments, f"train_events --epochs {arguments.epochs}", facts)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser("the event network")
    made.add_argument("--epochs", type=int, default=Recipe.epochs, help="passes over the recordings (%(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main())
