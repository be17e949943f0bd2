"""The op table: activations, linearity, multiply-accumulates by hand, the channels' axis."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from small_networks import NETWORKS, parse, run

from snncc.activations import activation_of
from snncc.graph import export_model, import_graph, infer_shapes, producers
from snncc.ops import Role, channel_axis, is_linear, multiply_accumulates, samplewise, spec_of


def graph_of(text: str, opset: int = 17) -> gs.Graph:
    graph = import_graph(parse(text, opset=opset, check="float[]" not in text))
    infer_shapes(graph)
    return graph


def node_of(body: str, inputs: str, opset: int = 17) -> gs.Node:
    """Return the last node of a graph."""
    return graph_of(f"g ({inputs}) => (float[] y) {{ {body} }}", opset).nodes[-1]


# --- multiply-accumulates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "inputs", "expected"),
    [
        ("y = Conv (x, w_)", "float[N,3,8,6] x, float[5,3,3,2] w_", 5 * 6 * 5 * 3 * 3 * 2),
        ("y = Conv <group = 2, strides = [2,1]> (x, w_)", "float[N,4,8,6] x, float[6,2,3,1] w_", 6 * 3 * 6 * 2 * 3),
        ("y = Conv <group = 4, pads = [1,1,1,1]> (x, w_)", "float[N,4,5,5] x, float[4,1,3,3] w_", 4 * 25 * 9),
        ("y = Conv <dilations = [2]> (x, w_)", "float[N,2,9] x, float[3,2,3] w_", 3 * 5 * 2 * 3),
        # every element of the input meets [out / group, kernel]
        ("y = ConvTranspose <strides = [2,2]> (x, w_)", "float[N,3,4,5] x, float[3,6,2,2] w_", 3 * 20 * 6 * 4),
        ("y = ConvTranspose <group = 3> (x, w_)", "float[N,3,4,5] x, float[3,2,2,2] w_", 3 * 20 * 2 * 4),
        ("y = Gemm (x, w_)", "float[N,7] x, float[7,5] w_", 35),
        ("y = Gemm <transB = 1> (x, w_)", "float[N,7] x, float[5,7] w_", 35),
        ("y = MatMul (x, w_)", "float[N,7] x, float[7,5] w_", 35),
        ("y = MatMul (x, w_)", "float[N,3,4,7] x, float[7,5] w_", 3 * 4 * 7 * 5),
        ("y = MatMul (x, w_)", "float[N,3,7] x, float[7] w_", 3 * 7),
        ("y = MatMul (w_, x)", "float[N,7,3] x, float[5,7] w_", 5 * 7 * 3),
        ("y = MatMul (w_, x)", "float[N,7,3] x, float[7] w_", 7 * 3),
        ("y = Conv (x, w_)", "float[N,3,H,6] x, float[5,3,3,2] w_", None),
    ],
    ids=str,
)
def test_multiply_accumulates_of_a_sample(body: str, inputs: str, expected: int | None) -> None:
    assert multiply_accumulates(node_of(body, inputs)) == expected
    if "N" in inputs and expected is not None:
        fixed = node_of(body, inputs.replace("N", "4"))
        assert multiply_accumulates(fixed) == multiply_accumulates(fixed, batch=4) == expected


def test_multiply_accumulates_agree_with_a_count_of_products() -> None:
    """The products that are summed: a convolution of ones with ones, without padding, counts them."""
    model = parse("g (float[1,4,7,6] x, float[6,2,3,2] w_) => (float[1,6,H,W] y) { y = Conv <group = 2> (x, w_) }")
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((6, 2, 3, 2), np.float32), "w_"))
    products = run(model, {"x": np.ones((1, 4, 7, 6), np.float32)})["y"].sum()
    node = node_of("y = Conv <group = 2> (x, w_)", "float[1,4,7,6] x, float[6,2,3,2] w_")
    assert multiply_accumulates(node) == int(products)


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "inputs", "batched", "expected"),
    [
        ("y = Gather (w_, i)", "int64[N,6] i, float[9,4] w_", {"i"}, True),
        ("y = Gather <axis = 1> (w_, i)", "int64[N,6] i, float[4,9] w_", {"i"}, False),
        ("y = Gather (x, i)", "float[N,9] x, int64[N,6] i", {"x", "i"}, False),
        ("y = Gather <axis = 1> (x, i)", "float[N,9] x, int64[6] i", {"x"}, True),
        ("y = Gather (x, i)", "float[N,9] x, int64[6] i", {"x"}, False),
        ("a = ReduceMax <keepdims = 0> (x) y = Add (a, a)", "float[N,9] x", set(), False),
    ],
)
def test_samples_of_a_node(body: str, inputs: str, batched: set[str], expected: bool) -> None:
    assert samplewise(node_of(body, inputs), lambda t: t.name in batched) is expected


# --- roles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "opset", "role"),
    [
        ("y = Relu (x)", 17, Role.ACTIVATION),
        ("y = Clip (x, zero, one)", 17, Role.ACTIVATION),
        ("y = Clip (x, one)", 17, Role.NONLINEAR),
        ("y = Clip (x, zero, s)", 17, Role.NONLINEAR),
        ("y = MaxPool <kernel_shape = [2]> (x)", 17, Role.POOL),
        ("y, i = MaxPool <kernel_shape = [2]> (x)", 17, Role.NONLINEAR),
        ('y = Resize <mode = "linear"> (x, , scales)', 17, Role.LINEAR),
        ('y = Pad <mode = "reflect"> (x, pads)', 17, Role.LINEAR),
        ("y = Hardmax (x)", 17, Role.NONLINEAR),
    ],
    ids=str,
)
def test_role(body: str, opset: int, role: Role) -> None:
    constants = "<float zero = {0}, float one = {1}, float[3] scales = {1, 1, 2}, int64[6] pads = {0, 0, 1, 0, 0, 1}>"
    graph = graph_of(f"g (float[N,4,6] x, float s) => (float[] y) {constants} {{ {body} }}", opset)
    assert spec_of(graph.nodes[-1]).role is role


def test_training_mode_and_foreign_domains_are_other() -> None:
    node = node_of("y = Relu (x)", "float[N,4] x")
    node.domain = "com.example"
    assert spec_of(node).role is Role.NONLINEAR
    assert activation_of(node) is None
    norm = node_of("y = BatchNormalization (x, b_s, b_s, b_s, b_s)", "float[N,4] x, float[4] b_s")
    assert spec_of(norm).role is Role.LINEAR
    norm.attrs["training_mode"] = 1
    assert spec_of(norm).role is Role.NONLINEAR


@pytest.mark.parametrize(
    ("body", "varying", "linear"),
    [
        ("y = Add (x, z)", "xz", True),
        ("y = Mul (x, z)", "x", True),
        ("y = Mul (x, z)", "z", True),
        ("y = Mul (x, z)", "xz", False),
        ("y = MatMul (x, z)", "xz", False),
        ("y = Div (x, z)", "x", True),
        ("y = Div (x, z)", "z", False),
        ("y = Relu (x)", "x", False),
        ("y = Relu (x)", "", False),
    ],
    ids=str,
)
def test_linear_in_what_varies(body: str, varying: str, linear: bool) -> None:
    node = node_of(body, "float[4,4] x, float[4,4] z")
    assert is_linear(node, lambda t: t.name in varying) is linear


def test_linear_operators_are_linear() -> None:
    """f(a + b) - f(0) = f(a) - f(0) + f(b) - f(0), to rounding, for what the collection calls linear."""
    for name in ("odds_and_ends", "upsampling", "channels_last", "averagepool"):
        graph = import_graph(NETWORKS[name].model())
        infer_shapes(graph)
        for node in graph.nodes:
            if node.op == "Relu":
                node.op = "Identity"
        assert all(spec_of(n).role in (Role.LINEAR, Role.WEIGHTED) for n in graph.nodes)
        model = export_model(graph)
        shape = [d if isinstance(d, int) else 2 for d in graph.inputs[0].shape]
        a, b = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
        f = {k: run(model, {"x": v})["y"] for k, v in (("0", a * 0), ("a", a), ("b", b), ("ab", a + b))}
        np.testing.assert_allclose(f["ab"] - f["0"], f["a"] + f["b"] - 2 * f["0"], atol=1e-4)


# --- channels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Conv (x, w_k)", 1),
        ("c = Conv (x, w_k) y = Transpose <perm = [0,2,3,1]> (c)", 3),
        ("c = Conv (x, w_k) t = Transpose <perm = [0,2,3,1]> (c) y = Transpose <perm = [0,3,1,2]> (t)", 1),
        ("c = Conv (x, w_k) t = Transpose <perm = [0,2,3,1]> (c) a = Add (t, b_4) y = Relu (a)", 3),
        ("c = Conv (x, w_k) a = Add (b_4, c) y = MaxPool <kernel_shape = [2,2]> (a)", 1),
        ("c = Conv (x, w_k) y = Transpose (c)", 2),
        ("m = MatMul (x, w_m) y = Relu (m)", 3),
        ("m = MatMul (x, w_m) y = Transpose <perm = [0,3,1,2]> (m)", 1),
        ("m = MatMul (x, w_m) y = Reshape (m, target)", 1),
        ("c = Conv (x, w_k) y = Reshape (c, target)", 1),
        ("y = Neg (x)", 1),
    ],
    ids=str,
)
def test_channel_axis(body: str, expected: int) -> None:
    graph = graph_of(
        f"""g (float[N,4,4,4] x, float[4,4,1,1] w_k, float[4,4] w_m, float[4] b_4) => (float[] y)
        <int64[3] target = {{0, -1, 2}}> {{ {body} }}"""
    )
    assert channel_axis(graph.outputs[0], producers(graph)) == expected


def test_channel_axis_is_within_the_rank() -> None:
    graph = graph_of("g (float[N] x) => (float[] y) { y = Neg (x) }")
    assert channel_axis(graph.outputs[0], producers(graph)) == 0


# --- samples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "inputs", "batched", "expected"),
    [
        ("y = Gemm (x, z)", "float[N,4] x, float[4,4] z", "x", True),
        ("y = Gemm <transA = 1> (x, z)", "float[4,N] x, float[4,4] z", "x", False),
        ("y = Gemm (x, z, w_)", "float[N,4] x, float[4,4] z, float[2,4] w_", "x", False),
        ("y = Gemm (x, z, w_)", "float[N,4] x, float[4,4] z, float[1,4] w_", "x", True),
        ("y = Gemm (x, w_, z)", "float[N,4] x, float[4,4] w_, float[N,4] z", "xz", True),
        ("y = Gemm (x, w_, z)", "float[N,4] x, float[4,4] w_, float[N,4] z", "x", False),
        ("y = Gemm (x, w_, z)", "float[4,4] x, float[4,4] w_, float[4] z", "xz", False),
        ("y = MatMul (x, z)", "float[N,2,4] x, float[4,4] z", "x", True),
        ("y = MatMul (z, x)", "float[N,2,4] x, float[2,2] z", "x", True),
        ("y = MatMul (z, x)", "float[4,2] x, float[4,4] z", "x", False),
        ("y = MatMul (x, z)", "float[N,2,4] x, float[N,4,4] z", "xz", True),
        ("y = MatMul (x, z)", "float[N,2,4] x, float[3,N,4,4] z", "x", False),
        ("y = Add (x, z)", "float[N,4] x, float[N,4] z", "xz", True),
        ("y = Add (x, z)", "float[N,4] x, float[N,1,4] z", "xz", False),
        ("y = Add (x, z)", "float[N,4] x, float[1,4] z", "x", True),
        ("y = Add (x, z)", "float[N,4] x, float[N,4] z", "x", False),
        ("y = Add (x, z)", "float[N,4] x, float[4] z", "x", True),
        ("y = Concat <axis = 1> (x, z)", "float[N,4] x, float[N,4] z", "xz", True),
        ("y = Concat <axis = 1> (x, z)", "float[2,4] x, float[2,4] z", "x", False),
        ("y = Conv (x, z)", "float[N,4,4] x, float[4,4,1] z", "x", True),
        ("y = Conv (x, z)", "float[4,4,4] x, float[4,4,1] z", "xz", False),
        ("y = Hardmax (x)", "float[N,4] x", "x", True),
        ("y = Hardmax <axis = 0> (x)", "float[N,4] x", "x", False),
        ("y = Softmax <axis = 1> (x)", "float[N,4] x", "x", True),
        ("y = Softmax <axis = -2> (x)", "float[N,4] x", "x", False),
    ],
    ids=str,
)
def test_samples_to_samples(body: str, inputs: str, batched: str, expected: bool) -> None:
    assert samplewise(node_of(body, inputs), lambda t: t.name in batched) is expected
