"""Early exit: who leaves when, against the trace of the full run; what was run is what is counted."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import NETWORKS, compiled, inputs_of

from snncc.config import WEIGHTS
from snncc.errors import UsageError
from snncc.network import SpikingNetwork
from snncc.runtime.early_exit import MEASURES, EarlyExit, confidence, run_early
from snncc.runtime.fused import FusedExecutor
from snncc.runtime.meter import Meter
from snncc.runtime.reference import ReferenceSimulator

T = 6
CLASSIFIERS = ["plain", "concat", "flatten_gemm", "mobile", "static_branch", "neurons_are_outputs", "batch_of_one"]


def network_of(name: str, neuron: str = "auto", weights: str = "float32") -> SpikingNetwork:
    return compiled(NETWORKS[name].model(), timesteps=T, max_burst=2, neuron=neuron, weights=weights)


def by_hand(trace: np.ndarray, threshold: float) -> np.ndarray:
    """Return the timesteps of each sample: the first with a margin as large as the threshold."""
    found = []
    for scores in trace.transpose(1, 0, 2):
        found.append(T)
        for t, row in enumerate(scores.astype(np.float64), 1):
            p = np.sort(np.exp(row) / np.exp(row).sum() if abs(row.sum() - 1) > 1e-3 or row.min() < 0 else row)
            if p[-1] - p[-2] >= threshold:
                found[-1] = t
                break
    return np.array(found)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("neuron", ["burst", "signed"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_samples_leave_when_the_full_run_was_sure(name: str, threads: int, neuron: str, weights: str) -> None:
    """With the outputs that the full run had then, bit for bit, and in the trace from then on."""
    network = network_of(name, neuron, weights)
    feeds = inputs_of(NETWORKS[name].model(), 41, seed=2)
    executor = FusedExecutor(network.network, T, threads)
    full = executor.run(feeds, trace=True)
    scores = full.trace[network.network.outputs[0].name]
    ranked = np.unique(confidence(scores[:-1], "margin").max(axis=0).round(6))  # silent networks are equally sure
    threshold = float(ranked[len(ranked) // 2 :][:2].mean())  # between two, as rounding decides ties
    early = run_early(executor, feeds, EarlyExit(threshold), trace=True)
    assert early.exits is not None
    np.testing.assert_array_equal(early.exits, by_hand(scores, threshold))
    assert early.samples == 41
    assert len(set(early.exits.tolist())) > 1
    for output, value in early.outputs.items():
        wanted = np.stack([full.trace[output][t - 1, i] for i, t in enumerate(early.exits)])
        assert value.tobytes() == wanted.tobytes()
        for i, t in enumerate(early.exits):
            assert early.trace[output][:t, i].tobytes() == full.trace[output][:t, i].tobytes()
            assert (early.trace[output][t:, i] == early.outputs[output][i]).all()


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", ["plain", "concat", "batch_of_one"])
def test_the_meter_counts_what_was_run_and_nothing_else(name: str, weights: str) -> None:
    """Spike for spike: the reference, each sample alone for as many timesteps as it took."""
    network = network_of(name, weights=weights)
    feeds = inputs_of(NETWORKS[name].model(), 9, seed=2)
    executor = FusedExecutor(network.network, T, 2)
    scores = executor.run(feeds, trace=True).trace[network.network.outputs[0].name]
    threshold = float(np.median(confidence(scores, "margin")))
    early = run_early(executor, feeds, EarlyExit(threshold))
    assert early.exits is not None
    assert len(set(early.exits.tolist())) > 1
    wanted: dict[str, np.ndarray] = {}
    for i, t in enumerate(early.exits.tolist()):
        alone = ReferenceSimulator(network.network, t).run({n: v[i : i + 1] for n, v in feeds.items()})
        wanted = {n: wanted.get(n, 0) + v for n, v in alone.spikes.items()}
    for node, spikes in wanted.items():
        np.testing.assert_array_equal(early.spikes[node], spikes)
    meter = Meter(network.network, T)
    meter.add(early)
    reading = meter.reading()
    assert reading.mean_timesteps == early.exits.mean()
    assert reading.spikes == pytest.approx(sum(v.sum() for v in wanted.values()) / 9, rel=1e-12)
    layer = reading.neurons[0]
    assert layer.firing_rate == pytest.approx(wanted[layer.name].sum() / (layer.neurons * early.exits.sum()), rel=1e-12)


def test_what_runs_on_values_is_counted_for_each_timestep_that_was_run() -> None:
    """The readout, too, which must be looked at after each."""
    network = network_of("neurons_are_outputs")
    executor, meter = network.fused(), Meter(network.network, T)
    feeds = inputs_of(NETWORKS["neurons_are_outputs"].model(), 5)
    early = run_early(executor, feeds, EarlyExit(2.0))
    assert early.exits is not None
    assert early.exits.tolist() == [T] * 5
    meter.add(early)
    full = Meter(network.network, T)
    full.add(executor.run(feeds))
    assert meter.reading().neurons == full.reading().neurons
    assert meter.reading().synaptic_operations == full.reading().synaptic_operations


def test_samples_that_are_mixed_leave_together() -> None:
    network = compiled(NETWORKS["samples_moved"].model(), timesteps=T, max_burst=2)
    feeds = inputs_of(NETWORKS["samples_moved"].model(), 1)
    full = network.fused().run(feeds, trace=True)
    sure = confidence(full.trace["y"], "margin")[:, 0]
    early = run_early(network.fused(), feeds, EarlyExit(float(sure[2])))
    assert early.exits is not None
    assert early.exits.tolist() == [int((sure >= sure[2]).argmax()) + 1]
    np.testing.assert_array_equal(early.outputs["y"], full.trace["y"][early.exits[0] - 1])


def test_measures_by_hand() -> None:
    p = np.array([[0.7, 0.1, 0.2], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]])
    assert set(MEASURES) == {"margin", "max", "entropy"}
    np.testing.assert_allclose(confidence(p, "margin"), [0.5, 0, 1], atol=1e-12)
    np.testing.assert_allclose(confidence(p, "max"), [0.7, 1 / 3, 1], atol=1e-12)
    entropy = -(0.7 * np.log(0.7) + 0.1 * np.log(0.1) + 0.2 * np.log(0.2))
    np.testing.assert_allclose(confidence(p, "entropy"), [1 - entropy / np.log(3), 0, 1], atol=1e-12)
    logits = np.log(p[:2]) + 5
    for measure in MEASURES:
        np.testing.assert_allclose(confidence(logits, measure), confidence(p[:2], measure), atol=1e-12)
        stacked = np.stack([logits, logits[::-1]])
        np.testing.assert_allclose(confidence(stacked, measure)[1], confidence(logits, measure)[::-1], atol=1e-12)


def test_refuses_what_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="exit measure is 'sure': it must be one of margin, max, entropy"):
        EarlyExit(0.5, "sure")
    for confidence_ in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="must be above 0"):
            EarlyExit(confidence_)
    network = compiled(NETWORKS["residual"].model(), timesteps=T)
    with pytest.raises(UsageError, match="needs an output that holds class scores"):
        run_early(network.fused(), inputs_of(NETWORKS["residual"].model(), 2), EarlyExit(0.5))
