"""What an error of each channel does to the layers that read it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_checks import parse
from small_networks import NETWORKS, inputs_of

import snncc
from snncc.compiling import analyse_network
from snncc.context import Context
from snncc.graph import constant
from snncc.passes import channel_sensitivity
from snncc.passes.channel_sensitivity import channel_sensitivities
from snncc.pipeline import Hook
from snncc.sources import prepared, read_ann


def measured(model: Any, feeds: dict[str, np.ndarray], config: snncc.Config | None = None) -> dict[str, np.ndarray]:
    loaded, config = read_ann(model), config or snncc.Config()
    ctx = Context(config)
    graph = analyse_network(loaded, ctx, Hook())
    names = [site.node for site in ctx.analysis.neurons]
    return channel_sensitivities(graph, ctx.analysis, prepared(feeds, loaded, config), config, names)


def test_a_linear_layer_passes_on_what_its_weights_say() -> None:
    """An error e of channel c becomes e·v[c, o] in output o, which varies by σ[o]: mean over o of (v[c, o]/σ[o])²."""
    text = """g (float[N,6] x, float[6,8] w, float[8,5] v, float[5,4] u) => (float[N,4] y) {
        h = MatMul(x, w) r = Relu(h) c = MatMul(r, v) s = Relu(c) y = MatMul(s, u) }"""
    model = parse(text, ("w", "v", "u"))
    weights = {t.name: np.frombuffer(t.raw_data, np.float32).reshape(t.dims) for t in model.graph.initializer}
    x = np.random.default_rng(0).normal(size=(channel_sensitivity.SAMPLES, 6)).astype(np.float32)
    first, second = measured(model, {"x": x}).values()
    current = np.maximum(x @ weights["w"], 0) @ weights["v"]
    np.testing.assert_allclose(first, np.square(weights["v"] / current.std(axis=0)).mean(axis=1), rtol=1e-3)
    output = np.maximum(current, 0) @ weights["u"]
    np.testing.assert_allclose(second, np.square(weights["u"] / output.std()).mean(axis=1), rtol=1e-3)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_layer_with_channels_has_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS[name].model()
    feeds = inputs_of(model, 8)
    whole = measured(model, feeds)
    assert whole
    assert all(np.isfinite(values).all() and (values >= 0).all() and values.any() for values in whole.values())
    monkeypatch.setattr(channel_sensitivity, "_VALUES", 1)
    for node, values in measured(model, feeds).items():
        np.testing.assert_allclose(values, whole[node], rtol=1e-3, atol=1e-6 * whole[node].max())


def test_a_shape_that_is_read_beside_the_layer_is_left_as_it_is() -> None:
    text = """g (float[N,4] x, float[4,4] w, float[4,4] v, float[4,3] u) => (float[N,3] y) {
        h = MatMul(x, w) r = Relu(h) all = Shape(x) size = Slice(all, zero, one, zero) to = Concat<axis=0>(size, two)
        k = Reshape(r, to) s = Softmax<axis=2>(k) f = Flatten(s) c = MatMul(f, v) q = Relu(c) y = MatMul(q, u) }"""
    head = "<int64[1] zero = {0}, int64[1] one = {1}, int64[2] two = {2, 2}>"
    model = parse(text.replace("(float[N,3] y) {", f"(float[N,3] y) {head} {{"), ("w", "v", "u"))
    found = measured(model, {"x": np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)})
    assert found
    assert all((values > 0).all() for values in found.values())


def test_one_large_sample_says_nearly_as_much_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS["residual"].model()
    feeds = inputs_of(model, 8)
    all_of_them = measured(model, feeds)
    monkeypatch.setattr(channel_sensitivity, "_LARGE", 1)
    for node, values in measured(model, feeds).items():
        np.testing.assert_allclose(values, all_of_them[node], rtol=0.2)
        assert not np.array_equal(values, all_of_them[node])


def theta_of(network: snncc.SpikingNetwork) -> dict[str, np.ndarray]:
    nodes = {node.name: node for node in network.network.nodes}
    return {layer.name: np.asarray(constant(nodes[layer.name].inputs[1])) for layer in network.record.layers}


def test_a_ratio_is_spread_unless_the_paper_is_asked_for() -> None:
    model = NETWORKS["residual"].model()
    feeds = inputs_of(model, 32)
    plain, even, ours = (
        theta_of(snncc.compile(model, calibration=feeds, config=snncc.Config(neuron="burst", **options)))
        for options in ({}, {"threshold_ratio": 2.0, "ratio_per_channel": False}, {"threshold_ratio": 2.0})
    )
    first = next(iter(plain))  # the later ones read other spikes
    np.testing.assert_array_equal(even[first], plain[first])
    assert not np.array_equal(ours[first], plain[first])
    assert (2 * ours[first] >= plain[first] * (1 - 1e-6)).all()
