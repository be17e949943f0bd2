"""Calibration against the ANN's activations, read out of the ANN itself, and against the SNN that was compiled."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graph_checks import thresholds_of
from small_networks import NETWORKS, compiled, inputs_of, parse, run

import snncc
from snncc.compiling import analyse_network
from snncc.config import Config
from snncc.context import Context
from snncc.data import load
from snncc.errors import DataError
from snncc.graph import constant, export_model, import_graph, infer_shapes, name_nodes
from snncc.neurons.burst_if import closed_form
from snncc.neurons.threshold import ChannelHistogram, minimum_error_thresholds
from snncc.passes import calibration_walk, chunk_pool
from snncc.passes import layer as layer_module
from snncc.passes.analyse import analyse
from snncc.passes.calibrate import Calibrate
from snncc.passes.frontier import Entry, Frontier
from snncc.passes.layer import Layer
from snncc.passes.layer_fit import LayerFit
from snncc.passes.pool_first import PoolFirst
from snncc.passes.scaled import Scaled
from snncc.passes.signed_fit import SignedFit
from snncc.pipeline import Hook
from snncc.sources import input_specs, read_ann

BATCHED = [name for name, small in NETWORKS.items() if small.lowering == "batch" and name != "batch_of_one"]


def analysed(model: onnx.ModelProto) -> gs.Graph:
    """The ANN as calibration sees it."""
    graph = import_graph(model)
    name_nodes(graph)
    infer_shapes(graph)
    PoolFirst().run(graph, Context(Config()))
    return graph


def activations(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, int | None]]:
    """The ANN's activations and their channels' axis, by neuron."""
    graph = analysed(model)
    sites = analyse(graph).neurons
    graph.outputs = [graph.tensors()[site.output] for site in sites]
    values = run(export_model(graph), feeds)
    return {s.node: (values[s.output], s.channel_axis if s.channels is not None else None) for s in sites}


def likely(model: onnx.ModelProto, feeds: dict[str, np.ndarray], upper: float = np.inf) -> dict[str, np.ndarray]:
    """Three standard deviations above the mean of what reaches each channel in the ANN, float64 [C], by neuron."""
    graph = analysed(model)
    sites = analyse(graph).neurons
    graph.outputs = list({site.input: graph.tensors()[site.input] for site in sites}.values())
    values = {**feeds, **run(export_model(graph), feeds)}
    found = {}
    for site in sites:
        currents = values[site.input].astype(np.float64)
        currents = channels_first(currents, site.channel_axis if site.channels is not None else None)
        found[site.node] = np.clip(currents.mean(axis=1) + 3 * currents.std(axis=1), 0, upper)
    return found


def channels_first(values: np.ndarray, axis: int | None) -> np.ndarray:
    """[N, ...] as [C, everything else]."""
    return values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


# --- thresholds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BATCHED)
def test_thresholds_are_those_of_the_activations(name: str) -> None:
    """Each channel's threshold is what the search finds for the ANN's own activations, to float32 rounding of those."""
    model = NETWORKS[name].model()
    feeds = inputs_of(model, 20)
    network = compiled(model, data=feeds, timesteps=6, max_burst=3, neuron="burst")
    uppers = {"mobile": 6.0, "saturating": 1.0}
    found, upper = thresholds_of(network), uppers.get(name, float("inf"))
    expect = likely(model, feeds, upper)
    for node, (values, axis) in activations(model, feeds).items():
        histogram = ChannelHistogram(1 if axis is None else values.shape[axis])
        histogram.add(channels_first(values, axis)[None])
        histogram.likely = expect[node]
        expected = minimum_error_thresholds(histogram, 6, 3, 0.5, upper=upper)
        np.testing.assert_allclose(found[node].reshape(-1), expected, rtol=1e-4)
        assert found[node].shape == tuple(len(expected) if i == axis else 1 for i in range(values.ndim))


def test_one_threshold_per_layer() -> None:
    model = NETWORKS["residual"].model()
    feeds = inputs_of(model, 20)
    network = compiled(model, data=feeds, timesteps=6, per_channel=False, neuron="burst")
    for node, (values, _) in activations(model, feeds).items():
        histogram = ChannelHistogram(1)
        histogram.add(values.reshape(1, 1, -1))
        histogram.likely = likely(model, feeds)[node].max(keepdims=True)
        theta = thresholds_of(network)[node]
        assert theta.shape == (1, 1, 1, 1)
        np.testing.assert_allclose(theta.reshape(-1), minimum_error_thresholds(histogram, 6, 4, 0.5), rtol=1e-4)
    assert {layer.thresholds for layer in network.record.layers} == {1}


def test_thresholds_depend_on_the_initial_potential() -> None:
    """The search uses the v0 that will run: otherwise a v0 of 0 would cost as much as it does without a search."""
    model = NETWORKS["sequence"].model()
    feeds = inputs_of(model, 20)
    with_half, without = (thresholds_of(compiled(model, data=feeds, v_init=v)) for v in (0.5, 0.0))
    assert all((without[node] < with_half[node]).mean() > 0.5 for node in without)


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_clip_is_never_exceeded_by_what_runs(ratio: float) -> None:
    model = NETWORKS["saturating"].model()
    network = compiled(model, threshold_ratio=ratio, timesteps=3, neuron="burst")
    assert all((theta * 4 <= 1 + 1e-6).all() for theta in thresholds_of(network).values())
    outputs = network.run({"x": 100 * inputs_of(model, 5)["x"]})["y"]
    assert outputs.max() <= 1 + 1e-6


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_a_signed_neuron_holds_the_bound_of_a_clip_itself(ratio: float) -> None:
    """So its θe may be anything: what it emits is the bound at most, rounded."""
    model = NETWORKS["saturating"].model()
    network = compiled(model, threshold_ratio=ratio, timesteps=3, neuron="signed", ratio_per_channel=False)
    largest = {node: float(theta.max()) for node, theta in thresholds_of(network).items()}
    outputs = network.run({"x": 100 * inputs_of(model, 5)["x"]})["y"]
    assert outputs.max() <= 1 + max(largest.values()) / (2 * 3) + 1e-6
    if ratio == 2.0:
        plain = thresholds_of(compiled(model, timesteps=3, neuron="signed"))
        assert all(largest[node] == pytest.approx(2 * float(theta.max())) for node, theta in plain.items())


# --- corrections ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BATCHED)
def test_bias_correction_brings_the_mean_output_of_each_channel_to_that_of_the_ann(name: str) -> None:
    """With v0 = 0 every unsigned neuron floors. Corrected, the error is 3.5 % of the layer's mean, a fifth of before.

    It is not zero, as few samples and few levels make the mean output jump where a shift moves.
    """
    model = NETWORKS[name].model()
    feeds = inputs_of(model, 32)
    truth = activations(model, feeds)
    errors: dict[bool, list[np.ndarray]] = {}
    for corrected in (True, False):
        options = {"timesteps": 4, "v_init": 0.0, "neuron": "burst"}
        network = compiled(model, data=feeds, bias_correction=corrected, **options)
        spikes = network.simulator("ort").run(feeds).spikes
        for node, (values, axis) in truth.items():
            mean = spikes[node][None] * thresholds_of(network)[node] / (4 * 32)
            error = channels_first(mean, axis).mean(axis=1) - channels_first(values, axis).mean(axis=1)
            errors.setdefault(corrected, []).append(np.abs(error) / values.mean())
    assert all(error.mean() < 0.035 for error in errors[True])
    assert np.mean([e.mean() for e in errors[True]]) < np.mean([e.mean() for e in errors[False]]) / 5


def test_record_tells_the_errors_of_the_network_that_runs() -> None:
    """Error, mean error and firing rate of each layer, from the spikes of every sample on its own."""
    model = NETWORKS["residual"].model()
    feeds = inputs_of(model, 12)
    network = compiled(model, data=feeds, timesteps=4, max_burst=2, neuron="burst")
    truth = activations(model, feeds)
    simulator = network.simulator("numpy")
    single = [simulator.run({k: v[i : i + 1] for k, v in feeds.items()}).spikes for i in range(12)]
    for layer in network.record.layers:
        counts = np.stack([s[layer.name] for s in single])
        mean = counts * thresholds_of(network)[layer.name] / 4
        values = truth[layer.name][0]
        assert layer.error == pytest.approx(np.square(mean - values).sum() / np.square(values).sum(), rel=1e-3)
        assert layer.mean_error == pytest.approx((mean - values).sum() / values.sum(), abs=1e-4)
        assert layer.firing_rate == pytest.approx(counts.mean() / 4, rel=1e-4)


def test_without_correction_the_weights_stay() -> None:
    model = NETWORKS["residual"].model()
    network = compiled(model, bias_correction=False)
    kept = {name: constant(tensor) for name, tensor in network.network.tensors().items()}
    for tensor in model.graph.initializer:
        # They come back from where the thresholds were in them.
        np.testing.assert_allclose(kept[tensor.name], onnx.numpy_helper.to_array(tensor), rtol=3e-7, atol=0)
    for layer in network.record.layers:
        assert (layer.bias_shift, layer.error, layer.mean_error, layer.firing_rate) == (None, None, None, None)


def test_correction_lowers_the_error_of_the_output() -> None:
    """With v0 = 0, where flooring costs most: to less than half."""
    for name in ("residual", "mobile", "concat"):
        model = NETWORKS[name].model()
        feeds = inputs_of(model, 64)
        expected = run(model, feeds)["y"]
        squared = []
        for corrected in (True, False):
            network = compiled(model, data=feeds, timesteps=4, v_init=0.0, bias_correction=corrected)
            squared.append(np.square(run(network.model, feeds)["y"] - expected).sum())
        assert squared[0] < squared[1] / 2


# --- repeatability --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["residual", "maxpool_pads", "sequence", "two_inputs"])
def test_batch_size_is_no_matter_of_results(name: str) -> None:
    """To 1e-4: sums over a batch are ordered differently, which may move a value into the next of 2,048 bins."""
    model = NETWORKS[name].model()
    feeds = inputs_of(model, 13)
    first, *others = (compiled(model, data=feeds, timesteps=4, batch_size=size) for size in (13, 1, 4, 100))
    for other in others:
        for a, b in zip(first.model.graph.initializer, other.model.graph.initializer, strict=True):
            x, y = onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b)
            assert a.name == b.name
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-4 * max(float(np.abs(x).max()), 1.0))


@pytest.mark.parametrize("name", ["residual", "maxpool_pads", "mobile"])
def test_number_of_cores_is_no_matter_of_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte: chunks are added up in their order, and a layer adds up in the same order in any thread."""
    model = NETWORKS[name].model()
    found = set()
    for cores in (1, 2, 5):
        monkeypatch.setattr(chunk_pool, "available_cores", lambda cores=cores: cores)
        network = compiled(model, data=inputs_of(model, 13), timesteps=4, batch_size=2)
        found.add(network.model.SerializeToString(deterministic=True))
    assert len(found) == 1


@pytest.mark.parametrize("neuron", ["burst", "auto"])
def test_a_chunk_may_have_no_sample_to_judge_by(neuron: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so many samples of all are simulated to choose and to correct; of a small last chunk it may be none."""
    monkeypatch.setattr(layer_module, "_ENOUGH_VALUES", 1)
    monkeypatch.setattr(layer_module, "_ENOUGH_SAMPLES", 4)
    model = NETWORKS["residual"].model()
    feeds = inputs_of(model, 42)  # every tenth: 0, 10, 20, 30, 40; the second chunk is 41 alone
    network = compiled(model, data=feeds, timesteps=4, neuron=neuron, batch_size=41)
    whole = compiled(model, data=feeds, timesteps=4, neuron=neuron, batch_size=100)
    for a, b in zip(network.record.layers, whole.record.layers, strict=True):
        assert a.error == pytest.approx(b.error, rel=1e-3)


def test_order_of_samples_is_no_matter_of_thresholds() -> None:
    model = NETWORKS["residual"].model()
    feeds = inputs_of(model, 16)
    backwards = {k: v[::-1] for k, v in feeds.items()}
    a, b = (thresholds_of(compiled(model, data=d, batch_size=16)) for d in (feeds, backwards))
    for node, theta in a.items():
        np.testing.assert_allclose(theta, b[node], rtol=1e-5)


def test_progress_goes_from_one_to_all() -> None:
    model = NETWORKS["residual"].model()
    seen: list[tuple[int, int]] = []
    snncc.compile(model, calibration=inputs_of(model, 4), progress=lambda done, of: seen.append((done, of)))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
    assert {of for _, of in seen} == {len(seen)}


def test_fixed_batch_of_the_network_is_respected() -> None:
    model = NETWORKS["samples_mixed"].model()
    assert compiled(model, data=inputs_of(model, 6), timesteps=2).record.calibration == {
        "samples": 6,
        "fingerprint": load(inputs_of(model, 6), input_specs(model)).fingerprint(),
    }


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "correction"), [*((n, True) for n in NETWORKS), ("residual", False), ("mobile", False)]
)
def test_nothing_remains_on_the_frontier(name: str, correction: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Frontier] = []

    class Watched(Frontier):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(calibration_walk, "Frontier", Watched)
    compiled(NETWORKS[name].model(), timesteps=2, bias_correction=correction)
    assert len(made) == 1
    assert made[0]._entries == {}
    assert set(made[0]._readers.values()) <= {0}


def test_frontier_holds_no_more_than_what_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of ten layers: never more than two tensors at a time."""
    most: list[int] = []

    class Watched(Frontier):
        def put(self, name: str, entry: Entry) -> None:
            super().put(name, entry)
            most.append(len(self._entries))

    monkeypatch.setattr(calibration_walk, "Frontier", Watched)
    body = " ".join(f"g{i} = MatMul ({'x' if i == 0 else f'r{i - 1}'}, w_1) r{i} = Relu (g{i})" for i in range(10))
    compiled(parse(f"g (float[N,4] x, float[4,4] w_1) => (float[N,4] y) {{ {body} y = Neg (r9) }}"), timesteps=2)
    assert len(most) > 10
    assert max(most) == 2


def test_nothing_of_a_layer_outlives_the_calibration() -> None:
    network = compiled(NETWORKS["residual"].model(), timesteps=2)
    gc.collect()
    kept = [o for o in gc.get_objects() if type(o) in (Layer, LayerFit, SignedFit, Entry, Scaled)]
    assert kept == []
    assert len(network.record.layers) == 4


def test_a_static_tensor_has_no_values_over_time() -> None:
    with pytest.raises(ValueError, match="static"):
        Entry([]).temporal(0)


# --- what can go wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["first", "second"])
@pytest.mark.parametrize("correction", [True, False])
def test_values_that_are_not_finite_are_named_with_their_node(value: float, place: str, correction: bool) -> None:
    model = NETWORKS["plain"].model()
    name = {"first": "b_1", "second": "b_2"}[place]
    tensor = next(t for t in model.graph.initializer if t.name == name)
    bias = np.array(onnx.numpy_helper.to_array(tensor))
    bias[:2] = [value, -value]
    tensor.CopyFrom(onnx.numpy_helper.from_array(bias, name))
    node = {"first": "r1", "second": "c2" if correction else "r2"}[place]
    with pytest.raises(DataError, match=f"NaN or infinite values arise at node '{node}'"):
        compiled(model, bias_correction=correction)


def test_currents_beyond_single_precision() -> None:
    model = NETWORKS["plain"].model()
    tensor = next(t for t in model.graph.initializer if t.name == "w_1")
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1e4), "w_1"))
    feeds = inputs_of(model, 4)
    with pytest.raises(DataError, match="NaN or infinite values arise at node 'r1'"):
        compiled(model, data={"x": feeds["x"] * np.float32(1e37)})


@pytest.mark.parametrize("neuron", ["burst", "signed", "auto"])
def test_values_whose_squares_are_beyond_single_precision(neuron: str) -> None:
    """Scaled by a power of two, a network spikes as before."""
    plain, large = NETWORKS["plain"].model(), NETWORKS["plain"].model()
    for tensor in large.graph.initializer:
        if tensor.name.startswith("b_") or tensor.name == "w_1":
            values = onnx.numpy_helper.to_array(tensor) * np.float32(2.0**90)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    one, other = compiled(plain, neuron=neuron), compiled(large, neuron=neuron)
    feeds = inputs_of(plain, 5, seed=2)
    np.testing.assert_array_equal(run(other.model, feeds)["y"], run(one.model, feeds)["y"] * np.float32(2.0**90))
    for layer, scaled in zip(one.record.layers, other.record.layers, strict=True):
        assert scaled.error == pytest.approx(layer.error, rel=1e-9)


def test_values_that_overflow_when_summed_over_time() -> None:
    model = parse("g (float[N,2] x) => (float[N,2] y) <float[2] c = {2e38, 1}> { a = Add (x, c) y = Relu (a) }")
    with pytest.raises(DataError, match="larger ones than single precision can add up"):
        compiled(model, timesteps=2)


def test_a_clip_that_leaves_nothing() -> None:
    text = "g (float[N,2] x) => (float[N,2] y) <float z = {0}, float t = {1e-45}> { r = Relu (x) y = Clip (r, z, t) }"
    model = parse(text)
    outputs = compiled(model, timesteps=4).run(inputs_of(model, 5))["y"]
    np.testing.assert_allclose(outputs, 0.0, atol=1e-30)


def test_layer_that_is_never_active() -> None:
    """All currents negative: thresholds of 1, no spikes, no division by zero, an output that is the ANN's."""
    model = NETWORKS["plain"].model()
    tensor = next(t for t in model.graph.initializer if t.name == "b_2")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(8, -1e4, np.float32), "b_2"))
    feeds = inputs_of(model, 4)
    network = compiled(model, data=feeds)
    layer = network.record.layers[1]
    assert (layer.theta_min, layer.firing_rate, layer.error, layer.mean_error) == (1.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(run(network.model, feeds)["y"], run(model, feeds)["y"], atol=1e-6)


def test_constant_data() -> None:
    """Every sample alike, all zeros: no variance to match, nothing to divide by."""
    model = NETWORKS["residual"].model()
    network = compiled(model, data=np.zeros((4, 3, 6, 6), np.float32), timesteps=16)
    zeros = {"x": np.zeros((2, 3, 6, 6), np.float32)}
    want = run(model, zeros)["y"]
    assert np.linalg.norm(run(network.model, zeros)["y"] - want) < 0.05 * np.linalg.norm(want)


def test_a_single_neuron_is_the_closed_form() -> None:
    """Nothing to correct but the neuron itself: its output is the closed form at the threshold that was found."""
    model = parse("g (float[N,1] x) => (float[N,1] y) { y = Relu (x) }")
    data = np.random.default_rng(0).exponential(1.0, (200, 1)).astype(np.float32)
    network = compiled(model, data=data, timesteps=5, max_burst=2, bias_correction=False)
    theta = thresholds_of(network)["y"]
    np.testing.assert_allclose(run(network.model, {"x": data})["y"], closed_form(data, theta, 5, 2, 0.5), rtol=1e-5)


def test_the_graph_stays_as_it_is() -> None:
    model = NETWORKS["residual"].model()
    ctx = Context(Config(), calibration=load(inputs_of(model, 4), input_specs(model)))
    graph: gs.Graph = analyse_network(read_ann(model), ctx, Hook())
    before = export_model(graph).SerializeToString(deterministic=True)
    assert Calibrate().run(graph, ctx) is False
    assert export_model(graph).SerializeToString(deterministic=True) == before
    assert ctx.layers.keys() == {site.node for site in ctx.analysis.neurons}
