"""The closed form for many candidates against the closed form for one."""

from __future__ import annotations

import numpy as np
import pytest

from snncc.neurons.burst_if import closed_form
from snncc.neurons.candidates import outputs

RNG = np.random.default_rng(0)
CURRENT = (3 * RNG.standard_normal((5, 3, 4, 2))).astype(np.float32)
THETA = RNG.uniform(0.3, 2.0, (4, 3, 1, 1)).astype(np.float32)
BURSTS = np.array([1, 2, 5, 16])


@pytest.mark.parametrize("timesteps", [1, 2, 8])
@pytest.mark.parametrize("disturbed", [False, True])
def test_each_candidate_is_the_closed_form(timesteps: int, disturbed: bool) -> None:
    offset = RNG.uniform(0, 1, CURRENT.shape if disturbed else (1, 1, 1, 1)).astype(np.float32)
    unit = THETA / np.float32(timesteps)
    found = outputs(CURRENT, unit, BURSTS * timesteps, offset, levels=True)
    for k, (theta, burst) in enumerate(zip(THETA, BURSTS, strict=True)):
        # In the order of the compiled loop: x times the reciprocal. The general form divides, which may round another
        # way where x is at the edge of a step; float64 there, and no value here is that near an edge.
        expected = closed_form(CURRENT.astype(np.float64), theta.astype(np.float64), timesteps, int(burst), offset)
        np.testing.assert_allclose(found.mean[k], expected, rtol=1e-6)
        levels = np.rint(expected / unit[k])
        np.testing.assert_array_equal(found.levels[k], levels)
        np.testing.assert_array_equal(found.spikes[k], levels.sum(axis=0))


def test_two_sided_neurons_count_negative_spikes() -> None:
    found = outputs(CURRENT, THETA, BURSTS, np.full((1, 1, 1, 1), 0.5, np.float32), two_sided=True, levels=True)
    for k in range(len(THETA)):
        level = np.clip(np.floor(CURRENT / THETA[k] + np.float32(0.5)), -BURSTS[k], BURSTS[k])
        np.testing.assert_array_equal(found.levels[k], np.abs(level))
        np.testing.assert_allclose(found.mean[k], THETA[k] * level, rtol=1e-6)
        np.testing.assert_array_equal(found.spikes[k], np.abs(level).sum(axis=0))
    assert outputs(CURRENT, THETA, BURSTS, np.zeros((1, 1, 1, 1), np.float32)).levels.shape[0] == 0
