"""Neurons of the fused executor on 8-bit codes, channels last.

The arithmetic is that of the float32 form, in the same order: a code is decoded as DequantizeLinear does it, two
currents are added as Add does it, and the neuron then goes on as in `snncc.runtime.fused_neurons`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.compiled import compiled
from snncc.neurons.response import flat
from snncc.runtime.carried import Carried
from snncc.runtime.int8_conv import Coded, Parallel, alone
from snncc.runtime.parameters import NeuronParameters

Floats = NDArray[np.float32]
_BLOCK = 1024
"""Elements, or the channels if these are more, that are simulated together over all timesteps: whole pixels."""


class CodedNeurons:
    """A layer of neurons that reads codes or floats and writes counts."""

    def __init__(self, parameters: NeuronParameters, channels: int) -> None:
        self.parameters = parameters
        self.theta = np.ascontiguousarray(np.broadcast_to(parameters.theta.reshape(-1), (channels,)), np.float32)
        self.offset = 0 if parameters.op == "BurstIF" else parameters.max_burst
        self.channels, self._pixels = channels, max(1, _BLOCK // channels)
        self._block = np.tile(self.theta, self._pixels)
        self._none = np.zeros(channels, np.float32)
        self._zero = np.full(channels, self.offset, np.float32)
        self._plain = self._coding(np.ones(channels, np.float32), self._none, self._none)

    def _coding(self, step: Floats, zero: Floats, shift: Floats) -> Floats:
        """Return step, zero and shift for each element of a block, [3, E]."""
        return np.tile(np.stack([step, zero, shift]), (1, self._pixels))

    @staticmethod
    def fits(parameters: NeuronParameters, shape: tuple[int, ...], channel_axis: int) -> bool:
        """Whether a layer whose sample has this shape can be run so: a θ for each channel, or one."""
        counts = parameters.max_burst * (1 if parameters.op == "BurstIF" else 2)
        of_channels = len(shape) in (1, 3) and parameters.theta.size in (1, shape[0]) and channel_axis == 1
        return parameters.op != "SignedBurst" and counts <= np.iinfo(np.uint8).max and of_channels

    def coded(self, values: NDArray[np.uint8]) -> Coded:
        """Return counts, [T, N, ..., C], as a tensor."""
        most = self.offset + self.parameters.max_burst
        return Coded(values, self.theta, self._zero, self._none, most)

    def fire(
        self,
        terms: list[Coded | Floats],
        counts: NDArray[np.uint8],
        carried: Carried | None = None,
        done: int = 0,
        parallel: Parallel = alone,
    ) -> NDArray[np.float64]:
        """Simulate timesteps.

        Args:
            terms: one or two tensors whose sum is the current; floats are channels last, [T or 1, N, ..., C].
            counts: filled with the spikes plus `offset`, uint8 [T, N, ..., C], contiguous.
            carried: the state from block to block, that of `FusedNeurons.fire`.
            done: timesteps before.
            parallel: runs the parts.

        Returns:
            Number of spikes of each element over time and samples, float64 [C, ...].
        """
        (values, first), (others, second) = self._term(terms[0]), self._term(terms[-1])
        out = flat(counts, 2)
        emitted = np.zeros(out.shape[2], np.int32)
        p, operands = self.parameters, (values, first, others, second, len(terms) == 2)
        bounds = (p.v_init, np.float32(p.max_burst))
        names = ("v_mem",) if p.op == "BurstIF" else ("count", "total")
        fresh, states = not carried, [taken(carried, name, counts.shape[1:]) for name in names]
        first_state, last_state = flat(states[0], 1), flat(states[-1], 1)

        def work(start: int, stop: int) -> None:
            begin, end = start * self.channels, stop * self.channels
            if p.op == "BurstIF":
                _burst(*operands, begin, end, self._block, *bounds, out, emitted, first_state, fresh)
            else:
                unit, upper = self._block, p.upper
                _signed(*operands, begin, end, unit, upper, *bounds, out, emitted, first_state, last_state, done, fresh)

        parallel(work, out.shape[2] // self.channels)
        if carried is not None:
            carried.update({name: np.moveaxis(state, -1, 1) for name, state in zip(names, states, strict=True)})
        spatial, channels = counts.shape[2:-1], counts.shape[-1]
        return np.moveaxis(emitted.reshape(*spatial, channels), -1, 0).astype(np.float64)

    def _term(self, term: Coded | Floats) -> tuple[NDArray[Any], Floats]:
        if isinstance(term, Coded):
            return flat(term.values, 2), self._coding(term.step, term.zero, term.shift)
        return flat(term, 2), self._plain


def taken(carried: Carried | None, name: str, shape: tuple[int, ...]) -> Floats:
    """Return a state [N, C, ...] as a contiguous [N, ..., C]; of no size where nothing is kept."""
    if not carried:
        return np.empty((0, 0) if carried is None else shape, np.float32)
    return np.ascontiguousarray(np.moveaxis(carried[name], 1, -1))


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


@compiled
def _decode(values: NDArray[np.uint8], step: Floats, zero: Floats, shift: Floats, out: Floats) -> None:
    rows, pixels, channels = values.shape
    for row in range(rows):
        for start in range(0, pixels, 64):
            stop = min(start + 64, pixels)
            for c in range(channels):
                for p in range(start, stop):
                    out[row, c, p] = (np.float32(values[row, p, c]) - zero[c]) * step[c] + shift[c]


# Loops over few arrays each: of more, the compiler can't tell that none overlaps another, and uses no vectors.


@compiled
def _burst(
    one: NDArray[Any],
    first: Floats,
    two: NDArray[Any],
    second: Floats,
    both: bool,
    begin: int,
    end: int,
    theta: Floats,
    v_init: np.float32,
    max_burst: np.float32,
    counts: NDArray[np.uint8],
    emitted: NDArray[np.int32],
    state: Floats,
    fresh: bool,
) -> None:
    timesteps, samples, _ = counts.shape
    none, together = np.float32(0), len(theta)
    v_mem, fired = np.empty(together, np.float32), np.empty(together, np.float32)
    current, k = np.empty(together, np.float32), np.empty(together, np.float32)
    step_1, zero_1, shift_1, step_2, zero_2, shift_2 = first[0], first[1], first[2], second[0], second[1], second[2]
    for n in range(samples):
        for start in range(begin, end, together):
            size = min(together, end - start)
            for i in range(size):
                v_mem[i] = v_init * theta[i]
                fired[i] = none
            if not fresh:
                before = state[n, start : start + size]
                for i in range(size):
                    v_mem[i] = before[i]
            for t in range(timesteps):
                a, out = one[min(t, len(one) - 1), n, start : start + size], counts[t, n, start : start + size]
                for i in range(size):
                    current[i] = (np.float32(a[i]) - zero_1[i]) * step_1[i] + shift_1[i]
                if both:
                    b = two[min(t, len(two) - 1), n, start : start + size]
                    for i in range(size):
                        current[i] += (np.float32(b[i]) - zero_2[i]) * step_2[i] + shift_2[i]
                for i in range(size):
                    u = v_mem[i] + current[i]
                    fire = min(max(np.floor(u / theta[i]), none), max_burst)
                    v_mem[i] = u - theta[i] * fire
                    k[i] = fire
                for i in range(size):
                    fired[i] += k[i]
                for i in range(size):
                    out[i] = np.uint8(np.int32(k[i]))
            total = emitted[start : start + size]
            for i in range(size):
                total[i] += np.int32(fired[i])
            if len(state):
                after = state[n, start : start + size]
                for i in range(size):
                    after[i] = v_mem[i]


@compiled
def _signed(
    one: NDArray[Any],
    first: Floats,
    two: NDArray[Any],
    second: Floats,
    both: bool,
    begin: int,
    end: int,
    theta: Floats,
    upper: np.float32,
    v_init: np.float32,
    max_burst: np.float32,
    counts: NDArray[np.uint8],
    emitted: NDArray[np.int32],
    count: Floats,
    earlier: Floats,
    done: int,
    fresh: bool,
) -> None:
    timesteps, samples, _ = counts.shape
    none, together = np.float32(0), len(theta)
    net, sums, fired = np.empty(together, np.float32), np.empty(together, np.float32), np.empty(together, np.float32)
    current, k = np.empty(together, np.float32), np.empty(together, np.float32)
    step_1, zero_1, shift_1, step_2, zero_2, shift_2 = first[0], first[1], first[2], second[0], second[1], second[2]
    for n in range(samples):
        for start in range(begin, end, together):
            size = min(together, end - start)
            for i in range(size):
                net[i] = none
                sums[i] = none
                fired[i] = none
            if not fresh:
                before, summed = count[n, start : start + size], earlier[n, start : start + size]
                for i in range(size):
                    net[i] = before[i]
                    sums[i] = summed[i]
            for t in range(timesteps):
                a, out = one[min(t, len(one) - 1), n, start : start + size], counts[t, n, start : start + size]
                for i in range(size):
                    current[i] = (np.float32(a[i]) - zero_1[i]) * step_1[i] + shift_1[i]
                if both:
                    b = two[min(t, len(two) - 1), n, start : start + size]
                    for i in range(size):
                        current[i] += (np.float32(b[i]) - zero_2[i]) * step_2[i] + shift_2[i]
                most = upper * np.float32(done + t + 1)
                for i in range(size):
                    sums[i] += current[i]
                    current[i] = min(max(sums[i], none), most)
                for i in range(size):
                    fire = np.floor(current[i] / theta[i] + v_init) - net[i]
                    fire = min(max(fire, -max_burst), max_burst)
                    net[i] += fire
                    k[i] = fire
                for i in range(size):
                    fired[i] += abs(k[i])
                for i in range(size):
                    out[i] = np.uint8(np.int32(k[i] + max_burst))
            total = emitted[start : start + size]
            for i in range(size):
                total[i] += np.int32(fired[i])
            if len(count):
                after, later = count[n, start : start + size], earlier[n, start : start + size]
                for i in range(size):
                    after[i] = net[i]
                    later[i] = sums[i]
