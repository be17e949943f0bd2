"""Signed against unsigned neurons at few levels: how often each zoo network decides as its ANN does."""

from __future__ import annotations

import argparse

from environment import signature
from zoo import measure

import snncc
from snncc import models

NEURONS = ("burst", "signed", "auto")


def main() -> int:
    """Print a line per network; return 1 unless the signed neuron agrees more often with every one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=models.names(), default=models.names(), metavar="NAME")
    parser.add_argument("--limit", type=int, default=2000, help="test images (default: the first 2000)")
    parser.add_argument("--calibration", type=int, default=1024, help="calibration images (default: 1024)")
    parser.add_argument("--timesteps", type=int, default=4, help="T (default: 4)")
    parser.add_argument("--max-burst", type=int, default=2, help="ψ (default: 2)")
    options = parser.parse_args()
    columns = [f"agreement {neuron}" for neuron in NEURONS] + [f"spikes {neuron}" for neuron in NEURONS]
    print(f"| network | {' | '.join(columns)} |\n| --- |{' --: |' * len(columns)}")
    better = True
    for name in options.networks:
        agreement, spikes = {}, {}
        for neuron in NEURONS:
            config = snncc.Config(timesteps=options.timesteps, max_burst=options.max_burst, neuron=neuron)
            result = measure(name, config, options.calibration, options.limit)
            agreement[neuron], spikes[neuron] = result.agreement or 0.0, result.reading.spikes
        cells = [f"{agreement[n]:.2%}" for n in NEURONS] + [f"{spikes[n]:,.0f}" for n in NEURONS]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)
        better &= agreement["signed"] > agreement["burst"]
    print(
        f"\n{result.samples:,} test images, {options.calibration:,} for calibration, T={options.timesteps} "
        f"ψ={options.max_burst}. {signature()}.\n"
        f"The signed neuron agrees more often on {'every network' if better else 'some networks only'}."
    )
    return 0 if better else 1


if __name__ == "__main__":
    raise SystemExit(main())
