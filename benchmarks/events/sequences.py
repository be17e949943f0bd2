"""Sequences of frames through a network that takes one frame: ANN and SNN, with neurons that start anew or don't.

    python benchmarks/events/sequences.py MODEL DATA.npz --bins 3 -T 3 6 9 12

DATA.npz holds recordings in N-MNIST's own format one after the other: `events` uint8 [E, 5], `offsets` [N + 1],
`labels` [N] and `split` [N], "train" or "test". Or give --train and --test, each an .npz that `snncc
events --layout sequence` wrote.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import snncc
from snncc.evaluate import evaluate
from snncc.events import Slicing, count_frames, read
from snncc.runtime.meter import CMOS_45NM
from snncc.tally import Evaluation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import signature

Part = dict[str, NDArray[Any]]


def packed(path: Path, bins: int, sensor: tuple[int, int]) -> tuple[Part, Part]:
    """Return the training and the test part of packed recordings as count frames [N, bins, 2, H, W]."""
    with np.load(path, allow_pickle=False) as content:
        events, offsets, labels, split = (content[k] for k in ("events", "offsets", "labels", "split"))
    frames = []
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "recording.bin"
        for start, stop in itertools.pairwise(offsets.tolist()):
            events[start:stop].tofile(one)
            frames.append(count_frames(read(one, sensor=sensor), Slicing(bins=bins)))
    stacked = np.stack(frames)
    train, test = ({"events": stacked[split == name], "label": labels[split == name]} for name in ("train", "test"))
    return train, test


def loaded(path: Path) -> Part:
    """Return what `snncc events --layout sequence` wrote."""
    with np.load(path, allow_pickle=False) as content:
        return {key: content[key] for key in ("events", "label")}


def row(found: Evaluation, options: dict[str, Any]) -> str:
    """Return a row of the table."""
    right, ann = (round((share or 0.0) * found.samples) for share in (found.snn_accuracy, found.ann_accuracy))
    energy = [f"{1e6 * joules:.2f} µJ" for joules in found.reading.energy(CMOS_45NM)]
    period = options["reset_after"]
    start = "never" if period == options["timesteps"] else f"after {period}"
    agree = round((found.agreement or 0.0) * found.samples)
    cells = [
        str(options["timesteps"]),
        start,
        f"{ann}",
        f"{right}",
        f"{agree}",
        f"{found.reading.spikes:,.0f}",
        *energy,
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the ANN, which takes one frame [N, 2, H, W]")
    parser.add_argument("data", nargs="?", type=Path, help="packed recordings")
    parser.add_argument("--train", type=Path, help="sequences to calibrate on")
    parser.add_argument("--test", type=Path, help="sequences to measure on")
    parser.add_argument("--bins", type=int, default=3, help="frames of a packed recording")
    parser.add_argument("--sensor", type=int, nargs=2, default=(34, 34), metavar=("W", "H"))
    parser.add_argument("-T", "--timesteps", type=int, nargs="+", default=[3, 6, 9, 12])
    parser.add_argument("--max-burst", type=int, default=8)
    options = parser.parse_args()
    if options.data is not None:
        train, test = packed(options.data, options.bins, tuple(options.sensor))
    elif options.train is not None and options.test is not None:
        train, test = loaded(options.train), loaded(options.test)
    else:
        parser.error("give packed recordings, or --train and --test")
    print(
        f"{Path(options.model).name}: {len(test['label'])} test recordings of {test['events'].shape[1]} frames, ",
        end="",
    )
    print(f"{len(train['label'])} for calibration, ψ={options.max_burst}\n")
    print("| T | neurons start anew | ANN right | SNN right | same class | spikes | energy ANN | energy SNN |")
    print("| --: | --- | --: | --: | --: | --: | --: | --: |")
    for timesteps in options.timesteps:
        for reset_after in (None, timesteps):
            given: dict[str, Any] = {"timesteps": timesteps, "max_burst": options.max_burst, "reset_after": reset_after}
            config = snncc.Config(input_coding="frames", **given)
            network = snncc.compile(options.model, calibration=train, config=config)
            found = evaluate(network, test, ann=options.model)
            print(row(found, network.record.config), flush=True)
    print(f"\n{signature()}")


if __name__ == "__main__":
    main()
