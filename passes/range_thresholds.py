"""Thresholds from the range of an activation: its maximum, or a percentile that leaves outliers out.

A neuron emits at most θ·ψ in a timestep. So θ = range/ψ lets it reach the whole range: for ψ = 1 that is the maximum of
Diehl et al. 2015 and of Deng & Gu 2021, or the robust percentile of Rueckauer et al. 2017.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.threshold import ChannelHistogram


def percentiles(histogram: ChannelHistogram, percent: float) -> NDArray[np.float64]:
    """Return the percentile of all values per channel, those that aren't positive included, float64 [C].

    Within a bin values count as evenly spread, so the result is off by at most the width of a bin. 0 where the
    percentile isn't positive.
    """
    if percent >= 100.0:
        return histogram.maximum()
    counts, bins = histogram.counts, histogram.counts.shape[1]
    above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]  # from bin k up
    wanted = (1.0 - percent / 100.0) * counts.dtype.type(histogram.seen)
    holds = above > wanted
    k = bins - 1 - np.argmax(holds[:, ::-1], axis=1)  # the last bin with more than enough from it up
    row = np.arange(len(counts))
    part = np.divide(above[row, k] - wanted, counts[row, k], out=np.zeros(len(counts)), where=counts[row, k] > 0)
    return np.asarray(np.where(holds.any(axis=1), (k + np.clip(part, 0.0, 1.0)) * histogram.width, 0.0))


def range_thresholds(histogram: ChannelHistogram, percent: float, max_burst: int, upper: float) -> NDArray[np.float32]:
    """Return the effective threshold per channel that lets ψ spikes reach the percentile.

    Args:
        histogram: of the ANN's activation per channel.
        percent: the percentile, 100 for the maximum.
        max_burst: ψ.
        upper: bound of a clipped activation; θe·ψ stays at or below it.

    Returns:
        float32 [C], positive. A channel whose percentile isn't positive gets its maximum, a dead one the median of the
        others, or 1.
    """
    reach = percentiles(histogram, percent)
    reach = np.where(reach > 0, reach, histogram.maximum())
    alive = reach > 0
    reach = np.where(alive, reach, np.median(reach[alive]) if alive.any() else max_burst)
    return (np.minimum(reach, upper) / max_burst).astype(np.float32)
