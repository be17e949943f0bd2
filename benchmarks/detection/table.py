"""Detection of the zoo's detector by method, as Markdown: the layout of table III of "Bursting Spikes".

    python benchmarks/detection/table.py
    python benchmarks/detection/table.py --rows best@8 bs@16 --scenes 100

Each row is a preset at a number of timesteps. mAP is COCO's on the test scenes; spikes and energy are per scene.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from environment import signature

from snncc import models
from snncc.data import Dataset, load
from snncc.presets import PRESETS, compile_preset
from snncc.report.snn import max_burst
from snncc.runtime.meter import CMOS_45NM
from snncc.sources import input_specs, read_ann
from snncc.tasks.annotations import read_annotations
from snncc.tasks.decoders import make_decoder
from snncc.tasks.detection import DetectionEvaluation, evaluate_detection

NETWORK = "fashion_detector"
ROWS = ("calibration@16", "bs@16", "bs+bsr@16", "best@16", "best@8")
MAX_BURST = 8
COLUMNS = ("method", "T", "ψ", "mAP", "SNN - ANN", "mAP@.5", "boxes found", "spikes", "energy")


def measure(
    preset: str, timesteps: int, calibration: Dataset, scenes: int, burst: int
) -> tuple[DetectionEvaluation, str]:
    """Compile the detector with a preset and evaluate it; also returns ψ as the record has it."""
    loaded = read_ann(f"zoo:{NETWORK}")
    given: dict[str, Any] = {"timesteps": timesteps} | ({} if preset == "calibration" else {"max_burst": burst})
    network = compile_preset(preset, loaded, calibration=calibration, **given)
    images, truth = models.scene_set("scenes")
    result = evaluate_detection(
        network,
        load({"image": images[:scenes]}, network.inputs),
        make_decoder(None, None, loaded.model),
        annotations=read_annotations(truth),
        ann=loaded,
        steps=[timesteps],
        limited=True,
    )
    return result, str(max_burst(network.record))


def cells(preset: str, timesteps: int, burst: str, result: DetectionEvaluation) -> tuple[str, ...]:
    """Return the cells of one line."""
    if result.snn is None or result.ann is None or result.agreement is None:
        raise ValueError("the evaluation has no annotations or no ANN")
    snn, reading = result.snn[-1], result.evaluation.reading
    found = result.agreement[-1].found
    return (
        f"`{preset}`",
        str(timesteps),
        burst,
        f"{snn.mean:.2%}",
        f"{100 * (snn.mean - result.ann.mean):+.2f}",
        f"{snn.at_50:.2%}",
        "-" if found is None else f"{found:.1%}",
        f"{reading.spikes:,.0f}",
        f"{1e6 * reading.energy(CMOS_45NM)[1]:.1f} µJ",
    )


def ann_cells(result: DetectionEvaluation) -> tuple[str, ...]:
    """Return the cells of the ANN's line."""
    if result.ann is None:
        raise ValueError("the evaluation has no ANN")
    energy = result.evaluation.reading.energy(CMOS_45NM)[0]
    return ("ANN", "-", "-", f"{result.ann.mean:.2%}", "", f"{result.ann.at_50:.2%}", "", "-", f"{1e6 * energy:.1f} µJ")


def main() -> None:
    """Measure, and print the table line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="PRESET@T", help=f"default: {' '.join(ROWS)}")
    parser.add_argument("--max-burst", type=int, default=MAX_BURST, help="ψ, except of single spikes (%(default)s)")
    parser.add_argument("--calibration", type=int, default=256, help="calibration scenes (%(default)s)")
    parser.add_argument("--scenes", type=int, default=500, help="test scenes (%(default)s)")
    options = parser.parse_args()
    rows = [row.rpartition("@") for row in options.rows]
    for preset, _, timesteps in rows:
        if preset not in PRESETS or not timesteps.isdigit():
            parser.error(f"'{preset}@{timesteps}' is no preset at a number of timesteps, such as bs@16")
    specs = input_specs(read_ann(f"zoo:{NETWORK}").model)
    images = models.scene_set("scenes_calibration")[0][: options.calibration]
    calibration = load({"image": images}, specs)
    print(f"| {' | '.join(COLUMNS)} |\n| --- |{' --: |' * (len(COLUMNS) - 1)}")
    for number, (preset, _, timesteps) in enumerate(rows):
        start = time.perf_counter()
        result, burst = measure(preset, int(timesteps), calibration, options.scenes, options.max_burst)
        if number == 0:
            print(f"| {' | '.join(ann_cells(result))} |")
        print(f"| {' | '.join(cells(preset, int(timesteps), burst, result))} |", flush=True)
        print(f"{preset}@{timesteps}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(f"\n{options.scenes} scenes, {len(images)} for calibration. {signature()}.")


if __name__ == "__main__":
    main()
