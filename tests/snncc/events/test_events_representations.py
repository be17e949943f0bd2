"""Against loops over single events that follow the published equations."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from event_files import Event, random_events

from snncc.errors import DataError, SnnccError, UsageError
from snncc.events import Events, Slicing, count_frames, representations, time_surface, voxel_grid

WIDTH, HEIGHT = 7, 5


def recording(events: list[Event]) -> Events:
    t, x, y, p = (np.array(column) for column in zip(*events, strict=True))
    return Events(x.astype(np.uint16), y.astype(np.uint16), t.astype(np.int64), p.astype(bool), WIDTH, HEIGHT)


def some(count: int = 400, seed: int = 0) -> list[Event]:
    return [(t + 1000, *rest) for t, *rest in random_events(count, WIDTH, HEIGHT, 9_999, seed)]


def slices(events: list[Event], kind: str, size: int) -> list[tuple[list[Event], int]]:
    """The events of every slice, and the last microsecond of each."""
    start, last = events[0][0], events[-1][0]
    span = last - start + 1
    if kind == "count":
        parts = [events[i : i + size] for i in range(0, len(events) - size + 1, size)]
        return [(part, part[-1][0]) for part in parts]
    number = size if kind == "bins" else span // size
    found = []
    for i in range(number):
        if kind == "bins":
            part = [e for e in events if (e[0] - start) * size // span == i]
            end = max(t for t in range(start, last + 1) if (t - start) * size // span == i)
        else:
            part = [e for e in events if (e[0] - start) // size == i]
            end = start + (i + 1) * size - 1
        found.append((part, end))
    return found


CUTS = [("bins", 1), ("bins", 3), ("bins", 7), ("window", 1000), ("window", 2500), ("count", 1), ("count", 90)]


@pytest.mark.parametrize(("kind", "size"), CUTS)
def test_counts(kind: str, size: int) -> None:
    events = some()
    expected = np.zeros((len(slices(events, kind, size)), 2, HEIGHT, WIDTH), np.float32)
    for number, (part, _) in enumerate(slices(events, kind, size)):
        for _, x, y, on in part:
            expected[number, int(on), y, x] += 1
    found = count_frames(recording(events), Slicing(**{kind: size}))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("kind", "size"), CUTS)
@pytest.mark.parametrize("tau", [300.0, 5000.0])
def test_time_surfaces(kind: str, size: int, tau: float) -> None:
    """HOTS, equation 3: exp(-(t - T)/tau). Tolerance: float32 rounds to 6e-8, twice for the exponent's rounding."""
    events = some(120)
    expected, latest = [], {}
    for part, end in slices(events, kind, size):
        for t, x, y, on in part:
            latest[int(on), y, x] = t
        surface = np.zeros((2, HEIGHT, WIDTH))
        for place, t in latest.items():
            surface[place] = math.exp(-(end - t) / tau)
        expected.append(surface)
    found = time_surface(recording(events), Slicing(**{kind: size}), tau=tau)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(expected), rtol=2e-7, atol=1e-12)


@pytest.mark.parametrize("bins", [1, 2, 3, 9])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("piece", [17, 1 << 20])
def test_voxel_grid(monkeypatch: pytest.MonkeyPatch, bins: int, signed: bool, piece: int) -> None:
    """Zhu et al., equations 1 to 3, over all bins. Tolerance: sums of 12 weights in float32, below 1e-6 each."""
    monkeypatch.setattr(representations, "_PIECE", piece)
    events = some()
    start, last = events[0][0], events[-1][0]
    expected = np.zeros((bins, 1 if signed else 2, HEIGHT, WIDTH))
    for t, x, y, on in events:
        position = (bins - 1) * (t - start) / (last - start)
        for number in range(bins):
            weight = max(0.0, 1 - abs(number - position))
            expected[number, 0 if signed else int(on), y, x] += weight * (2 * on - 1 if signed else 1)
    found = voxel_grid(recording(events), bins, signed=signed)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_no_event_is_lost() -> None:
    events = recording(some())
    assert count_frames(events, Slicing(bins=7)).sum() == len(events)
    np.testing.assert_allclose(voxel_grid(events, 5).sum(), len(events), rtol=1e-6)


@pytest.mark.parametrize("make", [lambda e: count_frames(e, Slicing(bins=3)), lambda e: voxel_grid(e, 3)])
def test_all_events_at_one_time(make: Callable[[Events], np.ndarray]) -> None:
    events = recording([(5, 1, 1, True)] * 4)
    found = make(events)
    assert found[0, 1, 1, 1] == found.sum() == 4


def test_more_bins_than_microseconds() -> None:
    assert count_frames(recording([(0, 0, 0, True), (1, 1, 1, True)]), Slicing(bins=5)).sum() == 2


@pytest.mark.parametrize(
    ("work", "kind", "message"),
    [
        (lambda e: Slicing(window=20_000).bounds(e), DataError, r"less than a window of 20,000 µs; take a shorter"),
        (lambda e: Slicing(count=500).bounds(e), DataError, "has 400 events, less than a slice of 500"),
        (lambda e: Slicing(), UsageError, "given by nothing: give one of bins, window and count"),
        (lambda e: Slicing(bins=2, count=3), UsageError, "given by bins, count: give"),
        (lambda e: Slicing(bins=0), UsageError, "bins is 0: it must be at least 1"),
        (lambda e: Slicing(window=-5), UsageError, "window is -5"),
        (lambda e: voxel_grid(e, 0), UsageError, "bins is 0"),
        (lambda e: time_surface(e, Slicing(bins=1), tau=0), UsageError, "tau is 0"),
        (lambda e: time_surface(e, Slicing(bins=1), tau=float("nan")), UsageError, "tau is nan"),
        (lambda e: count_frames(e, Slicing(bins=10**9)), DataError, "1,000,000,000 slices .* take fewer"),
        (lambda e: voxel_grid(e, 10**9), DataError, "slices of 7x5 pixels take"),
    ],
)
def test_what_cant_be_done(work: Callable[[Events], object], kind: type[SnnccError], message: str) -> None:
    with pytest.raises(kind, match=message):
        work(recording(some()))
