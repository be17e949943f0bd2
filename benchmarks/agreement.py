"""The artifact in ONNX Runtime and the fused executor against the NumPy reference simulator: classes and spikes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

import numpy as np
from environment import signature
from numpy.typing import NDArray

import snncc
from snncc import models
from snncc.config import WEIGHTS

BATCH_SIZE = 50


@dataclass
class Totals:
    """What one executor gave.

    Attributes:
        scores: class scores, a batch each.
        spikes: by layer, spikes of all images.
    """

    scores: list[NDArray[np.float32]] = field(default_factory=list)
    spikes: dict[str, float] = field(default_factory=dict)


def simulate(network: snncc.SpikingNetwork, images: NDArray[np.float32], backend: str) -> Totals:
    """Run all images, in batches, and add up the spikes of each layer."""
    simulator, totals = network.simulator(backend), Totals()
    for start in range(0, len(images), BATCH_SIZE):
        result = simulator.run({"image": images[start : start + BATCH_SIZE]})
        totals.scores.append(result.outputs["logits"])
        for layer, spikes in result.spikes.items():
            totals.spikes[layer] = totals.spikes.get(layer, 0.0) + float(spikes.sum())
    return totals


def compare(name: str, images: NDArray[np.float32], calibration: int, config: snncc.Config, *, verbose: bool) -> None:
    """Compile a network of the zoo, run it in all three ways, print the differences."""
    calibrating = models.calibration_set()[0][:calibration].astype(np.float32)
    network = snncc.compile(f"zoo:{name}", calibration=calibrating, config=config)
    reference = simulate(network, images, "numpy")
    for backend in ("ort", "fused"):
        report(f"{name}, {backend}", simulate(network, images, backend), reference, len(images), verbose=verbose)


def report(name: str, found: Totals, reference: Totals, images: int, *, verbose: bool) -> None:
    """Print the differences of one executor from the reference."""
    left, right = np.concatenate(found.scores), np.concatenate(reference.scores)
    same = float(np.mean(left.argmax(axis=1) == right.argmax(axis=1)))
    wanted = reference.spikes
    differences = {layer: abs(found.spikes[layer] - spikes) / max(spikes, 1.0) for layer, spikes in wanted.items()}
    worst = max(differences, key=lambda layer: differences[layer])
    if verbose:
        for layer, difference in differences.items():
            print(f"    {layer:40} {wanted[layer]:14,.0f} spikes, difference {difference:.5%}")
    print(
        f"{name:26} same class {same:.2%} of {images:,}; spikes per layer within {differences[worst]:.5%} "
        f"({worst}); scores within {float(np.abs(left - right).max()):.2g}",
        flush=True,
    )


def main() -> None:
    """Compare every network that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=models.names(), default=models.names(), metavar="NAME")
    parser.add_argument("--limit", type=int, default=1000, help="test images (default: the first 1000)")
    parser.add_argument("--calibration", type=int, default=1024, help="calibration images (default: 1024)")
    parser.add_argument("--timesteps", type=int, default=8, help="T (default: 8)")
    parser.add_argument("--weights", choices=WEIGHTS, default="float32", help="of the SNN (default: float32)")
    parser.add_argument("--verbose", action="store_true", help="print every layer")
    options = parser.parse_args()
    images = models.test_set()[0][: options.limit].astype(np.float32)
    for name in options.networks:
        config = snncc.Config(timesteps=options.timesteps, weights=options.weights)
        compare(name, images, options.calibration, config, verbose=options.verbose)
    print(signature())


if __name__ == "__main__":
    main()
