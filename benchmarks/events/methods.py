"""The event network of the zoo, converted by every method of the paper and by ours, as Markdown.

    python benchmarks/events/methods.py
    python benchmarks/events/methods.py -T 8 16 --max-burst 2 8 --reset-after 1

Rows follow table I of *Bursting Spikes*: the ANN, calibration alone (single spikes), burst spikes (`bs`), their
reallocation (`bs+bsr`), and `best`. Below them stands the accuracy after each timestep, beside that of the ANN on the
mean of the frames so far. Each of T timesteps has a frame of its own (T=8), or shares one (T=16, ...); with
--input-coding constant all have the mean frame.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from snncc import models
from snncc.evaluate import evaluate
from snncc.presets import PRESETS, compile_preset
from snncc.runtime.meter import CMOS_45NM
from snncc.tally import Evaluation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment, signature

NETWORK = "fashion_events_resnet"
METHODS = ("calibration", "bs", "bs+bsr", "best")
COLUMNS = ("method", "T", "ψ", "neurons start anew", "accuracy", "SNN - ANN", "agreement", "spikes", "energy")

Samples = dict[str, NDArray[Any]]


def samples(name: str, coding: str, limit: int | None) -> Samples:
    """Return recordings as frames, or as their mean where the input is constant."""
    made = models.event_frames(name)
    events = made["events"][:limit]
    return {"events": events if coding == "frames" else events.mean(axis=1), "label": made["label"][:limit]}


def ann_over_time(data: Samples) -> list[float]:
    """Return how often the ANN is right on the mean of the first frames, for each number of them."""
    session = onnxruntime.InferenceSession(models.path(NETWORK), providers=["CPUExecutionProvider"])
    frames = data["events"]
    shares = []
    for count in range(1, frames.shape[1] + 1):
        means = frames[:, :count].mean(axis=1)
        scores = np.concatenate([session.run(None, {"events": part})[0] for part in np.array_split(means, 10)])
        shares.append(float((scores.argmax(axis=1) == data["label"]).mean()))
    return shares


def measure(
    method: str, calibration: Samples, data: Samples, given: dict[str, Any]
) -> tuple[dict[str, Any], Evaluation]:
    """Compile with a method and evaluate against the ANN; return the options that it ran with, too."""
    if "max_burst" in PRESETS[method].options:
        given = {name: value for name, value in given.items() if name != "max_burst"}
    network = compile_preset(method, f"zoo:{NETWORK}", calibration=calibration, **given)
    return network.record.config, evaluate(network, data, ann=f"zoo:{NETWORK}")


def cells(method: str, config: dict[str, Any], found: Evaluation) -> tuple[str, ...]:
    """Return a row of the table; spikes and energy (45 nm) are per recording."""
    if found.ann_accuracy is None or found.snn_accuracy is None or found.agreement is None:
        raise ValueError("the evaluation has no labels or no ANN")
    period = config.get("reset_after") or config["timesteps"]
    return (
        f"`{method}`",
        str(config["timesteps"]),
        f"{config['max_burst']}" if PRESETS[method].method is None else f"{config['max_burst']} at first",
        "never" if period == config["timesteps"] else f"after {period}",
        f"{found.snn_accuracy:.2%}",
        f"{100 * (found.snn_accuracy - found.ann_accuracy):+.2f}",
        f"{found.agreement:.2%}",
        f"{found.reading.spikes:,.0f}",
        f"{1e6 * found.reading.energy(CMOS_45NM)[1]:.2f} µJ",
    )


def line(row: tuple[str, ...]) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(row) + " |"


def over_time(timesteps: int, rows: list[tuple[str, tuple[float, ...]]]) -> str:
    """Return a table of accuracies after each timestep."""
    head = [line(("accuracy at t", *map(str, range(1, timesteps + 1)))), line(("---", *["--:"] * timesteps))]
    return "\n".join([*head, *(line((name, *(f"{share:.1%}" for share in shares))) for name, shares in rows)])


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", choices=list(PRESETS), default=list(METHODS))
    parser.add_argument("-T", "--timesteps", nargs="+", type=int, default=[8], help="multiples of 8 (default: 8)")
    parser.add_argument("--max-burst", nargs="+", type=int, default=[8], help="ψ (default: 8)")
    parser.add_argument("--input-coding", choices=["frames", "constant"], default="frames")
    parser.add_argument("--reset-after", type=int, help="timesteps after which neurons start anew (default: snncc's)")
    parser.add_argument("--recordings", type=int, help="use the first RECORDINGS of the test set only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured")
    options = parser.parse_args()
    if options.reset_after is not None and options.input_coding == "constant":
        parser.error("--reset-after is for --input-coding frames")
    return options


def main() -> None:
    """Print the tables."""
    options = arguments()
    calibration = samples("events_calibration", options.input_coding, None)
    data = samples("events_test", options.input_coding, options.recordings)
    details: list[dict[str, Any]] = []
    print(line(COLUMNS))
    print(line(("---",) + ("--:",) * (len(COLUMNS) - 1)))
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("SNNCC_CACHE", folder)
        for timesteps in options.timesteps:
            for max_burst in options.max_burst:
                given = {"timesteps": timesteps, "max_burst": max_burst, "input_coding": options.input_coding}
                if options.reset_after is not None:
                    given["reset_after"] = options.reset_after
                for method in options.method:
                    config, found = measure(method, calibration, data, given)
                    if not details:
                        energy = f"{1e6 * found.reading.energy(CMOS_45NM)[0]:.2f} µJ"
                        print(line(("ANN", "", "", "", f"{found.ann_accuracy:.2%}", "", "", "", energy)))
                    print(line(cells(method, config, found)), flush=True)
                    details.append({"method": method, "config": config, **found.to_dict()})
    for timesteps in options.timesteps:
        rows = [
            (f"`{d['method']}`, ψ={d['config']['max_burst']}", d["accuracy_by_timestep"])
            for d in details
            if d["timesteps"] == timesteps
        ]
        if options.input_coding == "frames" and timesteps == data["events"].shape[1]:
            rows.append(("ANN, mean of the frames so far", tuple(ann_over_time(data))))
        print(f"\n{over_time(timesteps, rows)}")
    counterpart = details[0]["counterpart"]
    print(
        f"\n{details[0]['samples']:,} recordings; ANN: {counterpart or 'its output on the mean frame'}. {signature()}."
    )
    if options.json is not None:
        report = {"environment": environment(), "network": NETWORK, "results": details}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
