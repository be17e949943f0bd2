"""Streams: windows against frames cut by hand, and what the network says against a run of the whole sequence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from small_networks import parse

import snncc
from snncc.config import Config
from snncc.errors import DataError, UsageError
from snncc.events import Events, Slicing, count_frames
from snncc.network import SpikingNetwork
from snncc.runtime.early_exit import confidence
from snncc.runtime.stepper import Stepper
from snncc.streaming import _LAG, Step, stream, windows

SIDE, COUNT = 6, 4000
NETWORK = """
g (float[N,2,6,6] x, float[4,2,3,3] w_1, float[16,3] w_2) => (float[N,3] y)
{
    c = Conv <strides = [2,2], pads = [1,1,1,1]> (x, w_1)
    r = Relu (c)
    p = AveragePool <kernel_shape = [2,2]> (r)
    f = Flatten (p)
    y = MatMul (f, w_2)
}
"""


def recording(seed: int = 0, duration: int = 100_000, side: int = SIDE) -> Events:
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, duration, COUNT)) + 12_345
    t[0], t[-1] = 12_345, 12_345 + duration - 1
    x, y = (rng.integers(0, side, COUNT).astype(np.uint16) for _ in range(2))
    return Events(x, y, t, rng.random(COUNT) < 0.4, side, side)


def in_parts(events: Events, sizes: int = 137) -> Iterator[Events]:
    for start in range(0, len(events), sizes):
        yield events.part(start, min(start + sizes, len(events)))


@pytest.fixture(scope="module")
def network() -> SpikingNetwork:
    frames = np.stack([count_frames(recording(seed), Slicing(bins=4)) for seed in range(16)])
    config = Config(timesteps=8, max_burst=4, input_coding="frames", reset_after=2)
    return snncc.compile(parse(NETWORK), calibration=frames, config=config)


@pytest.mark.parametrize("parts", [1, 137, COUNT])
def test_windows_are_frames_cut_by_hand(parts: int) -> None:
    events = recording()
    found = [(w.end, w.events, w.frame.copy()) for w in windows(in_parts(events, parts), 10_000)]
    wanted = count_frames(events, Slicing(window=10_000))
    assert len(found) == 9  # nothing says that the tenth is over: an event at its last microsecond doesn't
    for number, (end, count, frame) in enumerate(found):
        np.testing.assert_array_equal(frame, wanted[number])
        assert end == 10_000 * (number + 1)
        assert count == frame.sum()


def test_a_frame_shows_the_last_windows() -> None:
    events = recording()
    single = [w.frame.copy() for w in windows([events], 5_000)]
    found = [w.frame.copy() for w in windows([events], 5_000, 15_000)]
    for number, frame in enumerate(found):
        np.testing.assert_array_equal(frame, sum(single[max(0, number - 2) : number + 1]))


def test_windows_without_events_are_windows() -> None:
    events = recording()
    gap = Events(events.x, events.y, events.t + np.where(events.t > 60_000, 50_000, 0), events.p, SIDE, SIDE)
    counts = [w.events for w in windows([gap], 10_000)]
    assert 0 in counts
    assert sum(counts) == np.count_nonzero(gap.t - gap.start < 10_000 * len(counts))


def test_the_network_says_what_it_says_of_the_whole_sequence(network: SpikingNetwork) -> None:
    events = recording(3)
    frames = np.stack([w.frame.copy() for w in windows([events], 12_000)])[:8]
    trace = network.simulator("numpy").run({"x": frames[:, None]}, trace=True).trace["y"]
    steps = list(stream(network, in_parts(events), 12_000))
    assert len(steps) == 8
    for step, scores in zip(steps, trace, strict=True):
        assert step.label == scores[0].argmax()
        assert step.confidence == pytest.approx(float(confidence(scores, "max")[0]), abs=1e-4)
        assert step.latency > 0
        assert not step.skipped


def test_a_new_decision_begins(network: SpikingNetwork) -> None:
    events = recording(3)
    frames = [w.frame.copy() for w in windows([events], 12_000)]
    steps = list(stream(network, [events], 12_000, restart=3))
    for start in (0, 3, 6):
        stepper = network.stepper(1)
        for frame, step in zip(frames[start : start + 3], steps[start : start + 3], strict=False):
            wanted = stepper.step({"x": frame[None]})["y"]
            assert step.label == wanted[0].argmax()
            assert step.confidence == pytest.approx(float(confidence(wanted, "max")[0]))


def test_a_recording_is_played_as_it_was_recorded(network: SpikingNetwork) -> None:
    start = time.perf_counter()
    steps = list(stream(network, [recording(duration=200_000)], 20_000, clock="paced"))
    assert time.perf_counter() - start >= 0.18
    assert len(steps) == 9


@pytest.mark.parametrize("clock", ["paced", "live"])
def test_a_network_that_is_too_slow_skips_windows(
    network: SpikingNetwork, clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock moves by what each part takes: a step takes five windows, all else nothing."""
    now = 0.0
    plain = Stepper.step

    def slow(self: Stepper, frame: Any = None) -> Any:
        nonlocal now
        now += 0.05
        return plain(self, frame)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def live() -> Iterator[Events]:
        nonlocal now
        begun: float | None = None
        for part in in_parts(recording(duration=1_000_000), 10):
            begun = now if begun is None else begun
            now = max(now, begun + (part.start - 12_345) / 1e6)
            yield part

    monkeypatch.setattr(Stepper, "step", slow)
    monkeypatch.setattr("snncc.streaming.time.perf_counter", lambda: now)
    monkeypatch.setattr("snncc.streaming.time.sleep", sleep)
    source = live() if clock == "live" else [recording(duration=1_000_000)]
    steps: list[Step] = list(stream(network, source, 10_000, clock=clock))
    skipped = [s for s in steps if s.skipped]
    assert len(steps) == 99
    # Each step takes five windows, so four of five can't be looked at.
    assert 0.7 < len(skipped) / len(steps) < 0.9
    assert max(s.latency for s in steps) < (_LAG + 7) * 0.01  # it never falls further behind
    assert all(s.label == -1 for s in skipped)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ([recording(side=7)], "sensor of 7x7 pixels, the network takes frames of 6x6.*--sensor"),
        ([recording(), recording()], "time runs backwards"),
    ],
)
def test_events_that_do_not_fit(network: SpikingNetwork, source: list[Events], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        list(stream(network, source, 10_000))


def test_a_gap_of_years_is_refused() -> None:
    events = recording()
    later = Events(events.x, events.y, events.t + (1 << 50), events.p, SIDE, SIDE)
    with pytest.raises(DataError, match="no event for 1,125,899,907 s"):
        list(windows([events, later], 10_000))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"frame": 15_000}, "1 to 4096 times the window"),
        ({"restart": 0}, "at least 1 window"),
        ({"clock": "wall"}, "one of free, paced, live"),
    ],
)
def test_options_out_of_range(network: SpikingNetwork, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        list(stream(network, [recording()], 10_000, **options))


def test_other_networks_are_refused() -> None:
    text = "g (float[N,6] x, float[6,4] w_1) => (float[N,4] y) { h = MatMul(x, w_1) y = Relu(h) }"
    config = Config(timesteps=2, input_coding="frames")
    network = snncc.compile(parse(text), calibration=np.ones((4, 2, 6), np.float32), config=config)
    with pytest.raises(UsageError, match=r"\[N, 2, H, W\]"):
        list(stream(network, [recording()], 10_000))


def test_events_that_come_in_large_parts_are_not_late(network: SpikingNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that delivers 200 ms at a time, every 200 ms: with windows of 10 ms nothing is skipped."""
    now = 0.0
    plain = Stepper.step

    def quick(self: Stepper, frame: Any = None) -> Any:
        nonlocal now
        now += 0.001
        return plain(self, frame)

    def driver() -> Iterator[Events]:
        nonlocal now
        events = recording(duration=600_000)
        for part in range(3):
            now = max(now, 0.2 * (part + 1))
            yield events.between(events.start + part * 200_000, events.start + (part + 1) * 200_000)

    monkeypatch.setattr(Stepper, "step", quick)
    monkeypatch.setattr("snncc.streaming.time.perf_counter", lambda: now)
    steps = list(stream(network, driver(), 10_000, clock="live"))
    assert len(steps) == 59
    assert not any(step.skipped for step in steps)
    assert max(step.latency for step in steps) < 0.03
