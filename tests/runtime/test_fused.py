"""The fused executor against the reference simulator: outputs, spikes and traces of every kind of network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_networks import NETWORKS, compiled, inputs_of

from snncc.analysis import Domain
from snncc.config import WEIGHTS
from snncc.network import SpikingNetwork
from snncc.neurons.response import BLOCK
from snncc.runtime import fused, int8_conv, matrix_unit, spike_conv
from snncc.runtime.fused import FusedExecutor
from snncc.runtime.fused_neurons import FusedNeurons
from snncc.runtime.parameters import NeuronParameters
from snncc.runtime.reference import ReferenceSimulator, Simulation, _Neuron
from snncc.runtime.route import Route
from snncc.runtime.spike_conv import vector_width
from snncc.runtime.walk import Walk

T = 5


def network_of(name: str, neuron: str = "auto", weights: str = "float32") -> SpikingNetwork:
    return compiled(NETWORKS[name].model(), timesteps=T, max_burst=3, neuron=neuron, weights=weights)


def feeds_of(name: str, samples: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Return inputs for one run: of the network's own batch where that is fixed."""
    model = NETWORKS[name].model()
    batch = network_of(name).inputs[0].batch
    return inputs_of(model, batch or samples, seed)


def check_same(found: Simulation, wanted: Simulation) -> None:
    """Spikes are whole numbers: they are equal. Values are to the rounding of the linear pieces."""
    assert found.samples == wanted.samples
    for name in wanted.spikes:
        np.testing.assert_array_equal(found.spikes[name], wanted.spikes[name])
    assert found.spikes.keys() == wanted.spikes.keys()
    assert found.increments.keys() == wanted.increments.keys()
    for name in wanted.increments:
        np.testing.assert_allclose(found.increments[name], wanted.increments[name], rtol=1e-4, atol=1e-4)
    assert found.outputs.keys() == wanted.outputs.keys()
    for name in wanted.outputs:
        np.testing.assert_allclose(found.outputs[name], wanted.outputs[name], rtol=1e-4, atol=1e-5)
    for name in wanted.trace:
        np.testing.assert_allclose(found.trace[name], wanted.trace[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("neuron", ["burst", "signed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_does_what_the_reference_does(name: str, neuron: str, weights: str) -> None:
    network = network_of(name, neuron, weights)
    feeds = feeds_of(name, 7, seed=3)
    simulator = network.simulator("fused")
    assert isinstance(simulator, FusedExecutor)
    wanted = ReferenceSimulator(network.network, T).run(feeds, trace=True)
    check_same(simulator.run(feeds, trace=True), wanted)
    assert simulator.run(feeds).trace == {}


@pytest.mark.parametrize(
    ("threads", "samples", "chunk"), [(1, 1, 8), (1, 7, 3), (2, 7, 2), (4, 9, 1), (3, 2, 8), (2, 40, 8)]
)
@pytest.mark.parametrize("name", ["residual", "maxpool_pads"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_chunks_and_threads_are_no_matter(
    name: str, weights: str, threads: int, samples: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "_SAMPLES", chunk)
    network = network_of(name, weights=weights)
    feeds = inputs_of(NETWORKS[name].model(), samples, seed=4)
    wanted = ReferenceSimulator(network.network, T).run(feeds, trace=True)
    executor = FusedExecutor(network.network, T, threads)
    for _ in range(3):  # what is left in the used arrays is no matter either
        check_same(executor.run(feeds, trace=True), wanted)


@pytest.mark.parametrize("neuron", ["burst", "signed"])
@pytest.mark.parametrize("name", ["residual", "maxpool_pads", "concat", "mobile"])
def test_networks_with_8_bit_weights_run_without_the_kernel(
    name: str, neuron: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, feeds = network_of(name, neuron, "int8"), inputs_of(NETWORKS[name].model(), 3, seed=6)
    native = FusedExecutor(network.network, T)
    monkeypatch.setattr(int8_conv, "available", lambda: False)
    plain = FusedExecutor(network.network, T)
    assert not plain.route.coded.layers
    check_same(plain.run(feeds), native.run(feeds))


@pytest.mark.skipif(not int8_conv.available(), reason="the processor lacks the instructions")
def test_residual_networks_run_on_codes() -> None:
    """Every layer with 8-bit weights, all neurons, and the sums in front of them."""
    network = network_of("residual", weights="int8")
    plan = FusedExecutor(network.network, T).route.coded
    convolutions = [conv for layer in plan.driven.values() for conv in layer.convolutions]
    assert len(plan.layers) + len(convolutions) == network.record.network["int8_layers"] == 4
    assert len(convolutions) == (4 if matrix_unit.available() else 0)
    assert len(plan.neurons) == 4
    assert len(plan.inside) == 2 + len(convolutions)
    assert len(FusedExecutor(network_of("maxpool_pads", weights="int8").network, T).route.coded.pools) == 1


@pytest.mark.skipif(not vector_width(), reason="the processor lacks the instructions")
@pytest.mark.parametrize(("name", "pools"), [("residual", 0), ("maxpool_pads", 1), ("mobile", 0)])
def test_convolutions_of_spikes_run_with_their_neurons(name: str, pools: int) -> None:
    """All neurons, the convolutions and sums in front of them, and pools between: no session is left among them."""
    route = FusedExecutor(network_of(name).network, T).route
    plan = route.coded
    assert plan.driven.keys() == route.neurons
    assert len(plan.pools) == pools
    assert plan.inside >= {n.name for n in route.graph.nodes if n.op == "Conv" and n.name in temporal_of(route)}
    assert not [step for step in route.temporal if route.has_session(step)]


def temporal_of(route: Route) -> set[str]:
    return {name for name, domain in route.analysis.domains.items() if domain is Domain.TEMPORAL}


@pytest.mark.parametrize("name", ["residual", "maxpool_pads", "mobile"])
def test_networks_run_without_the_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, feeds = network_of(name), inputs_of(NETWORKS[name].model(), 3, seed=6)
    native = FusedExecutor(network.network, T).run(feeds)
    monkeypatch.setattr(spike_conv, "vector_width", lambda: 0)
    plain = FusedExecutor(network.network, T)
    assert not plain.route.coded.driven
    check_same(plain.run(feeds), native)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("trace", [False, True])
def test_the_number_of_threads_is_no_matter(threads: int, trace: bool) -> None:
    """One sample, bit for bit."""
    network, feeds = network_of("residual"), inputs_of(NETWORKS["residual"].model(), 1, seed=9)
    wanted = FusedExecutor(network.network, T, 1).run(feeds, trace=trace)
    found = FusedExecutor(network.network, T, threads).run(feeds, trace=trace)
    for name, values in {**wanted.outputs, **wanted.trace, **wanted.spikes}.items():
        parts = {**found.outputs, **found.trace, **found.spikes}
        np.testing.assert_array_equal(parts[name], values)


def test_inputs_and_earlier_results_stay_as_they_are() -> None:
    network = network_of("residual")
    feeds = inputs_of(NETWORKS["residual"].model(), 6)
    before = {name: value.copy() for name, value in feeds.items()}
    simulator = network.simulator("fused")
    first = simulator.run(feeds)
    kept = {name: value.copy() for name, value in first.outputs.items()}
    simulator.run({name: value + 1 for name, value in feeds.items()})
    for name, value in feeds.items():
        np.testing.assert_array_equal(value, before[name])
    for name, value in first.outputs.items():
        np.testing.assert_array_equal(value, kept[name])


def test_a_network_with_a_trace_gives_its_trace() -> None:
    network = compiled(NETWORKS["residual"].model(), timesteps=T, trace=True)
    feeds = inputs_of(NETWORKS["residual"].model(), 3)
    one, other = network.run(feeds), network.run(feeds, backend="ort")
    assert one.keys() == other.keys()
    assert len(one) == 2


@pytest.mark.parametrize("op", ["BurstIF", "SignedBurst", "SignedBurstRelu", "SignedBurstClip"])
@pytest.mark.parametrize("constant", [False, True])
def test_neurons_are_those_of_the_reference(op: str, constant: bool) -> None:
    """Spike for spike, over several blocks of elements, in place and elsewhere."""
    rng = np.random.default_rng(0)
    size = BLOCK + 7
    x = rng.normal(0.3, 1.0, (1 if constant else T, 3, 2, size)).astype(np.float32)
    if op == "SignedBurst":
        x[..., :3] = [np.nan, np.inf, -np.inf]
    theta = rng.uniform(0.2, 1.0, (1, 2, 1)).astype(np.float32)
    upper = np.float32(1.2 if op == "SignedBurstClip" else np.inf)
    parameters = NeuronParameters(op, theta, np.float32(0.5), 3, upper)
    neuron, stepped = FusedNeurons(parameters), _Neuron(parameters)
    wanted = [stepped.advance(x[0 if constant else t], t + 1) for t in range(T)]
    spikes = np.empty((T, *x.shape[1:]), np.float32)
    emitted = neuron.fire(x, spikes)
    np.testing.assert_array_equal(spikes, np.stack([s for s, _ in wanted]))
    np.testing.assert_array_equal(emitted, np.abs(np.stack([n for _, n in wanted])).sum(axis=(0, 1)))
    if not constant:
        np.testing.assert_array_equal(neuron.fire(x, x), emitted)
        np.testing.assert_array_equal(x, spikes)


@pytest.mark.parametrize(("samples", "timesteps"), [(1, 200), (5, 40), (40, 9)])
def test_no_more_is_in_flight_for_more_samples_or_timesteps(
    samples: int, timesteps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So memory doesn't grow with them; and when a chunk is done, its state is forgotten."""
    network = network_of("residual")
    rows: list[int] = []
    walks: list[Walk] = []
    plain = Walk.advance

    def noting(self: Walk, steps: int, *frames: Any, **options: bool) -> dict[str, np.ndarray]:
        rows.append(steps * len(next(iter(self._static.values()))))
        walks.append(self)
        return plain(self, steps, *frames, **options)

    monkeypatch.setattr(Walk, "advance", noting)
    executor = FusedExecutor(network.network, timesteps, threads=2)
    found = executor.run(inputs_of(NETWORKS["residual"].model(), samples))
    assert max(rows) <= fused._ROWS
    assert sum(rows) == samples * timesteps
    assert all(not walk.carried and not walk._static for walk in walks)
    assert found.samples == samples
