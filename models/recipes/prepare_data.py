"""Makes the two data files of the zoo from the original files of Fashion-MNIST.

Usage: ``python -m snncc.models.recipes.prepare_data [--data FOLDER] [--out FOLDER]``
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from snncc.errors import DataError
from snncc.models.recipes.fashion_mnist import DEBIAN_FOLDER, Images, Labels, load

CALIBRATION_IMAGES = 1024
SEED = 20170825
_DATA_FOLDER = Path(__file__).resolve().parents[1] / "data"


def balanced_indices(labels: Labels, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Draws images without replacement so that class sizes differ by one at most.

    Args:
        labels: classes, uint8 ``[N]``.
        count: number of images to draw.
        seed: of the random draw.

    Returns:
        Indices in random order, int64 ``[count]``: any prefix is a fair sample too, though not exactly balanced.
    """
    random = np.random.default_rng(seed)
    classes = np.unique(labels)
    quota, extra = divmod(count, len(classes))
    larger = set(random.choice(classes, extra, replace=False).tolist())
    chosen = [
        random.choice(np.flatnonzero(labels == label), quota + (label in larger), replace=False)
        for label in classes.tolist()
    ]
    return random.permutation(np.concatenate(chosen))


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the data files of the zoo from Fashion-MNIST.")
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of the .gz files (%(default)s)")
    parser.add_argument("--out", type=Path, default=_DATA_FOLDER, help="folder to write to (%(default)s)")
    arguments = parser.parse_args()
    try:
        train_images, train_labels = load(arguments.data, "train")
        test_images, test_labels = load(arguments.data, "test")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    chosen = balanced_indices(train_labels, CALIBRATION_IMAGES, SEED)
    _save(arguments.out / "fashion_mnist_calib.npz", train_images[chosen], train_labels[chosen])
    _save(arguments.out / "fashion_mnist_test.npz", test_images, test_labels)
    return 0


def _save(file: Path, images: Images, labels: Labels) -> None:
    np.savez_compressed(file, image=images, label=labels)
    print(f"{file.name}: {len(labels)} images, {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
