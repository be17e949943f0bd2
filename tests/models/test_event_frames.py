"""Frames that the event network is trained on, against voxel grids of events that were moved one by one."""

from __future__ import annotations

import numpy as np
import pytest

from snncc.events import Events, voxel_grid
from snncc.models.recipes import event_frames
from snncc.models.recipes.event_frames import Moves, draw_moves, still, window_frames
from snncc.models.recordings import TICK, Recordings

WIDTH, HEIGHT, BINS = 9, 7, 5


@pytest.fixture
def recordings() -> Recordings:
    random = np.random.default_rng(0)
    made = [
        Events(
            random.integers(0, WIDTH, n).astype(np.uint16),
            random.integers(0, HEIGHT, n).astype(np.uint16),
            np.sort(random.integers(0, 240, n)) * TICK,
            random.random(n) < 0.5,
            WIDTH,
            HEIGHT,
        )
        for n in (150, 80, 200, 1)
    ]
    return Recordings.of(made, np.zeros(4, np.uint8))


def moved(events: Events, moves: Moves, n: int) -> np.ndarray:
    """The voxel grid of a recording with each event moved by itself; weights and times are those of all events."""
    grid = np.zeros((BINS, 2, HEIGHT, WIDTH))
    position = (events.t - events.t[0]) * (BINS - 1) / max(events.t[-1] - events.t[0], 1)
    for x, y, p, at in zip(events.x, events.y, events.p, position, strict=True):
        i, j = np.floor(moves.maps[n] @ [x, y, 1] + 0.5).astype(int)
        if not (0 <= i < WIDTH and 0 <= j < HEIGHT):
            continue
        i, j = (i + moves.rolls[n][0]) % WIDTH, (j + moves.rolls[n][1]) % HEIGHT
        left, top, right, bottom = moves.holes[n]
        if left <= i < right and top <= j < bottom:
            continue
        grid[:, int(p), j, i] += np.maximum(0, 1 - np.abs(np.arange(BINS) - at))
    return grid


def test_without_moves_windows_are_means_of_the_voxel_grid(recordings: Recordings) -> None:
    chosen = np.array([2, 0, 3])
    windows = np.array([[[0, 5], [1, 2]], [[0, 5], [3, 5]], [[0, 1], [0, 5]]])
    found = window_frames(recordings, chosen, still(3), windows, BINS)
    for n, number in enumerate(chosen):
        grid = voxel_grid(recordings[number], BINS)
        for w, (first, last) in enumerate(windows[n]):
            # Sums of a few float32 weights.
            np.testing.assert_allclose(found[n, w], grid[first:last].mean(0), atol=1e-5)


def test_moved_events_are_where_each_one_goes(recordings: Recordings) -> None:
    random = np.random.default_rng(1)
    chosen = random.integers(0, 4, 40)
    moves = draw_moves(40, WIDTH, HEIGHT, random)
    windows = np.broadcast_to([[0, BINS]], (40, 1, 2)).copy()
    found = window_frames(recordings, chosen, moves, windows, BINS)
    for n, number in enumerate(chosen):
        expected = moved(recordings[number], moves, n).mean(0)
        np.testing.assert_allclose(found[n, 0], expected, atol=1e-5)


def test_each_recording_gets_one_move_besides_the_flip() -> None:
    moves = draw_moves(4000, 34, 34, np.random.default_rng(2))
    flipped = moves.maps[:, 0, 0] < 0
    straight = moves.maps.copy()
    straight[flipped, 0, 0] *= -1
    straight[flipped, 1, 0] *= -1
    turned = np.abs(straight[:, 1, 0]) > 0
    sheared = (np.abs(straight[:, 0, 1]) > 0) & ~turned
    rolled, holed = moves.rolls.any(1), moves.holes.any(1)
    assert (turned.astype(int) + sheared + rolled + holed).max() == 1
    # Binomial: a quarter of 4,000 within five standard deviations; a roll by nothing happens, too.
    for some in (turned, sheared, holed):
        assert some.sum() == pytest.approx(1000, abs=137)
    assert flipped.sum() == pytest.approx(2000, abs=158)
    assert np.abs(np.arcsin(straight[turned, 1, 0])).max() <= event_frames.ROTATE
    assert np.abs(straight[sheared, 0, 1]).max() <= event_frames.SHEAR
    assert np.abs(moves.rolls).max() == event_frames.ROLL
    sides = moves.holes[holed, 2:] - moves.holes[holed, :2]
    assert (sides.min(), sides.max()) == (1, event_frames.HOLE)


def test_rotation_and_flip_leave_the_centre_where_it_is() -> None:
    moves = draw_moves(50, 9, 7, np.random.default_rng(3))
    np.testing.assert_allclose(moves.maps @ [4, 3, 1], np.broadcast_to([4, 3], (50, 2)), atol=1e-12)
