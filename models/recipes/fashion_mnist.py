"""Reads Fashion-MNIST from its original IDX files.

The format: two zero bytes, a type code, the number of dimensions, one big-endian 32-bit size per dimension, the data.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from snncc.errors import DataError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_PREFIXES = {"train": "train", "test": "t10k"}
_TYPE_UINT8 = 8

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]


def load(folder: Path, split: str) -> tuple[Images, Labels]:
    """Reads one split of the data set.

    Args:
        folder: where the four ``.gz`` files are.
        split: ``train`` (60,000 images) or ``test`` (10,000 images).

    Returns:
        Raw pixels uint8 ``[N, 1, 28, 28]`` and classes uint8 ``[N]``.

    Raises:
        DataError: a file is missing or is no IDX file of bytes.
    """
    prefix = _PREFIXES[split]
    images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    return images.reshape(-1, 1, 28, 28), labels


def _read_idx(file: Path) -> npt.NDArray[np.uint8]:
    if not file.is_file():
        raise DataError(
            f"{file} is missing: install the Debian package dataset-fashion-mnist, or download\n"
            "the four .gz files from https://github.com/zalandoresearch/fashion-mnist and give their folder with --data"
        )
    content = gzip.decompress(file.read_bytes())
    if len(content) < 4 or content[:3] != bytes((0, 0, _TYPE_UINT8)):
        raise DataError(f"{file} is no IDX file of unsigned bytes")
    header = 4 + 4 * content[3]
    shape = [int(size) for size in np.frombuffer(content[4:header], dtype=">u4")]
    if len(content) != header + math.prod(shape):
        raise DataError(f"{file} is damaged: {len(content) - header} bytes of data, but its header says {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
