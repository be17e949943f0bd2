"""Quantised networks read through to floating point, against the quantised network in ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graph_checks import feed_of, parse, run
from small_network import SHAPE, ann_outputs, small_model

import snncc
from snncc.config import Config
from snncc.context import Context
from snncc.errors import ModelError
from snncc.graph import constant, export_model, import_graph, infer_shapes
from snncc.passes.constants import ConstantsToInitializers
from snncc.passes.dequantise import Dequantise
from snncc.passes.normalise import NORMALISE
from snncc.passes.remove_noops import RemoveNoOps

HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\n'
UNSIGNED = "float s = {0.05}, uint8 z = {100}, float t = {0.1}, uint8 u = {120}, uint8 zero = {0}"
QUANTISING = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


def read_through(model: onnx.ModelProto) -> tuple[gs.Graph, Context]:
    """Run the pass; a second run changes nothing, and the graph is valid."""
    graph, ctx = import_graph(model), Context(Config())
    ConstantsToInitializers().run(graph, ctx)
    infer_shapes(graph)
    assert Dequantise().run(graph, ctx)
    assert not Dequantise().run(graph, ctx)
    RemoveNoOps().run(graph, ctx)
    onnx.checker.check_model(export_model(graph), full_check=True)
    return graph, ctx


def compare(model: onnx.ModelProto, graph: gs.Graph, tolerance: float) -> None:
    """Compare with the quantised network; the tolerance is absolute: some steps of its quantisation."""
    after = export_model(graph)
    feed = {k: np.clip(1.5 * v, -3, 3) if v.dtype == np.float32 else v for k, v in feed_of(model).items()}
    for want, got in zip(run(model, feed), run(after, feed), strict=True):
        assert want.shape == got.shape
        assert want.dtype == got.dtype
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=tolerance)
        assert float(np.abs(want.astype(np.float64)).max()) > 4 * tolerance  # else the comparison says nothing


def ops(graph: gs.Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def quantised(body: str, size: str = "[2,3,4,4]", constants: str = UNSIGNED, output: str = "float[a,b,c,d] y") -> Any:
    return parse(HEADER + f"g (float{size} x) => ({output}) <{constants}> {{ {body} }}")


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_a_pair_vanishes() -> None:
    model = quantised("a = Neg(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) y = Neg(d)")
    graph, ctx = read_through(model)
    assert ops(graph) == ["Neg", "Neg"]
    compare(model, graph, 0.026)  # half a step
    assert len(ctx.warnings) == 1
    assert "(2 quantising nodes are gone)" in ctx.warnings[0]


def test_saturation_at_zero_is_an_activation() -> None:
    model = quantised("a = Neg(x) q = QuantizeLinear(a, s, zero) d = DequantizeLinear(q, s, zero) y = Neg(d)")
    graph, _ = read_through(model)
    assert ops(graph) == ["Neg", "Clip", "Neg"]
    assert [float(constant(t)) for t in graph.nodes[1].inputs[1:]] == pytest.approx([0, 255 * 0.05])
    compare(model, graph, 0.026)


def test_saturation_at_the_least_value_of_int8() -> None:
    body = "a = Neg(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) y = Neg(d)"
    model = quantised(body, constants="float s = {0.02}, int8 z = {-128}")
    graph, _ = read_through(model)
    assert ops(graph) == ["Neg", "Clip", "Neg"]
    compare(model, graph, 0.011)


def test_an_activation_keeps_its_saturation() -> None:
    body = "a = Relu(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) y = Neg(d)"
    model = quantised(body, constants="float s = {0.01}, int8 z = {0}")
    graph, _ = read_through(model)
    assert ops(graph) == ["Clip", "Neg"]
    assert float(constant(graph.nodes[0].inputs[2])) == pytest.approx(1.27)
    compare(model, graph, 0.006)


def test_an_activation_with_other_readers_stays() -> None:
    body = "a = Relu(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) y = Add(d, a)"
    graph, _ = read_through(quantised(body, constants="float s = {0.01}, int8 z = {0}"))
    assert ops(graph) == ["Relu", "Add"]


@pytest.mark.parametrize("body", ["a = Relu(x) b = MaxPool<kernel_shape=[2,2]>(a)", "b = Sigmoid(x)"])
def test_what_cannot_be_negative_needs_no_activation(body: str) -> None:
    body += " q = QuantizeLinear(b, s, zero) d = DequantizeLinear(q, s, zero) y = Neg(d)"
    graph, _ = read_through(quantised(body))
    assert "Clip" not in ops(graph)


def test_no_activation_at_the_input() -> None:
    graph, _ = read_through(quantised("q = QuantizeLinear(x, s, zero) d = DequantizeLinear(q, s, zero) y = Neg(d)"))
    assert ops(graph) == ["Neg"]


def test_per_channel() -> None:
    constants = "float[3] s = {0.05, 0.04, 0.03}, uint8[3] z = {120, 125, 130}, float[3] t = {0.05, 0.04, 0.02}"
    body = "a = Neg(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, {}, z) y = Neg(d)"
    model = quantised(body.format("s"), constants=constants)
    graph, _ = read_through(model)
    assert ops(graph) == ["Neg", "Neg"]
    compare(model, graph, 0.026)
    graph = import_graph(quantised(body.format("t"), constants=constants))
    infer_shapes(graph)
    assert not Dequantise().run(graph, Context(Config()))  # read as other values than those that were written


def test_quantised_inputs_and_outputs_keep_their_types() -> None:
    text = """g (uint8[2,3] x) => (int8[2,3] y) <float s = {0.05}, uint8 z = {0}, float t = {0.02}, int8 v = {3}> {
        d = DequantizeLinear(x, s, z) n = Neg(d) q = QuantizeLinear(n, t, v) e = DequantizeLinear(q, t, v)
        r = Abs(e) y = QuantizeLinear(r, t, v) }"""
    model = parse(HEADER + text)
    graph, _ = read_through(model)
    assert ops(graph) == ["DequantizeLinear", "Neg", "Abs", "QuantizeLinear"]
    feed = {"x": np.random.default_rng(0).integers(0, 40, (2, 3)).astype(np.uint8)}
    want, got = run(model, feed)[0].astype(int), run(export_model(graph), feed)[0].astype(int)
    assert np.abs(want - got).max() <= 1
    assert np.abs(want).max() > 10


# --- what moves quantised values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "rest"),
    [
        ("m = MaxPool<kernel_shape=[2,2]>(q)", ["MaxPool"]),
        ("k = Transpose<perm=[0,1,3,2]>(q) m = MaxPool<kernel_shape=[2,2]>(k)", ["Transpose", "MaxPool"]),
        ("m = Concat<axis=1>(q, q)", ["Concat"]),
        ("m = Pad(q, pads)", ["Pad"]),
        ("m = Pad(q, pads, z)", ["Pad"]),
        ('m = Pad<mode="edge">(q, pads)', ["Pad"]),
        ("k, l = Split<axis=3>(q) m = Concat<axis=3>(l, k)", ["Split", "Concat"]),
        ('m = Resize<mode="nearest", coordinate_transformation_mode="asymmetric">(q, , scales)', ["Resize"]),
    ],
)
def test_moving(body: str, rest: list[str]) -> None:
    constants = UNSIGNED + ", int64[8] pads = {0,0,1,1,0,0,1,1}, float[4] scales = {1,1,2,2}"
    model = quantised(
        f"a = Neg(x) q = QuantizeLinear(a, s, z) {body} y = DequantizeLinear(m, s, z)", "[2,4,4,4]", constants
    )
    graph, _ = read_through(model)
    assert ops(graph) == ["Neg", *rest]
    compare(model, graph, 0.026)


def test_a_table_of_quantised_rows() -> None:
    text = """g (int64[2,3] x) => (float[2,3,4] y) <float s = {0.5}, int8 z = {3}> {
        q = Gather(table, x) d = DequantizeLinear(q, s, z) y = Neg(d) }"""
    model = onnx.parser.parse_model(HEADER + text)
    table = np.random.default_rng(0).integers(-128, 127, (9, 4)).astype(np.int8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    graph, _ = read_through(model)
    assert ops(graph) == ["Gather", "Neg"]
    compare(model, graph, 0.0)


def test_a_moved_value_that_is_an_output_stays() -> None:
    body = "a = Neg(x) q = QuantizeLinear(a, s, z) m = Transpose(q) y = DequantizeLinear(m, s, z)"
    graph = import_graph(quantised(body, output="float[a,b,c,d] y, uint8[e,f,g,h] m"))
    infer_shapes(graph)
    assert not Dequantise().run(graph, Context(Config()))


# --- integer operators --------------------------------------------------------------------------------------------


def weights(dtype: Any, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.random.default_rng(5).integers(info.min // 2, info.max // 2, shape).astype(dtype)


def with_weights(text: str, **values: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(HEADER + text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in values.items())
    return model


CONV = """g (float[2,3,5,5] x) => (float[2,4,5,5] y) <float s = {{0.05}}, uint8 z = {{100}}, float t = {{0.1}},
    uint8 u = {{120}}, int8[4] wz = {{0,0,0,0}}, float[4] ws = {{0.01, 0.02, 0.005, 0.01}}> {{
    q = QuantizeLinear(x, s, z)
    c = {domain}QLinearConv<pads=[1,1,1,1]>(q, s, z, w, ws, wz, t, u, b)
    y = DequantizeLinear(c, t, u) }}"""


@pytest.mark.parametrize("domain", ["", "com.microsoft."])
def test_qlinearconv(domain: str) -> None:
    bias = np.array([100, -500, 0, 900], np.int32)
    model = with_weights(CONV.format(domain=domain), w=weights(np.int8, 4, 3, 3, 3) // 8, b=bias)
    graph, _ = read_through(model)
    assert ops(graph) == ["Conv"]
    np.testing.assert_allclose(constant(graph.nodes[0].inputs[2]), bias * 0.05 * [0.01, 0.02, 0.005, 0.01], rtol=1e-6)
    compare(model, graph, 0.2)  # half a step of the output, and the input's rounding through 27 weights


@pytest.mark.parametrize("per_column", [False, True])
def test_qlinearmatmul(per_column: bool) -> None:
    scale = (
        "float[4] ws = {0.01, 0.02, 0.005, 0.01}, uint8[4] wz = {120, 110, 90, 128}"
        if per_column
        else ("float ws = {0.01}, uint8 wz = {120}")
    )
    text = f"""g (float[2,6] x) => (float[2,4] y) <{UNSIGNED}, {scale}> {{ q = QuantizeLinear(x, s, z)
        m = QLinearMatMul(q, s, z, w, ws, wz, t, u) y = DequantizeLinear(m, t, u) }}"""
    model = with_weights(text, w=weights(np.uint8, 6, 4))
    graph, _ = read_through(model)
    assert ops(graph) == ["MatMul"]
    compare(model, graph, 0.2)


@pytest.mark.parametrize(("bias", "result"), [("b", "t, u"), ("b", ""), ("", "t, u")])
def test_qgemm(bias: str, result: str) -> None:
    rest = ", ".join(part for part in (bias, result) if part or result)
    text = f"""g (float[2,6] x) => (float[2,4] y)
        <{UNSIGNED}, float[4] ws = {{0.01, 0.02, 0.005, 0.01}}, uint8[4] wz = {{120, 110, 90, 128}}> {{
        q = QuantizeLinear(x, s, z)
        {"m" if result else "y"} = com.microsoft.QGemm<transB=1, alpha=0.5>(q, s, z, w, ws, wz, {rest})
        {"y = DequantizeLinear(m, t, u)" if result else ""} }}"""
    values = {"w": weights(np.uint8, 4, 6)} | ({"b": np.array([100, -500, 0, 900], np.int32)} if bias else {})
    model = with_weights(text, **values)
    graph, _ = read_through(model)
    assert ops(graph) == ["Gemm"]
    compare(model, graph, 0.15)


@pytest.mark.parametrize(
    ("call", "op"),
    [
        ("QLinearAdd(q, s, z, p, t, u, t, u)", "Add"),
        ("QLinearMul(q, s, z, p, t, u, t, u)", "Mul"),
        ("QLinearConcat<axis=1>(t, u, q, s, z, p, t, u)", "Concat"),
        ("QLinearSigmoid(q, s, z, tiny, zero)", "Sigmoid"),
        ("QLinearLeakyRelu<alpha=0.25>(q, s, z, t, u)", "LeakyRelu"),
        ("QLinearSoftmax<axis=-1, opset=13>(q, s, z, tiny, zero)", "Softmax"),
        ("QLinearAveragePool<kernel_shape=[2,2]>(q, s, z, s, z)", "AveragePool"),
        ("QLinearGlobalAveragePool(q, s, z, s, z)", "GlobalAveragePool"),
        ("QLinearWhere(m, q, s, z, p, t, u, t, u)", "Where"),
    ],
)
def test_operators_of_onnxruntime(call: str, op: str) -> None:
    scale, zero = ("tiny", "zero") if "tiny" in call else (("s", "z") if "s, z, s, z" in call else ("t", "u"))
    body = f"""q = QuantizeLinear(x, s, z) n = Abs(x) p = QuantizeLinear(n, t, u) m = Less(x, n)
        c = com.microsoft.{call} y = DequantizeLinear(c, {scale}, {zero})"""
    model = quantised(body, constants=UNSIGNED + ", float tiny = {0.004}")
    graph, _ = read_through(model)
    assert op in ops(graph)
    assert not QUANTISING & set(ops(graph))
    compare(model, graph, 0.015 if scale == "tiny" else 0.5 if op == "Mul" else 0.13)


def test_what_is_not_understood_stays() -> None:
    body = """q = QuantizeLinear(x, s, z) c = com.microsoft.QLinearGlobalAveragePool<channels_last=1>(q, s, z, s, z)
        y = DequantizeLinear(c, s, z)"""
    graph = import_graph(quantised(body))
    infer_shapes(graph)
    assert not Dequantise().run(graph, Context(Config()))
    assert ops(graph) == ["QuantizeLinear", "QLinearGlobalAveragePool", "DequantizeLinear"]


# --- scales found at run time -----------------------------------------------------------------------------------------


DYNAMIC = """g (float[2,6] x) => (float[2,4] y) <float[4] ws = {0.01, 0.02, 0.005, 0.01}, float b = {0.5}> {
    q, s, z = DynamicQuantizeLinear(x)
    i = MatMulInteger(q, w, z, wz)
    f = Cast<to=1>(i)
    k = Mul(s, ws)
    m = Mul(f, k)
    y = Add(m, b) }"""


@pytest.mark.parametrize("scales", ["k = Mul(s, ws) m = Mul(f, k)", "k = Mul(f, s) m = Mul(ws, k)"])
def test_dynamic_matmul(scales: str) -> None:
    text = DYNAMIC.replace("k = Mul(s, ws)\n    m = Mul(f, k)", scales)
    model = with_weights(text, w=weights(np.uint8, 6, 4), wz=np.array([120, 110, 90, 128], np.uint8))
    graph, _ = read_through(model)
    assert not {"DynamicQuantizeLinear", "Div"} & set(ops(graph))
    compare(model, graph, 0.1)


def test_dynamic_product_of_two_activations() -> None:
    text = """g (float[2,6] x, float[6,4] v) => (float[2,4] y) {
        q, s, z = DynamicQuantizeLinear(x)  p, t, u = DynamicQuantizeLinear(v)
        i = MatMulInteger(q, p, z, u)  f = Cast<to=1>(i)  k = Mul(s, t)  y = Mul(f, k) }"""
    model = parse(HEADER + text)
    graph, _ = read_through(model)
    assert ops(graph) == ["MatMul"]
    compare(model, graph, 0.4)


def test_dynamic_convolution() -> None:
    text = """g (float[2,3,5,5] x) => (float[2,4,5,5] y) <float ws = {0.01}> {
        q, s, z = DynamicQuantizeLinear(x)  i = ConvInteger<pads=[1,1,1,1]>(q, w, z, wz)
        f = Cast<to=1>(i)  k = Mul(s, ws)  y = Mul(f, k) }"""
    model = with_weights(text, w=weights(np.uint8, 4, 3, 3, 3), wz=np.array(120, np.uint8))
    graph, _ = read_through(model)
    assert ops(graph) == ["Conv", "Mul"]
    compare(model, graph, 0.3)


def test_integers_that_are_fed() -> None:
    """Without a quantiser in the graph the sums are those of integers, so they are exact."""
    text = """g (uint8[2,6] x) => (float[2,4] y) <uint8 z = {3}> { i = MatMulInteger(x, w, z)  y = Cast<to=1>(i) }"""
    model = with_weights(text, w=weights(np.int8, 6, 4))
    graph, _ = read_through(model)
    assert ops(graph) == ["DequantizeLinear", "MatMul"]
    compare(model, graph, 0.0)


def test_a_float_product_with_quantised_weights() -> None:
    text = """g (float[2,6] x) => (float[2,4] y) <float ws = {0.01}, uint8 wz = {120}, float[4] b = {1, -1, 0, 2}> {
        y = com.microsoft.DynamicQuantizeMatMul(x, w, ws, wz, b) }"""
    model = with_weights(text, w=weights(np.uint8, 6, 4))
    graph, _ = read_through(model)
    assert ops(graph) == ["MatMul", "Add"]
    compare(model, graph, 0.15)


# --- whole networks -----------------------------------------------------------------------------------------------


def images(samples: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((samples, *SHAPE)).astype(np.float32)


def quantise(way: str, path: Path) -> onnx.ModelProto:
    """Quantise the small network with ONNX Runtime's own tool."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnxruntime import quantization

        source, target = path / "float.onnx", path / "quantised.onnx"
        onnx.save(small_model(), source)

        class Reader(quantization.CalibrationDataReader):
            def __init__(self) -> None:
                self.batches: Iterator[dict[str, np.ndarray]] = iter([{"image": images(32)}])

            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(self.batches, None)

        if way == "dynamic":
            quantization.quantize_dynamic(source, target)
        else:
            quantization.quantize_static(source, target, Reader(), quant_format=quantization.QuantFormat[way])
    return onnx.load(target)


@pytest.mark.parametrize("way", ["QDQ", "QOperator", "dynamic"])
def test_a_network_quantised_by_onnxruntime(way: str, tmp_path: Path) -> None:
    model = quantise(way, tmp_path)
    graph, ctx = import_graph(model), Context(Config())
    for step in NORMALISE:
        step.run(graph, ctx)
    assert not QUANTISING & set(ops(graph))
    assert ops(graph).count("Relu") + ops(graph).count("Clip") == 3  # also where they were merged into quantisation
    want, got = ann_outputs(small_model(), images(32)), ann_outputs(export_model(graph), images(32))
    # Rounding of the weights to 8 bits is what is left of the quantisation.
    assert np.linalg.norm(got - want) < 0.03 * np.linalg.norm(want)
    network = snncc.compile(model, calibration=images(32), config=Config(timesteps=64))
    spiking = network.run(images(32))["logits"]
    assert np.linalg.norm(spiking - want) < 0.06 * np.linalg.norm(want)
    assert any("read through to floating point" in line for line in network.record.warnings)


@pytest.mark.parametrize("size", [2, 3])
def test_sizes_that_contradict_each_other_are_named(size: int) -> None:
    model = quantised(
        """q = QuantizeLinear (x, s, z) [mul] m = QLinearMatMul (q, s, z, w, ws, wz, t, u)
        y = DequantizeLinear (m, t, u)""",
        "[2,3]",
        f"""{UNSIGNED}, int8[3,5] w = {{1,2,3,4,5,6,7,8,9,1,2,3,4,5,6}},
        float[{size}] ws = {{{",".join(["0.1"] * size)}}}, int8[{size}] wz = {{{",".join(["0"] * size)}}}""",
        "float[2,5] y",
    )
    reason = f"{size} scales for 5 channels"
    with pytest.raises(ModelError, match=rf"^node 'mul' \(QLinearMatMul\): {reason}; export the network again"):
        read_through(model)
