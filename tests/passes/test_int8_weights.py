"""8-bit weights: the codes, and the layers of an artifact against whole-number arithmetic in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from small_networks import NETWORKS, compiled, inputs_of, parse, run

import snncc
from snncc.errors import UsageError
from snncc.graph import INT8_CONV, constant
from snncc.network import SpikingNetwork
from snncc.passes.int8_layer import MOST_COUNTS, Int8Layer, Spikes
from snncc.passes.int8_weights import codes_of
from snncc.runtime.meter import Meter
from snncc.runtime.segments import submodel
from snncc.runtime.session import Session

T, BURST = 5, 3

CONVOLUTIONS = {
    "plain": "d = Conv <pads = [1,1,1,1]> (r, w_2, b_2)",
    "strided": "d = Conv <pads = [1,0,2,1], strides = [2,3]> (r, w_2, b_2)",
    "dilated": "d = Conv <dilations = [2,1]> (r, w_2, b_2)",
    "valid": 'd = Conv <auto_pad = "VALID"> (r, w_2)',
    "grouped": "d = Conv <group = 2> (r, w_g, b_2)",
}
MATRICES = {
    "gemm": "f = Flatten (r) d = Gemm <alpha = 0.5, beta = 2.0> (f, w_m, b_m)",
    "transposed": "f = Flatten (r) d = Gemm <transB = 1> (f, w_t, b_m)",
    "matmul": "f = Flatten (r) d0 = MatMul (f, w_m) d = Add (d0, b_m)",
}


def network_of(layer: str, neuron: str = "burst", **options: Any) -> SpikingNetwork:
    model = parse(
        f"""g (float[N,3,7,8] x, float[6,3,3,3] w_1, float[6] b_1, float[5,6,3,3] w_2, float[5] b_2,
              float[6,3,3,3] w_g, float[180,7] w_m, float[7,180] w_t, float[7] b_m) => (float[] y) {{
            c = Conv (x, w_1, b_1) r = Relu (c) {layer} y = Relu (d) }}""",
        check=False,
    )
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    for tensor in model.graph.initializer:
        if tensor.name == "b_2" and "w_g" in used:  # a group's outputs
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.linspace(-0.5, 0.5, 6, dtype=np.float32), "b_2"))
    return compiled(model, timesteps=T, max_burst=BURST, neuron=neuron, weights="int8", **options)


def int8_node(network: SpikingNetwork) -> gs.Node:
    (node,) = [n for n in network.network.nodes if n.op.startswith("Int8")]
    return node


def whole_numbers(node: gs.Node, counts: np.ndarray) -> np.ndarray:
    """Return a layer's output for spikes [B, C, ...], by sums of integers."""
    weight, bias, _, _, scale, step, zero = (np.asarray(constant(t)) for t in node.inputs[1:])
    if node.op != INT8_CONV:
        sums = counts.astype(np.int64) @ weight.astype(np.int64)
        codes = np.clip(np.rint(sums.astype(np.float32) * scale) + 128, 0, 255)
        return ((codes - zero) * step + bias).astype(np.float32)
    groups = int(node.attrs["group"])
    top, left, bottom, right = node.attrs["pads"]
    padded = np.pad(counts.astype(np.int64), [(0, 0), (0, 0), (top, bottom), (left, right)])
    reach = [d * (k - 1) + 1 for d, k in zip(node.attrs["dilations"], weight.shape[2:], strict=True)]
    down, across = node.attrs["strides"]
    windows = sliding_window_view(padded, reach, axis=(2, 3))[:, :, ::down, ::across]
    windows = windows[..., :: node.attrs["dilations"][0], :: node.attrs["dilations"][1]]
    parts = []
    for x, w in zip(np.split(windows, groups, axis=1), np.split(weight.astype(np.int64), groups), strict=True):
        parts.append(np.einsum("bcyxij,ocij->boyx", x, w))
    sums = np.concatenate(parts, axis=1) + bias.astype(np.int64)[:, None, None]
    along = (slice(None), None, None)
    codes = np.clip(np.rint(sums.astype(np.float32) * scale[along]), 0, 255)
    return ((codes - zero[along]) * step[along]).astype(np.float32)


def counts_for(node: gs.Node, sample: tuple[int, ...]) -> np.ndarray:
    low = -int(np.asarray(constant(node.inputs[4])))
    return np.random.default_rng(0).integers(low, BURST + 1, size=(4, *sample))


def spikes_of(node: gs.Node, counts: np.ndarray) -> np.ndarray:
    unit = np.asarray(constant(node.inputs[3]))
    return (counts * unit.reshape(-1, *[1] * (counts.ndim - 2))).astype(np.float32)


@pytest.mark.parametrize("neuron", ["burst", "signed"])
@pytest.mark.parametrize("layer", [*CONVOLUTIONS, *MATRICES])
def test_a_layer_is_a_sum_of_whole_numbers(layer: str, neuron: str) -> None:
    network = network_of({**CONVOLUTIONS, **MATRICES}[layer], neuron)
    node = int8_node(network)
    assert np.asarray(constant(node.inputs[1])).dtype == np.int8
    counts = counts_for(node, (6, 5, 6) if layer in CONVOLUTIONS else (180,))
    model = submodel(network.network, [node], [node.inputs[0]], [node.outputs[0]])
    found = Session(model, "the layer").run({node.inputs[0].name: spikes_of(node, counts)})[node.outputs[0].name]
    np.testing.assert_array_equal(found, whole_numbers(node, counts))


@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_codes_of_a_convolution_mean_its_weights_and_bias(layer: str) -> None:
    """Where the 255 steps hold it, a current is that of float weights: half a step of it and of the bias aside."""
    node = int8_node(network_of(CONVOLUTIONS[layer]))
    weight, bias, unit, _, scale, step, zero = (np.asarray(constant(t), np.float64) for t in node.inputs[1:])
    worth = scale * step
    counts = counts_for(node, (6, 5, 6))
    attributes = {k: v for k, v in node.attrs.items() if k != "group"}
    groups = int(node.attrs["group"])
    of_group = np.repeat(unit.reshape(groups, -1), len(weight) // groups, axis=0)[:, :, None, None]
    values = {
        "w": (weight * worth[:, None, None, None] / of_group).astype(np.float32),
        "b": ((bias - zero / scale) * worth).astype(np.float32),
    }
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], group=groups, **attributes)],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 6, 5, 6])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        initializer=[onnx.numpy_helper.from_array(v, k) for k, v in values.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    wanted = run(model, {"x": spikes_of(node, counts)})["y"]
    along = (slice(None), None, None)
    smallest, largest = ((e - zero) * step for e in (0, 255))
    wanted = np.clip(wanted, smallest[along], largest[along])
    error = np.abs(whole_numbers(node, counts) - wanted)
    assert (error <= (0.5 * step[along]) * 1.001 + 1e-6).all()


def test_only_standard_operators() -> None:
    model = network_of(CONVOLUTIONS["plain"]).model
    assert {entry.domain for entry in model.opset_import} == {"", "snncc"}
    inner = {node.domain for function in model.functions for node in function.node}
    assert inner == {""}
    onnx.checker.check_model(model, full_check=True)


def test_the_artifact_is_smaller_and_says_what_stayed() -> None:
    plain = compiled(NETWORKS["residual"].model(), timesteps=T)
    small = compiled(NETWORKS["residual"].model(), timesteps=T, weights="int8")
    kept = {n.name: n for n in plain.model.graph.node if n.op_type == "Conv"}
    assert small.record.network["int8_layers"] == len(kept) - 1
    (name,) = small.record.network["float_layers"]
    assert name == "c1"
    assert {n.name for n in small.model.graph.node if n.op_type == INT8_CONV} == kept.keys() - {"c1"}
    assert "int8_layers" not in plain.record.network


@pytest.mark.parametrize("name", ["plain", "residual", "concat", "maxpool_pads", "mobile", "sequence", "batch_of_one"])
@pytest.mark.parametrize("neuron", ["burst", "signed"])
def test_the_error_is_that_of_single_precision(name: str, neuron: str) -> None:
    """Against the ANN; a wrong scale, zero point or bias would multiply it."""
    model = NETWORKS[name].model()
    feeds = inputs_of(model, 64, seed=5)
    wanted = run(model, feeds)

    def error(weights: str) -> float:
        network = compiled(model, data=feeds, timesteps=32, max_burst=4, neuron=neuron, weights=weights)
        found = network.run(feeds)
        return max(float(np.linalg.norm(found[k] - wanted[k]) / np.linalg.norm(wanted[k])) for k in wanted)

    assert error("int8") < error("float32") + 0.01


def layer_of(weight: np.ndarray, op: str = "Conv", unit: int = 4, **attributes: Any) -> Int8Layer:
    node = gs.Node(op, attrs=attributes, inputs=[gs.Variable("x"), gs.Constant("w", weight)])
    units = np.linspace(0.5, 2, unit, dtype=np.float32)
    return Int8Layer(node, Spikes(units, 0, 3), weight)


@pytest.mark.parametrize(
    ("shape", "op", "attributes", "output_axis"),
    [
        ((6, 4, 3, 3), "Conv", {}, 0),
        ((6, 2, 3, 3), "Conv", {"group": 2}, 0),
        ((6, 2, 3), "Conv", {"group": 2}, 0),
        ((4, 5), "MatMul", {}, 1),
        ((4, 5), "Gemm", {"alpha": 0.25}, 1),
        ((5, 4), "Gemm", {"transB": 1, "alpha": -2.0}, 0),
    ],
)
def test_codes_are_found_again(shape: tuple[int, ...], op: str, attributes: dict[str, Any], output_axis: int) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    weight[(0,) if output_axis == 0 else (slice(None), 0)] = 0  # a channel that is off
    layer = layer_of(weight, op, **attributes)
    codes, scale = layer.codes()
    assert codes.shape == shape
    assert scale.shape == (shape[output_axis],)
    gain = np.linspace(0.6, 1.7, shape[output_axis]).reshape([-1 if i == output_axis else 1 for i in range(len(shape))])
    again, scaled = layer_of((layer.rounded() * gain).astype(np.float32), op, **attributes).codes()
    np.testing.assert_array_equal(again, codes)
    live = np.abs(codes).max(axis=tuple(i for i in range(len(shape)) if i != output_axis)) > 0
    np.testing.assert_allclose(scaled[live], (scale * gain.reshape(-1))[live], rtol=1e-5)
    # Half a step of each output channel, in units of the spikes that the weight meets.
    alpha, groups = float(attributes.get("alpha", 1.0)), int(attributes.get("group", 1))
    unit = np.linspace(0.5, 2, 4)
    if op == "Conv":
        unit = np.repeat(unit.reshape(groups, -1), shape[0] // groups, axis=0)
        unit = unit.reshape(*unit.shape, *[1] * (len(shape) - 2))
    elif output_axis == 1:
        unit = unit[:, None]
    step = np.abs(scale / alpha).reshape(gain.shape)
    assert (np.abs(layer.rounded() - weight) * unit <= step / 2 * 1.001).all()


@pytest.mark.parametrize("centred", [False, True])
def test_currents_span_the_range(centred: bool) -> None:
    low, high = np.array([-2.0, 0.5, -3.0, 0.0]), np.array([6.0, 4.0, -1.0, 0.0])
    currents = codes_of(low, high, centred=centred)
    zero = currents.zero.astype(np.float64)
    smallest, largest = (0 - zero) * currents.step, (255 - zero) * currents.step
    assert (smallest <= np.minimum(low, 0) + currents.step / 2).all()
    assert (largest >= np.maximum(high, 0) - currents.step / 2).all()
    if centred:
        assert (currents.zero == 128).all()
    else:
        np.testing.assert_allclose(currents.step[:3], [8 / 255, 4 / 255, 3 / 255], rtol=1e-6)
    assert currents.step[3] == 1


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("d = ConvTranspose (r, w_t)", "no quantised ConvTranspose"),
        ("p = AveragePool <kernel_shape = [2,2]> (r) d = Conv (p, w_2)", "no whole number of spikes"),
        ('d = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (r, w_2)', None),
    ],
)
def test_what_can_not_be_coded_stays(layer: str, reason: str | None) -> None:
    model = parse(
        f"""g (float[N,3,7,8] x, float[6,3,3,3] w_1, float[5,6,3,3] w_2, float[6,5,3,3] w_t) => (float[] y) {{
            c = Conv (x, w_1) r = Relu (c) {layer} y = Relu (d) }}""",
        check=False,
    )
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    network = compiled(model, timesteps=T, weights="int8")
    kept = network.record.network["float_layers"]
    if reason is None:
        assert "d" not in kept or "padding" in kept["d"]
        return
    assert reason in kept["d"]
    assert any("8-bit" in warning for warning in network.record.warnings)


@pytest.mark.parametrize(
    ("neuron", "burst", "fits"),
    [
        ("burst", MOST_COUNTS, True),
        ("burst", MOST_COUNTS + 1, False),
        ("signed", MOST_COUNTS // 2, True),
        ("signed", MOST_COUNTS // 2 + 1, False),
    ],
)
def test_large_bursts_stay_in_single_precision(neuron: str, burst: int, fits: bool) -> None:
    network = compiled(NETWORKS["plain"].model(), timesteps=2, max_burst=burst, neuron=neuron, weights="int8")
    assert bool(network.record.network["int8_layers"]) is fits


def test_needs_calibration() -> None:
    with pytest.raises(UsageError, match="calibration data"):
        snncc.compile(NETWORKS["plain"].model(), config=snncc.Config(weights="int8"))
    with pytest.raises(UsageError, match="bias correction"):
        snncc.Config(weights="int8", bias_correction=False)
    with pytest.raises(UsageError, match="int8"):
        snncc.Config(weights="int4")


def test_the_same_bytes_each_time() -> None:
    model = NETWORKS["residual"].model()
    one, other = (compiled(model, timesteps=T, weights="int8").model for _ in range(2))
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


@pytest.mark.parametrize("neuron", ["burst", "signed"])
def test_networks_that_step_through_a_scan(neuron: str) -> None:
    model = parse(
        """g (float[4,3,6,6] x, float[4,3,3,3] w_1, float[4] b_1, float[4,4,3,3] w_2, float[4] b_2,
              float[4,4,3,3] w_3) => (float[4,4,6,6] y) {
            c = Conv <pads = [1,1,1,1]> (x, w_1, b_1) r = Relu (c)
            d = Conv <pads = [1,1,1,1]> (r, w_2, b_2) s = Relu (d)
            t = Transpose <perm = [1,0,2,3]> (s)
            e = Conv <pads = [1,1,1,1]> (t, w_3) y = Relu (e) }"""
    )
    network = compiled(model, timesteps=T, max_burst=BURST, neuron=neuron, weights="int8")
    assert network.record.network["lowering"] == "scan"
    assert network.record.network["int8_layers"] == 1
    feeds = inputs_of(model, 8)
    # The same whole numbers; what follows them are float sums of another order.
    np.testing.assert_allclose(
        network.run(feeds, backend="ort")["y"], network.run(feeds, backend="numpy")["y"], atol=1e-5
    )


def test_a_trace_ends_at_the_output() -> None:
    model = NETWORKS["residual"].model()
    network = compiled(model, timesteps=T, weights="int8", trace=True)
    found = network.run(inputs_of(model, 4), backend="ort")
    np.testing.assert_array_equal(found["y_trace"][-1], found["y"])


def test_operations_are_counted_as_in_single_precision() -> None:
    model = NETWORKS["residual"].model()
    plain, small = (compiled(model, timesteps=T, max_burst=BURST, weights=w) for w in ("float32", "int8"))
    simulation = small.simulator("numpy").run(inputs_of(model, 4))
    readings = []
    for network in (plain, small):
        meter = Meter(network.network, T)
        meter.add(simulation)
        readings.append(meter.reading())
    one, other = readings
    assert one.synaptic_operations > 0
    assert [(x.macs, x.synaptic_operations) for x in one.layers] == [
        (x.macs, x.synaptic_operations) for x in other.layers
    ]
