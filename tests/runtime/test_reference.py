"""The reference simulator against a network written out in NumPy, and what a simulation says about itself."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from small_networks import NETWORKS, compiled, inputs_of, parse

from snncc.errors import UsageError
from snncc.network import SpikingNetwork
from snncc.runtime.executor import InstrumentedExecutor
from snncc.runtime.reference import ReferenceSimulator

T, PSI = 6, 3
TWO_LAYERS = """g (float[N,5] x, float[5,7] w_1, float[7] b_1, float[7,4] w_2, float[4] b_2, float[4,2] w_3)
    => (float[N,2] y) {
        g1 = Gemm (x, w_1, b_1) r1 = Relu (g1) g2 = Gemm (r1, w_2, b_2) r2 = Relu (g2)
        s = Exp (r2) y = MatMul (s, w_3)
    }"""


def constants_of(network: SpikingNetwork) -> dict[str, np.ndarray]:
    """The constant inputs of each node, by node and position."""
    return {
        f"{node.name}.{i}": tensor.values
        for node in network.network.nodes
        for i, tensor in enumerate(node.inputs)
        if isinstance(tensor, gs.Constant)
    }


def written_out(c: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The two-layer network over T steps, in float64: the running output [T, N, 2], and spikes per neuron."""
    current = x @ c["g1.1"].astype(np.float64) + c["g1.2"]
    theta1, theta2 = (c[f"{n}.1"].astype(np.float64) for n in ("r1", "r2"))
    v1 = np.broadcast_to(c["r1.2"] * theta1, current.shape)
    v2 = np.broadcast_to(c["r2.2"] * theta2, (len(x), 4))
    total, trace, spikes = np.zeros((len(x), 4)), [], {"r1": np.zeros(7), "r2": np.zeros(4)}
    for t in range(1, T + 1):
        u1 = v1 + current
        n1 = np.clip(np.floor(u1 / theta1), 0, PSI)
        v1 = u1 - theta1 * n1
        u2 = v2 + (theta1 * n1) @ c["g2.1"] + c["g2.2"]
        n2 = np.clip(np.floor(u2 / theta2), 0, PSI)
        v2 = u2 - theta2 * n2
        total += theta2 * n2
        trace.append(np.exp(total / t) @ c["y.1"])
        spikes["r1"] += n1.sum(axis=0)
        spikes["r2"] += n2.sum(axis=0)
    return np.stack(trace), spikes


@pytest.mark.parametrize("backend", ["numpy", "ort", "fused"])
def test_two_layers_written_out(backend: str) -> None:
    network = compiled(parse(TWO_LAYERS), timesteps=T, max_burst=PSI, neuron="burst")
    x = inputs_of(network.model, 20, seed=3)
    trace, spikes = written_out(constants_of(network), x["x"])
    simulation = network.simulator(backend).run(x, trace=True)
    # float32 against float64: outputs of up to 60 are sums of exponentials.
    np.testing.assert_allclose(simulation.trace["y"], trace, rtol=2e-6, atol=1e-5)
    np.testing.assert_allclose(simulation.outputs["y"], trace[-1], rtol=2e-6, atol=1e-5)
    for name, counts in spikes.items():
        np.testing.assert_array_equal(simulation.spikes[name], counts)
    assert simulation.samples == 20


@pytest.mark.parametrize("backend", ["numpy", "ort", "fused"])
def test_a_run_leaves_no_state_behind(backend: str) -> None:
    network = compiled(NETWORKS["maxpool_pads"].model(), timesteps=3)
    simulator = network.simulator(backend)
    first, second = inputs_of(network.model, 2, seed=1), inputs_of(network.model, 3, seed=2)
    before = simulator.run(first)
    simulator.run(second)
    after = simulator.run(first)
    np.testing.assert_array_equal(before.outputs["y"], after.outputs["y"])
    for name, spikes in before.spikes.items():
        np.testing.assert_array_equal(after.spikes[name], spikes)


@pytest.mark.parametrize("backend", ["numpy", "ort", "fused"])
def test_no_trace_unless_asked_for(backend: str) -> None:
    network = compiled(NETWORKS["plain"].model(), timesteps=2)
    assert network.simulator(backend).run(inputs_of(network.model, 1)).trace == {}


def test_static_output_is_the_same_at_every_step() -> None:
    for trace in (False, True):
        network = compiled(NETWORKS["static_branch"].model(), timesteps=3, trace=trace)
        feeds = inputs_of(network.model, 2)
        for backend in ("ort", "numpy", "fused"):
            simulation = network.simulator(backend).run(feeds, trace=True)
            for step in simulation.trace["side"]:
                np.testing.assert_array_equal(step, simulation.outputs["side"])


def test_backends_are_what_they_say() -> None:
    network = compiled(NETWORKS["plain"].model(), timesteps=2)
    assert isinstance(network.simulator("numpy"), ReferenceSimulator)
    assert isinstance(network.simulator("ort"), InstrumentedExecutor)
    with pytest.raises(UsageError, match="backend is 'cuda'"):
        network.simulator("cuda")
