"""Early exit on the zoo: mean timesteps, accuracy and energy, with a threshold found on the calibration images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from environment import environment, signature

import snncc
from snncc import models
from snncc.evaluate import evaluate
from snncc.report.early_exit import exit_values
from snncc.runtime.early_exit import MEASURES
from snncc.runtime.meter import CMOS_45NM
from snncc.tally import Evaluation


def measure(name: str, options: argparse.Namespace) -> tuple[Evaluation, Evaluation, dict[str, Any]]:
    """Compile a network of the zoo; return what all timesteps give, what early exit gives, and when samples left."""
    images = models.calibration_set()[0].astype(np.float32)
    config = snncc.Config(timesteps=options.timesteps, max_burst=options.max_burst)
    network = snncc.compile(f"zoo:{name}", calibration=images, config=config)
    found = network.exit_rule(images, options.max_drop, measure=options.measure)
    tests, labels = models.test_set()
    data = {"image": tests[: options.limit].astype(np.float32), "label": labels[: options.limit].astype(np.int64)}
    full, early = evaluate(network, data), evaluate(network, data, early_exit=found.rule)
    return full, early, exit_values(found.rule, found, early.exits or ())


def main() -> None:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=models.names(), default=models.names(), metavar="NAME")
    parser.add_argument("--timesteps", type=int, default=8, help="T (default: 8)")
    parser.add_argument("--max-burst", type=int, default=4, help="ψ (default: 4)")
    parser.add_argument("--max-drop", type=float, default=0.2, help="points of agreement on calibration data")
    parser.add_argument("--measure", choices=list(MEASURES), default="margin", help="default: margin")
    parser.add_argument("--limit", type=int, help="use the first N test images only")
    parser.add_argument("--json", metavar="FILE", help="also write everything that was measured")
    options = parser.parse_args()
    pairs = " | ".join(f"{what}, all timesteps | early exit" for what in ("accuracy", "spikes", "energy"))
    print(f"| network | mean timesteps | {pairs} |\n| --- |{' --: |' * 7}")
    told = {}
    for name in options.networks:
        full, early, exits = measure(name, options)
        told[name] = {"early_exit": exits, "evaluation": early.to_dict(), "all_timesteps": full.to_dict()}
        cells = [f"`{name}`", f"{exits['mean_timesteps']:.2f} of {options.timesteps}"]
        cells += [f"{100 * (e.snn_accuracy or 0):.2f}%" for e in (full, early)]
        cells += [f"{e.reading.spikes:,.0f}" for e in (full, early)]
        cells += [f"{1e6 * e.reading.energy(CMOS_45NM)[1]:.1f} µJ" for e in (full, early)]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\nψ={options.max_burst}, {options.measure}, at most {options.max_drop:g} points. {signature()}")
    if options.json:
        Path(options.json).write_text(json.dumps({**told, "environment": environment()}, indent=1))


if __name__ == "__main__":
    main()
