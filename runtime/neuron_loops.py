"""Loops over the neurons of a part of a layer, for `snncc.runtime.layer_loop`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_part = numba.njit(nogil=True, error_model="numpy")


@_part
def fill(out: Floats, values: Floats, begin: int, beyond: np.float32) -> None:
    """Repeat the values of channels, from `begin` on, for each pixel of out [pixels, channels]."""
    some = min(out.shape[1], len(values) - begin)
    for p in range(len(out)):
        for c in range(some):
            out[p, c] = values[begin + c]
        for c in range(some, out.shape[1]):
            out[p, c] = beyond


@_part
def copy(values: Floats, apart: int, out: Floats, out_apart: int, lines: int, length: int) -> None:
    """Copy lines of memory of which so many floats lie between the beginnings."""
    for k in range(lines):
        line, target = values[k * apart :], out[k * out_apart :]
        for i in range(length):
            target[i] = line[i]


@_part
def fire(current: Floats, theta: Floats, v_mem: Floats, fired: Floats, max_burst: np.float32) -> None:
    """Run a timestep of burst neurons; spikes replace currents."""
    none = np.float32(0)
    for i in range(len(current)):
        u = v_mem[i] + current[i]
        k = min(max(np.floor(u / theta[i]), none), max_burst)
        v_mem[i] = u - theta[i] * k
        current[i] = k
    for i in range(len(current)):
        fired[i] += current[i]


@_part
def fire_signed(
    current: Floats,
    theta: Floats,
    net: Floats,
    total: Floats,
    fired: Floats,
    v_init: np.float32,
    max_burst: np.float32,
    most: np.float32,
) -> None:
    """Run a timestep of signed neurons, which never emit more than `most` altogether; spikes replace currents."""
    none = np.float32(0)
    for i in range(len(current)):
        total[i] += current[i]
        current[i] = min(max(total[i], none), most)
    for i in range(len(current)):
        k = np.floor(current[i] / theta[i] + v_init) - net[i]
        k = min(max(k, -max_burst), max_burst)
        net[i] += k
        current[i] = k
    for i in range(len(current)):
        fired[i] += abs(current[i])
