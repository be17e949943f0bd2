"""What the commands that train networks of the zoo share: options, checkpoints, and the record at the end."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from snncc.models.recipes import fashion_mnist
from snncc.models.recipes.export import ZOO_FOLDER, record


def parser(what: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that all have."""
    made = argparse.ArgumentParser(description=f"Train and export {what} of the zoo.")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--threads", type=int, default=1, help="of PyTorch; rounding depends on it (%(default)s)")
    made.add_argument("--data", type=Path, default=fashion_mnist.DEBIAN_FOLDER, help="folder of the .gz files")
    made.add_argument("--out", type=Path, help="ONNX file to write (default: the zoo's, which also updates zoo.json)")
    made.add_argument("--checkpoint", type=Path, help="file to keep the state in and to resume from")
    return made


def begin(arguments: argparse.Namespace, name: str) -> Path:
    """Sets seed and threads, and returns the ONNX file to write."""
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    return Path(arguments.out or ZOO_FOLDER / "networks" / f"{name}.onnx")


def finish(
    file: Path, network: nn.Module, arguments: argparse.Namespace, command: str, facts: dict[str, str | float | int]
) -> None:
    """Records a network in ``zoo.json`` if its file is the zoo's.

    Args:
        file: the ONNX file.
        network: what was exported.
        arguments: the options.
        command: module and options that are the recipe's own, for the command line that repeats the run.
        facts: summary, dataset, accuracy, epochs, and what else the record holds.
    """
    if file.resolve().parent != ZOO_FOLDER / "networks":
        return
    options = f"--seed {arguments.seed} --threads {arguments.threads}"
    shared: dict[str, str | float | int] = {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "licence": "MIT",
        "recipe": f"python -m snncc.models.recipes.{command} {options}",
        "seed": arguments.seed,
        "torch": torch.__version__,
    }
    record(file, {**facts, **shared})


def save(
    checkpoint: Path | None,
    done: int,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
) -> None:
    """Keeps the state after a number of finished epochs or steps in a file, in place of the one before."""
    if checkpoint is None:
        return
    state = {
        "done": done,
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "generator": generator.get_state(),
        "global": torch.get_rng_state(),
    }
    torch.save(state, f"{checkpoint}.new")
    Path(f"{checkpoint}.new").replace(checkpoint)


def resume(
    checkpoint: Path | None,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
) -> int:
    """Loads a checkpoint if there is one and returns the number of finished epochs or steps."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["global"])
    return int(state["done"])
