"""Time of a whole search against passes of the ANN over the same images, and of a second search with another budget."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

import numpy as np
import onnxruntime as ort
from environment import signature

import snncc
from snncc import models
from snncc.allocation.candidates import BURSTS, RATIOS
from snncc.allocation.run import SIMULATE


def main() -> None:
    """Search once with an empty cache, passing the images through the ANN all the while; then once more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=models.names(), default="fashion_resnet20")
    parser.add_argument("--method", choices=("joint", "bsr+ssc"), default="joint", help="both have as many candidates")
    parser.add_argument("--images", type=int, default=512, help="calibration images (default: 512)")
    parser.add_argument("--timesteps", type=int, default=8, help="T (default: 8)")
    parser.add_argument(
        "--simulate", type=int, default=SIMULATE, help=f"points of the front to simulate (default: {SIMULATE})"
    )
    options = parser.parse_args()
    images = models.calibration_set()[0][: options.images].astype(np.float32)
    config = snncc.Config(timesteps=options.timesteps)
    session = ort.InferenceSession(models.path(options.network), providers=["CPUExecutionProvider"])
    passes: list[float] = []

    def ann_pass(*_: int) -> None:
        start = time.perf_counter()
        for first in range(0, len(images), config.batch_size):
            session.run(None, {"image": images[first : first + config.batch_size]})
        passes.append(time.perf_counter() - start)

    def search(share: float, simulate: int, interleaved: bool) -> tuple[snncc.SearchResult, float]:
        before = len(passes)
        start = time.perf_counter()
        result = snncc.search(
            f"zoo:{options.network}",
            calibration=images,
            config=config,
            method=options.method,
            budget=snncc.Budget("relative", share),
            simulate=simulate,
            progress=ann_pass if interleaved else None,  # after each layer, so that a busy machine slows both
        )
        return result, time.perf_counter() - start - sum(passes[before:])

    with tempfile.TemporaryDirectory() as folder:
        os.environ["SNNCC_CACHE"] = folder
        ann_pass()
        passes.clear()
        result, whole = search(0.8, options.simulate, interleaved=True)
        _, again = search(0.7, 0, interleaved=False)
    one = statistics.median(passes)
    layers, candidates = len(result.layers), len(BURSTS) + len(RATIOS)
    print(
        f"{options.network}, {options.method}, {len(images)} images, T={options.timesteps}, {layers} layers, "
        f"{candidates} candidates"
    )
    print(
        f"search            {whole:8.2f} s, {len(result.measured) - 1} points and the uniform configuration simulated"
    )
    print(f"one ANN pass      {one:8.3f} s (median of {len(passes)}, {min(passes):.3f} to {max(passes):.3f})")
    print(f"ratio             {whole / (one * layers * candidates):8.2f} of {layers * candidates} ANN passes")
    print(f"another budget    {again:8.2f} s")
    print(signature())


if __name__ == "__main__":
    main()
