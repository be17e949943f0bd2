"""Neurons of activations that were trained in steps, against the activation itself."""

from __future__ import annotations

import numpy as np
import pytest

from snncc.config import Config
from snncc.neurons import burst_if, signed_burst
from snncc.neurons.quantised import QuantisedActivation

CURRENTS = np.linspace(-3.0, 6.0, 4001, dtype=np.float32)
PHASES = [0.0, 0.25, 0.5]


def reference(x: np.ndarray, upper: float, levels: int, phase: float) -> np.ndarray:
    """QCFS, Bu et al. 2022, eq. 9, in double precision."""
    return upper / levels * np.clip(np.floor(x.astype(np.float64) * levels / upper + phase), 0, levels)


def away_from_steps(x: np.ndarray, upper: float, levels: int, phase: float) -> np.ndarray:
    """Where float32 rounding can't move a value over a step."""
    position = x.astype(np.float64) * levels / upper + phase
    return np.abs(position - np.round(position)) > 1e-4


@pytest.mark.parametrize("phase", PHASES)
def test_the_activation_is_that_of_the_paper(phase: float) -> None:
    sure = away_from_steps(CURRENTS, 2.5, 8, phase)
    found = QuantisedActivation(2.5, 8, phase)(CURRENTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[sure], reference(CURRENTS, 2.5, 8, phase)[sure], rtol=1e-6)
    assert sure.mean() > 0.99


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("timesteps", "max_burst", "levels"), [(8, 1, 8), (2, 4, 8), (1, 8, 8), (4, 4, 16)])
def test_a_burst_neuron_says_all_steps(timesteps: int, max_burst: int, levels: int, phase: float) -> None:
    activation, config = QuantisedActivation(2.5, levels, phase), Config(timesteps=timesteps, max_burst=max_burst)
    assert activation.decides(config)
    theta = np.full(1, activation.v_threshold(config, signed=False), np.float32)
    response = burst_if.simulate(CURRENTS[None, None], theta, timesteps, max_burst, phase)
    sure = away_from_steps(CURRENTS, 2.5, levels, phase)
    output = (theta * response.fired / timesteps)[0]
    np.testing.assert_allclose(output[sure], reference(CURRENTS, 2.5, levels, phase)[sure], rtol=1e-6)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("timesteps", "max_burst", "levels"), [(8, 1, 8), (2, 4, 8), (8, 4, 8), (64, 4, 8), (5, 2, 7)])
def test_a_signed_neuron_says_all_steps_and_no_others(
    timesteps: int, max_burst: int, levels: int, phase: float
) -> None:
    activation, config = QuantisedActivation(2.5, levels, phase), Config(timesteps=timesteps, max_burst=max_burst)
    theta = np.full(1, activation.v_threshold(config, signed=True), np.float32)
    response = signed_burst.simulate(CURRENTS[None, None], theta, timesteps, max_burst, phase, upper=2.5)
    sure = away_from_steps(CURRENTS, 2.5, levels, phase)
    output = (theta * response.fired / timesteps)[0]
    np.testing.assert_allclose(output[sure], reference(CURRENTS, 2.5, levels, phase)[sure], rtol=1e-6)


def test_what_is_asked_for_otherwise_is_not_decided() -> None:
    activation = QuantisedActivation(2.5, 8, 0.5)
    assert activation.decides(Config(timesteps=2, max_burst=4))
    assert not activation.decides(Config(timesteps=2, max_burst=3))  # too few levels
    assert not activation.decides(Config(threshold_ratio=1.5))
    assert not activation.decides(Config(threshold_method="max"))
