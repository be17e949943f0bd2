"""The closed form of the burst neuron for many candidates of ψ and θ at once, in one pass over the currents.

    level = clip(floor(T·x/θe + v0), 0 or -T·ψ, T·ψ),      mean output = θe/T · level

It is `snncc.neurons.burst_if.closed_form`; a neuron that encodes values of either sign goes as far below zero as above.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.compiled import compiled

Array = NDArray[np.float32]


class Outputs(NamedTuple):
    """What K candidates make of N samples.

    Attributes:
        mean: mean output over time, float32 [K, N, ...].
        spikes: spikes over all timesteps, summed over the samples, float32 [K, ...].
        levels: spikes of each sample, float32 [K, N, ...]; empty unless they were asked for.
    """

    mean: Array
    spikes: Array
    levels: Array


def outputs(
    current: Array,
    unit: Array,
    top: NDArray[np.int64],
    offset: Array,
    *,
    two_sided: bool = False,
    levels: bool = False,
) -> Outputs:
    """Evaluate the closed form.

    Args:
        current: constant over time, float32 [N, ...].
        unit: θe/T, float32 [K, 1 or sizes broadcastable to one sample].
        top: T·ψ, int64 [K].
        offset: v0, broadcastable to [N, ...].
        two_sided: the neuron also emits negative spikes.
        levels: return the spikes of each sample too.
    """
    samples, shape = len(current), current.shape[1:]
    count, size = len(unit), current[0].size
    steps = np.ascontiguousarray(np.broadcast_to(unit, (count, *shape)), np.float32).reshape(count, size)
    start = np.broadcast_to(offset, (len(offset), *shape)).reshape(len(offset), size)
    mean = np.empty((count, samples, size), np.float32)
    spikes = np.zeros((count, size), np.float32)
    each = np.empty((count if levels else 0, samples, size), np.float32)
    flat = np.ascontiguousarray(current).reshape(samples, size)
    highest = top.astype(np.float32)
    _outputs(flat, steps, np.float32(1) / steps, highest, -highest * two_sided, start, mean, spikes, each)
    whole = (count, samples, *shape)
    return Outputs(mean.reshape(whole), spikes.reshape(count, *shape), each.reshape(len(each), *whole[1:]))


@compiled
def _outputs(
    current: Array,
    unit: Array,
    scale: Array,
    highest: Array,
    lowest: Array,
    offset: Array,
    mean: Array,
    spikes: Array,
    levels: Array,
) -> None:
    """Fill mean [K, N, E], spikes [K, E] and, unless it is empty, levels [K, N, E]."""
    count, samples, size = mean.shape
    shifts = len(offset)
    for k in range(count):
        gain, step, total = scale[k], unit[k], spikes[k]
        top, bottom = highest[k], lowest[k]
        for n in range(samples):
            x, v, out = current[n], offset[min(n, shifts - 1)], mean[k, n]
            for i in range(size):
                level = max(min(np.floor(x[i] * gain[i] + v[i]), top), bottom)
                total[i] += abs(level)
                out[i] = step[i] * level
            if len(levels):
                row = levels[k, n]
                for i in range(size):
                    row[i] = max(min(np.floor(x[i] * gain[i] + v[i]), top), bottom)
                    row[i] = abs(row[i])
