"""Thresholds from maximum and percentile against NumPy on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import NETWORKS, compiled, inputs_of

import snncc
from snncc.graph import constant
from snncc.neurons.threshold import ChannelHistogram
from snncc.passes.range_thresholds import percentiles, range_thresholds


def histogram_of(values: np.ndarray) -> ChannelHistogram:
    """Of values [C, M], in two batches."""
    histogram = ChannelHistogram(len(values))
    for part in np.array_split(values, 2, axis=1):
        histogram.add(part[None].astype(np.float32))
    return histogram


@pytest.mark.parametrize("percent", [50.0, 90.0, 99.0, 99.9, 100.0])
def test_percentiles_are_numpys_within_a_bin(percent: float) -> None:
    values = np.random.default_rng(0).standard_normal((3, 100_000)) * np.array([[1.0], [20.0], [0.01]])
    histogram = histogram_of(values)
    expected = np.maximum(np.percentile(values, percent, axis=1), 0.0)
    # A bin holds values that differ by its width; between two of the highest values NumPy interpolates.
    np.testing.assert_allclose(percentiles(histogram, percent), expected, atol=1.5 * histogram.width.max(), rtol=0.02)


def test_zero_where_the_percentile_is_not_positive() -> None:
    values = np.full((1, 1000), -1.0)
    values[0, :50] = 3.0
    assert percentiles(histogram_of(values), 90.0)[0] == 0.0
    assert percentiles(histogram_of(values), 99.0)[0] == pytest.approx(3.0, rel=1e-3)


def test_bursts_reach_the_range_and_no_further_than_the_bound() -> None:
    values = np.stack([np.linspace(-1, 8, 1000), np.full(1000, -1.0), np.linspace(-1, 2, 1000)])
    theta = range_thresholds(histogram_of(values), 100.0, 4, float("inf"))
    np.testing.assert_allclose(theta, [2.0, 1.25, 0.5], rtol=2e-3)  # the dead one: the median of the others' ranges
    np.testing.assert_allclose(range_thresholds(histogram_of(values), 100.0, 4, 6.0), [1.5, 1.25, 0.5], rtol=2e-3)
    assert (range_thresholds(histogram_of(np.full((2, 10), -1.0)), 99.0, 4, float("inf")) == 1.0).all()
    rare = np.full((1, 1000), -1.0)
    rare[0, 0] = 4.0
    assert range_thresholds(histogram_of(rare), 99.0, 1, float("inf"))[0] == pytest.approx(4.0, rel=1e-3)


def test_compiled_networks_have_them() -> None:
    model = NETWORKS["plain"].model()
    feeds = inputs_of(model, 32)
    thresholds = {}
    for method in ("mse", "max", "percentile"):
        config = snncc.Config(max_burst=1, per_channel=False, threshold_method=method, percentile=95.0)
        network = snncc.compile(model, calibration=feeds, config=config)
        node = next(n for n in network.network.nodes if n.op == "BurstIF")
        thresholds[method] = float(np.asarray(constant(node.inputs[1])).max())
    assert thresholds["percentile"] < thresholds["max"]
    assert thresholds["mse"] < thresholds["max"]
    assert compiled(model).record.config["threshold_method"] == "mse"
