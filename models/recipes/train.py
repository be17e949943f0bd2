"""Trains a network of the zoo on Fashion-MNIST, exports it to ONNX and records it in ``zoo.json``.

Usage: ``python -m snncc.models.recipes.train NAME [--epochs N] [--out FILE]``

All 60,000 training images are used and the last epoch is kept: the test images choose nothing, they only give the
accuracy of the finished file.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from snncc.errors import DataError
from snncc.models.recipes import fashion_mnist
from snncc.models.recipes.command import begin, finish, parser, resume, save
from snncc.models.recipes.export import export, logits
from snncc.models.recipes.networks import BUILDERS

SIDE = 28
PADDING = 2
BATCH = 128


@dataclass(frozen=True)
class Recipe:
    """How one network is trained: SGD with Nesterov momentum and a one-cycle learning rate.

    Attributes:
        summary: one line about the architecture, for the record.
        epochs: default number of passes over the training images.
        peak_rate: highest learning rate of the cycle, reached after a quarter of the steps.
        weight_decay: of the weights of full convolutions and fully connected layers; the others have none.
        label_smoothing: share of the target probability that is spread over all classes.
    """

    summary: str
    epochs: int
    peak_rate: float
    weight_decay: float
    label_smoothing: float


RECIPES = {
    "fashion_resnet20": Recipe(
        "ResNet-20: three stages of three residual blocks, 16/32/64 channels, ReLU", 7, 0.2, 5e-4, 0.05
    ),
    "fashion_vgg": Recipe(
        "VGG style: six convolutions, 32/64/96 channels, ReLU, max pooling, hidden layer of 128", 10, 0.1, 5e-4, 0.05
    ),
    "fashion_mobilenet": Recipe(
        "MobileNetV1 style: six depthwise-separable convolutions, 64 to 256 channels, ReLU6", 7, 0.2, 2e-4, 0.05
    ),
}


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random crop after zero padding and random horizontal flip, for a whole batch in one gather.

    Args:
        images: uint8 ``[N, 1, 28 + 2 * PADDING, 28 + 2 * PADDING]``, already padded.
        generator: source of randomness.

    Returns:
        float32 ``[N, 1, 28, 28]``.
    """
    count = len(images)
    offsets = torch.randint(0, 2 * PADDING + 1, (2, count, 1), generator=generator)
    flip = torch.rand((count, 1), generator=generator) < 0.5
    position = torch.arange(SIDE)
    rows = offsets[0] + position
    columns = offsets[1] + torch.where(flip, position.flip(0), position)
    batch = torch.arange(count)[:, None, None]
    cropped = images[batch, 0, rows[:, :, None], columns[:, None, :]]
    return cropped[:, None].float()


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Splits the parameters: no decay for biases, batch normalisation and depthwise filters.

    Depthwise filters hold nine weights per channel and lose whole channels to a decay tuned for full convolutions.
    """
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in network.parameters():
        depthwise = parameter.dim() == 4 and parameter.shape[1] == 1 and parameter.shape[2] > 1
        (others if parameter.dim() == 1 or depthwise else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    epochs: int,
    seed: int,
    checkpoint: Path | None = None,
) -> None:
    """Trains a network in place and prints a line per epoch.

    Args:
        network: takes raw pixels float32 ``[N, 1, 28, 28]``.
        images: training images uint8 ``[N, 1, 28, 28]``.
        labels: classes int64 ``[N]``.
        recipe: hyperparameters.
        epochs: passes over the images.
        seed: of the order and the augmentation.
        checkpoint: file that keeps the state after each epoch; if it is there, training goes on from it.
    """
    generator = torch.Generator().manual_seed(seed)
    padded = nn.functional.pad(images, (PADDING,) * 4)
    steps = len(images) // BATCH
    optimiser = torch.optim.SGD(parameter_groups(network, recipe.weight_decay), lr=0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.peak_rate, epochs * steps, pct_start=0.25, cycle_momentum=False, final_div_factor=1e3
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    network.train()
    for epoch in range(resume(checkpoint, network, optimiser, schedule, generator), epochs):
        start = time.perf_counter()
        loss_sum = right = 0.0
        order = torch.randperm(len(images), generator=generator)
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            # Convolutions on a CPU are about a third faster with channels last.
            batch = augment(padded[chosen], generator).contiguous(memory_format=torch.channels_last)
            output = network(batch)
            loss = loss_function(output, labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            loss_sum += float(loss.detach())
            right += float((output.detach().argmax(1) == labels[chosen]).sum())
        seconds = time.perf_counter() - start
        accuracy = right / (steps * BATCH)
        print(
            f"epoch {epoch + 1}/{epochs}: loss {loss_sum / steps:.4f}, accuracy {accuracy:.4f}, {seconds:.0f} s",
            flush=True,
        )
        save(checkpoint, epoch + 1, network, optimiser, schedule, generator)


def main() -> int:
    """Command line; returns the exit code."""
    arguments = _parser().parse_args()
    recipe = RECIPES[arguments.name]
    epochs = recipe.epochs if arguments.epochs is None else arguments.epochs
    file = begin(arguments, arguments.name)
    try:
        images, labels = fashion_mnist.load(arguments.data, "train")
        test_images, test_labels = fashion_mnist.load(arguments.data, "test")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    network = BUILDERS[arguments.name]().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train(
        network,
        torch.tensor(images),
        torch.tensor(labels).long(),
        recipe,
        epochs,
        arguments.seed,
        arguments.checkpoint,
    )
    if arguments.weights:
        torch.save(network.state_dict(), arguments.weights)
    export(network, file)
    accuracy = float((logits(file, test_images).argmax(1) == test_labels).mean())
    print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB, accuracy {accuracy:.4f} on the test images")
    facts: dict[str, str | float | int] = {
        "summary": recipe.summary,
        "dataset": "Fashion-MNIST",
        "accuracy": round(accuracy, 4),
        "epochs": epochs,
    }
    finish(file, network, arguments, f"train {arguments.name} --epochs {epochs}", facts)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser("a network")
    made.add_argument("name", choices=sorted(RECIPES))
    made.add_argument("--epochs", type=int, help="passes over the training images (default: as in the recipe)")
    made.add_argument("--weights", type=Path, help="also save the weights there, as a PyTorch state dict")
    return made


if __name__ == "__main__":
    sys.exit(main())
