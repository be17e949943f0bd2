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

from snncc.neurons.compiled import compiled
from snncc.neurons.response import BLOCK, Correction, Empty, Response, correction_of, flat, spread

Floats = NDArray[np.floating[Any]]


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
    shift: NDArray[np.floating[Any]] | None = None,
    *,
    which: range | None = None,
    correction: Correction | None = None,
    keep: bool = True,
    empty: Empty = np.empty,
) -> Response:
    """Simulate a layer of neurons over all timesteps.

    Works in units of the threshold (w = v/θe), so the integer part of the membrane stays exact.

    Args:
        current: float32 [T, N, ...], or [1, N, ...] for a current that is constant over time.
        theta: effective threshold θe, float32, broadcastable to one sample [...].
        timesteps: T.
        max_burst: ψ, at most 255.
        v_init: v0.
        shift: broadcastable to one sample, added to the current (a bias correction that isn't folded yet).
        which: the N samples to simulate; None for all.
        correction: the current is gain·`current` + offset; None: as it is.
        keep: return the counts; else only their sum.
        empty: makes the arrays of the response.

    Returns:
        The response; counts are uint8.
    """
    which = range(current.shape[1]) if which is None else which
    shape = current.shape[2:]
    unit = spread(theta, shape)
    offset = np.zeros_like(unit) if shift is None else spread(shift, shape) / unit
    values = flat(current, 2)
    size = (len(which), values.shape[2])
    counts = empty((timesteps if keep else 1, *size), np.uint8)
    fired, arrived = empty(size, np.int32), empty(size, np.float32)
    gain = np.float32(1) / unit
    bounds = np.float32(v_init), np.float32(max_burst)
    scale, base = correction_of(correction, len(unit))
    _simulate(values, which.start, which.step, scale, base, gain, offset, *bounds, timesteps, counts, fired, arrived)
    whole = (len(which), *shape)
    spikes = int(fired.sum(dtype=np.int64))
    kept = counts.reshape(len(counts), *whole)[: None if keep else 0]
    return Response(kept, fired.reshape(whole), arrived.reshape(whole), spikes)


@compiled
def _simulate(
    current: NDArray[np.float32],
    first: int,
    every: int,
    scale: NDArray[np.float32],
    base: NDArray[np.float32],
    gain: NDArray[np.float32],
    offset: NDArray[np.float32],
    v_init: np.float32,
    max_burst: np.float32,
    timesteps: int,
    counts: NDArray[np.uint8],
    fired: NDArray[np.int32],
    arrived: NDArray[np.float32],
) -> None:
    """Fill counts [T or 1, N, E], fired and arrived [N, E].

    The current is scale·x + base with x [T or 1, any, E]; parameters are [E].
    """
    w, spikes, total = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    _, samples, elements = counts.shape
    steps, kept, none = len(current), len(counts), np.float32(0)
    for n in range(samples):
        for start in range(0, elements, BLOCK):
            size = min(BLOCK, elements - start)
            g, o = gain[start : start + size], offset[start : start + size]
            s, b = scale[start : start + size], base[start : start + size]
            for i in range(size):
                w[i], spikes[i], total[i] = v_init, none, none
            for t in range(timesteps):
                x = current[min(t, steps - 1), first + n * every, start : start + size]
                out = counts[min(t, kept - 1), n, start : start + size]
                for i in range(size):
                    arriving = x[i] * s[i] + b[i]
                    total[i] += arriving
                    u = w[i] + (arriving * g[i] + o[i])
                    k = min(max(np.floor(u), none), max_burst)
                    w[i] = u - k
                    spikes[i] += k
                    out[i] = np.uint8(k)
            f, m = fired[n, start : start + size], arrived[n, start : start + size]
            for i in range(size):
                f[i] = np.int32(spikes[i])
                m[i] = total[i] / np.float32(timesteps)
