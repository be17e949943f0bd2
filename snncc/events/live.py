"""Events that arrive as text, a line `t x y p` each: microseconds, column, row, and polarity as 0 or 1, or -1 or 1."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from snncc.errors import DataError
from snncc.events.container import Events

_BLOCK = 1 << 16
"""Most bytes that are taken at a time: what has arrived, but no more."""
_LONGEST = 200
"""Longest line."""


def read_lines(stream: BinaryIO, sensor: tuple[int, int], source: str = "standard input") -> Iterator[Events]:
    """Yield events as they arrive, until the stream ends; what isn't asked for stays in the pipe.

    Args:
        stream: the stream, e.g. `sys.stdin.buffer`.
        sensor: its (width, height).
        source: what it is called in messages.

    Raises:
        DataError: a line is no event, an event leaves the sensor, or time runs backwards.
    """
    rest = b""
    while True:
        block = stream.read1(_BLOCK) if isinstance(stream, io.BufferedReader) else stream.read(_BLOCK)
        whole, _, rest = (rest + block).rpartition(b"\n") if block else (rest, b"", b"")
        if len(rest) > _LONGEST:
            raise DataError(f"{source}: a line of more than {_LONGEST} bytes is no event: send 't x y p' lines")
        if whole.strip():
            yield _parsed(whole, sensor, source)
        if not block:
            return


def _parsed(text: bytes, sensor: tuple[int, int], source: str) -> Events:
    rows = [line.split() for line in text.splitlines() if line.strip()]
    try:
        values = np.array(rows, np.int64)
        if values.ndim != 2 or values.shape[1] != 4:
            raise ValueError
    except (ValueError, OverflowError) as error:
        wrong = next((row for row in rows if not _is_event(row)), rows[0])
        shown = b" ".join(wrong)[:60].decode("utf-8", "replace")
        raise DataError(f"{source}: '{shown}' is no event: send lines 't x y p' of whole numbers") from error
    t, x, y, p = values.T
    if ((x < 0) | (y < 0) | (x >= sensor[0]) | (y >= sensor[1])).any() or not np.isin(p, (-1, 0, 1)).all():
        raise DataError(
            f"{source}: an event is outside the sensor of {sensor[0]}x{sensor[1]} pixels, or its polarity is none of "
            "-1, 0 and 1: give the right --sensor"
        )
    return Events(x.astype(np.uint16), y.astype(np.uint16), t, p > 0, *sensor, source, "text")


def _is_event(row: list[bytes]) -> bool:
    try:
        return len(row) == 4 and all(abs(int(value)) < 1 << 62 for value in row)
    except ValueError:
        return False
