"""How many spikes a search saves at no larger loss (`snncc search --max-loss R`), on test images, as Markdown.

The method bsr+ssc (the paper's order) has the spikes of the same ψ everywhere as its budget, and R = 1 by prediction.

python benchmarks/compression.py
python benchmarks/compression.py --method ssc --sensitivity in-context --simulate 0
"""

from __future__ import annotations

import argparse

import numpy as np
from environment import signature

import snncc
from snncc import models
from snncc.allocation.run import METHODS, SENSITIVITIES, SIMULATE
from snncc.evaluate import evaluate


def main() -> None:
    """Print a row for the same ψ everywhere, and one per method and R."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=models.names(), default=models.names(), help="default: all")
    parser.add_argument("-T", "--timesteps", type=int, default=8)
    parser.add_argument("--max-burst", type=int, default=4)
    parser.add_argument("--method", nargs="+", choices=METHODS, default=["ssc", "bsr+ssc", "joint"])
    parser.add_argument("--sensitivity", choices=SENSITIVITIES, default=SENSITIVITIES[0], help="default: %(default)s")
    parser.add_argument("--even", action="store_true", help="the same τ for every channel of a layer")
    parser.add_argument(
        "--simulate", type=int, default=SIMULATE, help="points simulated; 0: by the sum of sensitivities (%(default)s)"
    )
    parser.add_argument("--max-loss", nargs="+", type=float, default=[1.0])
    parser.add_argument("--calibration", type=int, default=512, help="calibration images (default: %(default)s)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default: all)")
    options = parser.parse_args()
    calibration = models.calibration_set()[0][: options.calibration].astype(np.float32)
    images, labels = (array[: options.images] for array in models.test_set())
    config = snncc.Config(timesteps=options.timesteps, max_burst=options.max_burst, ratio_per_channel=not options.even)
    print("| network | chosen by | R | SNN - ANN | agreement | spikes | saved |")
    print("| --- | --- | --: | --: | --: | --: | --: |")
    for name in options.network:
        source, spikes = f"zoo:{name}", 0.0
        runs = [(m, share) for m in options.method for share in (options.max_loss if m != "bsr+ssc" else [1.0])]
        for method, share in [("the same ψ", None), *runs]:
            assignment = None
            if share is not None:
                budget = snncc.Budget("relative", 1.0) if method == "bsr+ssc" else snncc.Budget("loss", share)
                assignment = snncc.search(
                    source,
                    calibration=calibration,
                    config=config,
                    method=method,
                    sensitivity=options.sensitivity,
                    budget=budget,
                    simulate=options.simulate,
                ).assignment
            network = snncc.compile(source, calibration=calibration, config=config, assignment=assignment)
            found = evaluate(network, {"image": images, "label": labels}, ann=source)
            difference = 100 * ((found.snn_accuracy or 0.0) - (found.ann_accuracy or 0.0))
            spikes = spikes or found.reading.spikes
            saved = "" if share is None else f"{100 * (1 - found.reading.spikes / spikes):.0f} %"
            cells = [f"`{name}`", method, "" if share is None else f"{share:g}", f"{difference:+.2f}"]
            cells += [f"{100 * (found.agreement or 0.0):.2f}%", f"{found.reading.spikes:,.0f}", saved]
            print("| " + " | ".join(cells) + " |", flush=True)
    print(
        f"\nT={options.timesteps}, ψ={options.max_burst}, {len(images):,} test images, {len(calibration):,} for "
        f"calibration; sensitivity: {options.sensitivity}, simulated: {options.simulate}"
        f"{'; τ even' if options.even else ''}. {signature()}."
    )


if __name__ == "__main__":
    main()
