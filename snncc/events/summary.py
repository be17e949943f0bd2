"""What is in a recording, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.events.container import Events

HOT_DEVIATIONS = 6
HOT_EVENTS = 10
"""A pixel is hot if it has at least so many events, and more than the mean of the active pixels + 6 deviations."""


@dataclass(frozen=True)
class Summary:
    """Facts about a recording.

    Attributes:
        source: the file.
        format: how it is stored.
        events: number of events.
        start: time of the first event in microseconds.
        duration: microseconds from the first event to the end of the last.
        width: columns of the sensor.
        height: rows of the sensor.
        sensor_from: where that size comes from.
        rate: events per second.
        on: share of ON events.
        active: number of pixels with events.
        hot: hot pixels, as x, y and number of events, the hottest first.
    """

    source: str
    format: str
    events: int
    start: int
    duration: int
    width: int
    height: int
    sensor_from: str
    rate: float
    on: float
    active: int
    hot: tuple[tuple[int, int, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; times in microseconds."""
        return {
            "source": self.source,
            "format": self.format,
            "events": self.events,
            "start_us": self.start,
            "duration_us": self.duration,
            "sensor": {"width": self.width, "height": self.height, "from": self.sensor_from},
            "events_per_second": self.rate,
            "on_share": self.on,
            "active_pixels": self.active,
            "hot_pixels": [{"x": x, "y": y, "events": count} for x, y, count in self.hot],
        }


def summarise(events: Events) -> Summary:
    """Return facts about a recording."""
    return Summary(
        source=events.source,
        format=events.format,
        events=len(events),
        start=events.start,
        duration=events.duration,
        width=events.width,
        height=events.height,
        sensor_from=events.sensor_from,
        rate=len(events) / events.duration * 1e6,
        on=float(events.p.mean()),
        active=int(np.count_nonzero(_per_pixel(events))),
        hot=hot_pixels(events),
    )


def hot_pixels(events: Events) -> tuple[tuple[int, int, int], ...]:
    """Return x, y and number of events of pixels that fire far more than the others, the hottest first."""
    counts = _per_pixel(events)
    active = counts[counts > 0]
    # With one or two events a pixel, the deviations alone would call four events hot.
    hot = np.flatnonzero(counts > max(active.mean() + HOT_DEVIATIONS * active.std(), HOT_EVENTS - 1))
    order = hot[np.argsort(-counts[hot], kind="stable")]
    return tuple((int(i % events.width), int(i // events.width), int(counts[i])) for i in order)


def rate_over_time(events: Events, bins: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return seconds [bins + 1] since the first event, and events per second [2, bins]: OFF, ON."""
    edges = np.linspace(0, events.duration, bins + 1)
    bounds = np.searchsorted(events.t, events.start + np.ceil(edges).astype(np.int64))
    on = np.concatenate([[0], np.cumsum(events.p, dtype=np.int64)])[bounds]
    counts = np.stack([np.diff(bounds - on), np.diff(on)])
    return edges / 1e6, counts * (bins / events.duration * 1e6)


def _per_pixel(events: Events) -> NDArray[np.int64]:
    place = events.y.astype(np.int64) * events.width + events.x
    return np.bincount(place, minlength=events.width * events.height)
