"""A layer's threshold ratio τ, spread over its channels: the spikes are saved where that costs least."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.threshold import ChannelHistogram

_HALVINGS = 60
"""Of the interval that μ is looked for in: beyond double precision."""


def spread(
    theta: NDArray[np.float32],
    ratio: float,
    values: Sequence[ChannelHistogram],
    sensitivity: NDArray[np.float64] | None,
    highest: float = math.inf,
) -> NDArray[np.float32]:
    """Return thresholds that, times τ, leave 1/τ of the spikes at the least error in what follows.

    A channel with the summed activation A emits A/θe spikes. It rounds its p active values with a squared error in
    proportion to θe², which disturbs what follows by s times as much. Of all θe that are no smaller than θ and leave
    1/τ of the spikes, Σ A/θe = (1/τ) Σ A/θ, the least Σ p s θe² has (Lagrange)

        θe = max(θ, μ (A / p s)^(1/3))

    Args:
        theta: θ per channel for τ = 1, float32 [C] or [1].
        ratio: τ.
        values: histograms of the activation's values, of one side of zero each.
        sensitivity: s, float64 [C]; None: not known, so that every channel gets τ.
        highest: bound of θe.

    Returns:
        θe/τ, float32, of the shape of `theta`.
    """
    if ratio == 1:
        return theta
    even = np.minimum(theta, np.float32(highest / ratio))
    if sensitivity is None or len(theta) != len(sensitivity):
        return even
    activity = np.sum([histogram.activity() for histogram in values], axis=0)
    active = np.sum([histogram.counts.sum(axis=1) for histogram in values], axis=0)
    alive = (activity > 0) & (sensitivity > 0)
    if not alive.any():
        return even
    own, amount = theta[alive].astype(np.float64), activity[alive]
    shape = np.cbrt(amount / (active[alive] * sensitivity[alive]))
    wanted = float((amount / own).sum()) / ratio
    # At the lower bound no channel is above its θ, at the upper one all have τ times it, or more.
    low, high = float((own / shape).min()), ratio * float((own / shape).max())
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        if float((amount / np.maximum(own, middle * shape)).sum()) > wanted:
            low = middle
        else:
            high = middle
    result = even.astype(np.float64)
    result[alive] = np.minimum(np.maximum(own, high * shape), highest) / ratio
    return result.astype(np.float32)
