"""The guard of weight calibration: which of two artifacts is better on held-back samples, computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator
from small_network import SHAPE, ann_outputs, small_model

import snncc
from snncc.allocation.metric import Distance
from snncc.data import load
from snncc.graph import import_graph
from snncc.sequences import with_frames
from snncc.sources import input_specs
from snncc.weight_guard import is_better

MODEL = small_model()
IMAGES = 2 * np.random.default_rng(1).standard_normal((90, *SHAPE)).astype(np.float32)


def agreement(network: snncc.SpikingNetwork, which: slice) -> float:
    classes = network.run(IMAGES[which])["logits"].argmax(1)
    return float((classes == ann_outputs(MODEL, IMAGES[which]).argmax(1)).mean())


@pytest.mark.parametrize("size", [5, 32])
def test_the_network_that_agrees_more_on_every_eighth_sample_is_better(size: int) -> None:
    few, many = (
        snncc.compile(MODEL, calibration=IMAGES, config=snncc.Config(timesteps=t, max_burst=b))
        for t, b in ((1, 1), (8, 4))
    )
    assert agreement(few, slice(4, None, 8)) < agreement(many, slice(4, None, 8))
    data, graph = load(IMAGES, input_specs(MODEL)), import_graph(MODEL)
    assert is_better(many.model, few.model, MODEL, data, graph, snncc.Config(batch_size=size))
    assert not is_better(few.model, many.model, MODEL, data, graph, snncc.Config(batch_size=size))
    assert not is_better(few.model, few.model, MODEL, data, graph, snncc.Config(batch_size=size))


def test_only_held_back_samples_count() -> None:
    """Seven of eight samples are such that only the one network is right on them, the held-back ones the reverse."""
    one, two = (
        snncc.compile(MODEL, calibration=IMAGES, config=snncc.Config(timesteps=t, max_burst=b))
        for t, b in ((1, 2), (2, 1))
    )
    expected = ann_outputs(MODEL, IMAGES).argmax(1)
    right = [network.run(IMAGES)["logits"].argmax(1) == expected for network in (one, two)]
    only_one, only_two = (np.flatnonzero(a & ~b) for a, b in (right, right[::-1]))
    assert len(only_one)
    assert len(only_two)
    chosen = np.where(np.arange(40) % 8 == 4, only_one[0], only_two[0])
    data, graph = load(IMAGES[chosen], input_specs(MODEL)), import_graph(MODEL)
    assert is_better(one.model, two.model, MODEL, data, graph, snncc.Config(batch_size=2))
    assert not is_better(two.model, one.model, MODEL, data, graph, snncc.Config(batch_size=2))


@pytest.mark.parametrize(("timesteps", "max_burst"), [(1, 2), (1, 4), (2, 2)])
def test_weight_calibration_never_lowers_the_agreement_on_held_back_samples(timesteps: int, max_burst: int) -> None:
    found = [
        snncc.compile(
            MODEL,
            calibration=IMAGES,
            config=snncc.Config(timesteps=timesteps, max_burst=max_burst, weight_calibration=fitted),
        )
        for fitted in (True, False)
    ]
    fitted, plain = (agreement(network, slice(4, None, 8)) for network in found)
    assert fitted >= plain


def test_sequences_are_compared_with_the_mean_over_their_periods() -> None:
    """The ANN's outputs on both frames, averaged, on every eighth sample; computed by hand."""
    frames = np.stack([IMAGES, IMAGES[::-1]], axis=1)
    config = snncc.Config(timesteps=2, input_coding="frames", reset_after=1, batch_size=5)
    few, many = (
        snncc.compile(MODEL, calibration=frames, config=replace(config, max_burst=b, bias_correction=b > 1))
        for b in (1, 16)
    )
    wanted = np.mean([ann_outputs(MODEL, frames[:, k]) for k in range(2)], axis=0)[4::8].argmax(1)
    right = [float((n.run(frames[4::8])["logits"].argmax(1) == wanted).mean()) for n in (few, many)]
    assert right[0] < right[1]
    data = load(frames, with_frames(input_specs(MODEL), config))
    assert is_better(many.model, few.model, MODEL, data, import_graph(MODEL), config)
    assert not is_better(few.model, many.model, MODEL, data, import_graph(MODEL), config)


def scaled(usual: float, rare: float) -> onnx.ModelProto:
    """Three scores, times `usual` where the third input is 0, and `rare` where it is 1; the class stays the same."""
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        scaled (float[n, 3] x) => (float[n, 3] scores)
        <float[3, 3] w = {{1, 0, -1, 0, 1, 2, 0, 0, 0}}, float[3, 1] pick = {{0, 0, {rare - usual}}},
         float[1] usual = {{{usual}}}>
        {{ s = MatMul(x, w) f = MatMul(x, pick) g = Add(f, usual) scores = Mul(s, g) }}"""
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    return model


def test_a_few_samples_do_not_outweigh_all_others() -> None:
    """On one of twelve samples the one network is much further from the ANN, on all others it is nearer."""
    inputs = np.random.default_rng(0).standard_normal((96, 3)).astype(np.float32)
    inputs[:, 2] = np.arange(96) == 4
    ann, one, other = scaled(1, 1), scaled(1.01, 9), scaled(1.05, 1.05)
    data, graph = load(inputs, input_specs(ann)), import_graph(onnx.shape_inference.infer_shapes(ann))
    distance = Distance("scores", 2)
    expected, *found = (ReferenceEvaluator(m).run(None, {"x": inputs[4::8]})[0] for m in (ann, one, other))
    distance.add({"scores": expected}, {"scores": np.stack(found)})
    assert distance.loss()[0] > distance.loss()[1]
    assert distance.agreement().tolist() == [1.0, 1.0]
    assert is_better(one, other, ann, data, graph, snncc.Config())
    assert not is_better(other, one, ann, data, graph, snncc.Config())


@pytest.mark.parametrize(
    "text",
    [
        "(float[N,3] x) => (float[N,5] y, float[5] z) W { a = MatMul(x, w) r = Relu(a) y = MatMul(r, v)"
        " z = ReduceMean<axes = [0], keepdims = 0>(y) }",
        "(float[N,3] x) => (float[N,3] u, float[5,N] z) W { a = MatMul(x, w) r = Relu(a) y = MatMul(r, v)"
        " z = Transpose(y) u = Neg(x) }",
        "(float[3] x) => (float[5] y) W { a = MatMul(x, w) r = Relu(a) y = MatMul(r, v) }",
    ],
    ids=["mean over samples", "samples last", "no samples"],
)
def test_outputs_without_a_row_per_sample(text: str) -> None:
    """Nothing fails, with calibrated weights and without."""
    rng = np.random.default_rng(0)
    w, v = (", ".join(f"{x:.3f}" for x in rng.normal(size=size)) for size in (12, 20))
    weights = f"<float[3,4] w = {{{w}}}, float[4,5] v = {{{v}}}>"
    model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g ' + text.replace("W", weights))
    data = rng.normal(size=(40, 3) if "N,3" in text else (3,)).astype(np.float32)
    for fitted in (False, True):
        snncc.compile(model, calibration=data, config=snncc.Config(timesteps=2, weight_calibration=fitted))
