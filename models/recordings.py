"""Many recordings of one event camera in little space: what the zoo's event data are stored as.

A file holds, in the order of recordings, pixels and time: how many events each pixel has, the time that passed since
the pixel's event before (or since the beginning), and the polarities, eight to a byte. Sorted like that, neighbouring
numbers are alike, and an event takes about a byte in a compressed `.npz`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.events import Events, voxel_grid

TICK = 1_250
"""Microseconds of the clock: recordings of 300 ms fit 8 bits."""


@dataclass(frozen=True, eq=False, repr=False)
class Recordings:
    """Recordings one after the other, each in the order of time.

    Attributes:
        x: column of each event, uint8 [E].
        y: row of each event, uint8 [E].
        tick: time of each event in units of `TICK`, uint8 [E].
        p: polarity, bool [E]: True is ON.
        offsets: int64 [N + 1]: recording i holds events offsets[i] to offsets[i + 1] - 1.
        label: class of each recording, uint8 [N].
        width: columns of the sensor.
        height: rows of the sensor.
    """

    x: NDArray[np.uint8]
    y: NDArray[np.uint8]
    tick: NDArray[np.uint8]
    p: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    label: NDArray[np.uint8]
    width: int
    height: int

    @classmethod
    def of(cls, recordings: Iterable[Events], label: NDArray[np.uint8]) -> Recordings:
        """Return recordings with their times rounded down to ticks; events of one tick are in the order of pixels.

        Only the packed columns, four bytes per event, are kept of each.
        """
        parts: list[tuple[NDArray[Any], ...]] = []
        for events in recordings:
            ticks = events.t // TICK
            order = np.lexsort((events.x, events.y, ticks))
            whole = [column[order].astype(np.uint8) for column in (events.x, events.y, ticks)]
            parts.append((*whole, events.p[order]))
        x, y, tick, p = (np.concatenate(column) for column in zip(*parts, strict=True))
        offsets = np.concatenate([[0], np.cumsum([len(part[0]) for part in parts])])
        return cls(x, y, tick, p, offsets, label, events.width, events.height)

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int) -> Events:
        """Return one recording."""
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        t = self.tick[part].astype(np.int64) * TICK
        x, y = self.x[part].astype(np.uint16), self.y[part].astype(np.uint16)
        return Events(x, y, t, self.p[part], self.width, self.height, f"recording {index}", "zoo", "dataset")

    def __iter__(self) -> Iterator[Events]:
        return (self[index] for index in range(len(self)))

    def frames(self, bins: int) -> NDArray[np.float32]:
        """Return voxel grids, float32 [N, bins, 2, height, width]; see `snncc.events.voxel_grid`."""
        return np.stack([voxel_grid(events, bins) for events in self])

    def save(self, file: Path) -> None:
        """Write a compressed `.npz`; see the module for its layout."""
        owner = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        pixel = (owner * self.height + self.y) * self.width + self.x
        order = np.argsort(pixel, kind="stable")
        pixel, tick = pixel[order], self.tick[order].astype(np.int64)
        wait = np.diff(tick, prepend=0)
        first = np.diff(pixel, prepend=-1) != 0
        wait[first] = tick[first]
        size = len(self) * self.height * self.width
        count = np.bincount(pixel, minlength=size).astype(np.uint8).reshape(len(self), self.height, self.width)
        np.savez_compressed(
            file, count=count, wait=wait.astype(np.uint8), on=np.packbits(self.p[order]), label=self.label
        )

    @classmethod
    def load(cls, file: Path) -> Recordings:
        """Read what `save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            count, wait, on, label = (arrays[name] for name in ("count", "wait", "on", "label"))
        _, height, width = count.shape
        pixel: NDArray[Any] = np.repeat(np.arange(count.size), count.ravel())
        passed = np.concatenate([[0], np.cumsum(wait, dtype=np.int64)])
        begin = np.concatenate([[0], np.cumsum(count, dtype=np.int64)])[pixel]
        tick = passed[1:] - passed[begin]
        owner, place = np.divmod(pixel, height * width)
        order = np.lexsort((pixel, tick, owner))
        offsets = np.concatenate([[0], np.cumsum(count.sum((1, 2), dtype=np.int64))])
        y, x = np.divmod(place[order], width)
        p = np.unpackbits(on, count=len(pixel)).astype(bool)[order]
        return cls(
            x.astype(np.uint8), y.astype(np.uint8), tick[order].astype(np.uint8), p, offsets, label, width, height
        )
