"""The thresholds of a layer of signed neurons."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from snncc.activations import Activation
from snncc.analysis import NeuronSite
from snncc.config import Config
from snncc.passes.chunk_pool import ChunkPool
from snncc.passes.frontier import Entry
from snncc.passes.layer import Layer
from snncc.passes.signed_fit import SignedFit

INFINITE = float("inf")


@pytest.fixture
def pool() -> Iterator[ChunkPool]:
    with ChunkPool(2) as made:
        yield made


def fitted(
    pool: ChunkPool, timesteps: int, jump: float, upper: float = INFINITE, ratio: float = 1.0
) -> tuple[SignedFit, Layer]:
    """Fit a layer whose mean currents are those of the ANN, and swing by `jump` around them, the last step too."""
    rng, config = np.random.default_rng(7), Config(timesteps=timesteps, max_burst=4, threshold_ratio=ratio)
    ann = [rng.normal(size=(n, 3, 11)).astype(np.float32) for n in (20, 9)]
    swing = np.where(np.arange(timesteps) % 2, jump, -jump).astype(np.float32)[:, None, None, None]
    site = NeuronSite("n", "x", "y", Activation("relu", upper), False, 1, 3, 3, (3, 11))
    layer = Layer(site, Entry([*ann], [a + swing for a in ann]), config, pool)
    return SignedFit(layer), layer


def test_a_threshold_is_doubled_as_long_as_the_burst_holds_the_neuron_back(pool: ChunkPool) -> None:
    fit, layer = fitted(pool, 256, jump=30.0)
    factors = fit.thresholds / fit.closed_form
    assert np.ptp(factors) == 0
    assert np.log2(factors[0]) in (1, 2, 3, 4, 5)
    counts = np.concatenate([r.counts.astype(np.int64).sum(axis=0) for r in fit.matched])
    output = counts / 256 * fit.effective[:, None]
    target = np.concatenate(layer.target)
    assert np.square(output - target).sum() == pytest.approx(fit.squared_error(), rel=1e-4)
    of_closed_form = fit._error(fit.closed_form, fit._simulated(fit.closed_form))
    assert fit.squared_error() < 0.9 * of_closed_form
    twice = 2 * fit.thresholds
    assert fit._error(twice, fit._simulated(twice)) >= 0.9 * fit.squared_error()


@pytest.mark.parametrize(
    "case",
    [{"timesteps": 256, "jump": 0.0}, {"timesteps": 8, "jump": 30.0}, {"timesteps": 256, "jump": 30.0, "upper": 1.0}],
    ids=["even currents", "few levels", "bounded"],
)
def test_otherwise_it_is_that_of_the_closed_form(pool: ChunkPool, case: dict[str, float]) -> None:
    fit, _ = fitted(pool, **case)
    np.testing.assert_array_equal(fit.thresholds, fit.closed_form)


def test_the_threshold_ratio_multiplies_what_was_chosen(pool: ChunkPool) -> None:
    fit, _ = fitted(pool, 256, jump=30.0, ratio=1.5)
    np.testing.assert_array_equal(fit.effective, np.float32(1.5) * fit.thresholds)
    assert fit.thresholds[0] > fit.closed_form[0]


def test_a_bound_does_not_hold_the_threshold_ratio_back(pool: ChunkPool) -> None:
    one, other = (fitted(pool, 8, jump=0.0, upper=0.5, ratio=ratio)[0] for ratio in (1.0, 4.0))
    np.testing.assert_array_equal(other.effective, np.float32(4.0) * one.effective)
    assert (other.effective * 4 > 0.5).all()
