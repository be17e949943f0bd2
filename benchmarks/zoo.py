"""The README's table: accuracy, spikes and energy of every zoo network on the Fashion-MNIST test set, as Markdown."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from environment import environment, signature

import snncc
from snncc import models
from snncc.config import WEIGHTS
from snncc.evaluate import evaluate
from snncc.runtime.meter import CMOS_45NM
from snncc.tally import Evaluation

TIMESTEPS = (4, 8)
MAX_BURST = 4
COLUMNS = ("network", "T", "ANN", "SNN", "SNN - ANN", "agreement", "spikes", "energy ANN", "energy SNN")


def measure(name: str, config: snncc.Config, calibration: int, limit: int | None) -> Evaluation:
    """Compile a network of the zoo and evaluate it against its ANN.

    Args:
        name: name in the zoo.
        config: the options of the compile.
        calibration: number of calibration images.
        limit: number of test images; None for all.
    """
    images = models.calibration_set()[0][:calibration].astype(np.float32)
    network = snncc.compile(f"zoo:{name}", calibration=images, config=config)
    tests, labels = models.test_set()
    data = {"image": tests[:limit].astype(np.float32), "label": labels[:limit].astype(np.int64)}
    return evaluate(network, data, ann=f"zoo:{name}")


def row(name: str, result: Evaluation) -> tuple[str, ...]:
    """Return the cells of one line of the table; spikes and energy are per image."""
    if result.ann_accuracy is None or result.snn_accuracy is None or result.agreement is None:
        raise ValueError(f"the evaluation of {name} has no labels or no ANN")
    ann, snn = result.reading.energy(CMOS_45NM)
    return (
        f"`{name}`",
        str(result.timesteps),
        f"{result.ann_accuracy:.2%}",
        f"{result.snn_accuracy:.2%}",
        f"{100 * (result.snn_accuracy - result.ann_accuracy):+.2f}",
        f"{result.agreement:.2%}",
        f"{result.reading.spikes:,.0f}",
        f"{1e6 * ann:.1f} µJ",
        f"{1e6 * snn:.1f} µJ",
    )


def markdown(cells: tuple[str, ...]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, print the table line by line, write the details."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=models.names(), default=models.names(), metavar="NAME")
    parser.add_argument("--limit", type=int, help="use the first LIMIT test images only")
    parser.add_argument("--calibration", type=int, default=1024, help="calibration images (default: 1024)")
    parser.add_argument("--weights", choices=WEIGHTS, default="float32", help="of the SNN (default: float32)")
    parser.add_argument("--timesteps", type=int, nargs="+", default=TIMESTEPS, help="values of T (default: 4 8)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured")
    options = parser.parse_args()
    details: list[dict[str, Any]] = []
    shares: dict[int, list[float]] = {timesteps: [] for timesteps in options.timesteps}
    print(markdown(COLUMNS))
    print(markdown(("---",) + ("--:",) * (len(COLUMNS) - 1)))
    for name in options.networks:
        for timesteps in options.timesteps:
            config = snncc.Config(timesteps=timesteps, max_burst=MAX_BURST, weights=options.weights)
            result = measure(name, config, options.calibration, options.limit)
            ann, snn = result.reading.energy(CMOS_45NM)
            shares[timesteps].append(snn / ann)
            print(markdown(row(name, result)), flush=True)
            details.append({"network": name, "max_burst": MAX_BURST, **result.to_dict()})
    images = details[0]["samples"]
    settings = f"{options.calibration:,} for calibration, ψ={MAX_BURST}, {options.weights} weights"
    print(f"\n{images:,} test images, {settings}. {signature()}.")
    shown = " and ".join(f"{min(s):.0%} to {max(s):.0%} of the ANN's energy at T={t}" for t, s in shares.items())
    print(f"The SNN takes {shown}.")
    if options.json is not None:
        report = {"environment": environment(), "calibration": options.calibration, "results": details}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"wrote {options.json}", file=sys.stderr)


if __name__ == "__main__":
    main()
