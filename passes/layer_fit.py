"""The arithmetic of calibrating one layer: arrays as [N, C, M], channels apart from everything else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.analysis import NeuronSite
from snncc.config import Config
from snncc.context import WeightCorrection
from snncc.neurons.burst_if import simulate
from snncc.neurons.threshold import ChannelHistogram, minimum_error_thresholds
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


def sums(pairs: Iterable[tuple[Array, Array]]) -> Sums:
    """Add up pairs of ANN values [N, C, M] and SNN means over time [N, C, M]."""
    count = 0
    totals: list[NDArray[np.float64]] | None = None
    for ann, snn in pairs:
        count += ann.shape[0] * ann.shape[2]
        new = [_sum(ann), _sum(np.square(ann)), _sum(snn), _sum(np.square(snn))]
        totals = new if totals is None else [a + b for a, b in zip(totals, new, strict=True)]
    if totals is None:
        raise ValueError("there are no values to add up")
    return Sums(count, *totals)


def _sum(values: Array) -> NDArray[np.float64]:
    return np.asarray(values.sum(axis=(0, 2), dtype=np.float64))


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
    """One layer of neurons with the currents that reach it in ANN and SNN."""

    def __init__(self, site: NeuronSite, entry: Entry, config: Config) -> None:
        self.site, self.entry, self.config = site, entry, config
        self.axis = site.channel_axis if site.channels is not None else None
        self.deferred = 0.0 if entry.snn is None else DEFERRED * config.v_init
        self.v_init = config.v_init - self.deferred
        self.channels = 1 if self.axis is None else entry.ann[0].shape[self.axis]

    def activation(self, current: Array) -> NDArray[np.float32]:
        """Return the ANN's activation of a current."""
        return np.clip(current, np.float32(0), np.float32(self.site.activation.upper))

    def thresholds(self) -> NDArray[np.float32]:
        """Return θ of minimum squared error (not θe: τ is applied by the neuron), float32 [C] or [1]."""
        histogram = ChannelHistogram(self.channels)
        for chunk in self.entry.ann:
            histogram.add(by_channel(np.minimum(chunk, np.float32(self.site.activation.upper)), self.axis))
        return thresholds(histogram, self.site, self.config)

    def currents(self) -> Iterator[NDArray[np.float32]]:
        """Yield the SNN's current per chunk, [T, N, C, M] or, if it is static, [1, N, C, M]."""
        for index, ann in enumerate(self.entry.ann):
            current = ann[None] if self.entry.snn is None else self.entry.temporal(index)
            yield by_channel(current, self.axis, lead=1)

    def spikes(self, theta: NDArray[np.float32], shift: NDArray[np.float64] | None) -> list[NDArray[np.uint8]]:
        """Simulate the layer and return the counts per chunk, uint8 [T, N, C, M]."""
        c = self.config
        extra = None if shift is None else shift.astype(np.float32)
        return [simulate(x, theta, c.timesteps, c.max_burst, self.v_init, extra) for x in self.currents()]

    def correct(self, theta: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[NDArray[np.uint8]]]:
        """Return the shift of the current per channel, float32 [C], and the spikes with it.

        The deferred part of the initial potential comes first. Then the mean current is matched to the ANN's, and what
        error is left in the mean output is added.
        """
        active = [by_channel(self.activation(a), self.axis) for a in self.entry.ann]
        count = sum(a.shape[0] * a.shape[2] for a in active)
        target = np.sum([_sum(a) for a in active], axis=0)
        shift = np.zeros(self.channels) + theta.astype(np.float64) * (self.deferred / self.config.timesteps)
        if self.entry.snn is not None:
            ann = np.sum([_sum(by_channel(a, self.axis)) for a in self.entry.ann], axis=0)
            snn = np.sum([_sum(x.mean(axis=0)) for x in self.currents()], axis=0)
            shift += (ann - snn) / count
        # A shift moves the output only of neurons that are neither off nor saturated.
        upper = self.site.activation.upper
        moved = np.sum([((a > 0) & (a < upper)).sum(axis=(0, 2)) for a in active], axis=0)
        step = 1 / np.maximum(moved, _LEAST_MOVED * count)
        counts = self.spikes(theta, shift)
        error = target - self._output(counts, theta)
        best, smallest = shift, np.abs(error)
        for _ in range(SWEEPS):
            shift = shift + error * step
            trial = self.spikes(theta, shift)
            error = target - self._output(trial, theta)
            # Where the output jumps, a step may overshoot; channels don't depend on each other, so each keeps its best.
            better = np.abs(error) < smallest
            best, smallest = np.where(better, shift, best), np.where(better, np.abs(error), smallest)
            for kept, new in zip(counts, trial, strict=True):
                kept[:, :, better] = new[:, :, better]
        return best.astype(np.float32), counts

    def _output(self, counts: list[NDArray[np.uint8]], theta: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum the mean outputs per channel."""
        fired = np.sum([c.sum(axis=(0, 1, 3), dtype=np.int64) for c in counts], axis=0)
        return np.asarray(theta.astype(np.float64) * fired / self.config.timesteps)

    def errors(self, counts: list[NDArray[np.uint8]], theta: NDArray[np.float32]) -> tuple[float, float, float]:
        """Return relative squared error, relative mean error, and spikes per neuron and timestep."""
        squared = energy = difference = total = fired = elements = 0.0
        for ann, count in zip(self.entry.ann, counts, strict=True):
            active = by_channel(self.activation(ann), self.axis)
            residual = count.sum(axis=0, dtype=np.uint32) * (theta[:, None] / self.config.timesteps) - active
            squared += float(np.square(residual).sum())
            difference += float(residual.sum(dtype=np.float64))
            energy += float(np.square(active).sum(dtype=np.float64))
            total += float(active.sum(dtype=np.float64))
            fired += float(count.sum(dtype=np.int64))
            elements += count.size
        return squared / (energy or 1.0), difference / (total or 1.0), fired / elements


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
