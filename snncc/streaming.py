"""Events as they arrive, window by window, through a network that steps along: class, confidence and latency of each.

Each window of time is a timestep. Its frame counts the events per polarity and pixel of the last `frame` microseconds,
so a network can see frames of the length that it was trained on more often than they end. Nothing queues up: windows
are made one after the other of what has arrived, and where the network falls behind the clock by more than `_LAG`
windows, it skips windows until it has caught up. Their events still count in the frames that follow.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.errors import DataError, UsageError
from snncc.events.container import Events
from snncc.network import SpikingNetwork
from snncc.runtime.early_exit import class_output, confidence

CLOCKS = ("free", "paced", "live")
"""As fast as possible; not before a window of a recording would have ended; or as events come in."""
_LAG = 4
"""Windows that the network may be behind the clock before it skips some."""
_MOST_WINDOWS = 1 << 12
"""Most windows that a frame spans."""
_MOST_EMPTY = 100_000
"""Most windows in a row without an event."""


@dataclass(frozen=True)
class Window:
    """Events of one window.

    Attributes:
        end: microseconds from the first event to the end of the window.
        events: number of events in it.
        frame: events of the last `frame` microseconds per polarity and pixel, float32 [2, H, W]; changed by the next.
    """

    end: int
    events: int
    frame: NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """What the network says after a window.

    Attributes:
        seconds: time from the first event to the end of the window.
        events: number of events in the window.
        label: class that is said; -1 where the window was skipped.
        confidence: probability of that class, 0 to 1.
        latency: seconds from the end of the window, by the clock, until the class was known.
        skipped: whether the network was too far behind to look at it.
    """

    seconds: float
    events: int
    label: int
    confidence: float
    latency: float
    skipped: bool = False


def windows(source: Iterable[Events], window: int, frame: int | None = None) -> Iterator[Window]:
    """Cut events into windows; what is left at the end is dropped.

    Args:
        source: parts of a recording, in the order of time.
        window: microseconds of a window.
        frame: microseconds of which a frame shows the events, a multiple of the window; None: of one window.

    Raises:
        UsageError: the frame is no multiple of the window.
        DataError: parts are of different sensors, or run backwards, or there are too many windows without an event.
    """
    frame = window if frame is None else frame
    if frame % window or not 1 <= frame // window <= _MOST_WINDOWS:
        raise UsageError(f"the frame of {frame:,} µs must be 1 to {_MOST_WINDOWS} times the window of {window:,} µs")
    cutter: _Cutter | None = None
    for events in source:
        cutter = cutter or _Cutter(events, window, frame // window)
        yield from cutter.take(events)


class _Cutter:
    """Counts of the window that is open, and of those that the frame still shows."""

    def __init__(self, first: Events, window: int, span: int) -> None:
        self._origin, self._window, self._last = first.start, window, first.start
        self._size = (first.width, first.height)
        self._edge, self._count = first.start + window, 0
        self._open = np.zeros(2 * first.width * first.height, np.float32)
        self._shown: collections.deque[NDArray[np.float32]] = collections.deque(maxlen=span)
        self._sum = np.zeros_like(self._open)  # of whole numbers: exact

    def take(self, events: Events) -> Iterator[Window]:
        """Yield the windows that end with these events."""
        if (events.width, events.height) != self._size:
            raise DataError(
                f"{events.source}: its sensor is {events.width}x{events.height}, before it was "
                f"{self._size[0]}x{self._size[1]}; one stream comes from one sensor"
            )
        if events.start < self._last:
            raise DataError(
                f"{events.source}: time runs backwards, from {self._last} to {events.start} µs; send events in order"
            )
        if (events.start - self._edge) // self._window > _MOST_EMPTY:
            gap = (events.start - self._last) / 1e6
            raise DataError(f"{events.source}: no event for {gap:,.0f} s; take longer windows, or cut the recording")
        begun, self._last = 0, int(events.t[-1])
        while self._last >= self._edge:
            end = int(np.searchsorted(events.t, self._edge))
            self._add(events, begun, end)
            begun = end
            yield self._close()
        self._add(events, begun, len(events))

    def _add(self, events: Events, start: int, stop: int) -> None:
        if stop == start:
            return
        width, height = self._size
        part = slice(start, stop)
        place = (events.p[part].astype(np.intp) * height + events.y[part]) * width + events.x[part]
        self._open += np.bincount(place, minlength=len(self._open))
        self._count += stop - start

    def _close(self) -> Window:
        if len(self._shown) == self._shown.maxlen:
            self._sum -= self._shown[0]
        self._shown.append(self._open)
        self._sum += self._open
        width, height = self._size
        found = Window(self._edge - self._origin, self._count, self._sum.reshape(2, height, width))
        self._open, self._count = np.zeros_like(self._open), 0
        self._edge += self._window
        return found


def stream(
    network: SpikingNetwork,
    source: Iterable[Events],
    window: int,
    *,
    frame: int | None = None,
    restart: int | None = None,
    clock: str = "free",
    threads: int = 0,
) -> Iterator[Step]:
    """Step a network as events arrive.

    Args:
        network: the network, whose input takes frames of two channels, OFF and ON, of the sensor's size.
        source: the events: parts of a recording, or a generator that yields what a camera delivers.
        window: microseconds of a timestep.
        frame: microseconds that a frame shows; see `windows`.
        restart: windows after which a new decision begins; None: it goes on.
        clock: one of `CLOCKS`.
        threads: see `SpikingNetwork.run`.

    Yields:
        What the network says after each window: the mean over all timesteps of the decision so far.

    Raises:
        UsageError: an option is out of range, or the network gives no class scores.
        DataError: the events don't fit the network, or each other.
    """
    if clock not in CLOCKS:
        raise UsageError(f"clock is {clock!r}: it must be one of {', '.join(CLOCKS)}")
    if restart is not None and restart < 1:
        raise UsageError(f"restart is {restart}: a decision takes at least 1 window")
    spec = network.inputs[0]
    if len(network.inputs) != 1 or len(spec.shape) != 4 or spec.shape[1] not in (2, "2", None):
        raise UsageError("only networks with one input of frames [N, 2, H, W] (OFF and ON) can follow a stream")
    stepper, output, started = network.stepper(1, threads=threads), "", 0.0
    for number, found in enumerate(windows(_fitting(source, spec.shape), window, frame)):
        if not number:  # what is loaded with the first step would count as latency
            output = class_output(stepper.step({spec.name: np.zeros((1, *found.frame.shape), spec.dtype)}), 1)
            stepper.reset()
            started = time.perf_counter()
        due = time.perf_counter() if clock == "free" else started + found.end / 1e6
        now = time.perf_counter()
        if clock == "paced" and now < due:
            time.sleep(due - now)
        elif clock == "live":  # events come in parts, and a part may hold what is due later
            due = min(due, now)
        if restart is not None and number and not number % restart:
            stepper.reset()
        if time.perf_counter() - due > _LAG * window / 1e6:
            yield Step(found.end / 1e6, found.events, -1, 0.0, time.perf_counter() - due, skipped=True)
            continue
        scores = stepper.step({spec.name: found.frame[None].astype(spec.dtype)})[output]
        sure = float(confidence(scores, "max")[0])
        yield Step(found.end / 1e6, found.events, int(scores[0].argmax()), sure, time.perf_counter() - due)


def _fitting(source: Iterable[Events], shape: tuple[Any, ...]) -> Iterator[Events]:
    """Yield events of the sensor that a network takes."""
    for events in source:
        wanted = shape[2:]
        if any(isinstance(w, int) and w != s for w, s in zip(wanted, (events.height, events.width), strict=True)):
            raise DataError(
                f"{events.source} is of a sensor of {events.width}x{events.height} pixels, the network takes frames of "
                f"{wanted[1]}x{wanted[0]}: give the right size with --sensor, or another network"
            )
        yield events
