"""One layer of neurons with what reaches it in ANN and SNN: what its calibration measures before θ is known."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.analysis import Form, NeuronSite
from snncc.config import Config
from snncc.neurons.response import Correction, Response
from snncc.neurons.threshold import DEVIATIONS, FEW, ChannelHistogram
from snncc.passes.chunk_pool import ChunkPool
from snncc.passes.frontier import Entry
from snncc.passes.layer_sums import Sums, along, by_channel, per_channel, squared_error, sums, total
from snncc.passes.scaled import Scaled
from snncc.passes.store import Store
from snncc.runtime.session import Array

_ENOUGH_VALUES = 1 << 20
"""So many values tell which kind of neuron has the smaller error,"""
_ENOUGH_SAMPLES = 32
"""if they come from so many samples."""


class Layer:
    """One layer of neurons and the samples that it is calibrated on.

    Attributes:
        site: the layer.
        entry: what it reads; the SNN's values in the form that the site works on.
        config: the options.
        pool: what works on the chunks.
        store: where arrays are kept.
        sensitivity: what an error of each channel does to the layers that read it, float64 [C]; None: not known.
        axis: axis of the channels, None if all values are one channel.
        channels: their number.
        target: what the neurons' mean output should be, the ANN's activation per chunk, float32 [N, ...].
        owned: the target's arrays are the layer's, not those of the entry.
        size: values of each channel, over all samples.
    """

    def __init__(
        self,
        site: NeuronSite,
        entry: Entry,
        config: Config,
        pool: ChunkPool,
        store: Store | None = None,
        sensitivity: NDArray[np.float64] | None = None,
    ) -> None:
        self.site, self.entry, self.config, self.pool = site, entry, config, pool
        self.sensitivity = sensitivity
        self.store = store or Store()
        self.axis = site.channel_axis if site.channels is not None else None
        self.channels = 1 if self.axis is None else entry.ann[0].shape[self.axis]
        self.owned = not site.activation.encodes
        self.target: list[NDArray[np.float32]] = pool.each(lambda i: self._activated(entry.ann[i]))
        self.size = sum(a.size for a in self.target) // self.channels

    def _activated(self, value: Array) -> NDArray[np.float32]:
        if not self.owned:
            return np.asarray(value)
        if self.site.quantised is not None:
            return self.store.keep(self.site.quantised(value))
        out = self.store.take(value.shape)
        return np.clip(value, np.float32(0), np.float32(self.site.activation.upper), out=out)

    def along(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a value per channel, [C] or [1], in a shape that broadcasts to [N, ...]."""
        return along(values, self.axis if len(values) > 1 else None, self.target[0].ndim)

    def per_channel(self, values: NDArray[Any]) -> NDArray[Any]:
        """Add up values for each element of a sample, [..., E], per channel: [..., C]."""
        return per_channel(values, self.axis, self.target[0].shape[1:])

    def arriving(self, chunk: int) -> tuple[NDArray[np.float32], Correction | None]:
        """Return what arrives in the SNN, [T, N, ...] or, if it is static, [1, N, ...]; and a correction of that."""
        if self.entry.snn is None:
            return self.entry.ann[chunk][None], None
        value = self.entry.snn[chunk]
        if isinstance(value, Scaled) and value.values.dtype == np.float32:
            return value.values, value.parameters()
        return self.entry.temporal(chunk), None

    @functools.cached_property
    def positive(self) -> ChannelHistogram:
        """Histogram of the target's values above zero."""
        return self._histogram(1)

    @functools.cached_property
    def negative(self) -> ChannelHistogram:
        """Histogram of the target's values below zero, with their sign changed."""
        return self._histogram(-1)

    def _histogram(self, sign: int) -> ChannelHistogram:
        if sign < 0 and not self.site.activation.encodes:
            return ChannelHistogram(self.channels)

        def of_chunks(chunks: range) -> ChannelHistogram:
            histogram = ChannelHistogram(self.channels)
            for chunk in chunks:
                values = by_channel(self.target[chunk], self.axis)
                histogram.add(values if sign > 0 else -values)
            return histogram

        first, *others = self.pool.shares(of_chunks)
        for histogram in others:
            first.merge(histogram)
        if (first.counts.sum(axis=1) < FEW).any():  # nobody asks of the others what is likely
            mean, deviation = self._currents
            first.likely = np.clip(sign * mean + DEVIATIONS * deviation, 0.0, self.site.activation.upper)
        return first

    @functools.cached_property
    def _currents(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of what reaches the neurons in the ANN, [C]; negative values tell too."""

        def of_chunk(chunk: int) -> NDArray[np.float64]:
            values = by_channel(self.entry.ann[chunk], self.axis).astype(np.float64)
            return np.stack([values.sum(axis=(0, 2)), np.square(values).sum(axis=(0, 2))])

        mean, squared = np.sum(self.pool.each(of_chunk), axis=0) / self.size
        return mean, np.sqrt(np.maximum(squared - np.square(mean), 0.0))

    @functools.cached_property
    def missing(self) -> NDArray[np.float64]:
        """What the SNN's mean value lacks to the ANN's, float64 [C]; 0 where it is known to be the same."""
        if self.entry.snn is None or self.entry.matched:
            return np.zeros(self.channels)
        found = total(self.pool.each(self._sums))
        return (found.ann - found.snn) / self.size

    def _sums(self, chunk: int) -> Sums:
        ann, snn = self.entry.ann[chunk], self.entry.temporal(chunk)
        return sums(ann, snn, self.axis, last=self.site.form is Form.MEAN)

    @functools.cached_property
    def enough(self) -> list[range]:
        """Return as many samples as are enough to compare neurons, evenly chosen, by their numbers in each chunk."""
        samples, values = sum(map(len, self.target)), sum(a.size for a in self.target)
        every = max(1, min(samples // _ENOUGH_SAMPLES, values // _ENOUGH_VALUES))
        starts = itertools.accumulate((len(a) for a in self.target), initial=0)
        return [range(-start % every, len(a), every) for start, a in zip(starts, self.target, strict=False)]

    def done(self, responses: Iterable[Response], *, counts: bool = True) -> None:
        """Give back the arrays of responses that nobody will look at again, with their counts or without."""
        for response in responses:
            for array in (response.fired, response.arrived, *((response.counts,) if counts else ())):
                self.store.give(array)

    def squared_error(self, fired: list[NDArray[np.int32]], theta: NDArray[np.float32]) -> float:
        """Return the squared error of the mean output over the samples that are `enough`.

        Args:
            fired: spikes of these samples over time, per chunk.
            theta: effective threshold θe, float32 [C] or [1].
        """
        unit = (self.along(theta) / np.float32(self.config.timesteps)).astype(np.float32)
        rows = [slice(r.start, r.stop, r.step) for r in self.enough]
        errors: list[float] = self.pool.each(lambda i: squared_error(fired[i], self.target[i][rows[i]], unit))
        return sum(errors)
