"""Time of compiling a zoo network against 1 + T passes of its ANN over the same images in ONNX Runtime."""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import onnxruntime as ort
from environment import signature
from numpy.typing import NDArray
from timing import Work, seconds

import snncc
from snncc import models


def ann_passes(session: ort.InferenceSession, images: NDArray[np.float32], batch_size: int, count: int) -> Work:
    """Return the work that the compile is compared with: `count` passes over the images, in batches."""
    name = session.get_inputs()[0].name

    def work() -> None:
        for _ in range(count):
            for start in range(0, len(images), batch_size):
                session.run(None, {name: images[start : start + batch_size]})

    return work


def main() -> None:
    """Measure both in turn, so that a busy machine slows both; print medians, and the ratio with its range."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=models.names(), default="fashion_resnet20")
    parser.add_argument("--images", type=int, default=256, help="calibration images (default: 256)")
    parser.add_argument("--timesteps", type=int, default=8, help="T (default: 8)")
    parser.add_argument("--rounds", type=int, default=7, help="times that each is measured (default: 7)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    images = models.calibration_set()[0][: options.images].astype(np.float32)
    config = snncc.Config(timesteps=options.timesteps)
    session = ort.InferenceSession(models.path(options.network), providers=["CPUExecutionProvider"])
    passes = ann_passes(session, images, config.batch_size, 1 + options.timesteps)

    def compile_network() -> None:
        snncc.compile(f"zoo:{options.network}", calibration=images, config=config)

    compile_network()  # warm up: imports, pages, thread pools
    passes()
    rounds = [(seconds(compile_network), seconds(passes)) for _ in range(options.rounds)]
    ratios = [compiled / passed for compiled, passed in rounds]
    print(f"{options.network}, {len(images)} images, T={options.timesteps}; medians of {len(rounds)} rounds")
    print(f"compile           {statistics.median(r[0] for r in rounds):6.2f} s")
    print(f"{1 + options.timesteps:3} ANN passes    {statistics.median(r[1] for r in rounds):6.2f} s")
    print(f"ratio             {statistics.median(ratios):6.2f}   ({min(ratios):.2f} to {max(ratios):.2f})")
    print(signature())


if __name__ == "__main__":
    main()
