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
from snncc.runtime.neuron_loops import copy, fill, fire, fire_signed

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
            neurons are signed, the spike count that is written as zero, that in `residual`, timesteps before, whether
            there is a state, floats of a padded input.
        bounds: float32: v0, ψ, and the bound of what a signed neuron encodes.
        first: a convolution, as `float_tile.drive` or `matrix_tile.drive` takes it.
        second: another one, or the same where there is none.
        residual: counts that are added to the current, uint8 [T, N, H, W, C], or empty.
        unit: float32 [C], their spikes.
        added: float32 [T or 1, N, H, W, C] that is added to the current, or empty.
        theta: float32 [C].
        bias: float32 [C].
        counts: filled with the spikes plus an offset, uint8 [T, N, H, W, C].
        emitted: spikes over time and samples are added to it, float64 [H, W, C].
        state: v_mem, or the spikes of signed neurons so far, float32 [N, H, W, C], or empty where nothing is kept.
        sums: currents of signed neurons so far, the same.
        scratch: float32, large enough.
    """
    convolutions, of_rows, channels, together, signed, offset, zero, done, goes_on, padded = sizes
    timesteps, samples, height, width, features = counts.shape
    groups = -(-features // channels)
    v_init, max_burst, upper = bounds
    shown, none = np.float32(offset), np.float32(zero)
    for part in range(begin, end):
        top, channel = part // groups * of_rows, part % groups * channels
        rows = min(of_rows, height - top)
        size, whole = rows * width * channels, of_rows * width * channels
        # Where the channels of a part are all that there are, its pixels are one line of memory.
        lines, length = (1, size) if channels == features else (rows * width, min(channels, features - channel))
        source, rest = scratch[:padded], scratch[padded:]
        units, shifts, scales = rest[:size], rest[whole : whole + size], rest[2 * whole : 2 * whole + size]
        own, own_sums, fired = rest[3 * whole :][:size], rest[4 * whole :][:size], rest[5 * whole :][:size]
        current = rest[6 * whole :]
        if part == begin or groups > 1:
            fill(rest[:whole].reshape(-1, channels), theta, channel, np.float32(1))
            fill(rest[whole : 2 * whole].reshape(-1, channels), bias, channel, np.float32(0))
            if residual.size:
                fill(rest[2 * whole : 3 * whole].reshape(-1, channels), unit, channel, np.float32(0))
        start = (top * width) * features + channel
        for i in range(size):
            fired[i] = np.float32(0)
        in_place = state.size > 0 and lines == 1
        for n in range(samples):
            v_mem = state[n].reshape(-1)[start : start + size] if in_place else own
            total = sums[n].reshape(-1)[start : start + size] if in_place else own_sums
            if not goes_on:
                for i in range(size):
                    v_mem[i] = np.float32(0) if signed else v_init * units[i]
                if signed:
                    for i in range(size):
                        total[i] = np.float32(0)
            elif not in_place:
                copy(state[n].reshape(-1)[start:], features, v_mem, channels, lines, length)
                if signed:
                    copy(sums[n].reshape(-1)[start:], features, total, channels, lines, length)
            for t in range(0, timesteps, together):
                steps = (t, min(timesteps, t + together))
                for s in range(steps[1] - t):
                    now = current[s * size : (s + 1) * size]
                    for i in range(size):
                        now[i] = shifts[i]
                    if residual.size:
                        codes = residual[t + s, n].reshape(-1)[start:]
                        for k in range(lines):
                            codes_k, target = codes[k * features :], now[k * channels :]
                            scale = scales[k * channels :]
                            for i in range(length):
                                target[i] += (np.float32(codes_k[i]) - none) * scale[i]
                    if added.size:
                        values = added[min(t + s, len(added) - 1), n].reshape(-1)[start:]
                        for k in range(lines):
                            values_k, target = values[k * features :], now[k * channels :]
                            for i in range(length):
                                target[i] += values_k[i]
                place = (t, steps[1], n, top, rows, width, channel, channels)
                if convolutions:
                    _drive(first, place, source, current)
                if convolutions > 1:
                    _drive(second, place, source, current)
                for s in range(steps[1] - t):
                    now = current[s * size : (s + 1) * size]
                    if signed:
                        most = upper * np.float32(done + t + s + 1)
                        fire_signed(now, units, v_mem, total, fired, v_init, max_burst, most)
                    else:
                        fire(now, units, v_mem, fired, max_burst)
                    out = counts[t + s, n].reshape(-1)[start:]
                    for k in range(lines):
                        spikes, target = now[k * channels :], out[k * features :]
                        for i in range(length):
                            target[i] = np.uint8(np.int32(spikes[i] + shown))
            if state.size and not in_place:
                copy(v_mem, channels, state[n].reshape(-1)[start:], features, lines, length)
                if signed:
                    copy(total, channels, sums[n].reshape(-1)[start:], features, lines, length)
        found = emitted.reshape(-1)[start:]  # less than 2**24 each: whole numbers in float32
        for k in range(lines):
            more, sum_of = fired[k * channels :], found[k * features :]
            for i in range(length):
                sum_of[i] += np.float64(more[i])


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
