"""Records Fashion-MNIST with a simulated event camera and makes the two files of recordings of the zoo.

Usage: ``python -m snncc.models.recipes.saccades [--out FOLDER]``

The files hold recordings of images that are bundled themselves, so nothing else is needed to make them again. See
`snncc.events.camera` for the camera and `snncc.models.recordings` for what the files hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from snncc import models
from snncc.events import Events, SaccadeCamera
from snncc.models.recipes.fashion_mnist import Images, Labels
from snncc.models.recordings import Recordings

CAMERA = SaccadeCamera(seed=20151116)
"""The camera of all recordings of the zoo."""

TEST_SEED = 60_000
"""Seed of the first test image's recording, then one more each; those of training images are their numbers."""

CALIBRATION_SEED = 70_000
"""Seed of the first calibration image's recording."""

FILES = {
    "events_test": (models.test_set, 1000, TEST_SEED),
    "events_calibration": (models.calibration_set, 256, CALIBRATION_SEED),
}
"""Images that are recorded for the zoo's files: from where, how many, and the first seed."""


def record(images: Images, labels: Labels, seeds: Sequence[int], report: int = 0) -> Recordings:
    """Records images.

    Args:
        images: uint8 ``[N, 1, 28, 28]``.
        labels: classes, uint8 ``[N]``.
        seeds: of the recordings, N of them.
        report: say how far it is after so many; 0 for never.
    """
    start = time.perf_counter()

    def recordings() -> Iterator[Events]:
        for number, (image, seed) in enumerate(zip(images, seeds, strict=True), 1):
            yield CAMERA.record(image[0], seed)
            if report and number % report == 0:
                print(f"{number} of {len(images)} images recorded, {time.perf_counter() - start:.0f} s", flush=True)

    return Recordings.of(recordings(), labels)


def bundled(name: str) -> Recordings:
    """Records the images of one of the zoo's files: ``events_test`` or ``events_calibration``."""
    source, count, seed = FILES[name]
    images, labels = source()
    return record(images[:count], labels[:count], range(seed, seed + count))


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the zoo's files of event recordings.")
    parser.add_argument("--out", type=Path, help="folder to write to (default: the zoo's)")
    folder = parser.parse_args().out
    for name in FILES:
        file = models.data_path(name)
        file = file if folder is None else folder / file.name
        recordings = bundled(name)
        recordings.save(file)
        size = f"{file.stat().st_size / 1e6:.2f} MB"
        print(
            f"{file.name}: {len(recordings)} recordings, {len(recordings.x) / len(recordings):.0f} events each, {size}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
