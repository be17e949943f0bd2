"""From events to the tensors that networks take: counts, voxel grids and time surfaces, float32 [bins, C, H, W].

Channel 0 is OFF and channel 1 ON, as in tonic's and sinabs' frames, unless a function says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snncc.errors import DataError, UsageError
from snncc.events.container import Events

MAX_TENSOR_BYTES = 8 << 30
"""Largest tensor: a window of a microsecond would make millions of frames."""


@dataclass(frozen=True)
class Slicing:
    """How a recording is cut in time; exactly one of the three.

    Attributes:
        bins: so many slices of equal length, over the whole recording.
        window: slices of so many microseconds from the first event on; what is left at the end is dropped.
        count: slices of so many events; what is left at the end is dropped.
    """

    bins: int | None = None
    window: int | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        """Check the choice.

        Raises:
            UsageError: not one of them is given, or it is less than 1.
        """
        given = {"bins": self.bins, "window": self.window, "count": self.count}
        chosen = {name: value for name, value in given.items() if value is not None}
        if len(chosen) != 1:
            raise UsageError(
                f"slices are given by {', '.join(chosen) or 'nothing'}: give one of bins, window and count"
            )
        for name, value in chosen.items():
            if value < 1:
                raise UsageError(f"{name} is {value}: it must be at least 1")

    def bounds(self, events: Events) -> NDArray[np.int64]:
        """Return indices of events [slices + 1]: slice i holds events number bounds[i] to bounds[i + 1] - 1.

        Raises:
            DataError: the recording is shorter than a slice.
        """
        if self.count is not None:
            whole = len(events) // self.count
            if not whole:
                raise DataError(
                    f"{events.source} has {len(events)} events, less than a slice of {self.count}; take fewer per slice"
                )
            return np.arange(whole + 1, dtype=np.int64) * self.count
        times = self.times(events)
        return np.searchsorted(events.t, times).astype(np.int64)

    def times(self, events: Events) -> NDArray[np.int64]:
        """Return times [slices + 1] in microseconds: slice i reaches from times[i] to just before times[i + 1].

        Raises:
            DataError: the recording is shorter than a slice.
        """
        if self.count is not None:
            last = self.bounds(events)[1:] - 1
            return np.concatenate([events.t[:1], events.t[last] + 1])
        if self.bins is not None:
            _check_tensor(self.bins, 1, events)
            # The first whole microsecond of each slice, in integers: no rounding moves an event.
            steps = [-(-events.duration * i // self.bins) for i in range(self.bins + 1)]
            return events.start + np.array(steps, np.int64)
        window = self.window or 1  # never None here
        whole = events.duration // window
        if not whole:
            raise DataError(
                f"{events.source} lasts {events.duration:,} µs, less than a window of {window:,} µs; take a shorter "
                "window, or leave the recording out"
            )
        _check_tensor(whole, 1, events)
        return events.start + np.arange(whole + 1, dtype=np.int64) * window


def count_frames(events: Events, slicing: Slicing) -> NDArray[np.float32]:
    """Return the number of events per slice, polarity and pixel.

    Returns:
        float32 [slices, 2, height, width]: OFF, ON.

    Raises:
        DataError: the recording is shorter than a slice, or the tensor would be too large.
    """
    bounds = slicing.bounds(events)
    frames = _zeros(len(bounds) - 1, 2, events)
    for number, frame in enumerate(frames):
        place = _places(events, slice(int(bounds[number]), int(bounds[number + 1])))
        frame += np.bincount(place, minlength=frame.size).reshape(frame.shape)
    return frames


def voxel_grid(events: Events, bins: int, *, signed: bool = False) -> NDArray[np.float32]:
    """Return events spread linearly over the two nearest of some points in time.

    Zhu et al., *Unsupervised Event-based Learning of Optical Flow, Depth, and Egomotion*, CVPR 2019, equations 1 to 3:
    with t* = (B - 1)·(t - t_first)/(t_last - t_first), event i adds p_i·max(0, 1 - |b - t*_i|) to bin b of its pixel.
    They let p_i be -1 or 1; per polarity, both count as 1 in a channel of their own.

    Args:
        events: the recording.
        bins: B, the number of points in time.
        signed: one channel, where OFF events count negative, instead of one per polarity.

    Returns:
        float32 [bins, 1 or 2, height, width].

    Raises:
        UsageError: bins is less than 1.
        DataError: the tensor would be too large.
    """
    if bins < 1:
        raise UsageError(f"bins is {bins}: it must be at least 1")
    channels = 1 if signed else 2
    grid = _zeros(bins, channels, events)
    span = max(int(events.t[-1]) - events.start, 1)
    # Pieces bound the memory of weights in float64.
    for first in range(0, len(events), _PIECE):
        part = slice(first, first + _PIECE)
        place = _places(events, part)
        weight = np.ones(len(place))
        if signed:
            place %= events.width * events.height
            weight = np.where(events.p[part], 1.0, -1.0)
        position = (events.t[part] - events.start) * ((bins - 1) / span)
        left = np.minimum(position.astype(np.int64), bins - 1)
        share = position - left
        _add(grid, left, place, weight * (1 - share))
        _add(grid, np.minimum(left + 1, bins - 1), place, weight * share)
    return grid


def time_surface(events: Events, slicing: Slicing, *, tau: float) -> NDArray[np.float32]:
    """Return how recently each pixel had an event, at the end of every slice.

    Lagorce et al., *HOTS: A Hierarchy of Event-Based Time-Surfaces for Pattern Recognition*, 2017, equation 3:
    exp(-(t - T(x, y, p))/tau) with T the time of the last event of that pixel and polarity up to t, the last
    microsecond of the slice; 0 where there was none since the recording began.

    Args:
        events: the recording.
        slicing: how it is cut.
        tau: time constant in microseconds.

    Returns:
        float32 [slices, 2, height, width]: OFF, ON; from 0 to 1.

    Raises:
        UsageError: tau isn't positive.
        DataError: the recording is shorter than a slice, or the tensor would be too large.
    """
    if not tau > 0 or not np.isfinite(tau):
        raise UsageError(f"tau is {tau}: it must be a positive number of microseconds")
    bounds, times = slicing.bounds(events), slicing.times(events)
    surfaces = _zeros(len(bounds) - 1, 2, events)
    # Ages in double precision: exp(-inf) is the 0 of pixels that never had an event.
    last = np.full(surfaces[0].size, -np.inf)
    for number, surface in enumerate(surfaces):
        part = slice(int(bounds[number]), int(bounds[number + 1]))
        # Of several events at one place the last one is kept, which is the latest.
        last[_places(events, part)] = events.t[part] - events.start
        end = int(times[number + 1]) - 1 - events.start
        surface += np.exp((last - end) / tau).reshape(surface.shape)
    return surfaces


_PIECE = 1 << 20


def _places(events: Events, part: slice) -> NDArray[np.intp]:
    """Return where events lie in a frame [2, height, width]."""
    place = events.p[part].astype(np.intp)
    place *= events.height
    place += events.y[part]
    place *= events.width
    place += events.x[part]
    return place


def _add(
    grid: NDArray[np.float32], bin_of: NDArray[np.int64], place: NDArray[np.intp], weight: NDArray[np.float64]
) -> None:
    """Add weights to their bins; they are in the order of time, so each bin is one stretch."""
    first = int(bin_of[0])
    bounds = np.searchsorted(bin_of, np.arange(first, int(bin_of[-1]) + 2))
    for number in range(len(bounds) - 1):
        part, frame = slice(int(bounds[number]), int(bounds[number + 1])), grid[first + number]
        frame += np.bincount(place[part], weight[part], frame.size).reshape(frame.shape)


def _check_tensor(bins: int, channels: int, events: Events) -> None:
    size = bins * channels * events.height * events.width * 4
    if size > MAX_TENSOR_BYTES:
        raise DataError(
            f"{events.source}: {bins:,} slices of {events.width}x{events.height} pixels take {size / 2**30:,.1f} GiB, "
            f"more than {MAX_TENSOR_BYTES / 2**30:g} GiB; take fewer or longer ones, or a part of the recording"
        )


def _zeros(bins: int, channels: int, events: Events) -> NDArray[np.float32]:
    _check_tensor(bins, channels, events)
    return np.zeros((bins, channels, events.height, events.width), np.float32)
