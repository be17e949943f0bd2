"""Accuracy with and without calibrated weights at few timesteps, as Markdown.

python benchmarks/weight_calibration.py
python benchmarks/weight_calibration.py --network fashion_vgg -T 1 --max-burst 4 8
"""

from __future__ import annotations

import argparse

import numpy as np
from environment import signature

import snncc
from snncc import models
from snncc.evaluate import evaluate


def main() -> None:
    """Print a row per network, T and ψ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=models.names(), default=models.names(), help="default: all")
    parser.add_argument("-T", "--timesteps", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--max-burst", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--calibration", type=int, default=1024, help="calibration images (default: %(default)s)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default: all)")
    options = parser.parse_args()
    calibration = models.calibration_set()[0][: options.calibration].astype(np.float32)
    images, labels = (array[: options.images] for array in models.test_set())
    test = {"image": images, "label": labels}
    print("| network | T | ψ | SNN - ANN | with calibrated weights | gain | agreement | with calibrated weights |")
    print("| --- | --: | --: | --: | --: | --: | --: | --: |")
    for name in options.network:
        for timesteps in options.timesteps:
            for max_burst in options.max_burst:
                differences, agreements, kept = [], [], True
                for fitted in (False, True):
                    config = snncc.Config(timesteps=timesteps, max_burst=max_burst, weight_calibration=fitted)
                    network = snncc.compile(f"zoo:{name}", calibration=calibration, config=config)
                    kept = not any("weight calibration was left out" in text for text in network.record.warnings)
                    found = evaluate(network, test, ann=f"zoo:{name}")
                    differences.append(100 * ((found.snn_accuracy or 0.0) - (found.ann_accuracy or 0.0)))
                    agreements.append(100 * (found.agreement or 0.0))
                gain = f"{differences[1] - differences[0]:+.2f}" if kept else "left out"
                cells = [f"`{name}`", str(timesteps), str(max_burst), *(f"{value:+.2f}" for value in differences), gain]
                print("| " + " | ".join([*cells, *(f"{value:.2f}%" for value in agreements)]) + " |", flush=True)
    print(f"\n{len(images):,} test images, {len(calibration):,} for calibration. {signature()}.")


if __name__ == "__main__":
    main()
