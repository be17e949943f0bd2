"""Running the nodes of a `CodedPlan`: codes in, codes out, in arrays of a pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.runtime.buffers import BufferPool
from snncc.runtime.carried import Carried
from snncc.runtime.coded import channels_last, decode, encode
from snncc.runtime.coded_plan import CodedPlan
from snncc.runtime.int8_conv import Coded, Int8Layer, Parallel, alone

_PRODUCTS, _STEPS = 1 << 26, 1 << 20
"""Multiplications, and neurons times timesteps, below which waking a second thread takes longer than it helps."""


@dataclass(frozen=True)
class CodedRunner:
    """Runs nodes on codes.

    Attributes:
        plan: the nodes.
        buffers: where the arrays come from.
        parallel: runs parts of a layer's work.
    """

    plan: CodedPlan
    buffers: BufferPool
    parallel: Parallel

    def dense(self, coded: Coded) -> NDArray[np.float32]:
        """Return the values of a tensor, float32 [T, N, C, ...]."""
        result = self.buffers.take(coded.shape)
        decode(coded, result)
        return result

    def neurons(
        self, name: str, terms: list[Any], timesteps: int, carried: Carried | None, done: int
    ) -> tuple[Coded, NDArray[np.float64]]:
        """Run a layer of neurons.

        Args:
            name: its node.
            terms: what adds up to its current: codes, or floats [T or 1, N, C, ...].
            timesteps: T.
            carried: the state from block to block; see `CodedNeurons.fire`.
            done: timesteps before.

        Returns:
            The counts, and what `CodedNeurons.fire` returns.
        """
        layer = self.plan.neurons[name]
        ordered = [term if isinstance(term, Coded) else channels_last(term) for term in terms]
        last = ordered[0].values if isinstance(ordered[0], Coded) else ordered[0]
        counts = self.buffers.take_bytes((timesteps, *last.shape[1:]))
        parallel = self.parallel if counts.size > _STEPS else alone
        return layer.coded(counts), layer.fire(ordered, counts, carried, done, parallel)

    def layer(self, name: str, value: Any) -> Coded:
        """Run a layer with 8-bit weights on counts, or on spikes as floats [T, N, C, ...]."""
        layer = self.plan.layers[name]
        counts, most = self._counts(layer, value)
        timesteps, samples, *spatial = counts.shape[:-1]
        size = (spatial[0], spatial[1]) if spatial else (1, 1)
        rows = counts.reshape(timesteps * samples, *size, layer.channels)
        shape = (len(rows), *layer.padded_shape(size))
        out = self.buffers.take_bytes((len(rows), *layer.output_shape(size), layer.features))
        parallel = self.parallel if out.size * layer.fan_in > _PRODUCTS else alone
        padded = rows
        if shape != rows.shape:
            padded = self.buffers.take_bytes(shape)
            parallel(lambda start, stop: layer.pad(rows[start:stop], padded[start:stop]), len(rows))
        layer.run(padded, out, most, parallel)
        if padded is not rows:
            self.buffers.give(padded)
        codes = out.reshape(timesteps, samples, *(out.shape[1:-1] if spatial else ()), layer.features)
        return Coded(codes, layer.step, layer.zero, layer.shift)

    def given(self, term: Any) -> Any:
        """Return what a chain reads: counts of spikes, or else floats [T, N, ..., C]."""
        if not isinstance(term, Coded):
            return channels_last(term)
        if self.plan.layers and (term.shift.any() or (term.zero != term.zero[0]).any()):
            return channels_last(self.dense(term))  # what layers with 8-bit weights give is no count
        return term

    def _counts(self, layer: Int8Layer, value: Any) -> tuple[NDArray[np.uint8], int]:
        if isinstance(value, Coded):
            same = len(value.step) == layer.channels and np.array_equal(value.step, layer.unit)
            if same and (value.zero == layer.offset).all() and not value.shift.any():
                return value.values, value.most
            value = self.dense(value)
        counts = encode(value, layer.unit, layer.offset)
        return counts, int(counts.max(initial=0))
