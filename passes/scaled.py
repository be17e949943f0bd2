"""Values over time as gain·x + shift, computed only where they are read.

Spikes are counts with θe as their gain: a quarter of the memory of floats. The output of a weighted layer is what the
layer gave, with the correction that was found for it: the next neuron or addition applies it as it reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.compiled import compiled
from snncc.neurons.response import spread
from snncc.runtime.buffers import BufferPool


@dataclass(frozen=True)
class Scaled:
    """One chunk of a tensor over time.

    Attributes:
        values: x, [T, N, ...]: spike counts, negative where spikes are taken back, or float32.
        gain: float32, broadcastable to [N, ...]; for counts the effective threshold.
        shift: the same; None for 0.
        buffers: where the values at some timesteps are put; None: in a new array.
    """

    values: NDArray[Any]
    gain: NDArray[np.float32]
    shift: NDArray[np.float32] | None = None
    buffers: BufferPool | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, N, ...]."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, steps: slice) -> NDArray[np.float32]:
        """Return the values at some timesteps, float32."""
        part = Scaled(self.values[steps], self.gain, self.shift)
        return part.decode(self.buffers.take(part.shape) if self.buffers is not None else None)

    def decode(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the values, float32 [T, N, ...], in an array that is given or in a new one."""
        result = np.empty(self.shape, np.float32) if out is None else out
        _decode(_rows(self.values), *self.parameters(), _rows(result))
        return result

    def parameters(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return gain and shift for each element of a sample, float32 [E]."""
        gain = spread(self.gain, self.shape[2:])
        return gain, np.zeros_like(gain) if self.shift is None else spread(self.shift, self.shape[2:])


def add(a: Scaled, b: Scaled, out: NDArray[np.float32]) -> None:
    """Write the sum of two tensors of one shape over time into an array of that shape."""
    (gain_a, shift_a), (gain_b, shift_b) = a.parameters(), b.parameters()
    _add(_rows(a.values), gain_a, _rows(b.values), gain_b, shift_a + shift_b, _rows(out))


def _rows(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(values.shape[0] * values.shape[1], math.prod(values.shape[2:]))


@compiled
def _decode(
    values: NDArray[Any], gain: NDArray[np.float32], shift: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    for row in range(len(values)):
        x, y = values[row], out[row]
        for i in range(len(gain)):
            y[i] = np.float32(x[i]) * gain[i] + shift[i]


@compiled
def _add(
    a: NDArray[Any],
    gain_a: NDArray[np.float32],
    b: NDArray[Any],
    gain_b: NDArray[np.float32],
    shift: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    for row in range(len(a)):
        one, two, y = a[row], b[row], out[row]
        for i in range(len(shift)):
            y[i] = np.float32(one[i]) * gain_a[i] + np.float32(two[i]) * gain_b[i] + shift[i]
