"""From what files hold to checked columns: limits, integer conversion, polarity, and timestamps that wrap around."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.errors import DataError, UsageError
from snncc.events.container import MAX_SIDE

MAX_EVENTS = 1 << 29
"""Most events that are read from a file: their columns take 7 GB."""

MAX_EVENTS_PER_BYTE = 64
"""Most events per byte of a compressed file. EVT 3.0 packs up to 6; more than 64 is a decompression bomb."""

HARMLESS_BYTES = 1 << 16
"""A compressed file counts as this large at least: four million events do no harm."""

_EXACT = 2**53


@dataclass(frozen=True)
class Columns:
    """Events as a reader found them, not checked yet.

    Attributes:
        x: columns of pixels, integers.
        y: rows of pixels, integers; 0 is at the top.
        t: timestamps in microseconds, int64.
        p: polarity, bool.
        format: how they were stored.
        size: (width, height) of the sensor as the file says; None where it doesn't.
        sensor_from: where the size comes from.
    """

    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    t: NDArray[np.int64]
    p: NDArray[np.bool_]
    format: str
    size: tuple[int, int] | None = None
    sensor_from: str = "header"


def check_count(count: int, path: Path, compressed: bool = False) -> None:
    """Check how many events a file holds or declares, before memory is set aside for them.

    Raises:
        DataError: too many.
    """
    if count > MAX_EVENTS:
        raise DataError(
            f"{path} holds {count:,} events, more than the {MAX_EVENTS:,} that are read at once; cut the recording"
        )
    size = path.stat().st_size
    if compressed and count > MAX_EVENTS_PER_BYTE * max(size, HARMLESS_BYTES):
        raise DataError(
            f"{path} declares {count:,} events in {size:,} bytes, which no recording compresses to (it may be made to "
            "exhaust memory); store it again from its source"
        )


def truncated(path: Path, what: str) -> DataError:
    """Return the error for a file that ends too early."""
    return DataError(f"{path} is truncated or of another format: {what}; copy or export it again")


def pixel_axis(values: NDArray[Any], where: str) -> NDArray[np.uint16]:
    """Return coordinates as uint16.

    Raises:
        DataError: they are no integers, negative, or larger than any sensor.
    """
    whole = _integers(values, where, "pixels")
    if len(whole) and (int(whole.min()) < 0 or int(whole.max()) >= MAX_SIDE):
        index = int(np.argmax((whole < 0) | (whole >= MAX_SIDE)))
        raise DataError(
            f"{where} is {whole[index]} at event {index}: pixels count from 0 to at most {MAX_SIDE - 1}; subtract the "
            "offset, or the file is damaged"
        )
    return whole.astype(np.uint16)


def microseconds(values: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return timestamps as int64.

    Raises:
        DataError: they are no integers, or don't fit.
    """
    whole = _integers(values, where, "microseconds")
    if whole.dtype == np.uint64 and len(whole) and int(whole.max()) > np.iinfo(np.int64).max:
        index = int(np.argmax(whole > np.uint64(np.iinfo(np.int64).max)))
        raise DataError(
            f"{where} is {whole[index]} at event {index}, which overflows 64 signed bits: the file is damaged, or the "
            "times are negative numbers that were stored as unsigned ones"
        )
    return whole.astype(np.int64)


def polarity(values: NDArray[Any], where: str) -> NDArray[np.bool_]:
    """Return polarities, given as booleans, as 0 and 1 or as -1 and 1, as booleans.

    Raises:
        DataError: they are something else.
    """
    if values.dtype == np.bool_:
        return values
    if values.dtype.kind in "iuf":
        on: NDArray[np.bool_] = values == 1
        if bool((on | (values == 0)).all()) or bool((on | (values == -1)).all()):
            return on
        found = ", ".join(str(value) for value in np.unique(values[:100_000])[:5])
    else:
        found = f"dtype {values.dtype}"
    raise DataError(f"{where} holds {found}: polarity must be 0 and 1, or -1 and 1, or booleans; convert it")


def unwrap(t: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Return timestamps of a counter of some bits without its wraps: a fall by more than half its range is one."""
    if len(t) < 2:
        return t
    wraps = np.diff(t) < -(1 << (bits - 1))
    if not wraps.any():
        return t
    laps = np.zeros(len(t), np.int64)
    np.cumsum(wraps, out=laps[1:])
    return t + (laps << bits)


def sensor_size(width: object, height: object, where: str) -> tuple[int, int]:
    """Return a size that a header declares.

    Raises:
        DataError: it is no size of a sensor.
    """
    try:
        size = int(str(width)), int(str(height))
    except ValueError:
        size = 0, 0
    if not all(0 < side <= MAX_SIDE for side in size):
        raise DataError(
            f"{where}: its header declares a sensor of {str(width)[:20]}x{str(height)[:20]} pixels; each side must be "
            f"from 1 to {MAX_SIDE}: the file is damaged"
        )
    return size


def _integers(values: NDArray[Any], where: str, unit: str) -> NDArray[Any]:
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind != "f":
        raise DataError(f"{where} is of dtype {values.dtype}: it must hold integers ({unit}); convert it")
    # Not every float is a number of microseconds: times in seconds would become a recording of a few ticks.
    with np.errstate(invalid="ignore"):
        good = (np.floor(values) == values) & (np.abs(values) <= _EXACT)
    if not good.all():
        index = int(np.argmin(good))
        raise DataError(
            f"{where} is {values[index]} at event {index}: it must hold whole numbers ({unit}); convert it, e.g. times "
            "in seconds with np.round(t * 1e6).astype(np.int64)"
        )
    return values.astype(np.int64)


def need(module: str, path: Path, kind: str) -> UsageError:
    """Return the error for a library that isn't installed."""
    return UsageError(
        f"{path}: {kind} needs {module}, which is not installed: install it with `pip install 'snncc[events]'`"
    )
