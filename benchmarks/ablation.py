"""Every preset side by side: accuracy and spikes over T and ψ, as Markdown, JSON and a plot of both.

The number of levels T·ψ stands beside each row: methods with as many levels compare fairly. Presets of single spikes
have ψ = 1 whatever the grid says.

With --json every row is kept as soon as it is there, and rows that the file has are not measured again: the grid may
be interrupted and goes on where it was, or grows. Rows of other data or another version are refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from environment import environment, signature

import snncc
from snncc import models
from snncc.evaluate import evaluate
from snncc.presets import PRESETS, compile_preset
from snncc.runtime.meter import CMOS_45NM

TIMESTEPS = (1, 2, 4, 8, 16, 32)
BURSTS = (1, 2, 4, 8, 15)
COLUMNS = ("network", "preset", "T", "ψ", "levels", "ANN", "SNN", "SNN - ANN", "agreement", "spikes", "energy")


@dataclass(frozen=True)
class Row:
    """One network compiled with one preset; spikes and energy (µJ, 45 nm) per sample."""

    network: str
    preset: str
    timesteps: int
    max_burst: int
    levels: int
    ann: float | None
    snn: float | None
    agreement: float | None
    spikes: float
    energy: float

    def cells(self) -> tuple[str, ...]:
        """Return the cells of one line of the table."""
        drop = None if self.snn is None or self.ann is None else f"{100 * (self.snn - self.ann):+.2f}"
        shares = ["" if v is None else f"{v:.2%}" for v in (self.ann, self.snn, self.agreement)]
        sizes = (str(self.timesteps), str(self.max_burst), str(self.levels))
        tail = (f"{self.spikes:,.0f}", f"{self.energy:.1f} µJ")
        return (f"`{self.network}`", f"`{self.preset}`", *sizes, *shares[:2], drop or "", shares[2], *tail)


def grid(presets: list[str], timesteps: list[int], bursts: list[int]) -> Iterator[tuple[str, int, int]]:
    """Yield preset, T and ψ; presets of single spikes once per T."""
    for steps in timesteps:
        for name in presets:
            own = PRESETS[name].options.get("max_burst")
            for max_burst in [own] if own is not None else bursts:
                yield name, steps, max_burst


def measure(name: str, model: str, calibration: Any, data: Any, preset: str, timesteps: int, max_burst: int) -> Row:
    """Compile a network with a preset and evaluate it against its ANN."""
    network = compile_preset(preset, model, calibration=calibration, timesteps=timesteps, max_burst=max_burst)
    result = evaluate(network, data, ann=model)
    accuracies = (result.ann_accuracy, result.snn_accuracy, result.agreement)
    energy = 1e6 * result.reading.energy(CMOS_45NM)[1]
    spikes = result.reading.spikes
    return Row(name, preset, timesteps, max_burst, timesteps * max_burst, *accuracies, spikes, energy)


class Rows:
    """Rows that were measured, in a file that is written after each of them."""

    def __init__(self, path: Path | None, conditions: dict[str, Any]) -> None:
        """Read what the file holds.

        Raises:
            ValueError: its rows were measured under other conditions.
        """
        self._path, self._conditions = path, conditions
        self.rows: list[Row] = []
        if path is not None and path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["conditions"] != conditions:
                raise ValueError(f"'{path}' was measured with {content['conditions']}, not {conditions}: name another")
            self.rows += [Row(**row) for row in content["rows"]]

    def find(self, network: str, preset: str, timesteps: int, max_burst: int) -> Row | None:
        """Return a row that is there."""
        wanted = (network, preset, timesteps, max_burst)
        return next((r for r in self.rows if (r.network, r.preset, r.timesteps, r.max_burst) == wanted), None)

    def add(self, row: Row) -> None:
        """Keep a row; the file is replaced whole."""
        self.rows.append(row)
        if self._path is not None:
            content = {
                "environment": environment(),
                "conditions": self._conditions,
                "rows": [asdict(row) for row in self.rows],
            }
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            temporary.replace(self._path)


def draw(rows: list[Row], path: Path) -> None:
    """Draw accuracy (or agreement, without labels) against spikes, a line per network and preset."""
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row.network for row in rows))
    figure = Figure(figsize=(6 * len(networks), 5), layout="constrained")
    for axes, network in zip(np.atleast_1d(figure.subplots(1, len(networks))), networks, strict=True):
        own = [row for row in rows if row.network == network]
        for preset in dict.fromkeys(row.preset for row in own):
            points = sorted(
                (row.spikes, 100 * value)
                for row in own
                if row.preset == preset and (value := row.agreement if row.snn is None else row.snn) is not None
            )
            axes.plot(*zip(*points, strict=True), marker=".", linewidth=1, label=preset)
        if own[0].ann is not None:
            axes.axhline(100 * own[0].ann, color="black", linestyle=":", linewidth=1, label="ANN")
        axes.set(title=network, xlabel="spikes per sample", ylabel="%", xscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--network", nargs="+", choices=models.names(), default=None, help="zoo networks (default: all)"
    )
    parser.add_argument("--model", help="an ONNX file instead of zoo networks")
    parser.add_argument("--calib", help="calibration data of --model")
    parser.add_argument("--data", help="test data of --model, with labels")
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("-T", "--timesteps", nargs="+", type=int, default=list(TIMESTEPS))
    parser.add_argument("--max-burst", nargs="+", type=int, default=list(BURSTS))
    parser.add_argument("--calibration", type=int, default=1024, help="calibration images (default: 1024)")
    parser.add_argument("--images", type=int, default=None, help="test images (default: all)")
    parser.add_argument("--json", type=Path, help="file for the rows; those that it has are not measured again")
    parser.add_argument("--plot", type=Path, help="file for accuracy against spikes, .svg or .png")
    options = parser.parse_args()
    if options.model and not (options.calib and options.data):
        parser.error("--model needs --calib and --data")
    return options


def networks(options: argparse.Namespace) -> list[tuple[str, str, Any, Any]]:
    """Return name, model, calibration and test data of each network."""
    if options.model:
        return [(Path(options.model).name, options.model, options.calib, options.data)]
    images = models.calibration_set()[0][: options.calibration].astype(np.float32)
    tests, labels = models.test_set()
    count = options.images
    data = {"image": tests[:count].astype(np.float32), "label": labels[:count].astype(np.int64)}
    return [(name, f"zoo:{name}", images, data) for name in options.network or models.names()]


def main() -> None:
    """Print the table; write JSON and plot where asked."""
    options = arguments()
    own = {"calib": options.calib, "data": options.data} if options.model else {"images": options.images}
    try:
        kept = Rows(options.json, {"version": snncc.__version__, "calibration": options.calibration, **own})
    except ValueError as error:
        sys.exit(f"error: {error}")
    shown: list[Row] = []
    print("| " + " | ".join(COLUMNS) + " |")
    print("| --- | --- |" + " --: |" * (len(COLUMNS) - 2))
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("SNNCC_CACHE", folder)
        for name, model, calibration, data in networks(options):
            for preset, timesteps, max_burst in grid(options.preset, options.timesteps, options.max_burst):
                row = kept.find(name, preset, timesteps, max_burst)
                if row is None:
                    try:
                        row = measure(name, model, calibration, data, preset, timesteps, max_burst)
                    except snncc.SnnccError as error:
                        print(f"{name}, {preset}, T={timesteps}, ψ={max_burst}: {error}", file=sys.stderr)
                        continue
                    kept.add(row)
                shown.append(row)
                print("| " + " | ".join(row.cells()) + " |", flush=True)
    tests = "all" if options.images is None else f"{options.images:,}"
    print(f"\n{tests} test images, {options.calibration:,} for calibration. {signature()}.")
    if options.plot:
        draw(shown, options.plot)


if __name__ == "__main__":
    main()
