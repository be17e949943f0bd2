"""`read`: from a file of any known format to checked events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from snncc.errors import DataError, UsageError
from snncc.events.columns import Columns
from snncc.events.container import MAX_SIDE, Events
from snncc.events.readers.aedat import read_aedat
from snncc.events.readers.atis import read_bin
from snncc.events.readers.hdf5 import read_hdf5
from snncc.events.readers.npz import read_npz
from snncc.events.readers.prophesee import read_dat, read_raw

_READERS: dict[str, Callable[[Path], Columns]] = {
    ".bin": read_bin,
    ".dat": read_dat,
    ".raw": read_raw,
    ".aedat": read_aedat,
    ".aedat2": read_aedat,
    ".aedat3": read_aedat,
    ".aedat4": read_aedat,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".npz": read_npz,
}
SUFFIXES = tuple(_READERS)
"""Endings of the names of files that are read, in lower case."""


def read(path: str | Path, *, sensor: tuple[int, int] | None = None, sort: bool = False) -> Events:
    """Read a recording; the format follows from the ending of its name, and from its header.

    Args:
        path: the file.
        sensor: (width, height) of the sensor in pixels. Without it, what the file says; for a `.bin`, the smallest of
            the sensors of N-MNIST (34x34), N-Caltech101 (240x180) and the ATIS (304x240) that holds all events; else
            just large enough for all events.
        sort: bring events whose times run backwards into order (stable), instead of refusing them.

    Returns:
        At least one event.

    Raises:
        DataError: the file can't be read, is truncated or damaged, holds no events, or its events leave the sensor or
            run backwards.
        UsageError: the sensor's size is out of range, or a library isn't installed.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is of an unknown kind ('{path.suffix}'); recordings end in {', '.join(SUFFIXES)}")
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "doesn't exist"
            raise DataError(f"'{path}' {what}; give the path of a recording")
        if not path.stat().st_size:
            raise DataError(f"{path} is empty; copy or record it again")
        columns = reader(path)
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error}); check its permissions") from error
    return _checked(columns, path, sensor, sort)


def _checked(columns: Columns, path: Path, sensor: tuple[int, int] | None, sort: bool) -> Events:
    x, y, t, p = columns.x, columns.y, columns.t, columns.p
    if not len(t):
        raise DataError(f"{path} holds no events; leave it out, or record it again")
    if sort and (np.diff(t) < 0).any():
        order = np.argsort(t, kind="stable")
        x, y, t, p = x[order], y[order], t[order], p[order]
    if int(t[-1]) - int(t[0]) > 1 << 61:
        raise DataError(f"{path}: its times reach from {t[0]} to {t[-1]} µs, which overflows; it is damaged")
    size, sensor_from = sensor, "given"
    if size is None:
        size, sensor_from = columns.size, columns.sensor_from
    if size is None:
        size, sensor_from = (int(x.max()) + 1, int(y.max()) + 1), "coordinates"
        if max(size) > MAX_SIDE:
            raise DataError(f"{path}: its events reach to {size[0]}x{size[1]} pixels, beyond any sensor; it is damaged")
    try:
        return Events(x, y, t, p, *size, str(path), columns.format, sensor_from)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
