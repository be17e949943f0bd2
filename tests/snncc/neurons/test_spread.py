"""How a layer's τ is spread over its channels."""

from __future__ import annotations

import numpy as np
import pytest

from snncc.neurons.spread import spread
from snncc.neurons.threshold import ChannelHistogram

RNG = np.random.default_rng(3)
CHANNELS = 12
SCALES = np.exp(RNG.normal(0, 1.5, CHANNELS))
VALUES = (SCALES[None, :, None] * RNG.exponential(1.0, (40, CHANNELS, 30))).astype(np.float32)
VALUES[RNG.random(VALUES.shape) < 0.5] = 0
THETA = (SCALES * np.exp(RNG.normal(0, 0.3, CHANNELS))).astype(np.float32)
SENSITIVITY = np.exp(RNG.normal(0, 2.0, CHANNELS))


def histogram_of(values: np.ndarray) -> ChannelHistogram:
    histogram = ChannelHistogram(values.shape[1])
    histogram.add(values)
    return histogram


def activity(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.astype(np.float64).sum(axis=(0, 2)))


def error(effective: np.ndarray) -> float:
    return float(((VALUES > 0).sum(axis=(0, 2)) * SENSITIVITY * np.square(effective)).sum())


@pytest.mark.parametrize("ratio", [1.1, 1.5, 2.0, 4.0, 10.0])
def test_it_leaves_the_same_share_of_spikes_at_a_smaller_error(ratio: float) -> None:
    effective = ratio * spread(THETA, ratio, [histogram_of(VALUES)], SENSITIVITY).astype(np.float64)
    assert (effective >= THETA * (1 - 1e-6)).all()
    spikes = (activity(VALUES) / effective).sum()
    assert spikes == pytest.approx((activity(VALUES) / THETA).sum() / ratio, rel=2e-3)
    assert error(effective) < error(ratio * THETA.astype(np.float64))


@pytest.mark.parametrize("ratio", [1.5, 4.0])
def test_no_other_choice_has_a_smaller_error(ratio: float) -> None:
    """What a little more error saves in spikes is the same in every channel above its θ, and less in the others."""
    effective = ratio * spread(THETA, ratio, [histogram_of(VALUES)], SENSITIVITY).astype(np.float64)
    worth = activity(VALUES) / ((VALUES > 0).sum(axis=(0, 2)) * SENSITIVITY * effective**3)
    free = effective > THETA * 1.001
    assert 1 < free.sum() < CHANNELS or ratio > 2
    np.testing.assert_allclose(worth[free], worth[free].mean(), rtol=5e-3)
    assert (worth[~free] <= worth[free].mean() * 1.005).all()


def test_without_a_reason_every_channel_gets_the_same() -> None:
    histograms = [histogram_of(VALUES)]
    np.testing.assert_array_equal(spread(THETA, 1.0, histograms, SENSITIVITY), THETA)
    np.testing.assert_array_equal(spread(THETA, 2.0, histograms, None), THETA)
    np.testing.assert_array_equal(spread(THETA[:1], 2.0, histograms, SENSITIVITY), THETA[:1])
    np.testing.assert_array_equal(spread(THETA, 2.0, histograms, np.zeros(CHANNELS)), THETA)


def test_dead_channels_get_the_ratio_and_a_bound_is_kept() -> None:
    values = VALUES.copy()
    values[:, :2] = 0
    theta = spread(THETA, 3.0, [histogram_of(values)], SENSITIVITY)
    np.testing.assert_array_equal(theta[:2], THETA[:2])
    bounded = 3.0 * spread(THETA, 3.0, [histogram_of(values)], SENSITIVITY, highest=2.0)
    assert (bounded <= 2.0 * (1 + 1e-6)).all()
    assert (bounded[THETA < 0.5] > THETA[THETA < 0.5]).any()


def test_both_sides_of_zero_count() -> None:
    positive, negative = histogram_of(np.maximum(VALUES - 1, 0)), histogram_of(np.maximum(1 - VALUES, 0))
    both = 2.0 * spread(THETA, 2.0, [positive, negative], SENSITIVITY).astype(np.float64)
    amount = np.abs(VALUES.astype(np.float64) - 1).sum(axis=(0, 2))
    assert (amount / both).sum() == pytest.approx((amount / THETA).sum() / 2, rel=2e-3)
