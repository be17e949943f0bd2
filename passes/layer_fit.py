"""The arithmetic of calibrating one layer: arrays as [N, C, M], channels apart from everything else."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.analysis import NeuronSite
from snncc.config import Config
from snncc.context import WeightCorrection
from snncc.neurons.burst_if import simulate
from snncc.neurons.threshold import ChannelHistogram, minimum_error_thresholds
from snncc.passes.chunk_pool import ChunkPool
from snncc.passes.frontier import Entry
from snncc.passes.range_thresholds import range_thresholds
from snncc.runtime.session import Array

SWEEPS = 2
"""How often the mean error of a neuron's output is added to its bias: after two sweeps what is left is negligible."""
DEFERRED = 0.5
"""Share of the initial potential that a neuron gets as current over the T steps instead of at the start.

The closed form stays what it is, but a neuron is less easily made to fire by uneven first currents, which it could not
take back. Neurons with a constant current have no use for it.
"""
_LEAST_MOVED = 0.1
"""Smallest share of neurons that a shift is taken to move: bounds the steps of channels that are almost always off."""
_GAIN_RANGE = (0.5, 2.0)
"""Gains beyond this say that a channel is broken, not that it is damped: they are cut."""


def by_channel(values: Array, axis: int | None, lead: int = 0) -> Array:
    """Return values [lead..., N, ...] as [lead..., N, C, M].

    Args:
        values: the values.
        axis: axis of the channels, not counting the leading axes; None: all values are one channel.
        lead: number of leading axes.
    """
    head = values.shape[: lead + 1]
    if axis is None:
        return values.reshape(*head, 1, -1)
    moved = np.moveaxis(values, lead + axis, lead + 1)
    return moved.reshape(*head, values.shape[lead + axis], -1)


def from_channels(values: Array, axis: int | None, shape: tuple[int, ...]) -> Array:
    """Undo `by_channel` for values [T, N, C, M] of a tensor whose shape is `shape` at one timestep."""
    if axis is None:
        return values.reshape(values.shape[0], *shape)
    rest = [size for i, size in enumerate(shape) if i not in (0, axis)]
    return np.moveaxis(values.reshape(values.shape[0], shape[0], shape[axis], *rest), 2, 1 + axis)


def along(vector: NDArray[Any], axis: int | None, rank: int) -> NDArray[Any]:
    """Return a value per channel in a shape that broadcasts to a tensor of the given rank."""
    shape = [1] * rank
    if axis is not None:
        shape[axis] = len(vector)
    return vector.reshape(shape)


@dataclass(frozen=True)
class Sums:
    """Count, sum and sum of squares per channel, of values in ANN and SNN."""

    count: int
    ann: NDArray[np.float64]
    ann_squared: NDArray[np.float64]
    snn: NDArray[np.float64]
    snn_squared: NDArray[np.float64]


def sums(ann: Array, snn: Array) -> Sums:
    """Add up ANN values [N, C, M] and SNN means over time [N, C, M] of one chunk."""
    return Sums(ann.shape[0] * ann.shape[2], _sum(ann), _sum(np.square(ann)), _sum(snn), _sum(np.square(snn)))


def total(parts: Sequence[Sums]) -> Sums:
    """Add up the sums of all chunks, of which there is at least one."""
    first, *others = parts
    for part in others:
        first = Sums(
            first.count + part.count,
            first.ann + part.ann,
            first.ann_squared + part.ann_squared,
            first.snn + part.snn,
            first.snn_squared + part.snn_squared,
        )
    return first


def _sum(values: Array) -> NDArray[np.float64]:
    """Add up values [N, C, M] per channel, in double precision: the result doesn't depend on the chunks."""
    return np.asarray(values.sum(axis=(0, 2), dtype=np.float64))


def scale(values: NDArray[np.float32], gain: NDArray[np.float32], shift: NDArray[np.float32]) -> None:
    """Replace values [T, N, ...] by gain * values + shift, with gain and shift as `along` shapes them."""
    for step in values:  # the step stays in the cache between the two
        step *= gain
        step += shift


def match(values: Sums, *, gain: bool) -> WeightCorrection:
    """Return the correction that gives the SNN's values the ANN's mean and, with `gain`, its standard deviation.

    Clipping and rounding damp a network layer by layer; the factor undoes that where it arises.
    """
    factor = np.ones_like(values.ann)
    mean_ann, mean_snn = values.ann / values.count, values.snn / values.count
    if gain:
        var_ann = values.ann_squared / values.count - np.square(mean_ann)
        var_snn = values.snn_squared / values.count - np.square(mean_snn)
        # Below single precision's resolution of the values themselves a variance is rounding noise.
        known = (var_ann > 1e-10 * values.ann_squared / values.count) & (
            var_snn > 1e-10 * values.snn_squared / values.count
        )
        ratio = np.divide(var_ann, var_snn, out=np.ones_like(var_ann), where=known & (var_snn > 0))
        factor = np.clip(np.sqrt(np.maximum(ratio, 0.0)), *_GAIN_RANGE)
    shift = mean_ann - factor * mean_snn
    return WeightCorrection(factor.astype(np.float32), shift.astype(np.float32))


class LayerFit:
    """One layer of neurons with the currents that reach it in ANN and SNN.

    Attributes:
        active: the ANN's activation per chunk, float32 [N, ...].
        axis: axis of the channels, None if all values are one channel.
        v_init: initial potential that the neurons keep; the rest is deferred, see `DEFERRED`.
    """

    def __init__(self, site: NeuronSite, entry: Entry, config: Config, pool: ChunkPool) -> None:
        self.site, self.entry, self.config, self.pool = site, entry, config, pool
        self.axis = site.channel_axis if site.channels is not None else None
        self.deferred = 0.0 if entry.snn is None else DEFERRED * config.v_init
        self.v_init = config.v_init - self.deferred
        self.channels = 1 if self.axis is None else entry.ann[0].shape[self.axis]
        self.active: list[NDArray[np.float32]] = pool.each(lambda i: self._activation(entry.ann[i]))

    def _activation(self, current: Array) -> NDArray[np.float32]:
        return np.clip(current, np.float32(0), np.float32(self.site.activation.upper))

    @functools.cached_property
    def thresholds(self) -> NDArray[np.float32]:
        """θ of minimum squared error (not θe: τ is applied by the neuron), float32 [C] or [1]."""

        def of_chunk(chunk: int) -> ChannelHistogram:
            histogram = ChannelHistogram(self.channels)
            histogram.add(by_channel(self.active[chunk], self.axis))
            return histogram

        first, *others = self.pool.each(of_chunk)
        for histogram in others:
            first.merge(histogram)
        return thresholds(first, self.site, self.config)

    def _current(self, chunk: int) -> NDArray[np.float32]:
        """Return the SNN's current, [T, N, C, M] or, if it is static, [1, N, C, M]."""
        current = self.entry.ann[chunk][None] if self.entry.snn is None else self.entry.temporal(chunk)
        return by_channel(current, self.axis, lead=1)

    def _spikes(self, theta: NDArray[np.float32], shift: NDArray[np.float64]) -> list[NDArray[np.uint8]]:
        """Simulate the layer and return the counts per chunk, uint8 [T, N, C, M]."""
        c, extra = self.config, shift.astype(np.float32)
        return self.pool.each(lambda i: simulate(self._current(i), theta, c.timesteps, c.max_burst, self.v_init, extra))

    def correct(self, theta: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[NDArray[np.uint8]]]:
        """Return the shift of the current per channel, float32 [C], and the spikes with it.

        The deferred part of the initial potential comes first. Then the mean current is matched to the ANN's, and what
        error is left in the mean output is added.
        """
        target, moved, _ = self._statistics
        count = sum(a.size for a in self.active) // self.channels
        shift = self._matched_shift(theta)
        # A shift moves the output only of neurons that are neither off nor saturated.
        step = 1 / np.maximum(moved, _LEAST_MOVED * count)
        counts = self._spikes(theta, shift)
        error = target - self._output(counts, theta)
        best, smallest = shift, np.abs(error)
        for _ in range(SWEEPS):
            shift = shift + error * step
            trial = self._spikes(theta, shift)
            error = target - self._output(trial, theta)
            # Where the output jumps, a step may overshoot; channels don't depend on each other, so each keeps its best.
            better = np.abs(error) < smallest
            best, smallest = np.where(better, shift, best), np.where(better, np.abs(error), smallest)
            for kept, new in zip(counts, trial, strict=True):
                new[:, :, ~better] = kept[:, :, ~better]
            counts = trial
        return best.astype(np.float32), counts

    def matched_spikes(self, theta: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
        """Simulate the layer with its mean current matched to the ANN's; return the counts per chunk."""
        return self._spikes(theta, self._matched_shift(theta))

    def _matched_shift(self, theta: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the deferred part of the initial potential and what gives the current the ANN's mean, [C]."""
        count = sum(a.size for a in self.active) // self.channels
        _, _, missing = self._statistics
        return np.asarray(theta.astype(np.float64) * (self.deferred / self.config.timesteps) + missing / count)

    @functools.cached_property
    def _statistics(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Per channel the ANN's summed output, how many neurons a shift moves, and the SNN's lack of current."""
        parts = self.pool.each(self._statistics_of)
        target, moved, missing = (np.sum(values, axis=0) for values in zip(*parts, strict=True))
        return target, moved, missing

    def _statistics_of(self, chunk: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        active = by_channel(self.active[chunk], self.axis)
        moved = ((active > 0) & (active < self.site.activation.upper)).sum(axis=(0, 2))
        missing = np.zeros(self.channels)
        if self.entry.snn is not None and not self.entry.matched:
            missing = _sum(by_channel(self.entry.ann[chunk], self.axis)) - _sum(self._current(chunk).mean(axis=0))
        return _sum(active), moved, missing

    def _output(self, counts: list[NDArray[np.uint8]], theta: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum the mean outputs per channel."""
        fired = np.sum(self.pool.each(lambda i: self._fired(counts[i]).sum(axis=(0, 2), dtype=np.int64)), axis=0)
        return np.asarray(theta.astype(np.float64) * fired / self.config.timesteps)

    def _fired(self, counts: NDArray[np.uint8]) -> NDArray[np.unsignedinteger[Any]]:
        """Return the spikes of each neuron over time, [N, C, M]."""
        # In the smallest type that holds them all: NumPy adds bytes to bytes many times as fast as to integers.
        dtype = np.min_scalar_type(self.config.timesteps * self.config.max_burst)
        return np.asarray(counts.sum(axis=0, dtype=dtype))

    def errors(self, counts: list[NDArray[np.uint8]], theta: NDArray[np.float32]) -> tuple[float, float, float]:
        """Return relative squared error, relative mean error, and spikes per neuron and timestep."""
        unit = theta[:, None] / np.float32(self.config.timesteps)

        def of_chunk(chunk: int) -> tuple[float, ...]:
            active, fired = by_channel(self.active[chunk], self.axis), self._fired(counts[chunk])
            residual = fired * unit - active
            sums_ = np.square(residual).sum(), residual.sum(dtype=np.float64), np.square(active).sum(dtype=np.float64)
            return (*map(float, sums_), float(active.sum(dtype=np.float64)), float(fired.sum(dtype=np.int64)))

        squared, difference, energy, mean, spikes = np.sum(self.pool.each(of_chunk), axis=0).tolist()
        elements = sum(count.size for count in counts)
        return squared / (energy or 1.0), difference / (mean or 1.0), spikes / elements


def thresholds(histogram: ChannelHistogram, site: NeuronSite, config: Config) -> NDArray[np.float32]:
    """Return the thresholds θ of a layer, float32 [C], or [1] for one per layer.

    The search finds the effective threshold; the neuron multiplies by τ, so SSC's τ makes thresholds larger on purpose.
    """
    if not config.per_channel:
        histogram = histogram.pooled()
    upper = site.activation.upper / config.threshold_ratio
    if config.threshold_method != "mse":
        percent = 100.0 if config.threshold_method == "max" else config.percentile
        return range_thresholds(histogram, percent, config.max_burst, upper)
    return minimum_error_thresholds(histogram, config.timesteps, config.max_burst, config.v_init, upper=upper)
