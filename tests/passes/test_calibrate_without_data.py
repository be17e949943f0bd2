"""Calibration without data: from the statistics of BatchNormalization, or from generated inputs."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from graph_checks import thresholds_of
from small_networks import NETWORKS, inputs_of, parse, run

import snncc
from snncc.compiling import analyse_network
from snncc.config import Config
from snncc.context import Context, Moments
from snncc.errors import DataError
from snncc.graph import import_graph
from snncc.neurons.threshold import ChannelHistogram, minimum_error_thresholds
from snncc.passes.calibrate import Calibrate
from snncc.passes.generated_inputs import generate_inputs
from snncc.pipeline import Hook
from snncc.sources import read_ann

NORMED = """g (float[N,3,6,6] x, float[4,3,3,3] w_1, float[4] b_g, float[4] b_b, float[4] b_m, float[4] b_v,
        float[4,4,1,1] w_2, float[4] b_2) => (float[N,4,4,4] y) {
        c1 = Conv (x, w_1) n1 = BatchNormalization (c1, b_g, b_b, b_m, b_v) r1 = Relu (n1)
        c2 = Conv (r1, w_2, b_2) %s
    }"""


def normed(end: str) -> onnx.ModelProto:
    model = parse(NORMED % end)
    values = {"b_g": [1, 2, 0.5, 1], "b_b": [0, 1, 0.5, 0.2], "b_m": [0, 0, 0, 0], "b_v": [1, 1, 1, 1]}
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(values[tensor.name], np.float32), tensor.name))
    return model


def test_thresholds_from_batch_normalization() -> None:
    """Those of normal currents with mean β and deviation |γ|, to 5 %: the samples' largest value is random."""
    model = normed("n2 = BatchNormalization (c2, b_g, b_b, b_m, b_v) y = Relu (n2)")
    network = snncc.compile(model, config=Config(timesteps=4, bias_correction=True))
    assert {layer.threshold_source for layer in network.record.layers} == {"batchnorm"}
    assert network.record.calibration is None
    assert any("BatchNormalization statistics" in w and "--calib" in w for w in network.record.warnings)
    samples = np.random.default_rng(0).normal([0, 1, 0.5, 0.2], [1, 2, 0.5, 1], (20_000, 4))
    histogram = ChannelHistogram(4)
    histogram.add(samples.T[None].astype(np.float32))
    expected = minimum_error_thresholds(histogram, 4, 4, 0.5)
    for theta in thresholds_of(network).values():
        np.testing.assert_allclose(theta.reshape(-1), expected, rtol=0.05)


def test_where_statistics_are_missing_inputs_are_generated() -> None:
    network = snncc.compile(normed("y = Relu (c2)"))
    assert [layer.threshold_source for layer in network.record.layers] == ["batchnorm", "generated"]
    warning = next(w for w in network.record.warnings if "random inputs" in w)
    assert "1 of 2 layers" in warning
    assert "--calib" in warning
    assert [layer.bias_shift for layer in network.record.layers] == [None, None]


@pytest.mark.parametrize(
    ("name", "per_channel"), [*((n, True) for n in NETWORKS), ("residual", False), ("mobile", False)]
)
def test_every_network_compiles_without_data(name: str, per_channel: bool) -> None:
    """With thresholds of the generated inputs the output follows the ANN's on such inputs: within 30 % at T = 8."""
    model = NETWORKS[name].model()
    network = snncc.compile(model, config=Config(per_channel=per_channel))
    assert {layer.threshold_source for layer in network.record.layers} == {"generated"}
    feeds = inputs_of(model, 8)
    expected, got = run(model, feeds), run(network.model, feeds)
    for output, want in expected.items():
        assert np.linalg.norm(got[output] - want) < 0.3 * np.linalg.norm(want)


def test_generated_inputs_are_repeatable_and_fit() -> None:
    graph = import_graph(NETWORKS["two_inputs"].model())
    a, b = generate_inputs(graph, 64), generate_inputs(graph, 64)
    assert len(a) == 64
    assert a.fingerprint() == b.fingerprint()
    assert {k: v.shape for k, v in a.arrays.items()} == {"x": (64, 2, 5, 5), "z": (64, 7)}
    graph.inputs[0].shape, graph.inputs[1].shape = [48, 2, 5, 5], [48, 7]
    assert len(generate_inputs(graph, 64)) == 48
    graph.inputs[0].shape, graph.inputs[1].shape = [100, 2, 5, 5], [100, 7]
    assert len(generate_inputs(graph, 64)) == 100


def test_inputs_of_open_size_cannot_be_generated() -> None:
    model = parse("g (float[N,3,H,W] x, float[4,3,3,3] w_1) => (float[N,4,P,Q] y) { c = Conv (x, w_1) y = Relu (c) }")
    with pytest.raises(DataError, match=r"'x' has no fixed size .*--calib"):
        snncc.compile(model)
    data = np.random.default_rng(0).standard_normal((4, 3, 7, 5)).astype(np.float32)
    network = snncc.compile(model, calibration=data, config=Config(timesteps=64))
    want = run(model, {"x": data})["y"]
    assert np.linalg.norm(run(network.model, {"x": data})["y"] - want) < 0.02 * np.linalg.norm(want)


def test_moments_of_other_channels_than_the_neurons_are_no_thresholds() -> None:
    """A promise about 4 channels says nothing about a layer that has only one threshold for all."""
    ctx = Context(Config(timesteps=2))
    graph = analyse_network(read_ann(NETWORKS["sequence"].model()), ctx, Hook())
    ctx.batchnorm = {
        site.input: Moments(np.zeros(8, np.float32), np.ones(8, np.float32)) for site in ctx.analysis.neurons
    }
    Calibrate().run(graph, ctx)
    sizes = {node: len(layer.v_threshold) for node, layer in ctx.layers.items()}
    assert set(itertools.chain(sizes.values())) <= {1, 7, 8}
