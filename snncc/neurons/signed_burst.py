"""The signed burst neuron in NumPy: closed form, one step, and a simulation over all steps.

An unsigned neuron that fired too early can't take a spike back; that unevenness is most of the error at small T·ψ. The
signed neuron keeps what it has emitted, N spikes, at what the mean m[t] of its input over the timesteps so far asks
for. For any function f, with burst ψ (`max_burst`) and threshold ratio τ folded into θe (`theta`):

    n[t] = clip(floor(t·f(m[t]) / θe + v0) - N[t-1], -ψ, ψ)
    N[t] = N[t-1] + n[t],      s[t] = θe · n[t]

Here a[t] = t·f(m[t]) is called the aim. For ReLU it is relu(x[1] + ... + x[t]); no mean is needed. The ONNX forms
(`SignedBurst`, `SignedBurstRelu`, `SignedBurstClip`) are in `snncc.neurons.functions`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.compiled import compiled
from snncc.neurons.response import BLOCK, Correction, Empty, Response, correction_of, flat, spread

Floats = NDArray[np.floating[Any]]


def closed_form(value: Floats, theta: Floats, timesteps: int, max_burst: int, v_init: float) -> Floats:
    """Mean output of the neuron for a value f(x) that is constant over time.

    θe/T · clip(floor(T·f(x)/θe + v0), -T·ψ, T·ψ)

    Args:
        value: f(x), any shape.
        theta: effective threshold θe > 0, broadcastable to it.
        timesteps: T.
        max_burst: ψ.
        v_init: v0 in [0, 1).

    Returns:
        Mean of s over T steps, in the shape of `value`.
    """
    most = timesteps * max_burst
    return np.asarray(theta / timesteps * np.clip(np.floor(timesteps * value / theta + v_init), -most, most))


def step(aim: Floats, count: Floats, theta: Floats, max_burst: int, v_init: float) -> tuple[Floats, Floats]:
    """Advance the neuron by one timestep.

    Args:
        aim: a[t] = t·f(m[t]), any shape.
        count: N[t-1], the same shape.
        theta: effective threshold θe > 0, broadcastable.
        max_burst: ψ.
        v_init: v0.

    Returns:
        The spikes n[t], negative where some are taken back, and N[t].
    """
    fired = np.clip(np.floor(aim / theta + np.asarray(v_init, aim.dtype)) - count, -max_burst, max_burst)
    return fired, count + fired


def simulate(
    values: NDArray[np.float32],
    theta: NDArray[np.float32],
    timesteps: int,
    max_burst: int,
    v_init: float,
    *,
    upper: float = float("inf"),
    means: bool = False,
    shift: NDArray[np.float32] | None = None,
    correction: Correction | None = None,
    empty: Empty = np.empty,
) -> Response:
    """Simulate a layer of neurons over all timesteps.

    Args:
        values: what arrives, float32 [T, N, ...], or [1, N, ...] if it is constant over time.
        theta: effective threshold θe, float32, broadcastable to one sample [...].
        timesteps: T.
        max_burst: ψ.
        v_init: v0.
        upper: bound of a clipped activation, infinity where there is none; used with currents only.
        means: `values` are the means m[t] of the value to encode (those that aren't finite count as 0, as the node
            `Finite` has it); else they are currents, and f is ReLU or a clip at 0.
        shift: broadcastable to one sample, added to the current at each timestep.
        correction: what arrives is gain·`values` + offset; None: as it is.
        empty: makes the arrays of the response.

    Returns:
        The response; counts are int8, or int16 where ψ is over 127. For means, `arrived` is the last one.
    """
    _, samples, *shape = values.shape
    unit = spread(theta, tuple(shape))
    offset = np.zeros_like(unit) if shift is None else spread(shift, tuple(shape))
    arriving = flat(values, 2)
    dtype = np.int8 if max_burst <= np.iinfo(np.int8).max else np.int16
    counts = empty((timesteps, *arriving.shape[1:]), dtype)
    fired, arrived = empty(arriving.shape[1:], np.int32), empty(arriving.shape[1:], np.float32)
    bounds = np.float32(upper), np.float32(v_init), np.float32(max_burst)
    scale, base = correction_of(correction, len(unit))
    spikes = _simulate(arriving, means, scale, base, offset, unit, *bounds, counts, fired, arrived)
    whole = (samples, *shape)
    return Response(counts.reshape(timesteps, *whole), fired.reshape(whole), arrived.reshape(whole), int(spikes))


@compiled
def _simulate(
    values: NDArray[np.float32],
    means: bool,
    scale: NDArray[np.float32],
    base: NDArray[np.float32],
    offset: NDArray[np.float32],
    theta: NDArray[np.float32],
    upper: np.float32,
    v_init: np.float32,
    max_burst: np.float32,
    counts: NDArray[np.integer[Any]],
    fired: NDArray[np.int32],
    arrived: NDArray[np.float32],
) -> np.int64:
    """Fill counts [T, N, E], fired and arrived [N, E] from scale·x + base, x [T or 1, N, E]; return the spikes."""
    total, net, aims = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    emitted = np.empty(BLOCK, np.float32)
    timesteps, samples, elements = counts.shape
    steps, none, spikes = len(values), np.float32(0), np.int64(0)
    for n in range(samples):
        for start in range(0, elements, BLOCK):
            size = min(BLOCK, elements - start)
            unit, add = theta[start : start + size], offset[start : start + size]
            s, b = scale[start : start + size], base[start : start + size]
            m = arrived[n, start : start + size]
            for i in range(size):
                total[i], net[i], emitted[i], m[i] = none, none, none, none
            for t in range(timesteps):
                x, out = values[min(t, steps - 1), n, start : start + size], counts[t, n, start : start + size]
                number = np.float32(t + 1)
                if means:
                    for i in range(size):
                        m[i] = x[i] * s[i] + b[i]
                        aim = m[i] * number
                        aims[i] = aim if abs(aim) < np.inf else none
                else:
                    for i in range(size):
                        arriving = x[i] * s[i] + b[i]
                        total[i] = total[i] + arriving + add[i]
                        m[i] += arriving
                        aims[i] = min(max(total[i], none), upper * number)
                for i in range(size):
                    k = np.floor(aims[i] / unit[i] + v_init) - net[i]
                    k = min(max(k, -max_burst), max_burst)
                    net[i] += k
                    emitted[i] += abs(k)
                    out[i] = np.int16(k)
            f = fired[n, start : start + size]
            for i in range(size):
                f[i] = np.int32(net[i])
                spikes += np.int64(emitted[i])
                if not means:
                    m[i] /= np.float32(timesteps)
    return spikes
