"""Neurons together with the float32 convolutions of spikes that drive them: counts in, counts out, channels last.

A layer is done part by part: some rows of its output and some of its channels, through all timesteps. A part's spikes,
currents and membranes stay in the cache; what goes through memory are counts of one byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snncc.runtime.buffers import BufferPool
from snncc.runtime.carried import Carried
from snncc.runtime.coded import CodedNeurons, Floats, channels_last, taken
from snncc.runtime.float_conv import LANES, FloatConv, FloatRun, filled
from snncc.runtime.int8_conv import Coded, Parallel, alone
from snncc.runtime.matrix_conv import MatrixConv, is_exact
from snncc.runtime.matrix_unit import available

_PIXELS = 256
"""Output pixels that a part has, or that it convolves together over timesteps: weights are read once for them."""

_FLOATS = 1 << 19
"""Floats of the padded input and of the currents of a part, at most, if it convolves timesteps together."""

_PARTS = 8
"""Parts that a layer is cut into if several threads run them."""

_WORK = 1 << 25
"""Multiplications, and those of a neuron at a timestep, below which a second thread isn't worth waking."""

_NEURON = 32
"""Multiplications that take as long as a neuron at a timestep."""

_NO_COUNTS = np.empty((0, 0, 0, 0, 0), np.uint8)
_NO_FLOATS = np.empty((0, 0, 0, 0, 0), np.float32)
_NO_CONV = (_NO_COUNTS, np.empty(0, np.float32), np.empty((0, 0, 0), np.float32), np.empty(0, np.int64), (0,) * 9)

Run = FloatRun | MatrixConv


@dataclass(frozen=True)
class _Cut:
    """How a layer is cut into parts: see `layer_loop.simulate`.

    Attributes:
        size: height and width of the output.
        rows: of the output, in a part.
        channels: of the output, in a part.
        together: timesteps that are convolved together.
        padded: floats of the padded input of them.
        parts: their number.
        room: floats that a thread needs.
        side_by_side: whether several threads run them.
    """

    size: tuple[int, ...]
    rows: int
    channels: int
    together: int
    padded: int
    parts: int
    room: int
    side_by_side: bool


class ConvNeurons:
    """A layer of neurons whose current is the sum of up to two convolutions, and perhaps of another tensor.

    Attributes:
        neurons: the neurons.
        convolutions: the convolutions.
    """

    def __init__(self, neurons: CodedNeurons, convolutions: list[FloatConv]) -> None:
        self.neurons, self.convolutions = neurons, convolutions
        bias = np.sum([np.zeros(neurons.channels, np.float32), *(c.bias for c in convolutions)], axis=0)
        self._theta, self._bias = _filled(neurons.theta, 1.0), _filled(bias, 0.0)
        self._nothing = np.zeros((1, 1, 1, 1, len(self._bias)), np.uint8)
        self._cuts: dict[tuple[int, tuple[int, ...], bool], _Cut] = {}
        self._runs: list[Run] | None = None

    def fire(
        self,
        terms: list[Coded | Floats],
        timesteps: int,
        buffers: BufferPool,
        carried: Carried | None = None,
        done: int = 0,
        parallel: Parallel = alone,
    ) -> tuple[Coded, NDArray[np.float64]]:
        """Simulate timesteps.

        Args:
            terms: what the convolutions read, as counts; then what is added to the current, if anything is:
                counts, or floats [T or 1, N, C, H, W].
            timesteps: T.
            buffers: where arrays come from.
            carried: the state from block to block, that of `FusedNeurons.fire`.
            done: timesteps before.
            parallel: runs the parts.

        Returns:
            The counts, and the number of spikes of each element over time and samples, float64 [C, H, W].
        """
        from snncc.runtime.layer_loop import simulate

        p, convolutions = self.neurons.parameters, self.convolutions
        if self._runs is None:
            self._runs = _runs(convolutions, terms)
        runs = self._runs
        cut = self._cut(runs, timesteps, terms[0].shape[1:], parallel is not alone)
        counts = buffers.take_bytes((timesteps, terms[0].shape[1], *cut.size, self.neurons.channels))
        emitted = np.zeros(counts.shape[2:])
        names = ("v_mem",) if p.op == "BurstIF" else ("count", "total")
        states = [taken(carried, name, counts.shape[1:]) for name in names]
        read = [term.values for term in terms[: len(runs)] if isinstance(term, Coded)]
        convs = [run.arguments(v, cut.rows, cut.size[1]) for run, v in zip(runs, read, strict=True)] or [_NO_CONV]
        residual, unit, zero, added = self._others(terms[len(convolutions) :])
        sizes = (
            len(convolutions), cut.rows, cut.channels, cut.together, int(p.op != "BurstIF"), done, int(bool(carried)),
            cut.padded,
        )  # fmt: skip
        offset = np.float32(self.neurons.offset)
        bounds = (np.float32(p.v_init), np.float32(p.max_burst), np.float32(p.upper), np.float32(zero), offset)

        def work(begin: int, end: int) -> None:
            scratch = buffers.take((cut.room,))
            simulate(
                begin, end, sizes, bounds, convs[0], convs[-1], residual, unit, added, self._theta, self._bias,
                counts, emitted, states[0], states[-1], scratch,
            )  # fmt: skip
            buffers.give(scratch)

        (parallel if cut.side_by_side else alone)(work, cut.parts)
        if carried is not None:
            carried.update({name: np.moveaxis(state, -1, 1) for name, state in zip(names, states, strict=True)})
        return self.neurons.coded(counts), emitted.transpose(2, 0, 1)

    def _others(self, terms: list[Coded | Floats]) -> tuple[NDArray[np.uint8], Floats, int, Floats]:
        """Return what is added to the current: counts, the spike of each channel, the count of none; and floats."""
        if terms and isinstance(terms[0], Coded):
            return terms[0].values, _filled(terms[0].step, 0.0), int(terms[0].zero[0]), _NO_FLOATS
        return self._nothing, np.zeros_like(self._bias), 0, channels_last(terms[0]) if terms else _NO_FLOATS

    def _cut(self, runs: list[Run], timesteps: int, shape: tuple[int, ...], several: bool) -> _Cut:
        """Return the parts for what arrives with a shape [N, C, H, W], if there are several threads or one."""
        key = (timesteps, shape, several)
        if key in self._cuts:
            return self._cuts[key]
        size = self.convolutions[0].output_shape(shape[2:]) if self.convolutions else shape[2:]
        (height, width), all_channels = size, filled(self.neurons.channels)
        products = _NEURON + sum(run.products for run in runs)
        side_by_side = several and timesteps * shape[0] * height * width * self.neurons.channels * products > _WORK
        blocks = all_channels // max([LANES, *(run.block for run in runs)])
        stripes = -(-height // min(height, -(-_PIXELS // width)))
        if side_by_side:
            stripes = max(stripes, min(height, -(-_PARTS // blocks)))
        rows = -(-height // stripes)
        stripes = -(-height // rows)
        source = max([0, *(run.source(rows, width) for run in runs)])

        def together(groups: int) -> int:
            room = _FLOATS // (source + rows * width * all_channels // groups)
            wanted = timesteps if matrices else -(-_PIXELS // (rows * width))
            return max(1, min(timesteps, wanted, room))

        matrices = any(isinstance(run, MatrixConv) for run in runs)
        least = _PARTS if side_by_side else 1
        possible = [g for g in range(1, blocks + 1) if blocks % g == 0]
        groups = next((g for g in possible if stripes * g >= least), blocks)
        while matrices and groups < blocks and together(groups) < timesteps:  # weights are read once for all of them
            groups = next(g for g in possible if g > groups)
        channels, steps = all_channels // groups, together(groups)
        spare = max([0, *(run.spare for run in runs)])
        room = source * steps + spare + (steps + 3) * rows * width * channels
        cut = _Cut(size, rows, channels, steps, source * steps + spare, stripes * groups, room, side_by_side)
        return self._cuts.setdefault(key, cut)


def _runs(convolutions: list[FloatConv], terms: list[Coded | Floats]) -> list[Run]:
    """Return what runs convolutions of counts: matrices of bytes if all of them can, and this processor."""
    sources = [term for term in terms[: len(convolutions)] if isinstance(term, Coded)]
    pairs = list(zip(convolutions, sources, strict=True))
    kind = MatrixConv if available() and all(is_exact(conv, term.step) for conv, term in pairs) else FloatRun
    return [kind(conv, term.step, int(term.zero[0])) for conv, term in pairs]


def _filled(values: Floats, beyond: float) -> Floats:
    """Return what is there for each channel, filled up to whole vectors."""
    result = np.full(filled(len(values)), beyond, np.float32)
    result[: len(values)] = values
    return result
