"""Sensitivity and cost of single spiking layers against the closed form put into the ANN from outside."""

from __future__ import annotations

import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import pytest
from scipy.special import softmax
from small_network import SHAPE, small_model
from small_networks import NETWORKS, inputs_of, parse, run

import snncc
from snncc.allocation.candidates import Candidate
from snncc.allocation.in_context import InContext
from snncc.allocation.sensitivity import Score, isolated
from snncc.analysis import NeuronSite
from snncc.artifact import used_functions
from snncc.compiling import analyse_network
from snncc.config import Config
from snncc.context import Context
from snncc.data import load
from snncc.errors import UsageError
from snncc.graph import export_model
from snncc.neurons.burst_if import closed_form
from snncc.neurons.signed_burst import closed_form as signed_closed_form
from snncc.neurons.threshold import FEW, ChannelHistogram, minimum_error_thresholds, signed_thresholds
from snncc.passes.fold_thresholds import unfold_thresholds
from snncc.pipeline import Hook
from snncc.runtime.unlower import lowered_graph
from snncc.sources import input_specs, read_ann

CANDIDATES = (Candidate(1, 1.0), Candidate(4, 1.0), Candidate(4, 2.5), Candidate(16, 1.0), Candidate(2, 1.5))
SEPARABLE = [n for n in NETWORKS if n not in ("samples_mixed", "samples_moved", "samples_moved_late")]


def scored(
    model: onnx.ModelProto,
    feeds: dict[str, np.ndarray],
    config: Config,
    class_output: str | None = None,
    **options: object,
) -> tuple[dict[str, list[Score]], onnx.ModelProto, list[NeuronSite]]:
    ctx = Context(config)
    graph = analyse_network(read_ann(model), ctx, Hook())
    exported = export_model(graph)
    found: dict[str, list[Score]] = {}
    wanted = {site.node: CANDIDATES for site in ctx.analysis.neurons}
    data = load(feeds, input_specs(model))
    uniform = {layer.name: layer for layer in snncc.compile(model, calibration=feeds, config=config).record.layers}
    options = {"uneven": False, "uniform": uniform, **options}
    isolated(graph, ctx.analysis, data, config, wanted, class_output, done=found.__setitem__, **options)  # type: ignore[arg-type]
    return found, exported, ctx.analysis.neurons


def fitted(current: np.ndarray, site: NeuronSite, candidate: Candidate, config: Config) -> np.ndarray:
    """θe of one candidate, in a shape that broadcasts to the current."""
    axis = site.channel_axis if site.channels is not None else None
    by_channel = current.reshape(1, 1, -1) if axis is None else np.moveaxis(current, axis, 0)[None]
    by_channel = by_channel.reshape(1, by_channel.shape[1], -1)
    upper = site.activation.upper
    histogram = ChannelHistogram(by_channel.shape[1])
    histogram.add(np.minimum(by_channel, np.float32(upper)))
    histogram.likely = likely(histogram, by_channel, upper)
    theta = minimum_error_thresholds(histogram, config.timesteps, candidate.max_burst, config.v_init, upper=upper)
    shape = [1] * current.ndim
    if axis is not None:
        shape[axis] = -1
    raised = theta * np.float32(candidate.threshold_ratio)
    return np.minimum(raised, np.float32(upper / candidate.max_burst)).reshape(shape)


def likely(histogram: ChannelHistogram, currents: np.ndarray, upper: float = np.inf) -> np.ndarray:
    """How large the next value is likely to be in channels with few of them, of currents [1, C, M]."""
    if (histogram.counts.sum(axis=1) >= FEW).all():
        return np.zeros(len(histogram.counts))
    values = currents.astype(np.float64)
    return np.clip(values.mean(axis=(0, 2)) + 3 * values.std(axis=(0, 2)), 0, upper)


def with_output_replaced(model: onnx.ModelProto, node: str, tensor: str) -> onnx.ModelProto:
    """The model with a node taken out; what it made is an input."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [n for n in copy.graph.node if n.name != node]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    copy.graph.input.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    return copy


def values_of(model: onnx.ModelProto, feeds: dict[str, np.ndarray], tensor: str) -> np.ndarray:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if tensor in feeds:
        return feeds[tensor]
    if tensor not in {o.name for o in copy.graph.output}:
        copy.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    return run(copy, feeds)[tensor]


@pytest.mark.parametrize("name", SEPARABLE)
def test_losses_and_spikes_are_those_of_the_closed_form(name: str) -> None:
    model = NETWORKS[name].model()
    config = Config(
        timesteps=4, batch_size=5, neuron="burst", ratio_per_channel=False
    )  # the last of three chunks is smaller
    feeds = inputs_of(model, 12)
    found, ann, sites = scored(model, feeds, config)
    single = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    chunks = [{k: v[i : i + 1] for k, v in feeds.items()} for i in range(12)] if single else [feeds]
    for site in sites:
        currents = [values_of(ann, chunk, site.input) for chunk in chunks]
        whole = np.concatenate(currents)
        cut = with_output_replaced(ann, site.node, site.output)
        for candidate, score in zip(CANDIDATES, found[site.node], strict=True):
            theta = fitted(whole, site, candidate, config)
            means = [closed_form(c, theta, 4, candidate.max_burst, 0.5).astype(np.float32) for c in currents]
            spikes = sum(float(np.round(m * 4 / theta).sum()) for m in means) / len(whole)
            # A current that lies on a step may fall to either side of it: float32 sums are ordered differently.
            assert score.spikes == pytest.approx(spikes, rel=2e-3, abs=2 / len(whole))
            squared: dict[str, float] = {}
            energy: dict[str, float] = {}
            for chunk, mean in zip(chunks, means, strict=True):
                expected = run(ann, chunk)
                snn = {site.output: mean} | run(cut, {**chunk, site.output: mean})
                for output, value in expected.items():
                    squared[output] = squared.get(output, 0.0) + float(np.square(snn[output] - value).sum())
                    energy[output] = energy.get(output, 0.0) + float(np.square(value).sum())
            loss = np.mean([squared[o] / energy[o] for o in squared])
            assert score.loss == pytest.approx(loss, rel=2e-2, abs=1e-7)


def test_loss_of_classes_is_the_symmetric_divergence() -> None:
    model = small_model()
    feeds = {"image": 2 * np.random.default_rng(1).standard_normal((40, *SHAPE)).astype(np.float32)}
    config = Config(timesteps=2, neuron="burst", ratio_per_channel=False)
    found, ann, sites = scored(model, feeds, config, class_output="logits")
    site = sites[1]
    current = values_of(ann, feeds, site.input)
    for candidate, score in zip(CANDIDATES, found[site.node], strict=True):
        mean = closed_form(current, fitted(current, site, candidate, config), 2, candidate.max_burst, 0.5)
        cut = with_output_replaced(ann, site.node, site.output)
        p = softmax(run(ann, feeds)["logits"].astype(np.float64), axis=1)
        q = softmax(run(cut, {**feeds, site.output: mean.astype(np.float32)})["logits"].astype(np.float64), axis=1)
        both = (p * np.log(p / q) + q * np.log(q / p)).sum(axis=1).mean()
        assert score.loss == pytest.approx(both, rel=2e-2)
    losses = [s.loss for s in found[site.node]]
    assert losses[0] > losses[1] > losses[3] > 0
    assert losses[2] > losses[1]


def test_operations_are_spikes_times_weights_met() -> None:
    """Conv 3 x 3 behind a MaxPool: fan-outs that can be counted by hand."""
    model = parse(
        """g (float[N,2,8,8] image, float[2,2,1,1] w_0, float[6,2,3,3] w_1, float[8,6,3,3] w_2) => (float[N,8,2,2] y) {
            c0 = Conv (image, w_0) r0 = Relu (c0) c1 = Conv <pads = [1,1,1,1]> (r0, w_1) r1 = Relu (c1)
            p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r1) c2 = Conv (p, w_2) y = Relu (c2)
        }"""
    )
    feeds = {"image": 2 * np.random.default_rng(1).standard_normal((20, *SHAPE)).astype(np.float32)}
    config = Config(timesteps=4, batch_size=7, neuron="burst", ratio_per_channel=False)
    found, ann, sites = scored(model, feeds, config)
    current = values_of(ann, feeds, sites[1].input)
    for candidate, score in zip(CANDIDATES, found[sites[1].node], strict=True):
        theta = fitted(current, sites[1], candidate, config)
        counts = np.round(closed_form(current, theta, 4, candidate.max_burst, 0.5) * 4 / theta)
        pooled = counts.reshape(20, 6, 4, 2, 4, 2).max(axis=(3, 5))  # MaxPool 2 x 2: [20, 6, 4, 4]
        # A 3 x 3 kernel over 4 x 4 without padding has 2 x 2 places: a corner meets 1, an edge 2, the middle 4.
        windows = np.array([[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]])
        assert score.operations == pytest.approx(float((pooled * windows).sum()) * 8 / 20, rel=2e-3)


def test_operations_of_a_fully_connected_layer_are_spikes_times_its_outputs() -> None:
    model = small_model()
    feeds = {"image": 2 * np.random.default_rng(1).standard_normal((20, *SHAPE)).astype(np.float32)}
    found, _, sites = scored(model, feeds, Config(timesteps=4, batch_size=7, neuron="burst"))
    for score in found[sites[2].node]:
        assert score.operations == pytest.approx(4 * score.spikes, rel=1e-6)  # four classes


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_an_executor_changes_nothing(kind: str) -> None:
    model = NETWORKS["residual"].model()
    feeds = inputs_of(model, 9)
    here, _, _ = scored(model, feeds, Config(timesteps=3, neuron="burst"))
    # Spawned: a fork would inherit the pools of ONNX Runtime without their threads.
    processes = functools.partial(ProcessPoolExecutor, 1, multiprocessing.get_context("spawn"))
    with processes() if kind == "processes" else ThreadPoolExecutor(2) as pool:
        there, _, _ = scored(model, feeds, Config(timesteps=3, neuron="burst"), executor=pool)
    assert here == there


def test_mixed_samples_are_refused() -> None:
    model = NETWORKS["samples_mixed"].model()
    with pytest.raises(UsageError, match="can't be taken out of a batch"):
        scored(model, inputs_of(model, 6), Config(neuron="burst"))


def test_in_context_scores_are_those_of_the_network_with_that_layer_changed() -> None:
    """Against artifacts compiled without corrections, whose node is rewritten; ONNX Runtime runs them whole."""
    model = NETWORKS["residual"].model()
    feeds = inputs_of(model, 12)
    config = Config(timesteps=3, max_burst=2, v_init=0.0, bias_correction=False, batch_size=5, neuron="burst")
    config = replace(config, ratio_per_channel=False)
    network = snncc.compile(model, calibration=feeds, config=config)
    expected = run(model, feeds)
    data = load(feeds, input_specs(model))
    context = InContext(network, data, config)
    found, ann, sites = scored(model, feeds, config, score=context.scores)
    for site in sites:
        current = values_of(ann, feeds, site.input)
        for candidate, score in zip(CANDIDATES, found[site.node], strict=True):
            theta = fitted(current, site, candidate, config) / np.float32(candidate.threshold_ratio)
            graph = lowered_graph(network.model)
            unfold_thresholds(graph)
            changed = export_model(graph)
            changed.functions.extend(used_functions(graph))
            node = next(n for n in changed.graph.node if n.name == site.node)
            index = [i.name for i in changed.graph.initializer].index(node.input[1])
            changed.graph.initializer[index].CopyFrom(
                onnx.numpy_helper.from_array(theta.astype(np.float32), node.input[1])
            )
            for attribute in node.attribute:
                if attribute.name == "max_burst":
                    attribute.i = candidate.max_burst
                elif attribute.name == "threshold_ratio":
                    attribute.f = candidate.threshold_ratio
            got = run(changed, feeds)
            loss = np.mean([np.square(got[o] - v).sum() / np.square(v).sum() for o, v in expected.items()])
            # Spikes on the edge of a threshold may differ, with everything behind them.
            assert score.loss == pytest.approx(loss, rel=2e-2, abs=1e-7)


def test_what_was_not_uneven_is_not_disturbed() -> None:
    model = small_model()
    feeds = {"image": 2 * np.random.default_rng(1).standard_normal((40, *SHAPE)).astype(np.float32)}
    config = Config(timesteps=4, neuron="burst")
    even, _, _ = scored(model, feeds, config, class_output="logits")
    layers = snncc.compile(model, calibration=feeds, config=config).record.layers
    for unevenness, quantisation in ((0.0, 0.1), (-0.1, 0.1), (0.1, 0.0), (0.1, -0.1), (None, None)):
        measured = {n.name: replace(n, quantisation=quantisation, unevenness=unevenness) for n in layers}
        assert scored(model, feeds, config, class_output="logits", uneven=True, uniform=measured)[0] == even


def test_uneven_arrival_disturbs_all_layers_but_the_first() -> None:
    model = small_model()
    feeds = {"image": 2 * np.random.default_rng(1).standard_normal((40, *SHAPE)).astype(np.float32)}
    config = Config(timesteps=4, neuron="burst")
    even, _, sites = scored(model, feeds, config, class_output="logits")
    layers = snncc.compile(model, calibration=feeds, config=config).record.layers
    measured = {layer.name: replace(layer, quantisation=0.01, unevenness=0.03) for layer in layers}
    uneven, _, _ = scored(model, feeds, config, class_output="logits", uneven=True, uniform=measured)
    assert uneven[sites[0].node] == even[sites[0].node]
    for site in sites[1:]:
        assert uneven[site.node][1].loss > 1.2 * even[site.node][1].loss
    # There is nothing to arrive unevenly in a single timestep.
    single, _, _ = scored(model, feeds, Config(timesteps=1, neuron="burst"), class_output="logits", uneven=True)
    assert single == scored(model, feeds, Config(timesteps=1, neuron="burst"), class_output="logits")[0]


def test_signed_neurons_are_scored_by_their_closed_form_on_both_sides_of_zero() -> None:
    """A hidden tanh: the mean output of the encoder by hand, and |levels| as spikes; uneven arrival costs nothing."""
    model = parse(
        """g (float[N,6] x, float[6,8] w_1, float[8] b_1, float[8,7] w_2, float[7] b_2, float[7,3] w_3)
        => (float[N,3] y) {
            g1 = Gemm (x, w_1, b_1) r = Relu (g1) g2 = Gemm (r, w_2, b_2) t = Tanh (g2) y = MatMul (t, w_3)
        }"""
    )
    feeds = inputs_of(model, 40)
    config = Config(timesteps=4, ratio_per_channel=False)
    for uneven in (False, True):
        found, _, sites = scored(model, feeds, config, uneven=uneven)
        site = sites[-1]
        assert (site.node, site.activation.kind) == ("t.neuron", "tanh")
        values = values_of(model, feeds, "t")
        for candidate, score in zip(CANDIDATES, found[site.node], strict=True):
            sides = [ChannelHistogram(7) for _ in range(2)]
            for side, part in zip(sides, (values, -values), strict=True):
                side.add(np.maximum(part, 0)[:, :, None])
                side.likely = likely(side, part.T[None])
            theta = signed_thresholds(*sides, 4, candidate.max_burst, 0.5) * np.float32(candidate.threshold_ratio)
            mean = signed_closed_form(values, theta, 4, candidate.max_burst, 0.5)
            assert score.spikes == pytest.approx(np.abs(mean * 4 / theta).sum() / 40, rel=1e-3)
            expected = run(model, feeds)["y"]
            weights = next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "w_3")
            loss = np.square(mean @ weights - expected).sum() / np.square(expected).sum()
            assert score.loss == pytest.approx(loss, rel=1e-3)
