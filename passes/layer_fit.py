"""Calibrating one layer of unsigned burst neurons: thresholds, and the shift of the current that corrects the mean."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.analysis import NeuronSite
from snncc.config import Config
from snncc.context import WeightCorrection
from snncc.neurons.burst_if import simulate
from snncc.neurons.response import Response, flat
from snncc.neurons.spread import spread
from snncc.neurons.threshold import ChannelHistogram, minimum_error_thresholds
from snncc.passes.layer import Layer
from snncc.passes.layer_sums import Sums, total
from snncc.passes.pattern_thresholds import pattern_thresholds
from snncc.passes.range_thresholds import range_thresholds

SWEEPS = 2
"""How often the mean error of a neuron's output is added to its bias: after two sweeps what is left is negligible."""
DEFERRED = 0.5
"""Share of the initial potential that a neuron gets as current over the T steps instead of at the start.

The closed form stays what it is, but a neuron is less easily made to fire by uneven first currents, which it could not
take back. Neurons with a constant current have no use for it.
"""
_LEAST_MOVED = 0.1
"""Smallest share of neurons that a shift is taken to move: bounds the steps of channels that are almost always off."""
CERTAIN = 2.0
"""A gain counts as far as it is beyond so many of its standard errors: from few values it says little about others."""
FEW_SAMPLES = 32
"""Up to so many samples, the standard error is taken from what each of them says."""
_GAIN_RANGE = (0.5, 2.0)
"""Gains beyond this say that a channel is broken, not that it is damped: they are cut."""


def match(values: Sums, *, gain: bool, samples: Sequence[Sums] = ()) -> WeightCorrection:
    """Return the correction that gives the SNN's values the ANN's mean and, with `gain`, its standard deviation.

    Clipping and rounding damp a network layer by layer; the factor undoes that where it arises. It is drawn to 1 by
    what it may owe to chance: the logarithm of the ratio of two standard deviations, from n pairs of normal values with
    the correlation r, has the variance (1 - r²)/(n - 1), as each of the two has 1/2(n - 1) and both share r² of it.

    That takes the positions of a sample for independent. Where there are few samples, the variance is the jackknife's
    instead, if it is larger: that of the estimates that leave one sample out, times (n - 1)²/n. As it is uncertain
    itself, no channel counts as surer than the median one. One sample alone tells nothing of others: the factor is 1.

    Args:
        values: the sums over all samples.
        gain: whether to look for a factor.
        samples: the sums of each sample, if there are few.
    """
    factor = np.ones_like(values.ann)
    mean_ann, mean_snn = values.ann / values.count, values.snn / values.count
    if gain:
        ratio, variance = _log_ratio(values)
        if samples:
            variance = np.maximum(variance, _jackknife(samples))
        size, chance = np.square(ratio), CERTAIN**2 * variance
        factor = np.exp(ratio * np.divide(size - chance, size, out=np.zeros_like(size), where=size > chance))
    shift = mean_ann - factor * mean_snn
    return WeightCorrection(factor.astype(np.float32), shift.astype(np.float32))


def _log_ratio(values: Sums) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the logarithm of the ratio of the standard deviations, ANN to SNN, and its variance, [C] each."""
    mean_ann, mean_snn = values.ann / values.count, values.snn / values.count
    var_ann = values.ann_squared / values.count - np.square(mean_ann)
    var_snn = values.snn_squared / values.count - np.square(mean_snn)
    # Below single precision's resolution of the values themselves a variance is rounding noise.
    known = (var_ann > 1e-10 * values.ann_squared / values.count) & (
        var_snn > 1e-10 * values.snn_squared / values.count
    )
    ratio = np.divide(var_ann, var_snn, out=np.ones_like(var_ann), where=known & (var_snn > 0))
    factor = np.clip(np.sqrt(np.maximum(ratio, 0.0)), *_GAIN_RANGE)
    covariance = values.product / values.count - mean_ann * mean_snn
    shared = np.divide(np.square(covariance), var_ann * var_snn, out=np.ones_like(factor), where=known)
    return np.log(factor), np.clip(1 - shared, 0.0, 1.0) / max(1, values.count - 1)


def _jackknife(samples: Sequence[Sums]) -> NDArray[np.float64]:
    """Return the variance of the logarithm by the jackknife (Tukey 1958), [C], at least that of the median channel."""
    n = len(samples)
    if n == 1:
        return np.full_like(samples[0].ann, np.inf)
    left_out = [_log_ratio(total([*samples[:i], *samples[i + 1 :]]))[0] for i in range(n)]
    variance: NDArray[np.float64] = np.var(left_out, axis=0) * (n - 1)
    return np.asarray(np.maximum(variance, np.median(variance)))


class LayerFit:
    """Fits unsigned neurons to a layer.

    Attributes:
        layer: the layer.
        v_init: initial potential that the neurons keep; the rest is deferred, see `DEFERRED`.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        v_init = layer.config.v_init
        self.deferred = 0.0 if layer.entry.snn is None else DEFERRED * v_init
        self.v_init = v_init - self.deferred

    @functools.cached_property
    def thresholds(self) -> NDArray[np.float32]:
        """θ of minimum squared error (not θe: τ is applied by the neuron), float32 [C] or [1]."""
        layer, ratio = self.layer, self.layer.config.threshold_ratio
        theta = thresholds(layer.positive, layer.site, layer.config)
        return spread(theta, ratio, [layer.positive], layer.sensitivity, saturation(layer.site, layer.config))

    @functools.cached_property
    def effective(self) -> NDArray[np.float32]:
        """θe = τ·θ."""
        return self.thresholds * np.float32(self.layer.config.threshold_ratio)

    def correct(self) -> tuple[NDArray[np.float32], list[Response]]:
        """Return the shift of the current per channel, float32 [C], and the response with it.

        The deferred part of the initial potential comes first. Then the mean current is matched to the ANN's, and what
        error is left in the mean output is added.
        """
        target, moved, size = self._target
        shift = self._matched_shift()
        # A shift moves the output only of neurons that are neither off nor saturated.
        step = 1 / np.maximum(moved, _LEAST_MOVED * size)
        error = target - self._output(self.trial)
        best, smallest = shift, np.abs(error)
        self.forget()
        for _ in range(SWEEPS):
            shift = shift + error * step
            tried = self._spikes(shift, self.layer.enough)
            error = target - self._output(tried)
            self.layer.done(tried)
            # Where the output jumps, a step may overshoot; channels don't depend on each other, so each keeps its best.
            better = np.abs(error) < smallest
            best, smallest = np.where(better, shift, best), np.where(better, np.abs(error), smallest)
        return best.astype(np.float32), self._spikes(best)

    @functools.cached_property
    def trial(self) -> list[Response]:
        """What the layer does with enough samples to judge by, its mean current matched to the ANN's; no counts."""
        return self._spikes(self._matched_shift(), self.layer.enough)

    def forget(self) -> None:
        """Give back the arrays of the trial; another one is made if it is asked for again."""
        self.layer.done(self.__dict__.pop("trial", ()))

    def _spikes(self, shift: NDArray[np.float64], which: Sequence[range] | None = None) -> list[Response]:
        """Simulate the layer; on some samples of each chunk, without keeping counts, if they are given."""
        c, unit, extra = self.layer.config, self.layer.along(self.effective), self.layer.along(shift)

        def of_chunk(chunk: int) -> Response:
            (values, correction), samples = self.layer.arriving(chunk), None if which is None else which[chunk]
            return simulate(
                values,
                unit,
                c.timesteps,
                c.max_burst,
                self.v_init,
                extra,
                which=samples,
                correction=correction,
                keep=which is None,
                empty=self.layer.store.take_as,
            )

        return self.layer.pool.each(of_chunk)

    def _matched_shift(self) -> NDArray[np.float64]:
        """Return the deferred part of the initial potential and what gives the current the ANN's mean, [C]."""
        deferred = self.effective.astype(np.float64) * (self.deferred / self.layer.config.timesteps)
        return np.asarray(deferred + self.layer.missing)

    @functools.cached_property
    def _target(self) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
        """Of the samples to judge by: per channel the ANN's summed output, how many neurons a shift moves; and all."""
        parts = self.layer.pool.each(self._target_of)
        summed, moved = (self.layer.per_channel(np.sum(values, axis=0)) for values in zip(*parts, strict=True))
        samples = sum(map(len, self.layer.enough))
        return summed, moved, samples * (self.layer.target[0][0].size // self.layer.channels)

    def _target_of(self, chunk: int) -> tuple[NDArray[Any], NDArray[Any]]:
        which = self.layer.enough[chunk]
        active = flat(self.layer.target[chunk][which.start :: which.step], 1)
        moved = (active > 0) & (active < self.layer.site.activation.upper)
        return active.sum(axis=0, dtype=np.float64), moved.sum(axis=0)

    def _output(self, responses: list[Response]) -> NDArray[np.float64]:
        """Sum the mean outputs per channel."""
        fired = sum(flat(r.fired, 1).sum(axis=0, dtype=np.int64) for r in responses)
        per_channel = self.layer.per_channel(np.asarray(fired))
        return np.asarray(self.effective.astype(np.float64) * per_channel / self.layer.config.timesteps)


def saturation(site: NeuronSite, config: Config) -> float:
    """Return the bound of θe: an unsigned neuron saturates at ψ·θe, and where its activation does or below."""
    return site.activation.upper / config.max_burst


def thresholds(histogram: ChannelHistogram, site: NeuronSite, config: Config) -> NDArray[np.float32]:
    """Return the thresholds of a layer before τ, float32 [C], or [1] for one per layer.

    τ makes them larger on purpose; see `snncc.neurons.spread`. An activation that was trained in steps has those of its
    training only where τ is 1.
    """
    if not config.per_channel:
        histogram = histogram.pooled()
    known = pattern_thresholds(site, config, len(histogram.counts), signed=False)
    if known is not None:
        return known
    upper = site.activation.upper
    if config.threshold_method != "mse":
        percent = 100.0 if config.threshold_method == "max" else config.percentile
        return range_thresholds(histogram, percent, config.max_burst, upper)
    return minimum_error_thresholds(histogram, config.timesteps, config.max_burst, config.v_init, upper=upper)
