"""A layer of neurons with the convolutions of spikes in front of it, as one compiled loop: counts in, counts out.

It is compiled when it is first called and kept on disk for the next process. Numba takes what it kept for right as long
as this file is the same; the functions from other files, which become a part of it, are told apart by a digest.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from snncc.runtime import float_tile, neuron_loops
from snncc.runtime.matrix_unit import available
from snncc.runtime.neuron_loops import fire

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Conv = tuple[Any, ...]

_drive_floats = float_tile.drive
_OTHERS = [float_tile, neuron_loops]
if available():
    from snncc.runtime import matrix_tile

    _drive_matrices = matrix_tile.drive
    _OTHERS.append(matrix_tile)


def _drive(conv: Conv, part: tuple[int, ...], source: Floats, out: Floats) -> None:
    """Add a convolution to the current of a part of a layer."""
    raise NotImplementedError


@overload(_drive)
def _overload_of_drive(conv: Any, part: Any, source: Any, out: Any) -> Any:
    """Choose by what the convolution consists of."""

    def floats(conv: Any, part: Any, source: Any, out: Any) -> None:
        _drive_floats(conv, part, source, out)

    def matrices(conv: Any, part: Any, source: Any, out: Any) -> None:
        _drive_matrices(conv, part, source, out)

    return floats if len(conv) == float_tile.FIELDS else matrices


@numba.njit(nogil=True, error_model="numpy")
def _simulate(
    begin: int,
    end: int,
    sizes: tuple[int, ...],
    bounds: tuple[np.float32, np.float32, np.float32],
    first: Conv,
    second: Conv,
    residual: Bytes,
    unit: Floats,
    added: Floats,
    theta: Floats,
    bias: Floats,
    counts: Bytes,
    emitted: NDArray[np.float64],
    state: Floats,
    sums: Floats,
    scratch: Floats,
) -> None:
    """Simulate parts `begin` to `end` of a layer: some rows of the output, and some of its channels.

    Args:
        begin: first part.
        end: the part behind the last one.
        sizes: int64: convolutions, rows of a part, channels of a part, timesteps that are convolved together, whether
            neurons are signed, timesteps before, whether there is a state, floats of a padded input.
        bounds: float32: v0, ψ, the bound of what a signed neuron encodes, and the codes of no spike in `residual` and
            in `counts`.
        first: a convolution, as `float_tile.drive` or `matrix_tile.drive` takes it.
        second: another one, or the same where there is none.
        residual: counts that are added to the current, uint8 [T, N, H, W, C], or [1, 1, 1, 1, C] that add nothing.
        unit: float32 [C], their spikes.
        added: float32 [T or 1, N, H, W, C] that is added to the current, or empty.
        theta: float32 [C].
        bias: float32 [C].
        counts: filled with the spikes plus an offset, uint8 [T, N, H, W, C].
        emitted: spikes over time and samples are added to it, float64 [H, W, C].
        state: v_mem, or the spikes of signed neurons so far, float32 [N, H, W, C], or empty where nothing is kept.
        sums: currents of signed neurons so far, the same.
        scratch: float32, large enough.

    What is there for each channel is filled up to whole vectors.
    """
    convolutions, of_rows, channels, together, signed, done, goes_on, padded = sizes
    timesteps, samples, height, width, features = counts.shape
    groups, kept = -(-features // channels), state.size > 0
    flat, codes, image = counts.reshape(-1), residual.reshape(-1), height * width * features
    has_codes, has_added = int(residual.size == counts.size), added.size > 0
    given, of_given = added.reshape(-1), samples * image if len(added) > 1 else 0
    for part in range(begin, end):
        top, channel = part // groups * of_rows, part % groups * channels
        rows, some = min(of_rows, height - top), min(channels, features - channel)
        pixels = rows * width
        size, start = pixels * channels, top * width * features + channel
        source, rest = scratch[:padded], scratch[padded:]
        own, own_sums, fired, current = rest[:size], rest[size : 2 * size], rest[2 * size :][:size], rest[3 * size :]
        fired[:] = 0
        for n in range(samples):
            v_mem, v_at, v_apart = (state.reshape(-1), n * image + start, features) if kept else (own, 0, channels)
            total, s_at, s_apart = (sums.reshape(-1), n * image + start, features) if kept else (own_sums, 0, channels)
            states = (v_mem, v_at, v_apart, total, s_at, s_apart, fired, 0, channels)
            for t in range(0, timesteps, together):
                steps = min(together, timesteps - t)
                place = (t, t + steps, n, top, rows, width, channel, channels)
                now = t * samples * image + n * image + start
                arriving = (current, 0, channels, size)
                if has_added and not convolutions:
                    arriving = (given, t * of_given + n * image + start, features, of_given)
                elif has_added:
                    for s in range(steps):
                        at = (t + s) * of_given + n * image + start
                        for p in range(pixels):
                            target, values = current[s * size + p * channels :], given[at + p * features :]
                            for c in range(some):
                                target[c] = values[c]
                else:
                    current[: steps * size] = 0
                if convolutions:
                    _drive(first, place, source, current)
                if convolutions > 1:
                    _drive(second, place, source, current)
                fire(
                    arriving,
                    (
                        codes,
                        has_codes * now if has_codes else channel,
                        has_codes * features,
                        has_codes * samples * image,
                    ),
                    (flat, now, features, samples * image),
                    states,
                    (theta, bias, unit, channel),
                    bounds,
                    (pixels, some),
                    signed,
                    steps,
                    int(t == 0 and not goes_on),
                    done + t,
                )
        found = emitted.reshape(-1)[start:]  # less than 2**24 each: whole numbers in float32
        for p in range(pixels):
            more, sum_of = fired[p * channels :], found[p * features :]
            for c in range(some):
                sum_of[c] += np.float64(more[c])


def _kept(digest: str) -> Any:
    """Return the loop so that it is kept on disk, where a function is known by what it encloses, too."""

    def simulate(*arguments: Any) -> None:
        if digest:
            _simulate(*arguments)

    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(simulate)
    except RuntimeError:  # there is no folder that the code could be kept in
        return numba.njit(nogil=True, error_model="numpy")(simulate)


simulate = _kept(hashlib.sha256(b"".join(Path(str(m.__file__)).read_bytes() for m in _OTHERS)).hexdigest())
