"""Frames through the stepper and with early exit, against runs of the whole sequence; with periods and without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_networks import NETWORKS, compiled, inputs_of

from snncc.config import WEIGHTS
from snncc.errors import DataError
from snncc.evaluate import evaluate
from snncc.network import SpikingNetwork
from snncc.runtime.early_exit import EarlyExit, confidence
from snncc.runtime.meter import Meter
from snncc.runtime.reference import ReferenceSimulator

T = 6
NAMES = ("plain", "residual", "maxpool_pads", "mobile")


def sequences(name: str, samples: int, seed: int = 3) -> dict[str, np.ndarray]:
    """Sequences [T, N, ...]."""
    model = NETWORKS[name].model()
    parts = [inputs_of(model, samples, seed + 100 * t) for t in range(T)]
    return {key: np.stack([part[key] for part in parts]) for key in parts[0]}


def network_of(name: str, reset_after: int, weights: str = "float32") -> SpikingNetwork:
    data = {key: np.moveaxis(value, 0, 1) for key, value in sequences(name, 8, seed=1).items()}
    options: dict[str, Any] = {"timesteps": T, "max_burst": 3, "input_coding": "frames", "reset_after": reset_after}
    return compiled(NETWORKS[name].model(), data=data, weights=weights, **options)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("reset_after", [1, 2, T])
@pytest.mark.parametrize("name", NAMES)
def test_steps_are_the_run_of_the_sequence(name: str, reset_after: int, weights: str) -> None:
    """Bit for bit the fused executor's, and the reference's up to rounding."""
    network, feeds = network_of(name, reset_after, weights), sequences(name, 3)
    run = network.simulator("fused").run(feeds, trace=True)
    reference = ReferenceSimulator(network.network, T).run(feeds, trace=True)
    stepper = network.stepper(3)
    for t in range(T):
        for output, value in stepper.step({key: v[t] for key, v in feeds.items()}).items():
            np.testing.assert_array_equal(value, run.trace[output][t])
            np.testing.assert_allclose(value, reference.trace[output][t], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("reset_after", [1, 2, T])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_state_is_taken_up_in_any_phase(reset_after: int, at: int, weights: str) -> None:
    network, feeds = network_of("maxpool_pads", reset_after, weights), sequences("maxpool_pads", 2)
    one, two = network.stepper(2), network.stepper(2)
    for t in range(at):
        one.step({key: v[t] for key, v in feeds.items()})
    two.restore(one.state())
    assert two.timesteps == at
    for t in range(at, T):
        frame = {key: v[t] for key, v in feeds.items()}
        for (_, a), (_, b) in zip(one.step(frame).items(), two.step(frame).items(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_frame_is_held_and_the_network_goes_on_after_its_timesteps() -> None:
    network, feeds = network_of("plain", 2), sequences("plain", 2)
    stepper, again = network.stepper(2), network.stepper(2)
    first, second = ({key: v[t] for key, v in feeds.items()} for t in (0, 1))
    for frame in (first, first, second, second):
        wanted = again.step(frame)
    for frame in (first, None, second, None):
        found = stepper.step(frame)
    np.testing.assert_array_equal(found["y"], wanted["y"])
    for _ in range(2 * T):
        stepper.step(second)
    assert stepper.timesteps == 4 + 2 * T


def test_a_step_takes_one_frame() -> None:
    with pytest.raises(DataError, match="has shape"):
        network_of("plain", 2).stepper(2).step(sequences("plain", 2))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("reset_after", [2, T])
def test_samples_leave_early_with_their_own_frames(reset_after: int, weights: str) -> None:
    """Against the trace of a full run: who leaves when, and with what."""
    network = network_of("plain", reset_after, weights)
    feeds = sequences("plain", 12)
    data = {key: np.moveaxis(value, 0, 1) for key, value in feeds.items()}
    trace = network.simulator("fused").run(feeds, trace=True).trace["y"]
    sure = confidence(trace, "margin")
    level = float(np.quantile(sure[:-1], 0.6))
    leaves = sure >= level
    leaves[-1] = True
    outputs, exits = network.run_early(data, EarlyExit(level))
    assert len(set(exits)) > 2
    np.testing.assert_array_equal(exits, leaves.argmax(axis=0) + 1)
    np.testing.assert_allclose(outputs["y"], trace[exits - 1, np.arange(12)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reset_after", [2, T])
def test_the_first_layer_is_counted_for_the_timesteps_that_were_run(reset_after: int) -> None:
    network = network_of("plain", reset_after)
    data = {key: np.moveaxis(value, 0, 1) for key, value in sequences("plain", 12).items()}
    whole = evaluate(network, data, ann=NETWORKS["plain"].model())
    early = evaluate(network, data, ann=NETWORKS["plain"].model(), early_exit=EarlyExit(0.05))
    first, other = whole.reading.layers[0], early.reading.layers[0]
    assert early.reading.mean_timesteps < T
    assert first.snn_macs == T / (T // reset_after) * first.macs
    assert other.snn_macs == pytest.approx(early.reading.mean_timesteps / T * first.snn_macs)
    assert other.macs == first.macs


def test_the_meter_counts_every_presentation() -> None:
    network, feeds = network_of("plain", 2), sequences("plain", 4)
    found = []
    for backend in ("fused", "ort", "numpy"):
        meter = Meter(network.network, T)
        meter.add(network.simulator(backend).run(feeds))
        found.append(meter.reading())
    assert found[0].spikes == found[1].spikes == found[2].spikes > 0
