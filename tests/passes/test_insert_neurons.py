"""Activations become neurons: shapes of thresholds, attributes, names."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import NETWORKS, parse

from snncc.config import Config
from snncc.context import Context, LayerCalibration
from snncc.graph import DOMAIN, constant, import_graph, infer_shapes
from snncc.passes.analyse import analyse
from snncc.passes.insert_neurons import InsertNeurons


def inserted(text: str, per_channel: bool = True) -> tuple[object, Context]:
    graph = import_graph(parse(text))
    infer_shapes(graph)
    ctx = Context(Config(timesteps=7, max_burst=3, threshold_ratio=1.5))
    ctx.analysis = analyse(graph)
    for site in ctx.analysis.neurons:
        count = (site.channels or 1) if per_channel else 1
        theta = np.arange(1, count + 1, dtype=np.float32)
        ctx.layers[site.node] = LayerCalibration(theta, "data", 0.25, max_burst=5, threshold_ratio=2.5)
    assert InsertNeurons().run(graph, ctx) is True
    return graph, ctx


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("plain", [(1, 6, 1, 1), (1, 8, 1, 1)]),
        ("sequence", [(1, 1, 8), (1, 1, 7)]),
        ("channels_last", [(1, 1, 1, 4), (1, 1, 1, 5)]),
        ("flatten_gemm", [(1, 3, 1, 1), (1, 10)]),
        ("samples_moved", [(1, 6, 1), (1, 1, 4)]),
    ],
)
@pytest.mark.parametrize("per_channel", [True, False])
def test_thresholds_lie_along_the_channels(name: str, shapes: list[tuple[int, ...]], per_channel: bool) -> None:
    graph, _ = inserted(NETWORKS[name].text, per_channel)
    found = [n for n in graph.nodes if n.op == "BurstIF"]  # type: ignore[attr-defined]
    for node, shape in zip(found, shapes, strict=True):
        expected = shape if per_channel else (1,) * len(shape)
        theta = constant(node.inputs[1])
        assert theta is not None
        assert theta.shape == expected
        assert theta.reshape(-1).tolist() == list(range(1, theta.size + 1))


def test_node_keeps_its_name_and_output_and_says_its_options() -> None:
    graph, ctx = inserted(NETWORKS["mobile"].text)
    node = next(n for n in graph.nodes if n.name == "r1")  # type: ignore[attr-defined]
    assert (node.op, node.domain, node.outputs[0].name) == ("BurstIF", DOMAIN, "r1")
    assert [t.name for t in node.inputs] == ["c1", "r1.v_threshold", "r1.v_init"]
    assert node.attrs == {
        "timesteps": 7,
        "max_burst": 5,
        "threshold_ratio": 2.5,
    }  # the layer's own
    assert constant(node.inputs[2]) == np.float32(0.25)
    assert (ctx.activations["r1"].kind, ctx.activations["r1"].upper) == ("clip", 6.0)


def test_neuron_on_a_vector() -> None:
    graph, _ = inserted("g (float[N] x) => (float[N] y) { y = Relu (x) }")
    theta = constant(graph.nodes[0].inputs[1])  # type: ignore[attr-defined]
    assert theta is not None
    assert theta.shape == (1,)


def test_nothing_to_insert() -> None:
    graph = import_graph(parse("g (float[N,4] x) => (float[N,4] y) { y = Exp (x) }"))
    assert InsertNeurons().run(graph, Context(Config())) is False
