"""The evaluation against counts made with plain ONNX Runtime, the closed form and the reference simulator."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import snncc
from snncc.data import InputSpec, load
from snncc.errors import DataError, UsageError
from snncc.evaluate import evaluate

T, PSI, V0 = 6, 2, 0.5
SPECS = [InputSpec("x", np.dtype(np.float32), ("N", 3, 6, 6))]


def model(batch: int | str = "N", sink: str = "scores") -> onnx.ModelProto:
    """Conv 3→5 (3×3, same size), Relu, Conv 5→4 (3×3), Relu, Flatten, Gemm to 5 scores; a second output."""
    rng = np.random.default_rng(3)
    shapes = {"w1": (5, 3, 3, 3), "b1": (5,), "w2": (4, 5, 3, 3), "w3": (5, 64), "w4": (2, 64)}
    initializers = [
        numpy_helper.from_array((rng.standard_normal(s) * np.sqrt(2 / max(np.prod(s[1:]), 4))).astype(np.float32), name)
        for name, s in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["a1"], "relu1"),
        helper.make_node("Conv", ["a1", "w2"], ["c2"], "conv2"),
        helper.make_node("Relu", ["c2"], ["a2"], "relu2"),
        helper.make_node("Flatten", ["a2"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3"], [sink], "gemm3", transB=1),
        helper.make_node("Gemm", ["f", "w4"], ["box"], "gemm4", transB=1),
        helper.make_node("Reshape", ["box", "flat"], ["boxes"], "reshape"),
    ]
    initializers.append(numpy_helper.from_array(np.array([-1, 1, 2], np.int64), "flat"))
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 1, 2]),
        helper.make_tensor_value_info(sink, TensorProto.FLOAT, [batch, 5]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 6, 6])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(proto: onnx.ModelProto, images: np.ndarray, size: int = 25) -> dict[str, np.ndarray]:
    """Run a model in ONNX Runtime, without anything of snncc."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    parts = [session.run(None, {"x": images[i : i + size]}) for i in range(0, len(images), size)]
    return {
        name: np.concatenate([p[i] for p in parts], axis=1 if "trace" in name else 0) for i, name in enumerate(names)
    }


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((110, 3, 6, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def labels(images) -> np.ndarray:
    truth = run(model(), images)["scores"].argmax(axis=1)
    truth[::4] = (truth[::4] + 2) % 5
    return truth


@pytest.fixture(scope="module")
def network(images) -> snncc.SpikingNetwork:
    config = snncc.Config(timesteps=T, max_burst=PSI, v_init=V0, bias_correction=False, trace=True)
    return snncc.compile(model(), calibration=images[:50], config=config)


@pytest.fixture(scope="module")
def data(images, labels):
    return load({"x": images, "label": labels}, SPECS)


@pytest.fixture(scope="module")
def found(network, data):
    return evaluate(network, data, ann=model(), batch_size=25)


def test_accuracy_and_agreement(found, network, images, labels):
    ann, snn = run(model(), images)["scores"].argmax(axis=1), run(network.model, images)["scores"].argmax(axis=1)
    assert 0.5 < (snn == labels).mean() < 0.8, "the test would not notice much"
    assert 0.5 < (ann == snn).mean() < 1.0
    assert found.ann_accuracy == (ann == labels).mean()
    assert found.snn_accuracy == (snn == labels).mean()
    assert found.agreement == (ann == snn).mean()
    assert (found.samples, found.class_output, found.classes) == (110, "scores", 5)
    assert found.warnings == ()


def test_every_timestep(found, network, images, labels):
    """The output that --trace adds is computed inside the artifact."""
    ann = run(model(), images)
    traced = run(network.model, images)
    classes = traced["scores_trace"].argmax(axis=-1)
    # A tie between two classes may fall either way, as the two traces sum in another order.
    np.testing.assert_allclose(found.accuracy_by_timestep, (classes == labels).mean(axis=1), atol=1 / 110)
    np.testing.assert_allclose(
        found.agreement_by_timestep, (classes == ann["scores"].argmax(axis=1)).mean(axis=1), atol=1 / 110
    )
    assert found.accuracy_by_timestep[-1] == found.snn_accuracy
    assert len(set(found.agreement_by_timestep)) > 1


def test_relative_error(found, network, images):
    ann, snn = run(model(), images), run(network.model, images)
    assert [output.name for output in found.outputs] == ["boxes", "scores"]
    for output in found.outputs:
        wanted = np.linalg.norm(snn[output.name] - ann[output.name]) / np.linalg.norm(ann[output.name])
        assert wanted > 0.01
        assert output.relative_error == pytest.approx(wanted, rel=1e-4)
        over_time = [
            np.linalg.norm(step - ann[output.name]) / np.linalg.norm(ann[output.name])
            for step in snn[f"{output.name}_trace"]
        ]
        np.testing.assert_allclose(output.by_timestep, over_time, rtol=1e-4)


def test_spikes_of_the_first_layer_follow_the_closed_form(found, network, images):
    """Its current is constant: Σn = clip(floor(T·x/θ + v0), 0, T·ψ)."""
    proto = model()
    proto.graph.output.append(helper.make_tensor_value_info("c1", TensorProto.FLOAT, ["N", 5, 6, 6]))
    current = run(proto, images)["c1"].astype(np.float64)
    node = next(n for n in network.network.nodes if n.name == "relu1")
    theta = node.inputs[1].values.astype(np.float64)
    spikes = np.clip(np.floor(T * current / theta + V0), 0, T * PSI)
    layer = found.reading.neurons[0]
    # A current on the edge of a spike may round either way in float32.
    assert layer.spikes == pytest.approx(spikes.sum() / len(images), rel=1e-4)
    assert layer.neurons == 5 * 36
    assert layer.firing_rate == pytest.approx(layer.spikes / (5 * 36 * T))


def test_operations_and_energy(found):
    macs = {"conv1": 5 * 36 * 27, "conv2": 4 * 16 * 45, "gemm3": 5 * 64, "gemm4": 2 * 64}
    told = found.to_dict()
    layers = {layer["name"]: layer for layer in told["activity"]["weighted_layers"]}
    assert {name: layer["macs"] for name, layer in layers.items()} == macs
    assert told["activity"]["ann_macs"] == sum(macs.values())
    assert told["activity"]["snn_macs"] == macs["conv1"]
    # Each of the 64 neurons of the second layer reaches 5 + 2 weights.
    second = found.reading.neurons[1].spikes
    assert layers["gemm3"]["synaptic_operations"] == pytest.approx(5 * second, rel=1e-5)
    assert layers["gemm4"]["synaptic_operations"] == pytest.approx(2 * second, rel=1e-5)
    activity = told["activity"]
    assert activity["neurons"] == 5 * 36 + 64
    assert activity["spikes"] == pytest.approx(sum(layer.spikes for layer in found.reading.neurons))
    assert activity["firing_rate"] == pytest.approx(activity["spikes"] / ((5 * 36 + 64) * T))
    energy = told["energy"]["45nm"]
    assert energy["ann"] == pytest.approx(sum(macs.values()) * 4.6e-12)
    assert energy["snn"] == pytest.approx(macs["conv1"] * 4.6e-12 + told["activity"]["synaptic_operations"] * 0.9e-12)


def test_the_reference_simulator_agrees(found, network, data):
    reference = evaluate(network, data, ann=model(), backend="numpy", batch_size=40)
    # One sample of 110 may sit on an edge.
    assert reference.snn_accuracy == pytest.approx(found.snn_accuracy, abs=1 / 110)
    assert reference.agreement == pytest.approx(found.agreement, abs=1 / 110)
    np.testing.assert_allclose(reference.accuracy_by_timestep, found.accuracy_by_timestep, atol=2 / 110)
    for ours, theirs in zip(found.reading.neurons, reference.reading.neurons, strict=True):
        assert theirs.spikes == pytest.approx(ours.spikes, rel=1e-3)


@pytest.mark.parametrize("size", [1, 7, 110, 500])
def test_batches_do_not_matter(found, network, data, size):
    other = evaluate(network, data, ann=model(), batch_size=size)
    assert other.samples == 110
    assert other.snn_accuracy == pytest.approx(found.snn_accuracy, abs=1 / 110)
    assert other.ann_accuracy == found.ann_accuracy
    assert other.reading.spikes == pytest.approx(found.reading.spikes, rel=1e-3)


def test_progress(network, data):
    steps: list[tuple[int, int]] = []
    evaluate(network, data, batch_size=50, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_without_ann_and_labels(network, images):
    alone = evaluate(network, images)
    assert (alone.ann_accuracy, alone.snn_accuracy, alone.agreement, alone.outputs) == (None, None, None, ())
    assert alone.accuracy_by_timestep is None
    assert alone.reading.spikes > 0


def test_without_labels_agreement_is_known(network, images, found):
    unlabelled = evaluate(network, images, ann=model(), batch_size=25)
    assert unlabelled.snn_accuracy is None
    assert unlabelled.agreement == found.agreement


@pytest.mark.parametrize(("wrong", "index"), [(-1, 0), (5, 109), (255, 60)])
def test_labels_that_are_no_classes(network, images, labels, wrong, index):
    bad = labels.copy()
    bad[index] = wrong
    with pytest.raises(DataError, match=rf"label {wrong} of sample {index} is no class .* has 5 \(0 to 4\)"):
        evaluate(network, load({"x": images, "label": bad}, SPECS))


def test_fixed_batches_of_the_ann(network, data, found):
    """The ANN was exported with a batch of 10, the SNN with an open one."""
    fixed = evaluate(network, data, ann=model(batch=10), batch_size=25)
    assert fixed.ann_accuracy == found.ann_accuracy
    assert any("was compiled from" in warning for warning in fixed.warnings)
    with pytest.raises(DataError, match="takes 10 at a time: give a multiple of 10"):
        evaluate(network, data.head(25), ann=model(batch=10))


def test_another_ann(network, data):
    with pytest.raises(UsageError, match="has no output 'scores'"):
        evaluate(network, data, ann=model(sink="other"))
    other = model()
    other.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 12
    for node in other.graph.node:
        if node.name == "conv1":
            node.attribute.append(helper.make_attribute("strides", [2, 2]))
    with pytest.raises(UsageError, match=r"takes 'x' float32 \[N, 3, 12, 6\], the spiking network"):
        evaluate(network, data, ann=other)


def autoencoder() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        code (float[N, 4] x) => (float[N, 4] y)
        <float[4, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}>
        { a = Relu(x)  y = MatMul(a, w) }"""
    )


def test_an_autoencoder_gives_no_class_scores():
    """Its labels say normal or not, and never reach the last of its outputs."""
    values = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    network = snncc.compile(autoencoder(), calibration=values)
    binary = evaluate(network, {"x": values, "label": np.arange(20) % 2}, ann=autoencoder())
    assert binary.class_output is None
    assert binary.snn_accuracy is None
    assert len(binary.outputs) == 1
    assert any("the labels are not used" in warning for warning in binary.warnings)
    # Four classes out of four features are a classification all the same.
    assert evaluate(network, {"x": values, "label": np.arange(20) % 4}).class_output == "y"


def test_nan_is_noticed(network, images):
    class Broken(snncc.SpikingNetwork):
        def simulator(self, backend="ort", threads=0):
            inner = super().simulator(backend, threads)
            inner_run = inner.run

            def run_with_nan(feeds, *, trace=False):
                result = inner_run(feeds, trace=trace)
                result.outputs["boxes"] = np.full_like(result.outputs["boxes"], np.nan)
                return result

            inner.run = run_with_nan
            return inner

    broken = evaluate(Broken(network.model, network.record), images)
    assert broken.warnings == ("output 'boxes' of the spiking network holds NaN or Inf",)
