"""Neurons and pooling of the fused executor on 8-bit codes, channels last.

The arithmetic is that of the float32 form, in the same order: a code is decoded as DequantizeLinear does it, two
currents are added as Add does it, and the neuron then goes on as in `snncc.runtime.fused_neurons`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.compiled import compiled
from snncc.runtime.int8_conv import Coded
from snncc.runtime.parameters import NeuronParameters

Floats = NDArray[np.float32]
_BLOCK = 2048
"""Elements that are simulated together over all timesteps."""
Parallel = Callable[[Callable[[int, int], None], int], None]
"""Runs work on parts (start, stop) of so many items, side by side or not."""


def alone(work: Callable[[int, int], None], items: int) -> None:
    """Run work on all items at once: a `Parallel` for one thread."""
    work(0, items)


class CodedNeurons:
    """A layer of neurons that reads codes or floats and writes counts."""

    def __init__(self, parameters: NeuronParameters, channels: int) -> None:
        self.parameters = parameters
        self.theta = np.ascontiguousarray(np.broadcast_to(parameters.theta.reshape(-1), (channels,)), np.float32)
        self.offset = 0 if parameters.op == "BurstIF" else parameters.max_burst
        zeros = np.zeros(channels, np.float32)
        self._plain = (np.ones(channels, np.float32), zeros, zeros)
        self._zero = np.full(channels, self.offset, np.float32)

    @staticmethod
    def fits(parameters: NeuronParameters, shape: tuple[int, ...], channel_axis: int) -> bool:
        """Whether a layer whose sample has this shape can be run so: a θ for each channel, or one."""
        counts = parameters.max_burst * (1 if parameters.op == "BurstIF" else 2)
        of_channels = len(shape) in (1, 3) and parameters.theta.size in (1, shape[0]) and channel_axis == 1
        return parameters.op != "SignedBurst" and counts <= np.iinfo(np.uint8).max and of_channels

    def coded(self, values: NDArray[np.uint8]) -> Coded:
        """Return counts, [T, N, ..., C], as a tensor."""
        return Coded(values, self.theta, self._zero, self._plain[1])

    def fire(
        self, terms: list[Coded | Floats], counts: NDArray[np.uint8], parallel: Parallel = alone
    ) -> NDArray[np.float64]:
        """Simulate all timesteps.

        Args:
            terms: one or two tensors whose sum is the current; floats are channels last, [T or 1, N, ..., C].
            counts: filled with the spikes plus `offset`, uint8 [T, N, ..., C], contiguous.
            parallel: runs the parts.

        Returns:
            Number of spikes of each element over time and samples, float64 [C, ...].
        """
        (values, *first), (others, *second) = (self._term(t) for t in (terms[0], terms[-1]))
        out = _flat(counts)
        emitted = np.zeros(out.shape[2:], np.int32)
        p, two = self.parameters, len(terms) == 2
        bounds = (p.v_init, np.float32(p.max_burst))

        def work(start: int, stop: int) -> None:
            operands = (values, *first, others, *second, two, start, stop, self.theta)
            if p.op == "BurstIF":
                _burst(*operands, *bounds, out, emitted)
            else:
                _signed(*operands, p.upper, *bounds, out, emitted)

        parallel(work, out.shape[2])
        spatial, channels = counts.shape[2:-1], counts.shape[-1]
        return np.moveaxis(emitted.reshape(*spatial, channels), -1, 0).astype(np.float64)

    def _term(self, term: Coded | Floats) -> tuple[NDArray[Any], Floats, Floats, Floats]:
        if isinstance(term, Coded):
            return _flat(term.values), term.step, term.zero, term.shift
        return (_flat(term), *self._plain)


def decode(coded: Coded, out: Floats) -> None:
    """Write the values of a tensor, float32 [T, N, C, ...], into an array of that shape."""
    values = coded.values
    rows = math.prod(values.shape[:2])
    spatial = math.prod(values.shape[2:-1])
    channels = values.shape[-1]
    _decode(
        values.reshape(rows, spatial, channels), coded.step, coded.zero, coded.shift, out.reshape(rows, channels, -1)
    )


def encode(values: Floats, unit: Floats, offset: int) -> NDArray[np.uint8]:
    """Return the spikes [T, N, C, ...], which are `unit` times whole numbers, as counts plus offset, channels last."""
    shape = (-1, *[1] * (values.ndim - 3))
    counts = np.rint(values / unit.reshape(shape)) + np.float32(offset)
    return np.ascontiguousarray(np.moveaxis(np.clip(counts, 0, 255).astype(np.uint8), 2, -1))


def channels_last(values: Floats) -> Floats:
    """Return [T, N, C, ...] as a contiguous [T, N, ..., C]."""
    return np.ascontiguousarray(np.moveaxis(values, 2, -1))


def pool(
    coded: Coded, kernel: tuple[int, int], strides: tuple[int, int], pads: tuple[int, int], out: NDArray[np.uint8]
) -> None:
    """MaxPool of the spikes so far, as what it gains at each timestep; see `snncc.runtime.increments`.

    Args:
        coded: counts, uint8 [T, N, H, W, C].
        kernel: height and width of the window.
        strides: its steps.
        pads: padding before the first row and column.
        out: filled with counts that have the same offset, [T, N, H, W, C].
    """
    _pool(coded.values, np.int32(coded.zero[0]), *kernel, *strides, *pads, out)


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    timesteps, samples, channels = values.shape[0], values.shape[1], values.shape[-1]
    return np.ascontiguousarray(values).reshape(timesteps, samples, math.prod(values.shape[2:-1]), channels)


@compiled
def _decode(values: NDArray[np.uint8], step: Floats, zero: Floats, shift: Floats, out: Floats) -> None:
    rows, pixels, channels = values.shape
    for row in range(rows):
        for start in range(0, pixels, 64):
            stop = min(start + 64, pixels)
            for c in range(channels):
                for p in range(start, stop):
                    out[row, c, p] = (np.float32(values[row, p, c]) - zero[c]) * step[c] + shift[c]


@compiled
def _burst(
    one: NDArray[Any],
    step_1: Floats,
    zero_1: Floats,
    shift_1: Floats,
    two: NDArray[Any],
    step_2: Floats,
    zero_2: Floats,
    shift_2: Floats,
    both: bool,
    begin: int,
    end: int,
    theta: Floats,
    v_init: np.float32,
    max_burst: np.float32,
    counts: NDArray[np.uint8],
    emitted: NDArray[np.int32],
) -> None:
    timesteps, samples, _, channels = counts.shape
    together, none = max(1, _BLOCK // channels), np.float32(0)
    v_mem, fired = np.empty((together, channels), np.float32), np.empty((together, channels), np.float32)
    current = np.empty(channels, np.float32)
    for n in range(samples):
        for start in range(begin, end, together):
            size = min(together, end - start)
            for p in range(size):
                for c in range(channels):
                    v_mem[p, c], fired[p, c] = v_init * theta[c], none
            for t in range(timesteps):
                for p in range(size):
                    a, out = one[min(t, len(one) - 1), n, start + p], counts[t, n, start + p]
                    v, f = v_mem[p], fired[p]
                    if both:
                        b = two[min(t, len(two) - 1), n, start + p]
                        for c in range(channels):
                            x = (np.float32(a[c]) - zero_1[c]) * step_1[c] + shift_1[c]
                            current[c] = x + ((np.float32(b[c]) - zero_2[c]) * step_2[c] + shift_2[c])
                    else:
                        for c in range(channels):
                            current[c] = (np.float32(a[c]) - zero_1[c]) * step_1[c] + shift_1[c]
                    for c in range(channels):
                        u = v[c] + current[c]
                        k = min(max(np.floor(u / theta[c]), none), max_burst)
                        f[c] += k
                        v[c] = u - theta[c] * k
                        out[c] = np.uint8(np.int32(k))
            for p in range(size):
                total = emitted[start + p]
                for c in range(channels):
                    total[c] += np.int32(fired[p, c])


@compiled
def _signed(
    one: NDArray[Any],
    step_1: Floats,
    zero_1: Floats,
    shift_1: Floats,
    two: NDArray[Any],
    step_2: Floats,
    zero_2: Floats,
    shift_2: Floats,
    both: bool,
    begin: int,
    end: int,
    theta: Floats,
    upper: np.float32,
    v_init: np.float32,
    max_burst: np.float32,
    counts: NDArray[np.uint8],
    emitted: NDArray[np.int32],
) -> None:
    timesteps, samples, _, channels = counts.shape
    together, none = max(1, _BLOCK // channels), np.float32(0)
    net, sums = np.empty((together, channels), np.float32), np.empty((together, channels), np.float32)
    fired, current = np.empty((together, channels), np.float32), np.empty(channels, np.float32)
    for n in range(samples):
        for start in range(begin, end, together):
            size = min(together, end - start)
            for p in range(size):
                for c in range(channels):
                    net[p, c], sums[p, c], fired[p, c] = none, none, none
            for t in range(timesteps):
                most = upper * np.float32(t + 1)
                for p in range(size):
                    a, out = one[min(t, len(one) - 1), n, start + p], counts[t, n, start + p]
                    so_far, total, f = net[p], sums[p], fired[p]
                    if both:
                        b = two[min(t, len(two) - 1), n, start + p]
                        for c in range(channels):
                            x = (np.float32(a[c]) - zero_1[c]) * step_1[c] + shift_1[c]
                            current[c] = x + ((np.float32(b[c]) - zero_2[c]) * step_2[c] + shift_2[c])
                    else:
                        for c in range(channels):
                            current[c] = (np.float32(a[c]) - zero_1[c]) * step_1[c] + shift_1[c]
                    for c in range(channels):
                        total[c] += current[c]
                        aim = min(max(total[c], none), most)
                        k = np.floor(aim / theta[c] + v_init) - so_far[c]
                        k = min(max(k, -max_burst), max_burst)
                        so_far[c] += k
                        f[c] += abs(k)
                        out[c] = np.uint8(np.int32(k + max_burst))
            for p in range(size):
                spikes = emitted[start + p]
                for c in range(channels):
                    spikes[c] += np.int32(fired[p, c])


@compiled
def _pool(
    counts: NDArray[np.uint8],
    offset: np.int32,
    high: int,
    wide: int,
    down: int,
    right: int,
    top: int,
    left: int,
    out: NDArray[np.uint8],
) -> None:
    timesteps, samples, height, width, channels = counts.shape
    rows, columns = out.shape[2], out.shape[3]
    total, before = np.empty((height, width, channels), np.int32), np.empty((rows, columns, channels), np.int32)
    largest = np.empty(channels, np.int32)
    for n in range(samples):
        total[:] = 0
        before[:] = 0
        for t in range(timesteps):
            for y in range(height):
                for x in range(width):
                    sums, gained = total[y, x], counts[t, n, y, x]
                    for c in range(channels):
                        sums[c] += np.int32(gained[c]) - offset
            for y in range(rows):
                for x in range(columns):
                    largest[:] = np.int32(-(1 << 31) + 1)
                    for i in range(max(0, y * down - top), min(height, y * down - top + high)):
                        for j in range(max(0, x * right - left), min(width, x * right - left + wide)):
                            sums = total[i, j]
                            for c in range(channels):
                                largest[c] = max(largest[c], sums[c])
                    earlier, target = before[y, x], out[t, n, y, x]
                    for c in range(channels):
                        target[c] = np.uint8(largest[c] - earlier[c] + offset)
                        earlier[c] = largest[c]
