"""The zoo's recordings: how they are kept, and that they are what the recipe's camera makes of the bundled images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from snncc import models
from snncc.errors import UsageError
from snncc.events import Events, voxel_grid
from snncc.models.recipes import saccades
from snncc.models.recordings import TICK, Recordings


def made_up(counts: list[int], seed: int = 0) -> list[Events]:
    random = np.random.default_rng(seed)
    return [
        Events(
            random.integers(0, 5, n).astype(np.uint16),
            random.integers(0, 4, n).astype(np.uint16),
            np.sort(random.integers(0, 255 * TICK, n)),
            random.random(n) < 0.5,
            5,
            4,
        )
        for n in counts
    ]


def rows(events: Events, tick: int = 1) -> list[tuple[int, ...]]:
    columns = (events.t // tick, events.y, events.x, events.p)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def test_a_file_holds_every_event_of_every_recording(tmp_path: Path) -> None:
    sources = made_up([300, 1, 47])
    recordings = Recordings.of(sources, np.array([3, 0, 9], np.uint8))
    recordings.save(tmp_path / "some.npz")
    read = Recordings.load(tmp_path / "some.npz")
    assert len(read) == 3
    assert read.label.tolist() == [3, 0, 9]
    for source, kept, found in zip(sources, recordings, read, strict=True):
        assert rows(kept, TICK) == rows(source, TICK)
        assert (found.t % TICK == 0).all()
        for name in "xytp":
            np.testing.assert_array_equal(getattr(found, name), getattr(kept, name))


def test_frames_are_those_of_each_recording() -> None:
    recordings = Recordings.of(made_up([200, 30]), np.zeros(2, np.uint8))
    frames = recordings.frames(6)
    assert (frames.shape, frames.dtype) == ((2, 6, 2, 4, 5), np.float32)
    np.testing.assert_array_equal(frames[1], voxel_grid(recordings[1], 6))
    # Every event adds one in all; float32 sums of a few hundred weights.
    np.testing.assert_allclose(frames.sum((1, 2, 3, 4)), [200, 30], rtol=1e-5)


@pytest.mark.parametrize(("name", "count", "events"), [("events_test", 1000, 1657), ("events_calibration", 256, 1629)])
def test_bundled_recordings(name: str, count: int, events: int) -> None:
    recordings = models.event_set(name)
    assert (len(recordings), recordings.width, recordings.height) == (count, 34, 34)
    assert round(len(recordings.x) / count) == events
    assert np.bincount(recordings.label).min() > 0.07 * count
    _, labels = models.test_set() if name == "events_test" else models.calibration_set()
    np.testing.assert_array_equal(recordings.label, labels[:count])
    assert models.data_path(name).stat().st_size < 2_000_000


@pytest.mark.parametrize("name", models.EVENTS)
def test_the_camera_makes_the_bundled_recordings_again(name: str) -> None:
    bundled = models.event_set(name)
    source, _, seed = saccades.FILES[name]
    images, labels = source()
    for number in (0, 17, len(bundled) - 1):
        again = saccades.record(images[number : number + 1], labels[number : number + 1], [seed + number])[0]
        for column in "xytp":
            np.testing.assert_array_equal(getattr(again, column), getattr(bundled[number], column))


def test_frames_for_a_network() -> None:
    data = models.event_frames("events_calibration", bins=2)
    assert (data["events"].shape, data["events"].dtype) == ((256, 2, 2, 34, 34), np.float32)
    assert models.event_frames("events_calibration")["events"].shape[1] == models.EVENT_FRAMES
    with pytest.raises(UsageError, match="no set of recordings 'test' in the zoo: choose one of events_calibration"):
        models.event_frames("test")


def test_no_calibration_recording_is_a_test_recording() -> None:
    digests = [{hashlib.sha256(e.t.tobytes()).digest() for e in models.event_set(name)} for name in models.EVENTS]
    assert not digests[0] & digests[1]
