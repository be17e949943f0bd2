"""Thresholds of minimum squared error from histograms.

For a current that is constant over time the mean output of the burst neuron is a staircase q(a) with L = T·ψ steps,
q_j = jθ/T, which rises at z_j = (j - v0)θ/T. With the activation's density h and its tail integrals
G0(z) = ∫_z h, G1(z) = ∫_z a·h, the squared error against the ANN is, by summation by parts,

    E(θ) = ∫ a²h - 2 (θ/T) Σ_j G1(z_j) + (θ/T)² Σ_j (2j - 1) G0(z_j),      j = 1..L.

So a histogram is all that is needed, and a candidate θ costs L look-ups, however large the calibration set. With many
steps, of which none matters alone, one look-up does: up to the largest output R = Lθ/T, rounding has the mean
(1/2 - v0)θ/T and the variance (θ/T)²/12, and with G2(z) = ∫_z a²h

    E(θ) = G2(R) - 2R G1(R) + R² G0(R) + (θ/T)² (1/12 + (1/2 - v0)²) (G0(0) - G0(R)).

The spikes that a neuron really gets do not arrive evenly. What that costs, a neuron that fired too early and can't take
it back, grows with the step θ/T like the rounding error (θ/T)²/12 and is a few times as large (measured on networks of
7 to 19 layers: 1.3 to 7 times, more with depth). The search adds it for every active neuron, so that it weighs clipping
against the error of the neuron that will run, not of an ideal one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.compiled import compiled

_MAX_LEVELS = 4096  # beyond this many steps the quantisation error is far below the histogram's resolution
_SMOOTH = 256  # from this many steps on the error is that of a staircase without corners: they are 0.4 % of the reach
_TINY = 1e-30  # no activation of a trained network: a channel that has nothing larger is dead
UNEVENNESS = 4.0
"""Error by uneven arrival, as a multiple of the rounding error, for many timesteps; there is none at T = 1."""
BEYOND = 2.0
"""The next value may be larger than all that were seen: the search counts one at this multiple of the largest,"""
UNSEEN = 0.05
"""with this weight: a twentieth of a value that was seen."""
FEW = 32
"""Fewer values say little of how large the next may be: such a channel is taken to be like the median one,"""
FURTHEST = 10.0
"""unless that is larger by more than this: its own scale counts too."""
DEVIATIONS = 3.0
"""In a channel with few values, one so many standard deviations above the mean current is likely among the next."""


class ChannelHistogram:
    """Streaming histogram of positive values per channel, with a range that doubles as larger values arrive.

    Doubling merges pairs of bins, so the result depends on the values only, not on their order.

    Attributes:
        counts: float64 [C, B], number of values per bin.
        width: float64 [C], width of a bin; bin k holds the values in (k·width, (k+1)·width].
        seen: number of values per channel, those that aren't positive included.
        likely: float64 [C], how large a value is likely by what is known besides the values; 0 if nothing is.
    """

    def __init__(self, channels: int, bins: int = 2048) -> None:
        self.counts = np.zeros((channels, bins))
        self.width = np.zeros(channels)
        self.seen = 0
        self.likely = np.zeros(channels)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values, float32 [N, C, M]; those that aren't above 1e-30 are only counted in `seen`."""
        self.seen += values.shape[0] * values.shape[2]
        top = np.zeros(len(self.counts))
        _maximum(values, top)
        self._make_room(top)
        inverse = np.divide(1.0, self.width, out=np.zeros_like(self.width), where=self.width > 0)
        _count(values, inverse.astype(np.float32), self.counts)

    def merge(self, other: ChannelHistogram) -> None:
        """Count what another histogram of the same size counts; that one is used up."""
        for one, two in ((self, other), (other, self)):
            one.width = np.where(one.width > 0, one.width, two.width)
            one._make_room(two.width * two.counts.shape[1])
        self.counts += other.counts
        self.seen += other.seen
        self.likely = np.maximum(self.likely, other.likely)

    def _make_room(self, top: NDArray[np.float64]) -> None:
        bins = self.counts.shape[1]
        fresh = (self.width == 0) & (top > _TINY)
        # A power of two keeps the edges independent of which batch came first.
        self.width[fresh] = 2.0 ** np.ceil(np.log2(top[fresh])) / bins
        while (small := (self.width > 0) & (self.width * bins < top)).any():
            merged = self.counts[small].reshape(int(small.sum()), bins // 2, 2).sum(axis=2)
            self.counts[small] = np.concatenate([merged, np.zeros_like(merged)], axis=1)
            self.width[small] *= 2

    def pooled(self) -> ChannelHistogram:
        """Return the histogram of all channels together, as one channel."""
        bins = self.counts.shape[1]
        result = ChannelHistogram(1, bins)
        result.seen = self.seen * len(self.counts)
        result.likely[0] = self.likely.max(initial=0.0)
        if not (self.width > 0).any():
            return result
        result.width[0] = self.width.max()
        for counts, ratio in zip(self.counts, self.width / result.width[0], strict=True):
            index = ((np.arange(bins) + 0.5) * ratio).astype(np.int64)  # of the bin that holds this one's centre
            result.counts[0] += np.bincount(index, weights=counts, minlength=bins)
        return result

    def activity(self) -> NDArray[np.float64]:
        """Return the sum of the positive values, float64 [C]."""
        return np.asarray((self.counts * (np.arange(self.counts.shape[1]) + 0.5)).sum(axis=1) * self.width)

    def maximum(self) -> NDArray[np.float64]:
        """Return the upper edge of the highest occupied bin, float64 [C]; 0 for a channel without values."""
        bins = self.counts.shape[1]
        occupied = self.counts > 0
        highest = bins - np.argmax(occupied[:, ::-1], axis=1)
        return np.asarray(np.where(occupied.any(axis=1), highest * self.width, 0.0))


def squared_error(
    histogram: ChannelHistogram, theta: NDArray[np.float64], timesteps: int, max_burst: int, v_init: float
) -> NDArray[np.float64]:
    """Summed squared error of the closed form against the activation, less the constant ∫a²h.

    Args:
        histogram: of the ANN's activation.
        theta: candidates for the effective threshold, float64 [C, K].
        timesteps: T.
        max_burst: ψ.
        v_init: v0.

    Returns:
        float64 [C, K].
    """
    errors = np.zeros_like(theta)
    levels = timesteps * max_burst
    of_steps = _smooth_error if levels >= _SMOOTH else _staircase_error
    of_steps(histogram.counts, histogram.width, theta / timesteps, levels, float(v_init), errors)
    return errors


@compiled
def _maximum(values: NDArray[np.float32], top: NDArray[np.float64]) -> None:
    """Raise top [C] to the largest of values [N, C, M]."""
    for n in range(values.shape[0]):
        for c in range(values.shape[1]):
            largest = np.float32(top[c])
            for i in range(values.shape[2]):
                largest = max(largest, values[n, c, i])
            top[c] = largest


@compiled
def _count(values: NDArray[np.float32], inverse: NDArray[np.float32], counts: NDArray[np.float64]) -> None:
    """Add values above 1e-30 [N, C, M] to counts [C, B]; inverse [C] is 1/width, 0 where a channel has none."""
    samples, channels, size = values.shape
    bins = counts.shape[1]
    # Without a branch, and in turns in several tables: one after the other would wait for the last one's sum.
    found, tiny, one = np.zeros((4, bins + 1), np.int64), np.float32(_TINY), np.float32(1)
    for c in range(channels):
        if inverse[c] == 0:
            continue
        found[:] = 0
        for n in range(samples):
            for i in range(size):
                # Rounding up, a value on an edge goes where it goes when bins are merged; number 0 isn't positive.
                number = max(np.ceil(values[n, c, i] * inverse[c]), one)
                number = number if values[n, c, i] > tiny else np.float32(0)  # what isn't a number either
                found[i & 3, np.int64(min(number, np.float32(bins)))] += 1
        for k in range(bins):
            counts[c, k] += found[0, k + 1] + found[1, k + 1] + found[2, k + 1] + found[3, k + 1]


@compiled
def _staircase_error(
    counts: NDArray[np.float64],
    width: NDArray[np.float64],
    unit: NDArray[np.float64],
    levels: int,
    v_init: float,
    errors: NDArray[np.float64],
) -> None:
    """Fill errors [C, K] for steps θ/T of unit [C, K]: see the module's docstring. Empty channels are left out.

    The density is uniform within each of the bins of counts [C, B]; G0 and G1 are known at the edges.
    """
    (channels, candidates), bins = unit.shape, counts.shape[1]
    above0, above1 = np.zeros(bins + 1), np.zeros(bins + 1)
    for c in range(channels):
        if width[c] == 0:
            continue
        for b in range(bins - 1, -1, -1):
            above0[b] = above0[b + 1] + counts[c, b]
            above1[b] = above1[b + 1] + counts[c, b] * (b + 0.5) * width[c]
        for k in range(candidates):
            linear, quadratic = 0.0, 0.0
            for j in range(1, levels + 1):
                position = unit[c, k] * (j - v_init) / width[c]
                if position >= bins:
                    break  # nothing lies above
                b = int(position)
                part, density = position - b, counts[c, b]
                quadratic += (above0[b] - part * density) * (2 * j - 1)
                linear += above1[b] - density * width[c] * (b * part + part * part / 2)
            errors[c, k] = unit[c, k] ** 2 * quadratic - 2 * unit[c, k] * linear


@compiled
def _smooth_error(
    counts: NDArray[np.float64],
    width: NDArray[np.float64],
    unit: NDArray[np.float64],
    levels: int,
    v_init: float,
    errors: NDArray[np.float64],
) -> None:
    """Fill errors [C, K] like `_staircase_error`, for so many levels that no single one matters."""
    (channels, candidates), bins = unit.shape, counts.shape[1]
    above0, above1, above2 = np.zeros(bins + 1), np.zeros(bins + 1), np.zeros(bins + 1)
    rounding = 1 / 12 + (0.5 - v_init) ** 2
    for c in range(channels):
        if width[c] == 0:
            continue
        for b in range(bins - 1, -1, -1):
            above0[b] = above0[b + 1] + counts[c, b]
            above1[b] = above1[b + 1] + counts[c, b] * (b + 0.5) * width[c]
            above2[b] = above2[b + 1] + counts[c, b] * (b * (b + 1) + 1 / 3) * width[c] ** 2
        for k in range(candidates):
            most = unit[c, k] * levels
            position = min(most / width[c], np.float64(bins))
            b = min(int(position), bins - 1)
            part, density = position - b, counts[c, b]
            beyond0 = above0[b] - part * density
            beyond1 = above1[b] - density * width[c] * (b * part + part**2 / 2)
            beyond2 = above2[b] - density * width[c] ** 2 * (b * b * part + b * part**2 + part**3 / 3)
            clipped = beyond2 - 2 * most * beyond1 + most**2 * beyond0
            errors[c, k] = clipped + unit[c, k] ** 2 * rounding * (above0[0] - beyond0) - above2[0]


def minimum_error_thresholds(
    histogram: ChannelHistogram,
    timesteps: int,
    max_burst: int,
    v_init: float,
    upper: float = float("inf"),
    candidates: int = 64,
    unevenness: float = UNEVENNESS,
    unseen: float = UNSEEN,
) -> NDArray[np.float32]:
    """Return the effective threshold per channel that minimises the squared error of the neuron's output.

    That is the error of the closed form plus what uneven arrival adds to it; see the module's docstring. A geometric
    grid over two decades below "the largest value is just reached", then two rounds of refinement.

    Args:
        histogram: of the ANN's activation per channel.
        timesteps: T.
        max_burst: ψ.
        v_init: v0, the one that the neuron will run with.
        upper: bound of a clipped activation; θe·ψ stays at or below it, so that the neuron saturates there too.
        candidates: size of the grid.
        unevenness: see `UNEVENNESS`; 0 for the error of the closed form alone.
        unseen: see `UNSEEN`; 0 for the error of the values that were seen alone.

    Returns:
        float32 [C], positive. A channel in which no positive value was seen, nor is likely, gets the median of the
        others, or 1.
    """
    timesteps = max(1, min(timesteps, _MAX_LEVELS // max_burst))
    reach = np.minimum(_next_value(histogram), upper)
    weight = unevenness * (1.0 - 1.0 / timesteps) / 12.0 * histogram.counts.sum(axis=1, keepdims=True)

    def error(candidate: NDArray[np.float64]) -> NDArray[np.float64]:
        seen = squared_error(histogram, candidate, timesteps, max_burst, v_init)
        seen += weight * np.square(candidate / timesteps)
        return np.asarray(seen + unseen * _unseen_error(candidate * max_burst, reach))

    return _filled(_search(error, reach / max_burst, candidates), reach > 0, upper / max_burst)


def signed_thresholds(
    positive: ChannelHistogram,
    negative: ChannelHistogram,
    timesteps: int,
    max_burst: int,
    v_init: float,
    upper: float = float("inf"),
    candidates: int = 64,
    unseen: float = UNSEEN,
) -> NDArray[np.float32]:
    """Return the effective threshold per channel that minimises the squared error of a signed neuron's closed form.

    On the negative side floor(-a + v0) = -floor(a + 1 - v0) almost everywhere, so it is the positive side's staircase
    with 1 - v0 in place of v0.

    Args:
        positive: of the values above zero, per channel.
        negative: of the values below zero, with their sign changed.
        timesteps: T.
        max_burst: ψ.
        v_init: v0, the one that the neuron will run with.
        upper: bound of a clipped activation; θ·ψ stays at or below it.
        candidates: size of the grid.
        unseen: see `UNSEEN`; 0 for the error of the values that were seen alone.

    Returns:
        float32 [C], positive. A channel without values gets the median of the others, or 1.
    """
    timesteps = max(1, min(timesteps, _MAX_LEVELS // max_burst))
    reach = np.minimum(_next_value(positive, negative), upper)
    sides = [(h, v) for h, v in ((positive, v_init), (negative, 1.0 - v_init)) if h.counts.any()]

    def error(candidate: NDArray[np.float64]) -> NDArray[np.float64]:
        errors = [squared_error(histogram, candidate, timesteps, max_burst, v) for histogram, v in sides]
        return np.asarray(sum(errors) + unseen * _unseen_error(candidate * max_burst, reach))

    return _filled(_search(error, reach / max_burst, candidates), reach > 0, upper / max_burst)


def _filled(theta: NDArray[np.float64], alive: NDArray[np.bool_], highest: float) -> NDArray[np.float32]:
    """Return thresholds [C] of at most `highest`; a channel without values gets the median of the others, or 1."""
    filled = np.where(alive, theta, np.median(theta[alive]) if alive.any() else 1.0)
    return np.minimum(filled, highest).astype(np.float32)


def _next_value(*sides: ChannelHistogram) -> NDArray[np.float64]:
    """Return how large the next value may be in each channel, whichever its sign, [C]; 0 for a dead one."""
    top = np.max([side.maximum() for side in sides], axis=0)
    count = np.sum([side.counts.sum(axis=1) for side in sides], axis=0)
    likely = np.max([side.likely for side in sides], axis=0)
    known = np.maximum(top, np.where(likely > _TINY, likely, 0.0))
    typical = np.median(known[known > 0]) if known.any() else 0.0
    return np.asarray(BEYOND * np.where(count < FEW, np.clip(typical, known, FURTHEST * known), top))


def _unseen_error(covered: NDArray[np.float64], reach: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared error of clipping one value at `reach` [C] to what a neuron can say at most, `covered` [C, K].

    Among many values it weighs nothing; with few of them, or many timesteps, it keeps the neuron from being fitted to
    the largest value of the calibration data.
    """
    return np.asarray(np.square(np.maximum(reach[:, None] - covered, 0.0)))


def _search(
    error: Callable[[NDArray[np.float64]], NDArray[np.float64]], high: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """Minimise `error` ([C, K] to [C, K]) over thresholds up to `high` [C]."""
    grid = np.geomspace(0.01, 1.0, count)
    theta = high[:, None] * grid
    ratio = grid[1] / grid[0]
    rows = np.arange(len(high))
    best = high
    for _ in range(3):
        best = theta[rows, np.argmin(error(theta), axis=1)]
        span = np.geomspace(1 / ratio, ratio, 17)
        theta = np.minimum(best[:, None] * span, high[:, None])
        ratio = span[1] / span[0]
    return best
