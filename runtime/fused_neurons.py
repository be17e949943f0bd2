"""Neurons of the fused executor: all timesteps of a block of elements at once, spikes written where currents stood.

The arithmetic is that of the steps in `snncc.neurons`, in the same order, so that the spikes are the reference's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.compiled import compiled
from snncc.neurons.response import BLOCK, flat, spread
from snncc.runtime.carried import Carried
from snncc.runtime.parameters import NeuronParameters


class FusedNeurons:
    """One layer of neurons that is ready to run."""

    def __init__(self, parameters: NeuronParameters) -> None:
        self.parameters = parameters
        self._theta: tuple[tuple[int, ...], NDArray[np.float32]] | None = None

    def fire(
        self,
        values: NDArray[np.float32],
        spikes: NDArray[np.float32],
        carried: Carried | None = None,
        done: int = 0,
    ) -> NDArray[np.float64]:
        """Simulate timesteps.

        Args:
            values: what arrives, float32 [T, N, ...], or [1, N, ...] if it is constant over time: currents, or for
                "SignedBurst" means over the timesteps so far.
            spikes: filled with the graded spikes, contiguous float32 [T, N, ...]; may be `values` itself.
            carried: the state from block to block: "v_mem", or of a signed neuron "count", the spikes so far, and
                "total", the sum of its currents.
            done: timesteps before.

        Returns:
            Number of spikes of each element over time and samples, float64 [...].
        """
        p, shape = self.parameters, values.shape[2:]
        if self._theta is None or self._theta[0] != shape:
            self._theta = (shape, spread(p.theta, shape))
        theta, x, out = self._theta[1], flat(values, 2), flat(spikes, 2)
        emitted, most = np.zeros(len(theta)), np.float32(p.max_burst)
        fresh, keep = not carried, carried is not None
        if p.op == "BurstIF":
            v_mem = _state(carried, "v_mem", spikes.shape[1:])
            _burst(x, theta, p.v_init, most, out, emitted, v_mem, fresh, keep)
            return emitted.reshape(shape)
        means = p.op == "SignedBurst"
        count = _state(carried, "count", spikes.shape[1:])
        total = _state(None if means else carried, "total", spikes.shape[1:])
        _signed(x, means, theta, p.upper, p.v_init, most, out, emitted, count, total, done, fresh, keep)
        return emitted.reshape(shape)


def _state(carried: Carried | None, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a state as [N, elements], in place; of no size where nothing is kept."""
    if carried is None:
        return np.empty((0, 0), np.float32)
    return flat(carried.setdefault(name, np.empty(shape, np.float32)), 1)


@compiled
def _burst(
    x: NDArray[np.float32],
    theta: NDArray[np.float32],
    v_init: np.float32,
    max_burst: np.float32,
    spikes: NDArray[np.float32],
    emitted: NDArray[np.float64],
    state: NDArray[np.float32],
    fresh: bool,
    keep: bool,
) -> None:
    v_mem, fired = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    (timesteps, samples, elements), steps, none = spikes.shape, len(x), np.float32(0)
    for n in range(samples):
        for start in range(0, elements, BLOCK):
            size = min(BLOCK, elements - start)
            unit = theta[start : start + size]
            for i in range(size):
                v_mem[i], fired[i] = v_init * unit[i] if fresh else state[n, start + i], none
            for t in range(timesteps):
                current, out = x[min(t, steps - 1), n, start : start + size], spikes[t, n, start : start + size]
                for i in range(size):
                    u = v_mem[i] + current[i]
                    k = min(max(np.floor(u / unit[i]), none), max_burst)
                    fired[i] += k
                    s = unit[i] * k
                    v_mem[i] = u - s
                    out[i] = s
            total = emitted[start : start + size]
            for i in range(size):
                total[i] += np.float64(fired[i])
            if keep:
                state[n, start : start + size] = v_mem[:size]


@compiled
def _signed(
    x: NDArray[np.float32],
    means: bool,
    theta: NDArray[np.float32],
    upper: np.float32,
    v_init: np.float32,
    max_burst: np.float32,
    spikes: NDArray[np.float32],
    emitted: NDArray[np.float64],
    count: NDArray[np.float32],
    sums: NDArray[np.float32],
    done: int,
    fresh: bool,
    keep: bool,
) -> None:
    net, total = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    aims, fired = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    (timesteps, samples, elements), steps, none = spikes.shape, len(x), np.float32(0)
    for n in range(samples):
        for start in range(0, elements, BLOCK):
            size = min(BLOCK, elements - start)
            unit = theta[start : start + size]
            for i in range(size):
                fired[i] = none
                net[i] = none if fresh else count[n, start + i]
                total[i] = none if fresh or means else sums[n, start + i]
            for t in range(timesteps):
                value, out = x[min(t, steps - 1), n, start : start + size], spikes[t, n, start : start + size]
                number = np.float32(done + t + 1)
                if means:
                    for i in range(size):
                        aims[i] = (value[i] if abs(value[i]) < np.inf else none) * number
                else:
                    for i in range(size):
                        total[i] += value[i]
                        aims[i] = min(max(total[i], none), upper * number)
                for i in range(size):
                    k = np.floor(aims[i] / unit[i] + v_init) - net[i]
                    k = min(max(k, -max_burst), max_burst)
                    net[i] += k
                    fired[i] += abs(k)
                    out[i] = unit[i] * k
            found = emitted[start : start + size]
            for i in range(size):
                found[i] += np.float64(fired[i])
            if keep:
                count[n, start : start + size] = net[:size]
                if not means:
                    sums[n, start : start + size] = total[:size]
