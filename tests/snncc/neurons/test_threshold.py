"""Thresholds from histograms against brute force over the samples themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncc.neurons.burst_if import closed_form
from snncc.neurons.signed_burst import closed_form as signed_closed_form
from snncc.neurons.threshold import (
    ChannelHistogram,
    _staircase_error,
    minimum_error_thresholds,
    signed_thresholds,
    squared_error,
)

SETTINGS = [(1, 1, 0.0), (1, 1, 0.5), (4, 1, 0.5), (4, 4, 0.0), (8, 4, 0.5), (3, 2, 0.9), (32, 4, 0.5)]
"""T, ψ, v0."""

DISTRIBUTIONS = {
    "half normal": lambda rng, n: np.abs(rng.normal(size=n)),
    "rectified": lambda rng, n: rng.normal(-0.5, 1.0, n),
    "exponential": lambda rng, n: rng.exponential(3.0, n),
    "uniform": lambda rng, n: rng.uniform(0, 50, n),
    "heavy tail": lambda rng, n: rng.lognormal(-3.0, 1.5, n),
    "two values": lambda rng, n: rng.choice([0.3, 7.0], n, p=[0.9, 0.1]),
    "one outlier": lambda rng, n: np.append(np.abs(rng.normal(size=n - 1)), 40.0),
}


def histogram_of(*chunks: np.ndarray) -> ChannelHistogram:
    """Fill a histogram with chunks [N, C, M]."""
    histogram = ChannelHistogram(chunks[0].shape[1])
    for chunk in chunks:
        histogram.add(chunk.astype(np.float32))
    return histogram


def brute_error(samples: np.ndarray, theta: float, timesteps: int, max_burst: int, v_init: float) -> float:
    output = closed_form(samples, np.array(theta), timesteps, max_burst, v_init)
    return float(np.square(output - np.maximum(samples, 0)).sum())


def assert_same(a: ChannelHistogram, b: ChannelHistogram) -> None:
    np.testing.assert_array_equal(a.counts, b.counts)
    np.testing.assert_array_equal(a.width, b.width)
    assert a.seen == b.seen


@pytest.mark.parametrize(("timesteps", "max_burst", "v_init"), SETTINGS)
def test_squared_error_of_a_density_that_is_uniform_within_bins(timesteps: int, max_burst: int, v_init: float) -> None:
    """The formula is exact for such a density; 200 points in each bin stand for it here."""
    samples = np.random.default_rng(3).exponential(1.0, 1000)
    histogram = histogram_of(samples[:, None, None])
    bins = histogram.counts.shape[1]
    points = ((np.arange(200) + 0.5) / 200 + np.arange(bins)[:, None]) * histogram.width[0]
    weights = histogram.counts[0][:, None] / 200
    thetas = np.geomspace(0.02, 1.5, 7) * samples.max() / max_burst
    errors = squared_error(histogram, thetas[None], timesteps, max_burst, v_init)[0]
    energy = float((weights * np.square(points)).sum())
    for theta, error in zip(thetas, errors, strict=True):
        output = closed_form(points, np.array(theta), timesteps, max_burst, v_init)
        assert energy + error == pytest.approx(float((weights * np.square(output - points)).sum()), abs=2e-5 * energy)


@pytest.mark.parametrize(("timesteps", "max_burst", "v_init"), SETTINGS)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_squared_error_is_that_of_the_samples(name: str, timesteps: int, max_burst: int, v_init: float) -> None:
    """To 1 % of the energy: a value may lie anywhere in one of the 2,048 bins, on either side of a step."""
    samples = DISTRIBUTIONS[name](np.random.default_rng(3), 4000)
    thetas = np.geomspace(0.02, 1.5, 7) * samples.max() / max_burst
    errors = squared_error(histogram_of(samples[:, None, None]), thetas[None], timesteps, max_burst, v_init)[0]
    energy = np.square(np.maximum(samples, 0)).sum()
    expected = [brute_error(samples, theta, timesteps, max_burst, v_init) for theta in thetas]
    np.testing.assert_allclose(energy + errors, expected, rtol=0, atol=1e-2 * energy)


@pytest.mark.parametrize(("timesteps", "max_burst", "v_init"), SETTINGS)
@pytest.mark.parametrize("unevenness", [0.0, 4.0])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_threshold_is_as_good_as_the_best_of_a_dense_grid(
    name: str, unevenness: float, timesteps: int, max_burst: int, v_init: float
) -> None:
    """Within 1 % of the best error, or 0.1 % of the energy where all values are alike and a bin's width decides.

    Uneven arrival adds `unevenness` times the rounding error (θ/T)²/12 for each active neuron, less 1/T of it.
    """
    samples = DISTRIBUTIONS[name](np.random.default_rng(5), 1000)
    histogram = histogram_of(samples[:, None, None])
    found = minimum_error_thresholds(histogram, timesteps, max_burst, v_init, unevenness=unevenness, unseen=0.0)
    active = int((samples > 0).sum())

    def cost(theta: float) -> float:
        uneven = unevenness * (1 - 1 / timesteps) * active * (theta / timesteps) ** 2 / 12
        return brute_error(samples, theta, timesteps, max_burst, v_init) + uneven

    best = min(cost(t) for t in np.geomspace(0.002, 1.2, 400) * samples.max() / max_burst)
    energy = np.square(np.maximum(samples, 0)).sum()
    assert cost(float(found[0])) <= 1.01 * best + 1e-3 * energy


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_chunks_and_their_order_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(6, 3, 5)) * 10.0 ** rng.uniform(-6, 4, (6, 3, 1))
    values[rng.random(values.shape) < 0.3] = 0.0
    whole = rng.random(values.shape) < 0.3
    values[whole] = 2.0 ** rng.integers(-9, 9, int(whole.sum()))  # on the edges of bins, whatever their width
    at_once = histogram_of(values)
    assert_same(histogram_of(*np.split(values, [1, 3])), at_once)
    assert_same(histogram_of(*values[rng.permutation(6)][:, None]), at_once)


@pytest.mark.parametrize("seed", range(8))
def test_merged_histograms_are_that_of_all_values(seed: int) -> None:
    """Exactly, whichever has the larger values; channels may be dead in either or both."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-3, 3, (3, 1, 5, 1)) * (rng.random((3, 1, 5, 1)) > 0.3)
    chunks = [(s * rng.normal(size=(9, 5, 4))).astype(np.float32) for s in scale]
    merged = histogram_of(chunks[0])
    for chunk in chunks[1:]:
        merged.merge(histogram_of(chunk))
    assert_same(merged, histogram_of(*chunks))


def test_large_chunks_are_counted_in_pieces() -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 200_000)).astype(np.float32)
    histogram = histogram_of(values)
    assert histogram.counts.sum(axis=1).tolist() == (values > 0).sum(axis=(0, 2)).tolist()
    assert histogram.seen == 3 * 200_000


def test_bins_hold_the_values_they_say() -> None:
    """Largest value 8: the width is 8/2048, and bin k holds (k·width, (k+1)·width]."""
    width = 8 / 2048
    values = np.array([8.0, width, 1.5 * width, 2 * width, -1.0, 0.0]).reshape(1, 1, -1)
    histogram = histogram_of(values)
    assert histogram.width.tolist() == [width]
    assert {int(k): int(histogram.counts[0, k]) for k in np.flatnonzero(histogram.counts[0])} == {0: 1, 1: 2, 2047: 1}
    assert histogram.maximum().tolist() == [8.0]


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_pooled_histogram_is_that_of_the_pooled_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-25, 8, (1, 4, 1))
    values = rng.normal(size=(5, 4, 6)) * scale
    values[:, 1] = -1.0  # a dead channel
    assert_same(histogram_of(values).pooled(), histogram_of(values.reshape(5, 1, -1)))


def test_pooled_histogram_of_any_widths_keeps_the_mean() -> None:
    """To a bin's width: the channels' bins don't line up, so each goes where its centre lies."""
    histogram = ChannelHistogram(2)
    histogram.width = np.array([1.9, 1.0]) / 2048
    histogram.counts[:] = 1.0
    pooled = histogram.pooled()
    centres = (np.arange(2048) + 0.5) * pooled.width[0]
    assert pooled.counts.sum() == 2 * 2048
    assert (pooled.counts[0] * centres).sum() / (2 * 2048) == pytest.approx((0.95 + 0.5) / 2, abs=pooled.width[0])


def test_dead_channels_get_the_median_of_the_others() -> None:
    values = np.stack([np.full(50, v) for v in (1.0, -3.0, 2.0, 0.0, 5.0)])[None]
    thetas = minimum_error_thresholds(histogram_of(values), 8, 4, 0.5)
    assert thetas.dtype == np.float32
    assert thetas[1] == thetas[3] == pytest.approx(np.median(thetas[[0, 2, 4]]))


@pytest.mark.parametrize("values", [-1.0, 0.0, 1e-38, -1e30])
def test_layer_without_any_activation_gets_a_threshold_all_the_same(values: float) -> None:
    histogram = histogram_of(np.full((2, 3, 4), values))
    assert minimum_error_thresholds(histogram, 8, 4, 0.5).tolist() == [1.0, 1.0, 1.0]
    assert minimum_error_thresholds(histogram, 8, 4, 0.5, upper=1.0).tolist() == [0.25] * 3
    assert minimum_error_thresholds(histogram.pooled(), 8, 4, 0.5).tolist() == [1.0]


def test_channel_that_is_almost_dead_beside_far_negative_values() -> None:
    """The position of a value in bins may exceed every integer type; only positive ones must be right."""
    values = np.array([[-1e30, -5e9, 1e-4, 2e-4], [1.0, 2.0, 3.0, 4.0]]).reshape(1, 2, 4)
    histogram = histogram_of(values)
    assert histogram.counts.sum(axis=1).tolist() == [2, 4]
    assert (minimum_error_thresholds(histogram, 8, 4, 0.5, unseen=0.0) * 4 <= [2.1e-4, 4.01]).all()


@pytest.mark.parametrize("v_init", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("levels", [256, 1024])
def test_with_many_levels_the_error_without_corners_is_that_of_the_staircase(levels: int, v_init: float) -> None:
    """To 5 % of the error, from much clipping to none, where a step is up to an eighth of the mean value."""
    samples = np.random.default_rng(1).exponential(1.0, (1, 1, 200_000))
    histogram = histogram_of(samples)
    theta = np.array([[0.5, 1.0, 3.0, 10.0, 15.0, 30.0]])
    smooth = squared_error(histogram, theta, levels, 1, v_init)
    steps = np.zeros_like(theta)
    _staircase_error(histogram.counts, histogram.width, theta / levels, levels, v_init, steps)
    bins = np.arange(2048)
    whole = (histogram.counts * (bins * (bins + 1) + 1 / 3)).sum() * histogram.width[0] ** 2
    np.testing.assert_allclose(smooth + whole, steps + whole, rtol=0.05)


@pytest.mark.parametrize(("timesteps", "max_burst", "v_init"), SETTINGS)
@pytest.mark.parametrize("upper", [0.1, 1.0, 6.0])
def test_clipped_activation_is_never_exceeded(upper: float, timesteps: int, max_burst: int, v_init: float) -> None:
    """θ·ψ <= a, to float32's precision."""
    values = np.minimum(np.random.default_rng(1).exponential(3.0, (100, 2, 10)), upper)
    thetas = minimum_error_thresholds(histogram_of(values), timesteps, max_burst, v_init, upper=upper)
    assert (thetas * max_burst <= upper * (1 + 1e-6)).all()


def test_neuron_saturates_where_the_clip_does() -> None:
    """With half of the values at the bound and many levels, the best θ makes the largest output the bound, to 1 %."""
    values = np.minimum(np.random.default_rng(1).exponential(6.0, (100, 1, 40)), 6.0)
    theta = minimum_error_thresholds(histogram_of(values), 16, 4, 0.5, upper=6.0)
    assert theta[0] * 4 == pytest.approx(6.0, rel=0.01)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(1e-12, 1e12))
def test_thresholds_scale_with_the_activation(seed: int, scale: float) -> None:
    """Scaling by a power of two scales all arithmetic exactly."""
    values = np.random.default_rng(seed).exponential(1.0, (4, 2, 50)).astype(np.float32)
    factor = float(2.0 ** np.round(np.log2(scale)))
    small = minimum_error_thresholds(histogram_of(values), 8, 4, 0.5)
    np.testing.assert_array_equal(minimum_error_thresholds(histogram_of(values * factor), 8, 4, 0.5), small * factor)


def test_many_timesteps_cost_no_more_than_the_resolution_is_worth() -> None:
    """T·ψ = 1,044,480 levels are searched as 4,096: the result must still be close to the largest value."""
    samples = np.random.default_rng(1).uniform(0, 5, (1, 1, 4000))
    theta = minimum_error_thresholds(histogram_of(samples), 4096, 255, 0.5, unseen=0.0)
    assert theta[0] * 255 == pytest.approx(5.0, rel=0.01)


def test_few_values_and_many_levels_leave_room_for_larger_values() -> None:
    """As much again where a level costs nothing; none where many values make levels dear."""
    samples = np.random.default_rng(1).uniform(0, 5, (1, 1, 100_000))
    few = histogram_of(samples[..., :50])
    assert minimum_error_thresholds(few, 256, 4, 0.5)[0] * 4 == pytest.approx(2 * few.maximum()[0], rel=0.01)
    assert minimum_error_thresholds(histogram_of(samples), 2, 2, 0.5)[0] * 2 < 5.0


@pytest.mark.parametrize("signed", [False, True])
def test_a_channel_with_few_values_borrows_from_the_others(signed: bool) -> None:
    """By what the others reach, within ten times of its own; a thousand small values speak for themselves."""
    rng, reach = np.random.default_rng(3), []
    for count, scale in ((5, 0.5), (5, 1e-4), (1000, 1e-4)):
        values = np.zeros((1000, 4, 1))
        values[:, 1:] = rng.uniform(0, 4.0, (1000, 3, 1))
        values[:count, 0, 0] = np.linspace(scale / 2, scale, count)
        positive, none = histogram_of(values), ChannelHistogram(4)
        theta = (
            signed_thresholds(positive, none, 256, 4, 0.5)
            if signed
            else minimum_error_thresholds(positive, 256, 4, 0.5)
        )
        reach.append(float(theta[0]) * 4 / scale)
    median = 4.0 / 0.5
    assert reach == pytest.approx([2 * median, 20, 2], rel=0.02)


@pytest.mark.parametrize("signed", [False, True])
def test_few_values_are_not_the_scale_where_larger_ones_are_likely(signed: bool) -> None:
    """A rare small value leaves room for what is likely, even where nothing was seen; many speak for themselves."""
    values = np.zeros((100, 3, 1))
    values[0, 0], values[:, 2, 0] = 0.01, np.linspace(0.1, 3.0, 100)
    histogram, none = histogram_of(values), ChannelHistogram(3)
    for side in (histogram, none):
        side.likely = np.array([2.5, 2.5, 4.0])
    theta = (
        signed_thresholds(histogram, none, 256, 4, 0.5) if signed else minimum_error_thresholds(histogram, 256, 4, 0.5)
    )
    assert theta * 4 == pytest.approx([5.0, 5.0, 6.0], rel=0.02)
    assert histogram.pooled().likely.tolist() == [4.0]


@pytest.mark.parametrize("v_init", [0.0, 0.3, 0.5])
@pytest.mark.parametrize(("timesteps", "max_burst"), [(1, 3), (4, 2), (8, 4)])
def test_signed_threshold_is_as_good_as_the_best_of_a_dense_grid(timesteps: int, max_burst: int, v_init: float) -> None:
    """Within 1 % of the best squared error of the signed closed form, on values of both signs, more below zero."""
    samples = np.random.default_rng(2).normal(-0.5, 1.0, 4000)
    sides = [histogram_of(np.maximum(side, 0)[:, None, None]) for side in (samples, -samples)]
    found = signed_thresholds(*sides, timesteps, max_burst, v_init, unseen=0.0)

    def cost(theta: float) -> float:
        output = signed_closed_form(samples, np.asarray(theta), timesteps, max_burst, v_init)
        return float(np.square(output - samples).sum())

    best = min(cost(t) for t in np.geomspace(0.01, 1.2, 400) * np.abs(samples).max() / max_burst)
    assert cost(float(found[0])) <= 1.01 * best
