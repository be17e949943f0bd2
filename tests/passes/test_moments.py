"""Moments and histograms of normal currents against samples of them."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import parse

from snncc.context import Moments
from snncc.graph import import_graph, infer_shapes
from snncc.neurons.threshold import ChannelHistogram, minimum_error_thresholds, squared_error
from snncc.passes.moments import gaussian_histogram, propagate_moments, rectified

SAMPLES = 400_000
"""Standard errors below 0.5 % of a standard deviation; the tolerances are about four of them."""


def moments(*pairs: tuple[float, float]) -> Moments:
    return Moments(np.array([m for m, _ in pairs], np.float32), np.array([s for _, s in pairs], np.float32))


def draw(given: Moments, seed: int = 0) -> np.ndarray:
    """Samples [n, C]."""
    return np.random.default_rng(seed).normal(given.mean, given.std, (SAMPLES, len(given.mean)))


CURRENTS = moments((0.0, 1.0), (-1.0, 2.0), (3.0, 0.5), (0.2, 0.1), (-2.0, 1.0))


def test_rectified_moments_are_those_of_samples() -> None:
    samples = np.maximum(draw(CURRENTS), 0)
    result = rectified(CURRENTS)
    np.testing.assert_allclose(result.mean, samples.mean(axis=0), atol=0.01 * CURRENTS.std.max(), rtol=0)
    np.testing.assert_allclose(result.std, samples.std(axis=0), atol=0.01 * CURRENTS.std.max(), rtol=0)
    assert result.mean.dtype == result.std.dtype == np.float32


def test_rectified_of_a_constant_is_the_constant() -> None:
    result = rectified(moments((2.0, 0.0), (-2.0, 0.0), (0.0, 0.0)))
    np.testing.assert_allclose(result.mean, [2.0, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(result.std, 0.0, atol=1e-6)


@pytest.mark.parametrize("upper", [float("inf"), 1.0])
def test_histogram_is_that_of_samples(upper: float) -> None:
    """Cumulative mass at every twentieth of the range, to 0.5 % of all samples."""
    samples = np.minimum(np.maximum(draw(CURRENTS), 0), upper)
    histogram = gaussian_histogram(CURRENTS, upper)
    bins = histogram.counts.shape[1]
    histogram.counts /= histogram.seen
    for channel in range(len(CURRENTS.mean)):
        edges = np.arange(1, 21) * bins // 20
        below = np.cumsum(histogram.counts[channel])[edges - 1]
        positive = samples[:, channel][samples[:, channel] > 0]
        limits = edges * histogram.width[channel]
        limits[-1] = np.inf
        expected = [(positive <= limit).sum() / SAMPLES for limit in limits]
        np.testing.assert_allclose(below, expected, atol=5e-3, rtol=0)


def test_thresholds_of_the_histogram_are_good_for_samples() -> None:
    """The samples' error is no more than 2 % above that of thresholds made from the samples."""
    currents = moments((0.0, 1.0), (-1.0, 2.0), (3.0, 0.5), (0.2, 0.1))
    samples = draw(currents)
    sampled = ChannelHistogram(4)
    sampled.add(samples.T[None].astype(np.float32))
    energy = np.square(np.maximum(samples, 0)).sum(axis=0)
    for max_burst in (1, 4):
        best = minimum_error_thresholds(sampled, 8, max_burst, 0.5, unevenness=0.0)
        normal = gaussian_histogram(currents, float("inf"))
        made = minimum_error_thresholds(normal, 8, max_burst, 0.5, unevenness=0.0)
        theta = np.stack([best, made], axis=1).astype(np.float64)
        errors = squared_error(sampled, theta, 8, max_burst, 0.5) + energy[:, None]
        assert (errors[:, 1] <= 1.02 * errors[:, 0]).all()


def test_channel_that_is_never_active_is_dead() -> None:
    histogram = gaussian_histogram(moments((-50.0, 1.0), (0.0, 1.0)), float("inf"))
    assert histogram.maximum()[0] == 0.0
    thetas = minimum_error_thresholds(histogram, 8, 4, 0.5)
    assert thetas[0] == thetas[1]


def test_pooled_histogram_mixes_the_channels() -> None:
    """Channels of different widths, one threshold: that of samples of all channels together, to 3 %."""
    currents = moments((0.0, 1.0), (0.0, 1.9), (0.5, 0.6))
    pooled = ChannelHistogram(1)
    pooled.add(draw(currents).reshape(1, 1, -1).astype(np.float32))
    expected = minimum_error_thresholds(pooled, 8, 4, 0.5)
    got = minimum_error_thresholds(gaussian_histogram(currents, float("inf")).pooled(), 8, 4, 0.5)
    np.testing.assert_allclose(got, expected, rtol=0.03)


def propagate(body: str, **known: Moments) -> dict[str, Moments]:
    text = f"g (float[N,2,4,4] a, float[N,2,4,4] b, float[N,2,4,4] s) => (float[N,2,H,W] y) {{ {body} }}"
    graph = import_graph(parse(text))
    infer_shapes(graph)
    return propagate_moments(graph, known)


A, B = moments((0.0, 1.0), (1.0, 2.0)), moments((2.0, 3.0), (-1.0, 0.5))


def test_moments_of_a_sum_add_up() -> None:
    y = propagate("y = Add (a, b)", a=A, b=B)["y"]
    np.testing.assert_allclose(y.mean, A.mean + B.mean)
    np.testing.assert_allclose(y.std, np.sqrt(A.std**2 + B.std**2), rtol=1e-6)


def test_moments_pass_through_activations_and_pools() -> None:
    found = propagate(
        "r = Relu (a) m = MaxPool <kernel_shape = [2,2]> (r) p = AveragePool <kernel_shape = [2,2]> (m) "
        "i = Identity (p) y = Add (i, i)",
        a=A,
    )
    np.testing.assert_array_equal(found["i"].mean, rectified(A).mean)
    np.testing.assert_allclose(found["y"].mean, 2 * rectified(A).mean)


@pytest.mark.parametrize(
    "body", ["y = Add (a, s)", "y = Sub (a, b)", "t = Sigmoid (a) y = Relu (t)", "y = Mul (a, b)"], ids=str
)
def test_moments_end_where_they_do_not_follow(body: str) -> None:
    assert "y" not in propagate(body, a=A, b=B)


def test_known_moments_stand() -> None:
    assert propagate("y = Relu (a)", a=A, y=B)["y"] is B
