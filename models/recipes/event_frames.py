"""Frames of recordings to train on: voxel grids of augmented events, averaged over windows of time.

The augmentations are those of Li, Kim, Park, Geller and Panda, *Neuromorphic Data Augmentation for Training Spiking
Neural Networks*, ECCV 2022: each recording is flipped or not, and then rolled, rotated, sheared or gets a hole. They
move events, not pixels, which costs as much as making the frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snncc.models.recordings import Recordings
from snncc.neurons.compiled import compiled

ROLL = 3
ROTATE = math.radians(15)
SHEAR = 0.15
HOLE = 8


@dataclass(frozen=True)
class Moves:
    """What happens to the events of each of N recordings.

    Attributes:
        maps: float64 [N, 2, 3]: new column and row from (column, row, 1); events that leave the sensor are lost.
        rolls: int64 [N, 2]: columns and rows to go on, around the sensor.
        holes: int64 [N, 4]: left, top, right, bottom of a rectangle whose events are lost.
    """

    maps: NDArray[np.float64]
    rolls: NDArray[np.int64]
    holes: NDArray[np.int64]


def still(count: int) -> Moves:
    """Returns moves that leave all events where they are."""
    maps = np.broadcast_to(np.eye(2, 3), (count, 2, 3)).copy()
    return Moves(maps, np.zeros((count, 2), np.int64), np.zeros((count, 4), np.int64))


def draw_moves(count: int, width: int, height: int, random: np.random.Generator) -> Moves:
    """Draws a flip for half of the recordings, and one of the four other moves for each."""
    moves = still(count)
    which = random.integers(0, 4, count)
    moves.rolls[which == 0] = random.integers(-ROLL, ROLL + 1, (count, 2))[which == 0]
    angle = np.where(which == 1, random.uniform(-ROTATE, ROTATE, count), 0.0)
    shear = np.where(which == 2, random.uniform(-SHEAR, SHEAR, count), 0.0)
    sign = np.where(random.random(count) < 0.5, -1.0, 1.0)
    turn = np.array([[np.cos(angle), -np.sin(angle) + shear], [np.sin(angle), np.cos(angle)]])
    turn[:, 0] *= sign
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    moves.maps[:, :, :2] = turn.transpose(2, 0, 1)
    moves.maps[:, :, 2] = centre - moves.maps[:, :, :2] @ centre
    corner = random.integers(0, (width, height), (count, 2))
    far = corner + random.integers(1, HOLE + 1, (count, 1))
    moves.holes[which == 3] = np.concatenate([corner, far], axis=1)[which == 3]
    return moves


def window_frames(
    recordings: Recordings, chosen: NDArray[np.int64], moves: Moves, windows: NDArray[np.int64], bins: int
) -> NDArray[np.float32]:
    """Returns means of consecutive frames of voxel grids; see `snncc.events.voxel_grid`.

    Args:
        recordings: all of them.
        chosen: numbers of N recordings.
        moves: of these.
        windows: ``[N, W, 2]``: the mean is over frames windows[n, w, 0] to windows[n, w, 1] - 1.
        bins: frames of a recording.

    Returns:
        ``[N, W, 2, height, width]``.
    """
    r = recordings
    frames = np.zeros((*windows.shape[:2], 2, r.height, r.width), np.float32)
    columns = (r.x, r.y, r.tick, r.p, r.offsets)
    _fill(*columns, chosen, moves.maps, moves.rolls, moves.holes, windows, bins, frames)
    return frames


@compiled
def _fill(
    x: NDArray[np.uint8],
    y: NDArray[np.uint8],
    tick: NDArray[np.uint8],
    p: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    chosen: NDArray[np.int64],
    maps: NDArray[np.float64],
    rolls: NDArray[np.int64],
    holes: NDArray[np.int64],
    windows: NDArray[np.int64],
    bins: int,
    frames: NDArray[np.float32],
) -> None:
    height, width = frames.shape[3:]
    for n in range(len(chosen)):
        first, last = offsets[chosen[n]], offsets[chosen[n] + 1]
        start = int(tick[first])
        span = max(int(tick[last - 1]) - start, 1)
        for event in range(first, last):
            column, row = float(x[event]), float(y[event])
            i = math.floor(maps[n, 0, 0] * column + maps[n, 0, 1] * row + maps[n, 0, 2] + 0.5)
            j = math.floor(maps[n, 1, 0] * column + maps[n, 1, 1] * row + maps[n, 1, 2] + 0.5)
            if not (0 <= i < width and 0 <= j < height):
                continue
            i, j = (i + rolls[n, 0]) % width, (j + rolls[n, 1]) % height
            if holes[n, 0] <= i < holes[n, 2] and holes[n, 1] <= j < holes[n, 3]:
                continue
            position = (int(tick[event]) - start) * (bins - 1) / span
            left = min(int(position), bins - 1)
            share = position - left
            for w in range(windows.shape[1]):
                begin, end = windows[n, w, 0], windows[n, w, 1]
                weight = 0.0
                if begin <= left < end:
                    weight += 1 - share
                if begin <= left + 1 < end:
                    weight += share
                if weight > 0:
                    frames[n, w, 1 if p[event] else 0, j, i] += np.float32(weight / (end - begin))
