"""`.bin` files of N-MNIST and N-Caltech101: 40 bits per event, without a header.

Orchard et al., *Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades*, 2015. Big-endian:
8 bits x, 8 bits y, 1 bit polarity (1 is ON), 23 bits of time in microseconds. As the authors' own reader does, y = 240,
below the sensor's last row, stands for an overflow of the camera's timer, after which all times are 2^13 µs later.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snncc.events.columns import Columns, check_count, truncated, unwrap

EVENT_BYTES = 5
TIME_BITS = 23
OVERFLOW_ROW = 240
OVERFLOW_BITS = 13
SENSORS = ((34, 34), (240, 180), (304, 240))
"""The sizes of N-MNIST, N-Caltech101 and the whole ATIS sensor; the file doesn't say its own."""


def read_bin(path: Path) -> Columns:
    """Read a `.bin` file.

    Raises:
        DataError: it doesn't hold a whole number of events, or too many.
    """
    size = path.stat().st_size
    if size % EVENT_BYTES:
        raise truncated(path, f"{size:,} bytes are no whole number of events of {EVENT_BYTES} bytes")
    check_count(size // EVENT_BYTES, path)
    data = np.fromfile(path, np.uint8)
    events = data[: len(data) // EVENT_BYTES * EVENT_BYTES].reshape(-1, EVENT_BYTES)
    x, y = events[:, 0].astype(np.uint16), events[:, 1].astype(np.uint16)
    p = events[:, 2] > 127
    t = (events[:, 2] & 127).astype(np.int64)
    for byte in (3, 4):
        t <<= 8
        t |= events[:, byte]
    t = unwrap(t, TIME_BITS)
    overflows = y == OVERFLOW_ROW
    if overflows.any():
        t += np.cumsum(overflows, dtype=np.int64) << OVERFLOW_BITS
        x, y, t, p = x[~overflows], y[~overflows], t[~overflows], p[~overflows]
    return Columns(x, y, t, p, "ATIS 40 bits", _smallest(x, y), "dataset")


def _smallest(x: NDArray[np.uint16], y: NDArray[np.uint16]) -> tuple[int, int] | None:
    if not len(x):
        return None
    reach = int(x.max()), int(y.max())
    return next((size for size in SENSORS if reach[0] < size[0] and reach[1] < size[1]), None)
