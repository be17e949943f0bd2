"""Lowered networks against the reference simulator and the ANN, for every network of the collection.

Spikes are whole and must be equal to the last one; outputs agree to `ROUNDING`: the artifact sums over [T*N] samples
where the reference runs one timestep at a time, so sums may be ordered differently. Where that moved a membrane across
a threshold, a spike would differ: with these seeds none does.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from small_networks import NETWORKS, compiled, inputs_of, parse, run, signature

import snncc
from snncc.compiling import analyse_network
from snncc.config import Config
from snncc.context import Context
from snncc.errors import UnsupportedModelError
from snncc.network import SpikingNetwork
from snncc.passes.lower import LowerTime
from snncc.pipeline import Hook
from snncc.sources import read_ann

ROUNDING = 1e-5
T = 5

# Networks that can be folded, one of each kind of lowering, which are forced onto a Scan below.
FORCED = ("residual", "maxpool_pads", "static_branch", "two_inputs", "neurons_are_outputs", "channels_last", "mobile")


def one_batch(model: onnx.ModelProto, samples: int = 3, seed: int = 7) -> dict[str, np.ndarray]:
    """Inputs of one run: three samples, or the network's own batch."""
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    return inputs_of(model, batch or samples, seed)


def assert_close(got: np.ndarray, want: np.ndarray, tolerance: float = ROUNDING) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(float(np.abs(want).max()), 1e-6))


@functools.cache
def network_of(name: str, trace: bool = False) -> SpikingNetwork:
    return compiled(NETWORKS[name].model(), timesteps=T, trace=trace)


def all_outputs(network: SpikingNetwork, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run an artifact in plain onnxruntime on one batch."""
    session = ort.InferenceSession(network.model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def check_valid(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def check_against_reference(network: SpikingNetwork, feeds: dict[str, np.ndarray]) -> None:
    """Outputs, traces and spikes of the artifact, probed or not, against those of the reference simulator."""
    reference = network.simulator("numpy").run(feeds, trace=True)
    probed = network.simulator("ort").run(feeds, trace=True)
    plain = all_outputs(network, feeds)
    assert list(reference.outputs) == list(probed.outputs)
    for name, want in reference.outputs.items():
        assert_close(plain[name], want)
        assert_close(probed.outputs[name], want)
        assert_close(probed.trace[name], reference.trace[name])
        assert_close(reference.trace[name][-1], want)
    assert reference.spikes.keys() == probed.spikes.keys() == {layer.name for layer in network.record.layers}
    for name, spikes in reference.spikes.items():
        np.testing.assert_array_equal(probed.spikes[name], spikes)
    assert sum(float(s.sum()) for s in reference.spikes.values()) > 0
    assert reference.increments.keys() == probed.increments.keys()
    for name, increments in reference.increments.items():
        np.testing.assert_allclose(probed.increments[name], increments, atol=1e-4 * max(increments.max(), 1e-6))


@pytest.mark.parametrize("name", NETWORKS)
def test_artifact_is_valid_has_the_signature_and_agrees_with_the_reference(name: str) -> None:
    small = NETWORKS[name]
    model = small.model()
    network = network_of(name)
    assert network.record.network["lowering"] == small.lowering
    assert signature(network.model) == signature(model)
    check_valid(network.model)
    check_against_reference(network, one_batch(model))


@pytest.mark.parametrize("name", [n for n, small in NETWORKS.items() if small.lowering == "batch"])
def test_trace(name: str) -> None:
    """Every step of the trace is the reference's, and the last one is the output."""
    model = NETWORKS[name].model()
    network = network_of(name, trace=True)
    check_valid(network.model)
    assert signature(network.model)[: len(signature(model))] == signature(model)
    feeds = one_batch(model)
    outputs = all_outputs(network, feeds)
    trace = network.simulator("numpy").run(feeds, trace=True).trace
    untraced = all_outputs(network_of(name), feeds)
    for value in model.graph.output:
        if f"{value.name}_trace" not in outputs:
            assert value.name in ("side", "g1")  # static: the same at every step
            continue
        traced = outputs[f"{value.name}_trace"]
        assert_close(traced, trace[value.name])
        np.testing.assert_array_equal(traced[-1], outputs[value.name])
        assert_close(outputs[value.name], untraced[value.name])
        assert np.abs(traced[0] - traced[-1]).max() > 0
    check_against_reference(network, feeds)


# --- convergence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_output_approaches_that_of_the_ann(name: str) -> None:
    """The relative L2 error on the calibration data falls as 1/T: it is below 1.2/T at T = 4, 16, 64 and 256.

    A neuron is off by at most about θ/T, and its θ is about a quarter (1/ψ) of the largest activation.
    """
    model = NETWORKS[name].model()
    feeds = inputs_of(model, 4)
    expected = run(model, feeds)
    for timesteps in (4, 16, 64, 256):
        outputs = run(compiled(model, data=feeds, timesteps=timesteps).model, feeds)
        for output, want in expected.items():
            error = np.linalg.norm(outputs[output] - want) / np.linalg.norm(want)
            assert error < 1.2 / timesteps, (timesteps, output)


@pytest.mark.parametrize(
    "options", [{"v_init": 0.0}, {"max_burst": 1}, {"bias_correction": False}, {"per_channel": False}]
)
@pytest.mark.parametrize("name", ["residual", "mobile", "maxpool_pads", "samples_moved"])
def test_output_approaches_that_of_the_ann_with_other_options(name: str, options: dict[str, object]) -> None:
    """Without v0, with single spikes or uncorrected biases the error is larger, but no more than 5/T."""
    model = NETWORKS[name].model()
    feeds = inputs_of(model, 4)
    outputs = run(compiled(model, data=feeds, timesteps=128, **options).model, feeds)
    for output, want in run(model, feeds).items():
        assert np.linalg.norm(outputs[output] - want) / np.linalg.norm(want) < 5 / 128


# --- edges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["residual", "maxpool_pads", "static_branch", "samples_moved", "mobile"])
@pytest.mark.parametrize(("timesteps", "max_burst"), [(1, 1), (1, 4), (3, 1)])
def test_single_steps_and_single_spikes(name: str, timesteps: int, max_burst: int) -> None:
    model = NETWORKS[name].model()
    trace = NETWORKS[name].lowering == "batch"
    network = compiled(model, timesteps=timesteps, max_burst=max_burst, trace=trace)
    check_valid(network.model)
    check_against_reference(network, one_batch(model))


@pytest.mark.parametrize("name", ["residual", "maxpool_ceil", "two_inputs", "sequence"])
def test_any_number_of_samples(name: str) -> None:
    """A sample's output doesn't depend on what else is in the batch."""
    network = network_of(name)
    feeds = inputs_of(network.model, 7)
    check_against_reference(network, feeds)
    together = all_outputs(network, feeds)["y"]
    for size in (1, 2):
        parts = [{k: v[i : i + size] for k, v in feeds.items()} for i in range(0, 7, size)]
        assert_close(np.concatenate([network.run(part)["y"] for part in parts]), together)


def test_threshold_ratio_scales_the_threshold_that_runs() -> None:
    """τ = 2 on one neuron, by hand: θ of τ = 1 stays on the node, spikes are of size 2θ."""
    model = parse("g (float[N,1] x) => (float[N,1] y) { y = Relu (x) }")
    data = np.linspace(0, 4, 50, dtype=np.float32).reshape(-1, 1)
    plain = compiled(model, data=data, bias_correction=False, timesteps=4)
    scaled = compiled(model, data=data, bias_correction=False, timesteps=4, threshold_ratio=2.0)
    theta = plain.record.layers[0].theta_max
    assert scaled.record.layers[0].theta_max == theta
    x = np.array([[1.0], [3.0]], np.float32)
    want = snncc.neurons.burst_if.closed_form(x, np.float32(2 * theta), 4, 4, 0.5)
    assert_close(all_outputs(scaled, {"x": x})["y"], want)
    check_against_reference(scaled, {"x": x})


def test_runs_without_the_compiler(tmp_path: Path) -> None:
    """From another process, which has neither the package nor its folder on its path."""
    script = """
import json, sys
import numpy as np, onnxruntime as ort
folder = sys.argv[1]
for name in sys.argv[2:]:
    session = ort.InferenceSession(f"{folder}/{name}.snn.onnx", providers=["CPUExecutionProvider"])
    feeds = dict(np.load(f"{folder}/{name}.npz"))
    values = session.run(None, feeds)
    np.savez(f"{folder}/{name}.out.npz", **{o.name: v for o, v in zip(session.get_outputs(), values)})
assert not [m for m in sys.modules if m.split(".")[0] in ("snncc", "onnx", "onnx_graphsurgeon")]
"""
    expected = {}
    names = (*FORCED, "samples_moved")
    for name in names:
        model = NETWORKS[name].model()
        network = network_of(name)
        network.save(tmp_path / f"{name}.snn.onnx")
        feeds = one_batch(model)
        np.savez(tmp_path / f"{name}.npz", **feeds)
        expected[name] = all_outputs(network, feeds)
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-I", str(tmp_path / "script.py"), str(tmp_path), *names]
    subprocess.run(command, check=True, cwd=tmp_path)
    for name, outputs in expected.items():
        with np.load(tmp_path / f"{name}.out.npz") as got:
            for output, want in outputs.items():
                np.testing.assert_array_equal(got[output], want)


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_newer_opsets(opset: int) -> None:
    text = NETWORKS["maxpool_pads"].text
    network = compiled(parse(text, opset=opset), timesteps=3, trace=True)
    assert {o.domain: o.version for o in network.model.opset_import} == {"": opset, "snncc": 1}
    check_valid(network.model)
    check_against_reference(network, one_batch(parse(text)))


# --- the Scan -------------------------------------------------------------------------------------------------------


def forced_onto_scan(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, **options: object) -> SpikingNetwork:
    """Compile as if the network could not be folded."""
    lower = LowerTime.run

    def run_on_scan(self: LowerTime, graph: gs.Graph, ctx: Context) -> bool:
        ctx.analysis.fold_blockers.append("forced by a test")
        return lower(self, graph, ctx)

    with monkeypatch.context() as patch:
        patch.setattr(LowerTime, "run", run_on_scan)
        network = compiled(model, **options)
    assert any(n.op_type == "Scan" for n in network.model.graph.node)
    assert any("Scan" in warning for warning in network.record.warnings)
    return network


@pytest.mark.parametrize(("name", "trace"), [(n, False) for n in FORCED] + [(n, True) for n in FORCED[1:4]])
def test_scan_gives_what_the_fold_gives(name: str, trace: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS[name].model()
    scanned = forced_onto_scan(model, monkeypatch, timesteps=T, trace=trace)
    folded = network_of(name, trace)
    check_valid(scanned.model)
    assert signature(scanned.model) == signature(folded.model)
    feeds = one_batch(model)
    want = all_outputs(folded, feeds)
    got = all_outputs(scanned, feeds)
    assert want.keys() == got.keys()
    for output in want:
        assert_close(got[output], want[output])
    check_against_reference(scanned, feeds)
    spikes = folded.simulator("ort").run(feeds).spikes
    for node, counts in scanned.simulator("ort").run(feeds).spikes.items():
        np.testing.assert_array_equal(counts, spikes[node])


@pytest.mark.parametrize("name", FORCED)
def test_scan_takes_any_number_of_samples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS[name].model()
    network = forced_onto_scan(model, monkeypatch, timesteps=3)
    for samples in (1, 4):
        check_against_reference(network, inputs_of(model, samples))


def test_network_without_time_is_the_same_for_scan_and_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks into an artifact sees the same nodes, however time was lowered."""
    for name in FORCED:
        folded, traced = network_of(name).network, network_of(name, trace=True).network
        scanned = forced_onto_scan(NETWORKS[name].model(), monkeypatch, timesteps=T).network
        for other in (scanned, traced):
            assert sorted((n.op, n.name) for n in other.nodes if not n.name.startswith("output:")) == sorted(
                (n.op, n.name) for n in folded.nodes if not n.name.startswith("output:")
            )
            assert [t.name for t in other.outputs] == [t.name for t in folded.outputs]


def test_a_trace_that_cannot_be_made_is_refused_before_calibration() -> None:
    model = NETWORKS["samples_mixed"].model()
    steps: list[int] = []
    with pytest.raises(UnsupportedModelError, match="compile without --trace"):
        snncc.compile(
            model,
            calibration=inputs_of(model, 4),
            config=Config(trace=True),
            progress=lambda done, of: steps.append(done),
        )
    assert steps == []


# --- the lowered graph ----------------------------------------------------------------------------------------------


def ops(network: SpikingNetwork) -> list[str]:
    return [node.op_type for node in network.model.graph.node]


def test_the_graph_keeps_its_topology() -> None:
    assert ops(compiled(NETWORKS["plain"].model(), bias_correction=False)) == [
        "Conv",
        "BurstIFUnitConstant",
        "Conv",
        "BurstIFUnit",
        "RateDecode",
        "GlobalAveragePool",
        "Flatten",
        "MatMul",
    ]


def test_a_static_tensor_is_repeated_once_and_a_neuron_decoded_once() -> None:
    model = parse(
        """g (float[N,4] x, float[4,4] w_1, float[4] b_1) => (float[N,4] y, float[N,4] z) {
            g1 = Gemm (x, w_1, b_1) r1 = Relu (g1) a = Add (r1, g1) r2 = Relu (a) b = Add (r2, g1) r3 = Relu (b)
            y = Softmax (r3) z = Exp (r3)
        }"""
    )
    found = ops(compiled(model, bias_correction=False))
    assert found.count("RepeatInput") == 1
    assert found.count("RateDecode") == 1


def test_attributes_are_there_to_be_read() -> None:
    network = compiled(NETWORKS["plain"].model(), timesteps=6, max_burst=3, threshold_ratio=1.5)
    neuron = next(n for n in network.model.graph.node if n.name == "r1")
    values = {a.name: onnx.helper.get_attribute_value(a) for a in neuron.attribute}
    assert values == {"timesteps": 6, "max_burst": 3, "threshold_ratio": 1.5}
    theta = next(t for t in network.model.graph.initializer if t.name == neuron.input[1])
    assert list(theta.dims) == [1, 6, 1, 1]
    assert onnx.numpy_helper.to_array(theta).min() == pytest.approx(network.record.layers[0].theta_min)


def test_shape_arithmetic_that_a_reshape_no_longer_needs_does_not_stay_in_the_way() -> None:
    """The export of x.view(x.size(0), -1): the Reshape is opened, so neither fold nor trace meets the arithmetic."""
    model = parse(
        """g (float[N,2,3,3] x, float[4,2,2,2] w_1, float[4] b_1, float[16,3] w_2, float[3] b_2) => (float[N,3] y)
        <int64 zero = {0}, int64[1] first = {0}, int64[1] rest = {16}> {
            c = Conv (x, w_1, b_1) r = Relu (c)
            s = Shape (r) i = Gather <axis = 0> (s, zero) u = Unsqueeze (i, first) t = Concat <axis = 0> (u, rest)
            f = Reshape (r, t)
            y = Gemm (f, w_2, b_2)
        }"""
    )
    network = compiled(model, timesteps=T, trace=True)
    assert network.record.network["lowering"] == "batch"
    assert not {"Shape", "Gather", "Concat"} & set(ops(network))
    check_against_reference(network, one_batch(model))


def test_output_named_like_a_trace_is_joined_like_any_other() -> None:
    """5 samples in batches of 2: the trace is joined along its second axis, everything else along its first."""
    text = "g (float[N,3] x, float[3,4] w_1) => (float[N,4] y_trace) { m = MatMul (x, w_1) y_trace = Relu (m) }"
    model = parse(text)
    x = inputs_of(model, 5)
    network = compiled(model, timesteps=T, trace=True)
    outputs = network.run(x, batch_size=2)
    assert {k: v.shape for k, v in outputs.items()} == {"y_trace": (5, 4), "y_trace_trace": (T, 5, 4)}
    assert_close(outputs["y_trace"], all_outputs(network, x)["y_trace"])


def test_names_of_the_original_are_respected() -> None:
    """Tensors that already bear the names that lowering would like to give."""
    model = parse(
        """g (float[N,3] x, float[3,4] w_1, float[4,4] w_2) => (float[N,4] y, float[N,4] y_trace) {
            v_init = MatMul (x, w_1) y_rate = Relu (v_init) T_N = MatMul (y_rate, w_2) y = Relu (T_N)
            y_trace = Neg (y_rate)
        }"""
    )
    for name in ("y_rate", "T_N"):
        for node in model.graph.node:
            for names in (node.input, node.output):
                for index, old in enumerate(names):
                    if old == name:
                        names[index] = {"y_rate": "y.rate", "T_N": "y.spikes"}[name]
    network = compiled(model, timesteps=T, trace=True)
    check_valid(network.model)
    check_against_reference(network, one_batch(model))


def test_lowering_leaves_the_analysed_network_valid_for_each_collection_network() -> None:
    """The pass alone, on a graph without neurons to calibrate: the hook's contract is a sorted, valid graph."""
    for name in ("plain", "samples_moved"):
        ctx = Context(Config(timesteps=2))
        graph = analyse_network(read_ann(NETWORKS[name].model()), ctx, Hook())
        names = [n.name for n in graph.nodes]
        assert len(set(names)) == len(names)
        seen = {t.name for t in graph.inputs}
        for node in graph.nodes:
            assert all(isinstance(t, gs.Constant) or t.name in seen or not t.name for t in node.inputs)
            seen |= {t.name for t in node.outputs}
