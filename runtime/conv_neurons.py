"""Neurons together with the convolutions of spikes that drive them, and pools: counts in, counts out, channels last.

A layer is done part by part: some rows of its output and some of its channels, through all timesteps. A part's spikes,
currents and membranes stay in the cache; what goes through memory are counts of one byte. `snncc.runtime.chain` runs
layers one after another.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.runtime.buffers import BufferPool
from snncc.runtime.carried import Carried
from snncc.runtime.coded import CodedNeurons, Floats, taken
from snncc.runtime.int8_conv import Coded
from snncc.runtime.layer_table import NEURONS, POOL, address
from snncc.runtime.matrix_conv import MatrixConv, is_exact
from snncc.runtime.matrix_unit import available
from snncc.runtime.spike_conv import LANES, FloatRun, SpikeConv, filled, filled_up

_PIXELS = 256
"""Output pixels that a part has, or that it convolves together over timesteps: weights are read once for them."""

_FLOATS = 1 << 19
"""Floats of the padded input and of the currents of a part, at most, if it convolves timesteps together."""

_PARTS = 4
"""Parts that a layer is cut into if several threads run them."""

_WORK = 1 << 21
"""Multiplications, and those of a neuron at a timestep, below which a layer isn't cut for several threads."""

_NEURON = 32
"""Multiplications that take as long as a neuron at a timestep."""

Run = FloatRun | MatrixConv
Row = Any
"""A row of a table: an element of a structured array, which can be written."""


@dataclass(frozen=True)
class Written:
    """What a row of the table says of a layer.

    Attributes:
        output: its counts.
        room: floats that a thread needs for a part.
        work: multiplications, and what takes as long.
        arrays: what the row points to.
    """

    output: Coded
    room: int
    work: int
    arrays: tuple[NDArray[Any], ...]


class ConvNeurons:
    """A layer of neurons whose current is the sum of up to two convolutions, and perhaps of another tensor.

    Attributes:
        neurons: the neurons.
        convolutions: the convolutions.
    """

    def __init__(self, neurons: CodedNeurons, convolutions: list[SpikeConv]) -> None:
        self.neurons, self.convolutions = neurons, convolutions
        bias = np.sum([np.zeros(neurons.channels, np.float32), *(c.bias for c in convolutions)], axis=0)
        self._theta, self._bias = filled_up(neurons.theta, 1.0), filled_up(bias)
        self._nothing = np.zeros(len(self._bias), np.uint8)
        self._runs: list[Run] | None = None

    @functools.cached_property
    def states(self) -> tuple[str, ...]:
        """Names of what is kept from block to block, those of `FusedNeurons.fire`."""
        return ("v_mem",) if self.neurons.parameters.op == "BurstIF" else ("count", "total")

    def write(
        self, layer: Row, convs: Row, terms: list[Coded | Floats], timesteps: int, buffers: BufferPool, threads: int
    ) -> Written:
        """Write a row for what arrives in a shape.

        Args:
            layer: the layer's row, of `LAYER`.
            convs: those of its convolutions, of `CONV`.
            terms: what the convolutions read, as counts; then what is added to the current, if anything is: counts,
                or floats [T or 1, N, ..., C].
            timesteps: T.
            buffers: where the counts come from.
            threads: number of threads that may take parts.
        """
        p = self.neurons.parameters
        if self._runs is None:
            self._runs = _runs(self.convolutions, terms, self.neurons.theta)
        runs, others = self._runs, terms[len(self.convolutions) :]
        read = [term.values for term in terms[: len(runs)] if isinstance(term, Coded)]
        first = terms[0].values if isinstance(terms[0], Coded) else terms[0]
        samples, size = first.shape[1], first.shape[2:4]
        if self.convolutions:
            size = self.convolutions[0].output_shape(size)
        layer["timesteps"], layer["samples"], layer["features"] = timesteps, samples, self.neurons.channels
        layer["kind"], (layer["height"], layer["width"]) = NEURONS, size
        room, work = self._cut(layer, runs, threads)
        for run, conv, values in zip(runs, convs, read, strict=False):
            run.write(conv, values, int(layer["rows"]), int(layer["width"]))
        layer["signed"], layer["offset"] = p.op != "BurstIF", self.neurons.offset
        layer["v_init"], layer["max_burst"], layer["upper"] = p.v_init, p.max_burst, p.upper
        arrays: list[NDArray[Any]] = [self._theta, self._bias, self._nothing]
        layer["theta"], layer["bias"], layer["unit"] = address(self._theta), address(self._bias), address(self._theta)
        layer["residual"] = address(self._nothing)
        if others and isinstance(others[0], Coded):
            unit = filled_up(others[0].step)
            layer["has_residual"], layer["residual"], layer["unit"] = 1, address(others[0].values), address(unit)
            layer["zero"] = others[0].zero[0]
            arrays.append(unit)
        elif others and not isinstance(others[0], Coded):
            layer["added"], layer["added_steps"] = address(others[0]), len(others[0])
        counts = buffers.take_bytes((timesteps, samples, *size, self.neurons.channels))
        layer["counts"] = address(counts)
        return Written(self.neurons.coded(counts), room, work, tuple(arrays))

    def begin(self, layer: Row, carried: Carried | None) -> list[NDArray[Any]]:
        """Write where the state is; return its arrays, channels last."""
        if carried is None:
            layer["state"], layer["sums"] = 0, 0
            return []
        shape = tuple(int(layer[name]) for name in ("samples", "height", "width", "features"))
        arrays: list[NDArray[Any]] = [taken(carried, name, shape) for name in self.states]
        layer["state"], layer["sums"] = address(arrays[0]), address(arrays[-1])
        return arrays

    def end(self, carried: Carried | None, arrays: list[NDArray[Any]]) -> None:
        """Keep the state."""
        if carried is not None:
            carried.update({n: np.moveaxis(a, -1, 1) for n, a in zip(self.states, arrays, strict=True)})

    def _cut(self, layer: Row, runs: list[Run], threads: int) -> tuple[int, int]:
        """Write how the layer is cut into parts; return the floats that a part needs, and the layer's work."""
        timesteps, samples, height, width = (int(layer[n]) for n in ("timesteps", "samples", "height", "width"))
        all_channels, matrices = filled(self.neurons.channels), any(isinstance(run, MatrixConv) for run in runs)
        work = timesteps * samples * height * width * self.neurons.channels
        work *= _NEURON + sum(run.products for run in runs)
        least = _PARTS if threads > 1 and work > _WORK else 1
        blocks = all_channels // max([LANES, *(run.block for run in runs)])
        stripes = -(-height // min(height, -(-_PIXELS // width)))
        stripes = max(stripes, min(height, -(-least // blocks)))
        rows = -(-height // stripes)
        stripes = -(-height // rows)
        source = max([0, *(run.source(rows, width) for run in runs)])

        def together(groups: int) -> int:
            room = _FLOATS // (source + rows * width * all_channels // groups)
            wanted = timesteps if matrices else -(-_PIXELS // (rows * width))
            return max(1, min(timesteps, wanted, room))

        possible = [g for g in range(1, blocks + 1) if blocks % g == 0]
        groups = next((g for g in possible if stripes * g >= least), blocks)
        while matrices and groups < blocks and together(groups) < timesteps:  # weights are read once for all of them
            groups = next(g for g in possible if g > groups)
        channels, steps = all_channels // groups, together(groups)
        spare = max([0, *(run.spare for run in runs)])
        layer["rows"], layer["channels"], layer["together"] = rows, channels, steps
        layer["padded"], layer["parts"] = source * steps + spare, stripes * groups
        return source * steps + spare + (steps + 3) * rows * width * channels, work


@dataclass(frozen=True)
class PoolOverTime:
    """MaxPool of the spikes so far, as what it gains at each timestep, on counts; see `snncc.runtime.increments`.

    Attributes:
        kernel: height and width of the window.
        strides: its steps.
        pads: rows above, columns to the left, rows below and columns to the right that aren't there.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]

    states = ("sum", "applied")

    def write(
        self, layer: Row, convs: Row, terms: list[Coded | Floats], timesteps: int, buffers: BufferPool, threads: int
    ) -> Written:
        """Write a row; see `ConvNeurons.write`."""
        source = terms[0]
        if not isinstance(source, Coded):
            raise TypeError("a pool over time reads counts")
        _, samples, height, width, channels = source.values.shape
        sides = zip((height, width), self.kernel, self.strides, self.pads[:2], self.pads[2:], strict=True)
        size = [(n + a + b - k) // s + 1 for n, k, s, a, b in sides]
        layer["kind"], layer["timesteps"], layer["samples"] = POOL, timesteps, samples
        (layer["height"], layer["width"]), layer["features"] = size, channels
        layer["window"], layer["offset"] = (*self.kernel, *self.strides, *self.pads[:2]), source.zero[0]
        layer["source"] = (address(source.values), height, width)
        work = timesteps * samples * height * width * channels * _NEURON
        wanted = max(_PARTS if threads > 1 and work > _WORK else 1, height * width * channels // _FLOATS)
        rows = -(-size[0] // min(size[0], wanted))
        layer["rows"], layer["parts"] = rows, -(-size[0] // rows)
        counts = buffers.take_bytes((timesteps, samples, *size, channels))
        layer["counts"] = address(counts)
        # The first part and the last one also account for rows that no window reads.
        spare = max(self.strides[0], height - (size[0] - 1) * self.strides[0] + self.pads[0])
        reads = min(height, rows * self.strides[0] + self.kernel[0] + spare)
        room = (reads * width + rows * size[1]) * channels
        return Written(Coded(counts, source.step, source.zero, source.shift, source.most), room, work, ())

    def begin(self, layer: Row, carried: Carried | None) -> list[NDArray[Any]]:
        """Write where the state is; return the arrays for that at the end, int32 [N, H, W, C]."""
        layer["before"], layer["after"] = 0, 0
        if carried is None:
            return []
        samples, channels = int(layer["samples"]), int(layer["features"])
        sizes = (tuple(layer["source"][1:]), (int(layer["height"]), int(layer["width"])))
        if carried:
            before = [np.ascontiguousarray(carried[name]) for name in self.states]
            layer["before"] = [address(array) for array in before]
        else:
            before = []
        after: list[NDArray[Any]] = [np.empty((samples, *map(int, size), channels), np.int32) for size in sizes]
        layer["after"] = [address(array) for array in after]
        return [*after, *before]

    def end(self, carried: Carried | None, arrays: list[NDArray[Any]]) -> None:
        """Keep the state."""
        if carried is not None:
            carried.update(zip(self.states, arrays[:2], strict=True))


Layer = ConvNeurons | PoolOverTime


def _runs(convolutions: list[SpikeConv], terms: list[Coded | Floats], theta: Floats) -> list[Run]:
    """Return what runs convolutions of counts: matrices of bytes where they can, and this processor."""
    sources = [term for term in terms[: len(convolutions)] if isinstance(term, Coded)]
    found: list[Run] = []
    for conv, term in zip(convolutions, sources, strict=True):
        kind = MatrixConv if available() and is_exact(conv, term.step, theta) else FloatRun
        found.append(kind(conv, term.step, int(term.zero[0])))
    return found
