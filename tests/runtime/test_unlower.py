"""From an artifact back to the network without time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_networks import NETWORKS, compiled, inputs_of, run

from snncc.errors import ArtifactError
from snncc.graph import DOMAIN, export_model, import_graph
from snncc.network import SpikingNetwork
from snncc.runtime.unlower import unlower


def without_neurons(network: SpikingNetwork) -> onnx.ModelProto:
    """The network without time, its neurons turned back into ReLU."""
    graph = network.network.copy()
    for node in graph.nodes:
        if node.op == "BurstIF":
            node.op, node.domain, node.attrs, node.inputs = "Relu", None, {}, node.inputs[:1]
    return export_model(graph)


RELU_NETWORKS = [n for n in NETWORKS if n not in ("mobile", "saturating")]


@pytest.mark.parametrize(
    ("name", "trace"),
    [(n, False) for n in RELU_NETWORKS] + [(n, True) for n in RELU_NETWORKS if NETWORKS[n].lowering == "batch"],
)
def test_without_time_and_neurons_it_is_the_ann(name: str, trace: bool) -> None:
    """Compiled without any correction, so that only lowering has to be undone; sums may be in another order."""
    model = NETWORKS[name].model()
    network = compiled(model, timesteps=3, bias_correction=False, trace=trace)
    feeds = inputs_of(model, 2)
    restored = run(without_neurons(network), feeds)
    for output, want in run(model, feeds).items():
        np.testing.assert_allclose(restored[output], want, rtol=1e-4, atol=1e-5)
    assert {n.op for n in network.network.nodes if n.domain == DOMAIN} == {"BurstIF"}


def test_the_artifact_is_left_alone() -> None:
    network = compiled(NETWORKS["samples_moved"].model(), timesteps=3)
    before = network.model.SerializeToString(deterministic=True)
    assert network.network.nodes
    assert network.model.SerializeToString(deterministic=True) == before


def test_a_scan_that_was_built_otherwise_is_refused() -> None:
    network = compiled(NETWORKS["samples_moved"].model(), timesteps=3)
    graph = import_graph(network.model)
    fold = next(
        n for n in graph.nodes if n.op == "Reshape" and n.inputs[0].inputs and n.inputs[0].inputs[0].op == "Scan"
    )
    fold.op, fold.inputs = "Identity", fold.inputs[:1]
    damaged = export_model(graph)
    damaged.functions.extend(network.model.functions)
    with pytest.raises(ArtifactError, match="compile the network again"):
        unlower(damaged, network.record)
