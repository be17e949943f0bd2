"""Calibrating one layer of signed burst neurons: thresholds on both sides of zero, spikes, errors.

A signed neuron takes back what it emitted too early, so at the last timestep its output is that of the closed form on
the mean of what arrived, unless ψ held it back: there is no unevenness to weigh in the threshold search, and no
potential to defer.

ψ does hold it back where currents jump by more than ψ·θe from one timestep to the next, as they do behind many layers
of signed neurons, each of which takes back and emits anew. With many levels a larger θ costs little: it is doubled as
long as that lowers the simulated error.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from snncc.analysis import Form, NeuronSite
from snncc.config import Config
from snncc.neurons.response import Response
from snncc.neurons.signed_burst import simulate
from snncc.neurons.spread import spread
from snncc.neurons.threshold import ChannelHistogram, signed_thresholds
from snncc.passes.layer import Layer
from snncc.passes.pattern_thresholds import pattern_thresholds
from snncc.passes.range_thresholds import range_thresholds

BETTER = 0.9
"""A signed neuron must lower the squared error of an unsigned one to this share of it: it costs negative spikes. A
larger θ must lower that of the smaller one as much."""
MANY_LEVELS = 256
"""From so many levels T·ψ on, larger thresholds are tried: with fewer, rounding costs more than ψ does."""


def two_sided_thresholds(
    positive: ChannelHistogram, negative: ChannelHistogram, site: NeuronSite, config: Config
) -> NDArray[np.float32]:
    """Return the thresholds of a layer of signed neurons before τ, float32 [C], or [1] for one per layer.

    An activation that was trained in steps has those of its training only where τ is 1. A clipped activation's bound is
    the neuron's own: with a larger τ, θe may be any.

    Args:
        positive: of the values above zero, per channel.
        negative: of the values below zero, with their sign changed.
        site: the layer.
        config: the options.
    """
    if not config.per_channel:
        positive, negative = positive.pooled(), negative.pooled()
    known = pattern_thresholds(site, config, len(positive.counts), signed=True)
    if known is not None:
        return known
    c, upper = config, site.activation.upper
    if c.threshold_method == "mse":
        return signed_thresholds(positive, negative, c.timesteps, c.max_burst, c.v_init, upper=upper)
    percent = 100.0 if c.threshold_method == "max" else c.percentile
    larger = positive if positive.maximum().sum() >= negative.maximum().sum() else negative
    return range_thresholds(larger, percent, c.max_burst, upper)


class SignedFit:
    """Fits signed neurons to a layer.

    Attributes:
        layer: the layer.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    @functools.cached_property
    def closed_form(self) -> NDArray[np.float32]:
        """θ of minimum squared error of the closed form (not θe: τ is applied by the neuron), float32 [C] or [1]."""
        layer, sides = self.layer, (self.layer.positive, self.layer.negative)
        theta = two_sided_thresholds(*sides, layer.site, layer.config)
        return spread(theta, layer.config.threshold_ratio, sides, layer.sensitivity)

    @functools.cached_property
    def shift(self) -> NDArray[np.float32] | None:
        """What gives the current the ANN's mean, float32 [C]; None where there is no current to shift."""
        entry = self.layer.entry
        if self.layer.site.activation.encodes or entry.snn is None or entry.matched:
            return None
        return self.layer.missing.astype(np.float32)

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """θ of the smallest simulated error, float32 [C] or [1]."""
        return self._chosen[0]

    @property
    def effective(self) -> NDArray[np.float32]:
        """θe = τ·θ."""
        return self._ratio * self.thresholds

    @property
    def matched(self) -> list[Response]:
        """What the layer does with its mean current matched to the ANN's, per chunk."""
        return self._chosen[1]

    def squared_error(self) -> float:
        """Return the squared error of the mean output over the samples that are enough to judge by."""
        return self._error(self.thresholds, self.matched)

    def forget(self) -> None:
        """Give back the arrays of what was simulated; it is simulated again if it is asked for."""
        _, responses = self.__dict__.pop("_chosen", (None, ()))
        self.layer.done(responses)

    @property
    def _ratio(self) -> np.float32:
        return np.float32(self.layer.config.threshold_ratio)

    @functools.cached_property
    def _chosen(self) -> tuple[NDArray[np.float32], list[Response]]:
        theta, c, site = self.closed_form, self.layer.config, self.layer.site
        responses = self._simulated(theta)
        if c.timesteps * c.max_burst < MANY_LEVELS or np.isfinite(site.activation.upper) or site.quantised is not None:
            return theta, responses  # a bounded neuron saturates where its activation does
        error = self._error(theta, responses)
        while error > 0:
            larger = self._simulated(2 * theta)
            if not (found := self._error(2 * theta, larger)) < BETTER * error:
                self.layer.done(larger)
                break
            self.layer.done(responses)
            theta, responses, error = 2 * theta, larger, found
        return theta, responses

    def _error(self, theta: NDArray[np.float32], responses: list[Response]) -> float:
        judged = zip(responses, self.layer.enough, strict=True)
        return self.layer.squared_error(
            [r.fired[which.start :: which.step] for r, which in judged], self._ratio * theta
        )

    def _simulated(self, theta: NDArray[np.float32]) -> list[Response]:
        """Simulate the layer with its mean current matched to the ANN's."""
        layer, c = self.layer, self.layer.config
        constant = layer.entry.snn is None and layer.site.activation.encodes
        means = constant or layer.site.form is Form.MEAN
        unit = layer.along(self._ratio * theta)
        shift = None if self.shift is None else layer.along(self.shift)

        def of_chunk(chunk: int) -> Response:
            values, correction = (layer.target[chunk][None], None) if constant else layer.arriving(chunk)
            bound = layer.site.activation.upper
            return simulate(
                values,
                unit,
                c.timesteps,
                c.max_burst,
                c.v_init,
                upper=bound,
                means=means,
                shift=shift,
                correction=correction,
                empty=layer.store.take_as,
            )

        return layer.pool.each(of_chunk)
