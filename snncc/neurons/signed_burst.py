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

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def aims(
    values: NDArray[np.float32], upper: np.float32, *, means: bool, shift: NDArray[np.float32] | None = None
) -> Iterator[NDArray[np.float32]]:
    """Yield a[t] = t·f(m[t]) for t = 1..T.

    Args:
        values: what arrives, float32 [T, N, C, M].
        upper: bound of a clipped activation, infinity where there is none; used with currents only.
        means: `values` are the means m[t] of the value to encode; else they are currents, and f is ReLU or a clip at 0.
        shift: float32 [C] or [1], added to the current at each timestep.
    """
    total = np.zeros(values.shape[1:], np.float32)
    for t, value in enumerate(values, 1):
        if means:
            aim = value * np.float32(t)
            yield np.where(np.isfinite(aim), aim, np.float32(0))  # as the node `Finite` has it
            continue
        total += value
        if shift is not None:
            total += shift[:, None]
        yield np.clip(total, np.float32(0), upper * np.float32(t))


def simulate(
    aims: Iterable[NDArray[np.float32]], theta: NDArray[np.float32], max_burst: int, v_init: float
) -> NDArray[np.integer[Any]]:
    """Count the spikes of a layer over all timesteps.

    Args:
        aims: a[t] for t = 1..T, float32 [N, C, M] each.
        theta: effective threshold θe, float32 [C] or [1].
        max_burst: ψ.
        v_init: v0.

    Returns:
        Spike counts n, [T, N, C, M]: int8, or int16 where ψ is over 127.
    """
    column = theta.astype(np.float32).reshape(-1, 1)
    dtype = np.int8 if max_burst <= np.iinfo(np.int8).max else np.int16
    counts: list[NDArray[np.integer[Any]]] = []
    total: NDArray[np.float32] | None = None
    for aim in aims:
        target = aim / column
        target += np.float32(v_init)
        np.floor(target, out=target)
        if total is None:
            total = np.zeros_like(target)
        target -= total
        np.clip(target, -max_burst, max_burst, out=target)
        total += target
        counts.append(target.astype(dtype))
    return np.stack(counts)
