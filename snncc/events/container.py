"""A recording in memory: one column per field of its events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.errors import DataError, UsageError

MAX_SIDE = 1 << 14
"""Most pixels on a side: the largest address that a format can express has 14 bits (`.dat`)."""


@dataclass(frozen=True, eq=False, repr=False)
class Events:
    """Events of one recording in the order of time; (0, 0) is the upper left pixel.

    Attributes:
        x: column of each event, uint16 [N], less than `width`.
        y: row of each event, uint16 [N], less than `height`.
        t: timestamps in microseconds, int64 [N], none less than the one before.
        p: polarity, bool [N]: True is ON (brighter), False is OFF (darker).
        width: columns of the sensor.
        height: rows of the sensor.
        source: where the events come from, for messages.
        format: how they were stored, e.g. `EVT 3.0`.
        sensor_from: where the sensor's size comes from: `header`, `given`, `dataset` or `coordinates`.
    """

    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    t: NDArray[np.int64]
    p: NDArray[np.bool_]
    width: int
    height: int
    source: str = "events"
    format: str = "arrays"
    sensor_from: str = "given"

    def __post_init__(self) -> None:
        """Check the columns.

        Raises:
            UsageError: the sensor's size is out of range.
            DataError: the columns don't fit each other, hold no events, leave the sensor or run backwards in time.
        """
        if not (0 < self.width <= MAX_SIDE and 0 < self.height <= MAX_SIDE):
            raise UsageError(f"sensor size is {self.width}x{self.height}: each side must be from 1 to {MAX_SIDE}")
        shapes = {name: column.shape for name, column in self._columns().items()}
        if len(set(shapes.values())) != 1 or self.t.ndim != 1:
            listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise DataError(f"{self.source}: columns differ in shape ({listed}); give one value per event in each")
        if not len(self.t):
            raise DataError(f"{self.source} holds no events; leave it out, or record it again")
        self._check_side("x", self.x, self.width)
        self._check_side("y", self.y, self.height)
        self._check_order()

    def _columns(self) -> dict[str, NDArray[Any]]:
        return {"x": self.x, "y": self.y, "t": self.t, "p": self.p}

    def _check_side(self, axis: str, column: NDArray[np.uint16], limit: int) -> None:
        if int(column.max()) < limit:
            return
        index = int(np.argmax(column >= limit))
        raise DataError(
            f"{self.source}: event {index} has {axis}={column[index]}, outside the sensor of "
            f"{self.width}x{self.height} pixels (size from: {self.sensor_from}); give the right size as WIDTHxHEIGHT "
            "with --sensor, or the file is damaged"
        )

    def _check_order(self) -> None:
        later, earlier = self.t[1:], self.t[:-1]
        backwards = later < earlier
        if not backwards.any():
            return
        index = int(np.argmax(backwards))
        raise DataError(
            f"{self.source}: time runs backwards at event {index + 1}, from {earlier[index]} to {later[index]} µs "
            f"({np.count_nonzero(backwards)} such place(s)); bring the events into order with --sort (in Python: "
            "sort=True), or the file is damaged"
        )

    def __len__(self) -> int:
        return len(self.t)

    def __repr__(self) -> str:
        size = f"{self.width}x{self.height}"
        return f"Events({self.source!r}, {len(self)} events, {size}, {self.duration / 1e6:g} s, {self.format!r})"

    @property
    def start(self) -> int:
        """Time of the first event in microseconds."""
        return int(self.t[0])

    @property
    def stop(self) -> int:
        """The microsecond after the last event."""
        return int(self.t[-1]) + 1

    @property
    def duration(self) -> int:
        """Microseconds from the first event to the end of the last one's."""
        return self.stop - self.start

    @property
    def nbytes(self) -> int:
        """Memory that the columns take."""
        return sum(column.nbytes for column in self._columns().values())

    def part(self, first: int, last: int) -> Events:
        """Return events number first to last - 1, which share memory with these.

        Raises:
            DataError: there are none.
        """
        columns: dict[str, Any] = {name: column[first:last] for name, column in self._columns().items()}
        return replace(self, **columns)

    def between(self, start: int, stop: int) -> Events:
        """Return the events with start <= t < stop, in microseconds, which share memory with these.

        Raises:
            DataError: there are none.
        """
        first, last = np.searchsorted(self.t, [start, stop])
        return self.part(int(first), int(last))
