"""A MaxPool behind the first neurons runs before them."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import compiled, inputs_of, parse, run

from snncc.config import Config
from snncc.context import Context
from snncc.graph import DOMAIN, export_model, import_graph, infer_shapes, name_nodes
from snncc.neurons.burst_if import simulate
from snncc.passes.pool_first import PoolFirst

POOL = "MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]>"


def network(activation: str = "Relu (c1)", behind: str = f"p = {POOL} (r1)", output: str = "") -> str:
    return f"""g (float[N,2,8,8] x, float[4,2,3,3] w_1, float[4] b_1, float[3,4,3,3] w_2, float[3] b_2)
        => (float[N,3,A,B] y{output}) <float zero = {{0.0}}, float six = {{0.5}}> {{
        c1 = Conv <pads = [1,1,1,1]> (x, w_1, b_1)
        r1 = {activation}
        {behind}
        c2 = Conv (p, w_2, b_2)
        y = Relu (c2) }}"""


def order_of(text: str) -> tuple[list[str], bool]:
    model = parse(text)
    graph = import_graph(model)
    name_nodes(graph)
    infer_shapes(graph)
    changed = PoolFirst().run(graph, Context(Config()))
    feeds = inputs_of(model, 3)
    for name, value in run(model, feeds).items():
        np.testing.assert_array_equal(run(export_model(graph), feeds)[name], value)
    return [node.op for node in graph.nodes], changed


@pytest.mark.parametrize("activation", ["Relu (c1)", "Clip (c1, zero, six)"])
def test_the_pool_goes_first(activation: str) -> None:
    ops, changed = order_of(network(activation))
    assert changed
    assert [op for op in ops if op != "Constant"] == ["Conv", "MaxPool", ops[-3], "Conv", "Relu"]
    assert ops[-3] in ("Relu", "Clip")


def test_several_pools_go_first() -> None:
    ops, _ = order_of(network(behind=f"q = {POOL} (r1) p = {POOL} (q)").replace("float[3,4,3,3]", "float[3,4,1,1]"))
    assert ops == ["Conv", "MaxPool", "MaxPool", "Relu", "Conv", "Relu"]


@pytest.mark.parametrize(
    "text",
    [
        network(behind=f"p0 = {POOL} (r1) p = Add (p0, p1) p1 = {POOL} (r1)".replace(" p = Add (p0, p1)", "")
                + " p = Add (p0, p1)"),
        network(output=", float[N,4,8,8] r1"),
        network(behind="p = AveragePool <kernel_shape = [3,3]> (r1)"),
    ],
    ids=["two readers", "an output", "another pool"],
)  # fmt: skip
def test_what_must_stay(text: str) -> None:
    assert order_of(text)[1] is False


def test_a_later_pool_stays_behind_its_neurons() -> None:
    text = f"""g (float[N,2,8,8] x, float[4,2,3,3] w_1, float[4,4,3,3] w_2, float[3,4,3,3] w_3) => (float[N,3,A,B] y) {{
        c1 = Conv <pads = [1,1,1,1]> (x, w_1)
        r1 = Relu (c1)
        c2 = Conv <pads = [1,1,1,1]> (r1, w_2)
        r2 = Relu (c2)
        p = {POOL} (r2)
        y = Conv (p, w_3) }}"""
    assert order_of(text)[1] is False


@pytest.mark.parametrize("max_burst", [1, 3])
def test_the_largest_current_has_fired_most_at_any_time(max_burst: int) -> None:
    """What the MaxPool of all spikes so far would have taken is what the neuron of the largest current has sent."""
    currents = np.random.default_rng(0).normal(0.5, 2.0, (1, 2, 3, 8, 8)).astype(np.float32)
    theta = np.array([0.5, 1.0, 3.0], np.float32).reshape(3, 1, 1)

    def pooled(values: np.ndarray) -> np.ndarray:
        return values.reshape(*values.shape[:3], 4, 2, 4, 2).max(axis=(4, 6))

    apart = simulate(currents, theta, 6, max_burst, 0.5).counts.cumsum(axis=0)
    first = simulate(pooled(currents), theta, 6, max_burst, 0.5).counts.cumsum(axis=0)
    np.testing.assert_array_equal(pooled(apart), first)


def test_first_neurons_read_the_pool() -> None:
    model = parse(network())
    feeds = inputs_of(model, 4)
    artifact = compiled(model, timesteps=4, max_burst=2)
    assert [n.op for n in artifact.network.nodes][:3] == ["Conv", "MaxPool", "BurstIF"]
    assert artifact.record.layers[0].neurons == 4 * 4 * 4
    assert not [n for n in artifact.model.graph.node if n.domain == DOMAIN and "MaxPool" in n.op_type]
    assert artifact.simulator("fused").run(feeds).outputs["y"].shape == (4, 3, 2, 2)


def test_a_bias_correction_goes_through_the_pool() -> None:
    artifact = compiled(parse(network()), timesteps=2, max_burst=1)
    assert any(layer.bias_shift for layer in artifact.record.layers)
    assert [n.op_type for n in artifact.model.graph.node if n.op_type == "Add"] == []
