"""The pixels of a simulated event camera, compiled: the brightness that each sees, and the events that it fires."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.compiled import compiled


@compiled
def log_levels(
    image: NDArray[np.float64], shifts: NDArray[np.float64], height: int, width: int, black: float
) -> NDArray[np.float64]:
    """Return the logarithm of the brightness that each pixel sees at each position of the image.

    Args:
        image: [h, w], from 0 (black) to 1 (white); black beyond its edges.
        shifts: [K, 2]: rows and columns, at least 0, by which the image lies below and right of the sensor's corner.
        height: rows of the sensor.
        width: columns of the sensor.
        black: brightness of black as a fraction of that of white.

    Returns:
        float64 [height * width, K]; bilinear interpolation between the pixels of the image.
    """
    rows, columns = image.shape
    padded = np.zeros((rows + 2, columns + 2))
    padded[1:-1, 1:-1] = image
    levels = np.full((height * width, len(shifts)), math.log(black))
    reach_down, reach_right = math.ceil(shifts[:, 0].max()), math.ceil(shifts[:, 1].max())
    for pixel in range(height * width):
        y, x = pixel // width, pixel % width
        seen = padded[max(y - reach_down + 1, 0) : y + 3, max(x - reach_right + 1, 0) : x + 3]
        if not seen.any():
            continue
        for k in range(len(shifts)):
            above, left = y + 1 - shifts[k, 0], x + 1 - shifts[k, 1]
            if 0 < above < rows + 1 and 0 < left < columns + 1:
                i, j = int(above), int(left)
                above, left = above - i, left - j
                upper = (1 - left) * padded[i, j] + left * padded[i, j + 1]
                lower = (1 - left) * padded[i + 1, j] + left * padded[i + 1, j + 1]
                levels[pixel, k] = math.log(black + (1 - black) * ((1 - above) * upper + above * lower))
    return levels


@compiled
def fire(
    levels: NDArray[np.float64],
    step: int,
    refractory: int,
    thresholds: NDArray[np.float64],
    noise_bounds: NDArray[np.int64],
    noise_t: NDArray[np.int64],
    noise_p: NDArray[np.bool_],
    out: NDArray[np.int64],
) -> int:
    """Write the events of every pixel, pixel after pixel, each in the order of time; return how many there are.

    A pixel fires at the first microsecond at which its level has moved by its threshold, or at which noise strikes. It
    is then blind for the refractory time, and compares with the level that it sees when that ends.

    Args:
        levels: [P, K] at times 0, step, 2·step, ...; linear in between.
        step: microseconds between two levels.
        refractory: in microseconds.
        thresholds: [P, 2]: OFF, ON; positive.
        noise_bounds: [P + 1]: noise number noise_bounds[i] to noise_bounds[i + 1] - 1 strikes pixel i, in this order.
        noise_t: [M] in microseconds.
        noise_p: [M] polarity.
        out: [capacity, 3]: pixel, time, polarity; what doesn't fit is counted, not written.
    """
    count = 0
    for pixel in range(len(levels)):
        level, noise = levels[pixel], noise_bounds[pixel]
        if noise == noise_bounds[pixel + 1] and level.min() == level.max():
            continue  # most of the background
        reference, now, k = level[0], 0, 0
        while k < len(level) - 1:
            # The first whole microsecond of this piece at which the level has left the band around the reference.
            time, polarity, target = (k + 1) * step + 1, level[k + 1] > level[k], reference
            target += thresholds[pixel, 1] if polarity else -thresholds[pixel, 0]
            reached = level[k + 1] >= target if polarity else level[k + 1] <= target
            if reached:
                time = k * step + math.ceil(step * (target - level[k]) / (level[k + 1] - level[k]))
            while noise < noise_bounds[pixel + 1] and noise_t[noise] < now:
                noise += 1
            if noise < noise_bounds[pixel + 1] and noise_t[noise] < min(time, (k + 1) * step):
                time, polarity = noise_t[noise], noise_p[noise]
                noise += 1
            if time > (k + 1) * step:
                k += 1
                continue
            if count < len(out):
                out[count, 0], out[count, 1], out[count, 2] = pixel, time, polarity
            count += 1
            now = time + refractory
            k = now // step
            if k < len(level) - 1:
                reference = level[k] + (level[k + 1] - level[k]) * (now - k * step) / step
    return count


def events_of(
    levels: NDArray[np.float64],
    step: int,
    refractory: int,
    thresholds: NDArray[np.float64],
    noise: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]],
    capacity: int = 1 << 12,
) -> NDArray[np.int64]:
    """Return all events as [N, 3]: pixel, time, polarity; see `fire`. Room for `capacity` of them is made at first."""
    out = np.empty((capacity, 3), np.int64)
    count = fire(levels, step, refractory, thresholds, *noise, out)
    if count > capacity:
        return events_of(levels, step, refractory, thresholds, noise, count)
    return out[:count]
