"""The burst integrate-and-fire neuron in NumPy: closed form, one step, and a fused simulation over all steps.

Equations 2-4 of "Bursting Spikes", with burst ψ (`max_burst`) and threshold ratio τ folded into θe (`theta`):

    u[t] = v[t-1] + x[t]
    n[t] = clip(floor(u[t] / θe), 0, ψ)
    s[t] = θe · n[t]
    v[t] = u[t] - s[t],      v[0] = v0 · θe

The ONNX form of the same neuron is in `snncc.neurons.functions`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

_BLOCK = 1 << 16  # elements of one timestep that are simulated together: few enough for the cache, many for one call


def closed_form(x: Floats, theta: Floats, timesteps: int, max_burst: int, v_init: float) -> Floats:
    """Mean output of the neuron for a current that is constant over time: equation 8, with v0.

    ClipFloor(x) = θe/T · clip(floor(T·x/θe + v0), 0, T·ψ)

    Args:
        x: current, any shape.
        theta: effective threshold θe > 0, broadcastable to x.
        timesteps: T.
        max_burst: ψ.
        v_init: v0 in [0, 1).

    Returns:
        Mean of s over T steps, in the shape of x.
    """
    levels = np.clip(np.floor(timesteps * x / theta + v_init), 0, timesteps * max_burst)
    return np.asarray(theta / timesteps * levels)


def step(current: Floats, v_mem: Floats, theta: Floats, max_burst: int) -> tuple[Floats, Floats]:
    """Advance the neuron by one timestep (equations 2-4).

    Args:
        current: x[t], any shape.
        v_mem: v[t-1], the same shape.
        theta: effective threshold θe > 0, broadcastable.
        max_burst: ψ.

    Returns:
        The number of spikes n[t] and the membrane potential v[t], in the shape and dtype of `current`.
    """
    u = v_mem + current
    count = np.clip(np.floor(u / theta), 0, max_burst)
    return count, u - theta * count


def simulate(
    current: NDArray[np.float32],
    theta: NDArray[np.float32],
    timesteps: int,
    max_burst: int,
    v_init: float,
    shift: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Count the spikes of a layer of neurons over all timesteps, a cache-sized block at a time.

    Works in units of the threshold (w = v/θe), so the integer part of the membrane stays exact.

    Args:
        current: float32 [T, N, C, M], or [1, N, C, M] for a current that is constant over time.
        theta: effective threshold θe, float32 [C] or [1].
        timesteps: T.
        max_burst: ψ, at most 255.
        v_init: v0.
        shift: float32 [C] or [1], added to the current (a bias correction that isn't folded yet).

    Returns:
        Spike counts n, uint8 [T, N, C, M].
    """
    _, samples, channels, size = current.shape
    counts = np.empty((timesteps, samples, channels, size), np.uint8)
    rows = max(1, min(samples, _BLOCK // max(1, channels * size)))
    # As large as a block: NumPy takes twice as long for a column that it has to broadcast.
    unit = np.broadcast_to(theta.astype(np.float32), (channels,))
    gain = _tile(np.float32(1.0) / unit, (rows, channels, size))
    offset = None if shift is None else _tile(np.broadcast_to(shift, (channels,)) / unit, (rows, channels, size))
    scaled, w = np.empty_like(gain), np.empty_like(gain)
    for start in range(0, samples, rows):
        block = slice(start, min(start + rows, samples))
        part = slice(0, block.stop - start)  # the last block may be smaller
        extra = None if offset is None else offset[part]
        w.fill(v_init)
        _simulate_block(current[:, block], gain[part], extra, counts[:, block], max_burst, scaled[part], w[part])
    return counts


def _tile(values: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.broadcast_to(values[:, None], shape))


def _simulate_block(
    current: NDArray[np.float32],
    gain: NDArray[np.float32],
    offset: NDArray[np.float32] | None,
    counts: NDArray[np.uint8],
    max_burst: int,
    x: NDArray[np.float32],
    w: NDArray[np.float32],
) -> None:
    """Fill `counts` [T, N, C, M]; w [N, C, M] is the potential v/θe at the start, x [N, C, M] working space."""
    lowest, highest = np.float32(0), np.float32(max_burst)
    constant = len(current) == 1
    if constant:
        x = _scale(current[0], gain, offset, x)
    fired = np.empty_like(w) if constant else x
    for t in range(len(counts)):
        if not constant:
            _scale(current[t], gain, offset, x)
        np.add(w, x, out=w)
        np.floor(w, out=fired)
        np.clip(fired, lowest, highest, out=fired)
        np.subtract(w, fired, out=w)
        np.copyto(counts[t], fired, casting="unsafe")


def _scale(
    current: NDArray[np.float32],
    gain: NDArray[np.float32],
    offset: NDArray[np.float32] | None,
    out: NDArray[np.float32],
) -> NDArray[np.float32]:
    np.multiply(current, gain, out=out)
    if offset is not None:
        np.add(out, offset, out=out)
    return out
