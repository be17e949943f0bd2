"""Calibrating one layer of signed burst neurons: thresholds on both sides of zero, spikes, errors.

A signed neuron takes back what it emitted too early, so at the last timestep its output is that of the closed form on
the mean of what arrived, unless ψ held it back: there is no unevenness to weigh in the threshold search, and no
potential to defer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.analysis import Form, NeuronSite
from snncc.config import Config
from snncc.neurons.signed_burst import aims, simulate
from snncc.neurons.threshold import ChannelHistogram, signed_thresholds
from snncc.passes.chunk_pool import ChunkPool
from snncc.passes.frontier import Entry
from snncc.passes.layer_fit import by_channel
from snncc.passes.range_thresholds import range_thresholds
from snncc.runtime.session import Array

BETTER = 0.9
"""A signed neuron must lower the squared error of an unsigned one to this share of it: it costs negative spikes."""


def two_sided_thresholds(
    positive: ChannelHistogram, negative: ChannelHistogram, site: NeuronSite, config: Config
) -> NDArray[np.float32]:
    """Return the thresholds θ of a layer of signed neurons, float32 [C], or [1] for one per layer.

    Args:
        positive: of the values above zero, per channel.
        negative: of the values below zero, with their sign changed.
        site: the layer.
        config: the options.
    """
    if not config.per_channel:
        positive, negative = positive.pooled(), negative.pooled()
    c, upper = config, site.activation.upper / config.threshold_ratio
    if c.threshold_method == "mse":
        return signed_thresholds(positive, negative, c.timesteps, c.max_burst, c.v_init, upper=upper)
    percent = 100.0 if c.threshold_method == "max" else c.percentile
    larger = positive if positive.maximum().sum() >= negative.maximum().sum() else negative
    return range_thresholds(larger, percent, c.max_burst, upper)


class SignedFit:
    """One layer of signed neurons with what reaches it in ANN and SNN.

    Attributes:
        target: what the neurons' mean output should be, the ANN's values per chunk, float32 [N, ...].
        axis: axis of the channels, None if all values are one channel.
    """

    def __init__(self, site: NeuronSite, entry: Entry, config: Config, pool: ChunkPool) -> None:
        """Prepare the fit of a layer.

        Args:
            site: the layer.
            entry: what it reads; the SNN's values in the form that the site works on.
            config: the options.
            pool: what works on the chunks.
        """
        self.site, self.entry, self.config, self.pool = site, entry, config, pool
        self.axis = site.channel_axis if site.channels is not None else None
        self.channels = 1 if self.axis is None else entry.ann[0].shape[self.axis]
        self.target: list[NDArray[np.float32]] = pool.each(lambda i: self._activated(entry.ann[i]))

    def _activated(self, value: Array) -> NDArray[np.float32]:
        if self.site.activation.encodes:
            return np.asarray(value)
        return np.clip(value, np.float32(0), np.float32(self.site.activation.upper))

    @functools.cached_property
    def thresholds(self) -> NDArray[np.float32]:
        """θ of minimum squared error (not θe: τ is applied by the neuron), float32 [C] or [1]."""
        sides = [self._histogram(np.float32(1)), self._histogram(np.float32(-1))]
        return two_sided_thresholds(sides[0], sides[1], self.site, self.config)

    def _histogram(self, sign: np.float32) -> ChannelHistogram:
        """Return the histogram of the values of one sign."""

        def of_chunk(chunk: int) -> ChannelHistogram:
            histogram = ChannelHistogram(self.channels)
            if sign > 0 or self.site.activation.encodes:
                histogram.add(by_channel(self.target[chunk] * sign, self.axis))
            return histogram

        first, *others = self.pool.each(of_chunk)
        for histogram in others:
            first.merge(histogram)
        return first

    @functools.cached_property
    def shift(self) -> NDArray[np.float32] | None:
        """What gives the current the ANN's mean, float32 [C]; None where there is no current to shift."""
        if self.site.activation.encodes or self.entry.snn is None or self.entry.matched:
            return None

        def gap(chunk: int) -> NDArray[np.float64]:
            snn = self.entry.temporal(chunk).mean(axis=0)
            difference = by_channel(self.entry.ann[chunk] - snn, self.axis)
            return np.asarray(difference.sum(axis=(0, 2), dtype=np.float64))

        count = sum(a.size for a in self.entry.ann) // self.channels
        return np.asarray(np.sum(self.pool.each(gap), axis=0) / count, np.float32)

    def matched_spikes(self, theta: NDArray[np.float32]) -> list[NDArray[np.integer[Any]]]:
        """Simulate the layer with its mean current matched to the ANN's; return the counts per chunk, [T, N, C, M]."""
        shift, c = self.shift, self.config
        return self.pool.each(lambda i: simulate(self._aims(i, shift), theta, c.max_burst, c.v_init))

    def _aims(self, chunk: int, shift: NDArray[np.float32] | None) -> Iterator[NDArray[np.float32]]:
        """Yield t·f(m[t]) for t = 1..T, [N, C, M] each."""
        steps = range(1, self.config.timesteps + 1)
        if self.entry.snn is None:
            value = by_channel(self.target[chunk], self.axis)
            yield from (value * np.float32(t) for t in steps)
            return
        snn = by_channel(self.entry.temporal(chunk), self.axis, lead=1)
        means = self.site.form is Form.MEAN
        yield from aims(snn, np.float32(self.site.activation.upper), means=means, shift=shift)

    def squared_error(self, counts: Sequence[NDArray[np.integer[Any]]], theta: NDArray[np.float32]) -> float:
        """Return the squared error of the mean output, summed over all neurons and samples."""
        scale = theta.reshape(-1, 1) / np.float32(self.config.timesteps)

        def of_chunk(chunk: int) -> float:
            target = by_channel(self.target[chunk], self.axis)
            emitted = counts[chunk].sum(axis=0, dtype=np.int32) * scale
            return float(np.square(emitted - target).sum(dtype=np.float64))

        return sum(self.pool.each(of_chunk))

    def errors(self, counts: list[NDArray[np.integer[Any]]], theta: NDArray[np.float32]) -> tuple[float, float, float]:
        """Return relative squared error, relative mean error, and spikes per neuron and timestep."""

        def of_chunk(chunk: int) -> tuple[float, ...]:
            target, count = self.target[chunk], counts[chunk]
            energy, mean = np.square(target).sum(dtype=np.float64), target.sum(dtype=np.float64)
            emitted = (count.sum(axis=(0, 1, 3), dtype=np.int64) * theta).sum() / self.config.timesteps
            return float(energy), float(mean), float(emitted), float(np.abs(count).sum(dtype=np.int64))

        energy, mean, emitted, fired = np.sum(self.pool.each(of_chunk), axis=0).tolist()
        elements = sum(count.size for count in counts)
        squared = self.squared_error(counts, theta)
        return squared / (energy or 1.0), (emitted - mean) / (abs(mean) or 1.0), fired / elements
