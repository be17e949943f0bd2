"""Time of the spiking network against T inferences of its ANN in ONNX Runtime: the artifact, and the fused executor."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
from environment import signature
from numpy.typing import NDArray
from timing import Work, seconds

import snncc
from snncc import models

_REST = 0.05
"""Seconds before each call: by then the threads of the last one have stopped spinning."""


def ratios(works: dict[str, Work], baseline: Work, rounds: int) -> dict[str, list[float]]:
    """Time everything in turn, so that a busy machine slows all of it; return times over the baseline's."""
    for work in (baseline, *works.values()):
        work()  # sessions, pages, compiled loops
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        base = seconds(baseline, _REST)
        for name, work in works.items():
            found[name].append(seconds(work, _REST) / base)
    return found


def works_of(
    name: str, images: NDArray[np.float32], timesteps: int
) -> tuple[dict[str, Callable[[NDArray[np.float32]], Work]], Callable[[NDArray[np.float32]], Work]]:
    """Compile a network; return what is timed, and T inferences of the ANN, each for a batch of images."""
    network = snncc.compile(f"zoo:{name}", calibration=images, config=snncc.Config(timesteps=timesteps))
    providers = ["CPUExecutionProvider"]
    ann = ort.InferenceSession(models.path(name), providers=providers)
    artifact = ort.InferenceSession(network.model.SerializeToString(), providers=providers)
    fused = network.simulator("fused")

    def inferences(batch: NDArray[np.float32]) -> Work:
        return lambda: [ann.run(None, {"image": batch}) for _ in range(timesteps)]

    return {
        "artifact": lambda batch: lambda: artifact.run(None, {"image": batch}),
        "fused": lambda batch: lambda: fused.run({"image": batch}),
    }, inferences


def main() -> None:
    """Print a row for each network, T and batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=models.names(), default=models.names(), metavar="NAME")
    parser.add_argument("--timesteps", type=int, nargs="+", default=[8], help="values of T (default: 8)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64], help="batch sizes (default: 1 16 64)")
    parser.add_argument("--rounds", type=int, default=15, help="times that each is measured (default: 15)")
    parser.add_argument("--json", metavar="FILE", help="also write everything that was measured")
    options = parser.parse_args()
    images = models.calibration_set()[0][: max(256, *options.batch)].astype(np.float32)
    print("| network | T | batch | artifact | fused | artifact / fused |\n|---|---|---|---|---|---|")
    rows = []
    for name in options.networks:
        for timesteps in options.timesteps:
            works, inferences = works_of(name, images, timesteps)
            for batch in options.batch:
                part = images[:batch]
                found = ratios({k: w(part) for k, w in works.items()}, inferences(part), options.rounds)
                shown = [f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in found.values()]
                faster = statistics.median(np.divide(found["artifact"], found["fused"]).tolist())
                print(f"| {name} | {timesteps} | {batch} | {' | '.join(shown)} | {faster:.2f} |", flush=True)
                rows.append({"network": name, "timesteps": timesteps, "batch": batch, "ratios": found})
    print(f"\nMedian, smallest and largest of {options.rounds} rounds; 1.00 is T inferences of the ANN.")
    print(f"onnxruntime {ort.__version__}; {signature()}")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
