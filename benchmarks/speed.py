"""Time of the spiking network against T inferences of its ANN in ONNX Runtime, by what runs it.

Beside the artifact and the fused executor, each with weights of 32 and of 8 bits, stand a plain loop over timesteps in
PyTorch and what SpikingJelly converts the same network to; these two for the networks that are exported here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from environment import signature
from numpy.typing import NDArray
from timing import Work, seconds

import snncc
from snncc import models
from snncc.config import WEIGHTS

_REST = 0.05
"""Seconds before each call: by then the threads of the last one have stopped spinning."""
_EXPORTED = ("resnet18", "vgg16", "resnet20")
"""Networks that `speed_networks` makes."""
_CALIBRATED = 16
"""Images that they are calibrated on: their weights are random, so the thresholds only have to be alive."""

RUNNERS = ("artifact", "fused", "int8 artifact", "int8 fused", "torch", "spikingjelly")
Images = NDArray[np.float32]
Maker = Callable[[Images], Work]


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


@dataclass(frozen=True)
class Subject:
    """A network that is measured.

    Attributes:
        model: path of its ONNX file.
        images: as many as the largest batch, and those that it is calibrated on.
        calibration: how many of them.
        in_torch: returns what runs it in PyTorch, by the runner's name, for T; not there for bundled networks.
    """

    model: str
    images: Images
    calibration: int
    in_torch: Callable[[int], dict[str, Maker]] | None = None


def subject(name: str, largest: int, folder: Path) -> Subject:
    """Make a network ready."""
    if name not in _EXPORTED:
        images = models.calibration_set()[0][: max(256, largest)].astype(np.float32)
        return Subject(str(models.path(name)), images, 256)
    import speed_networks

    network, path = speed_networks.alive(name), folder / f"{name}.onnx"
    speed_networks.export(network, name, path)
    images = speed_networks.images(name, max(largest, _CALIBRATED))

    def in_torch(timesteps: int) -> dict[str, Maker]:
        import speed_torch

        return speed_torch.runners(network, images[:_CALIBRATED], timesteps)

    return Subject(str(path), images, _CALIBRATED, in_torch)


def works_of(of: Subject, timesteps: int, wanted: list[str]) -> tuple[dict[str, Maker], Maker]:
    """Compile a network; return what is timed, and T inferences of the ANN, each for a batch of images."""
    providers = ["CPUExecutionProvider"]
    ann = ort.InferenceSession(of.model, providers=providers)
    makers: dict[str, Maker] = {}

    def artifact(model: bytes) -> Maker:
        session = ort.InferenceSession(model, providers=providers)
        return lambda batch: lambda: session.run(None, {"image": batch})

    def fused(network: snncc.SpikingNetwork) -> Maker:
        simulator = network.simulator("fused")
        return lambda batch: lambda: simulator.run({"image": batch})

    for weights, prefix in zip(WEIGHTS, ("", "int8 "), strict=True):
        if not {prefix + "artifact", prefix + "fused"} & {*wanted}:
            continue
        config = snncc.Config(timesteps=timesteps, weights=weights, batch_size=8)
        network = snncc.compile(of.model, calibration=of.images[: of.calibration], config=config)
        if prefix + "artifact" in wanted:
            makers[prefix + "artifact"] = artifact(network.model.SerializeToString())
        if prefix + "fused" in wanted:
            makers[prefix + "fused"] = fused(network)
    if of.in_torch is not None and {"torch", "spikingjelly"} & {*wanted}:
        makers |= {name: maker for name, maker in of.in_torch(timesteps).items() if name in wanted}

    def inferences(batch: Images) -> Work:
        return lambda: [ann.run(None, {"image": batch}) for _ in range(timesteps)]

    return makers, inferences


def main() -> None:
    """Print a row for each network, T and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*models.names(), *_EXPORTED]
    chosen = f"bundled, or {', '.join(_EXPORTED)}, which need PyTorch (default: the bundled ones)"
    parser.add_argument("--networks", nargs="+", choices=known, default=models.names(), metavar="NAME", help=chosen)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[8], help="values of T (default: 8)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64], help="batch sizes (default: 1 16 64)")
    parser.add_argument("--runners", nargs="+", choices=RUNNERS, default=RUNNERS, help="what is timed (default: all)")
    parser.add_argument("--rounds", type=int, default=15, help="times that each is measured (default: 15)")
    parser.add_argument("--json", metavar="FILE", help="also write everything that was measured")
    parser.add_argument("--plot", metavar="FILE", help="also draw it against T (.svg, .png); pip install '.[plot]'")
    options = parser.parse_args()
    print(f"| network | T | batch | {' | '.join(options.runners)} |\n|{'---|' * (3 + len(options.runners))}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            of = subject(name, max(options.batch), Path(folder))
            for timesteps in options.timesteps:
                makers, inferences = works_of(of, timesteps, list(options.runners))
                for batch in options.batch:
                    part = of.images[:batch]
                    found = ratios({k: make(part) for k, make in makers.items()}, inferences(part), options.rounds)
                    shown = [_shown(found.get(runner)) for runner in options.runners]
                    print(f"| {name} | {timesteps} | {batch} | {' | '.join(shown)} |", flush=True)
                    rows.append({"network": name, "timesteps": timesteps, "batch": batch, "ratios": found})
    print(f"\nMedian, smallest and largest of {options.rounds} rounds; 1.00 is T inferences of the ANN.")
    print(f"onnxruntime {ort.__version__}; {signature()}")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))
    if options.plot:
        draw(rows, options.plot)


def draw(rows: list[dict[str, Any]], path: str) -> None:
    """Draw the ratios against T: a field for each network and batch size, a line for each runner."""
    from matplotlib.figure import Figure

    fields = list(dict.fromkeys((row["network"], row["batch"]) for row in rows))
    figure = Figure(figsize=(3.6 * len(fields), 3.4), layout="constrained")
    axes = figure.subplots(1, len(fields), sharey=True, squeeze=False)
    for axis, (network, batch) in zip(axes[0], fields, strict=True):
        of_field = sorted((r for r in rows if (r["network"], r["batch"]) == (network, batch)), key=_timesteps)
        for runner in dict.fromkeys(name for row in of_field for name in row["ratios"]):
            known = [row for row in of_field if row["ratios"].get(runner)]
            values = [row["ratios"][runner] for row in known]
            middle = [statistics.median(value) for value in values]
            spread = [[m - min(v), max(v) - m] for m, v in zip(middle, values, strict=True)]
            axis.errorbar([*map(_timesteps, known)], middle, [*zip(*spread, strict=True)], label=runner, marker="o")
        axis.axhline(1.0, color="grey", linewidth=0.8)
        axis.set(title=f"{network}, batch {batch}", xlabel="T", xscale="log", ylim=(0, None))
        axis.set_xticks([*map(_timesteps, of_field)], [*map(str, map(_timesteps, of_field))])
        axis.minorticks_off()
    axes[0][0].set_ylabel("time / T inferences of the ANN")
    axes[0][-1].legend()
    figure.savefig(path)


def _timesteps(row: dict[str, Any]) -> int:
    return int(row["timesteps"])


def _shown(values: list[float] | None) -> str:
    return "" if values is None else f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
