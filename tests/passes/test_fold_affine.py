"""Folding of BatchNormalization and per-channel affine nodes, against ONNX Runtime on the unfolded graph.

The tolerance is that of reordered float32 sums; a wrong fold is off by the size of the weights.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from graph_checks import ROUNDING, Transformed, parse, run, transform
from hypothesis import given, settings
from hypothesis import strategies as st

from snncc.errors import ModelError
from snncc.passes.affine import Layout, channel_vector, response, scale_inputs, scale_outputs
from snncc.passes.fold_affine import FoldAffine

FOLD = FoldAffine()
BN = ("gamma", "beta", "mean", "var")
BN_4 = "float[4] gamma, float[4] beta, float[4] mean, float[4] var"


def fold(text: str, constants: Any, *, step: FoldAffine = FOLD, compare: bool = True) -> Transformed:
    return transform(step, text, constants, tolerance=ROUNDING, compare=compare)


def conv_bn(tail: str = "", *, bias: bool = False, outputs: str = "float[N,4,6,6] y", attrs: str = "") -> str:
    return f"""g (float[N,3,8,8] x, float[4,3,3,3] w, float[4] b, {BN_4}) => ({outputs}) {{
        [conv] c = Conv{attrs}(x, w{", b" if bias else ""})
        [bn] y = BatchNormalization(c, gamma, beta, mean, var)
        {tail} }}"""


# --- after a layer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_batchnorm_after_conv(bias: bool) -> None:
    result = fold(conv_bn(bias=bias), ("w", "b", *BN))
    assert result.ops == ["Conv"]
    assert result.modified
    assert [t.name for t in result.node("conv").outputs] == ["y"]
    assert [t.name for t in result.node("conv").inputs] == ["x", "w", "b" if bias else "conv_bias"]
    assert all(t.values.dtype == np.float32 for t in result.node("conv").inputs[1:])


def test_epsilon_is_the_nodes_own() -> None:
    text = conv_bn().replace("BatchNormalization(", "BatchNormalization<epsilon=0.7>(")
    assert fold(text, ("w", "b", *BN)).ops == ["Conv"]


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 3),
    inputs=st.integers(1, 2),
    outputs=st.integers(1, 3),
    transpose=st.booleans(),
    padded=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_batchnorm_after_any_convolution(
    groups: int, inputs: int, outputs: int, transpose: bool, padded: bool, bias: bool, seed: int
) -> None:
    op = "ConvTranspose" if transpose else "Conv"
    rows, columns = (groups * inputs, outputs) if transpose else (groups * outputs, inputs)
    channels = groups * outputs
    attrs = f"group={groups}, strides=[2,1]" + (", pads=[1,0,0,1]" if padded else "")
    bn = ", ".join(f"float[{channels}] {name}" for name in BN)
    text = f"""g (float[N,{groups * inputs},5,6] x, float[{rows},{columns},2,3] w, float[{channels}] b, {bn})
        => (float[N,{channels},H,W] y) {{
        c = {op}<{attrs}>(x, w{", b" if bias else ""})
        y = BatchNormalization(c, gamma, beta, mean, var) }}"""
    model = parse(text, ("w", "b", *BN), seed)
    assert transform(FoldAffine(), model, tolerance=ROUNDING).ops == [op]


@settings(max_examples=40, deadline=None)
@given(
    trans_a=st.booleans(),
    trans_b=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([1.0, 0.0, 3.0]),
    shift=st.sampled_from([None, "", "1", "4", "1,4", "3,1", "3,4"]),
    seed=st.integers(0, 99),
)
def test_batchnorm_after_any_gemm(
    trans_a: bool, trans_b: bool, alpha: float, beta: float, shift: str | None, seed: int
) -> None:
    text = f"""g (float[{"5,3" if trans_a else "3,5"}] x, float[{"4,5" if trans_b else "5,4"}] w,
        float{"" if not shift else f"[{shift}]"} b, {BN_4}) => (float[3,4] y) {{
        c = Gemm<alpha={alpha:f}, beta={beta:f}, transA={int(trans_a)}, transB={int(trans_b)}>(x, w{"" if shift is None else ", b"})
        y = BatchNormalization(c, gamma, beta, mean, var) }}"""  # noqa: E501
    model = parse(text, ("w", "b", *BN), seed)
    assert transform(FoldAffine(), model, tolerance=ROUNDING).ops == ["Gemm"]


def test_chain_as_tf2onnx_leaves_it() -> None:
    text = """g (float[N,5] x, float[5,4] w, float[4] a, float[1,4] b, float[4] c, float[1,4] d) => (float[N,4] y) {
        [dense] m = MatMul(x, w)
        p = Add(m, a)
        q = Mul(b, p)
        r = Sub(c, q)
        y = Div(r, d) }"""
    result = fold(text, ("w", "a", "b", "c", "d"))
    assert result.ops == ["Gemm"]
    assert result.node("dense").outputs[0].name == "y"


@pytest.mark.parametrize("operand", ["", "1", "4,1,1", "1,4,1,1", "1,1,1", "1,1,1,1"])
@pytest.mark.parametrize("call", ["Mul(c, a)", "Mul(a, c)", "Add(a, c)", "Sub(c, a)", "Sub(a, c)", "Div(c, a)"])
def test_one_affine_node_after_conv(operand: str, call: str) -> None:
    shape = f"[{operand}]" if operand else ""
    text = f"""g (float[N,3,8,8] x, float[4,3,3,3] w, float{shape} a) => (float[N,4,6,6] y) {{
        c = Conv(x, w)
        y = {call} }}"""
    assert fold(text, ("w", "a")).ops == ["Conv"]


@pytest.mark.parametrize("operand", ["4", "8", "6,6", "1,4,1,6", "1,1,1,1,1", "N,4,1,1"])
def test_operands_that_are_not_per_channel_stay(operand: str) -> None:
    shape = operand.replace("N", "2")
    text = f"""g (float[2,3,6,6] x, float[4,3,3,3] w, float[{shape}] a) => (float y) {{
        c = Conv<pads=[1,1,1,1]>(x, w)
        z = Mul(c, a)
        y = ReduceSum<keepdims=0>(z) }}"""
    if operand in ("4", "8"):
        text = text.replace("float[2,3,6,6] x", f"float[2,3,6,{operand}] x")
    assert fold(text, ("w", "a")).ops == ["Conv", "Mul", "ReduceSum"]


def test_operand_that_widens_a_single_channel_stays() -> None:
    text = """g (float[N,3,8,8] x, float[1,3,3,3] w, float[4,1,1] a) => (float[N,4,6,6] y) {
        c = Conv(x, w)
        y = Add(c, a) }"""
    result = fold(text, ("w", "a"))
    assert (result.ops, result.modified) == (["Conv", "Add"], False)


@pytest.mark.parametrize("call", ["Div(a, c)", "Div(c, zero)", "Pow(c, a)", "Mul(c, c)"])
def test_what_is_not_affine_stays(call: str) -> None:
    text = f"""g (float[N,3,8,8] x, float[4,3,3,3] w, float a, float[4,1,1] zero) => (float[N,4,6,6] y) {{
        c = Conv(x, w)
        y = {call} }}"""
    constants = {"w": np.full((4, 3, 3, 3), 0.1), "a": np.array(2.0), "zero": np.array([1, 0, 1, 1.0]).reshape(4, 1, 1)}
    assert len(fold(text, constants, compare="zero" not in call).ops) == 2


# --- MatMul -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("to_gemm", [True, False])
def test_matmul_keeps_an_add_unless_it_becomes_a_gemm(rank: int, to_gemm: bool) -> None:
    shape = {1: "5", 2: "N,5", 3: "N,3,5"}[rank]
    text = f"""g (float[{shape}] x, float[5,4] w, float[4] a, float[4] b, float[4] c) => (float[{shape[:-1]}4] y) {{
        [dense] m = MatMul(x, w)
        p = Add(m, a)
        q = Mul(p, b)
        y = Add(q, c) }}"""
    result = fold(text, ("w", "a", "b", "c"), step=FoldAffine(matmul_to_gemm=to_gemm))
    assert result.ops == (["Gemm"] if rank == 2 and to_gemm else ["MatMul", "Add"])


def test_matmul_scaled_only_stays_a_matmul() -> None:
    text = """g (float[N,5] x, float[5,4] w, float[4] b) => (float[N,4] y) {
        m = MatMul(x, w)
        y = Mul(m, b) }"""
    assert fold(text, ("w", "b")).ops == ["MatMul"]


def test_matmul_with_one_add_of_higher_rank_is_left_alone() -> None:
    text = """g (float[N,3,5] x, float[5,4] w, float[4] b) => (float[N,3,4] y) {
        m = MatMul(x, w)
        y = Add(m, b) }"""
    result = fold(text, ("w", "b"))
    assert (result.ops, result.modified) == (["MatMul", "Add"], False)


def test_batchnorm_along_another_axis_than_the_matmuls_stays() -> None:
    text = f"""g (float[N,4,5] x, float[5,4] w, {BN_4}) => (float[N,4,4] y) {{
        m = MatMul(x, w)
        y = BatchNormalization(m, gamma, beta, mean, var) }}"""
    assert fold(text, ("w", *BN)).ops == ["MatMul", "BatchNormalization"]


def test_product_of_two_activations_stays() -> None:
    text = """g (float[4,5] x, float[5,4] w, float[4] b) => (float[4,4] y) {
        m = MatMul(x, w)
        y = Mul(m, b) }"""
    assert fold(text, ("b",)).ops == ["MatMul", "Mul"]


# --- before a layer -----------------------------------------------------------------------------------------------


def bn_conv(attrs: str = "", group: int = 1, op: str = "Conv") -> str:
    shape = f"6,{4 // group}" if op == "Conv" else f"4,{6 // group}"
    return f"""g (float[N,4,5,6] x, float[{shape},3,3] w, float[6] b, {BN_4}) => (float[N,6,H,W] y) {{
        r = Relu(x)
        [bn] z = BatchNormalization(r, gamma, beta, mean, var)
        [conv] y = {op}<group={group}{attrs}>(z, w, b) }}"""


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("attrs", ["", ", pads=[0,0,0,0]", ', auto_pad="VALID"', ", strides=[2,2], dilations=[2,1]"])
def test_batchnorm_before_conv_without_padding(group: int, attrs: str) -> None:
    assert fold(bn_conv(attrs, group), ("w", "b", *BN)).ops == ["Relu", "Conv"]


@pytest.mark.parametrize("attrs", [", pads=[1,0,0,0]", ', auto_pad="SAME_UPPER"'])
def test_shift_before_padding_stays(attrs: str) -> None:
    result = fold(bn_conv(attrs), ("w", "b", *BN))
    assert (result.ops, result.modified) == (["Relu", "BatchNormalization", "Conv"], False)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("group", [1, 2])
def test_scale_alone_goes_through_padding(op: str, group: int) -> None:
    rng = np.random.default_rng(0)
    shape = (6, 4 // group, 3, 3) if op == "Conv" else (4, 6 // group, 3, 3)
    constants = {
        "w": rng.standard_normal(shape),
        "b": rng.standard_normal(6),
        "gamma": np.array([1.0, -2, 3, 0.5]),
        "beta": np.zeros(4),
        "mean": np.zeros(4),
        "var": np.array([1.0, 2, 3, 4]),
    }
    assert fold(bn_conv(", pads=[1,1,1,1]", group, op), constants).ops == ["Relu", op]


def test_shift_before_a_transposed_convolution_stays() -> None:
    assert fold(bn_conv("", 1, "ConvTranspose"), ("w", "b", *BN)).ops == ["Relu", "BatchNormalization", "ConvTranspose"]


@pytest.mark.parametrize("call", ["Gemm<transB=1,alpha=0.5,beta=2.0>(z, wt, b)", "Gemm(z, w)", "MatMul(z, w)"])
def test_batchnorm_before_a_dense_layer(call: str) -> None:
    text = f"""g (float[N,4] x, float[4,6] w, float[6,4] wt, float[6] b, {BN_4}) => (float[N,6] y) {{
        r = Relu(x)
        z = BatchNormalization(r, gamma, beta, mean, var)
        y = {call} }}"""
    assert fold(text, ("w", "wt", "b", *BN)).ops == ["Relu", "Gemm"]


def test_batchnorm_before_a_transposed_gemm_stays() -> None:
    text = f"""g (float[4,4] x, float[4,6] w, {BN_4}) => (float[4,6] y) {{
        z = BatchNormalization(x, gamma, beta, mean, var)
        y = Gemm<transA=1>(z, w) }}"""
    assert fold(text, ("w", *BN)).ops == ["BatchNormalization", "Gemm"]


def test_other_affine_nodes_before_a_layer_stay() -> None:
    text = """g (float[N,3,8,8] x, float[4,3,3,3] w, float a) => (float[N,4,6,6] y) {
        z = Mul(x, a)
        y = Conv(z, w) }"""
    assert fold(text, ("w", "a")).ops == ["Mul", "Conv"]


def test_between_two_layers_the_first_takes_it() -> None:
    text = f"""g (float[N,3,5,5] x, float[4,3,1,1] v, float[2,4,3,3] w, {BN_4}) => (float[N,2,5,5] y) {{
        [first] a = Conv(x, v)
        b = BatchNormalization(a, gamma, beta, mean, var)
        [second] y = Conv<pads=[1,1,1,1]>(b, w) }}"""
    result = fold(text, ("v", "w", *BN))
    assert result.ops == ["Conv", "Conv"]
    assert len(result.node("second").inputs) == 2


# --- what is in the way -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        conv_bn("", outputs="float[N,4,6,6] y, float[N,4,6,6] c"),
        conv_bn("z = Relu(c)", outputs="float[N,4,6,6] y, float[N,4,6,6] z"),
    ],
    ids=["output of the network", "second reader"],
)
def test_a_tensor_that_someone_else_needs_is_kept(text: str) -> None:
    result = fold(text, ("w", "b", *BN))
    assert "BatchNormalization" in result.ops
    assert not result.modified


def test_a_tensor_captured_by_a_subgraph_is_kept() -> None:
    text = """g (float[N,3,8,8] x, float[4,3,3,3] w, float[4,1,1] a, bool cond)
        => (float[N,4,6,6] y, float[N,4,6,6] z) {
        c = Conv(x, w)
        y = Mul(c, a)
        z = If (cond) <then_branch = t () => (float[N,4,6,6] p) { p = Neg(c) },
                       else_branch = e () => (float[N,4,6,6] q) { q = Mul(c, a) }> }"""
    result = fold(text, ("w", "a"))
    assert (result.ops, result.modified) == (["Conv", "Mul", "If"], False)


def test_a_weight_that_a_subgraph_captures_is_copied() -> None:
    text = """g (float[N,3] x, float[3,3] w, float[3] a, bool cond) => (float[N,3] y, float[N,3] z) {
        c = MatMul(x, w)
        y = Mul(c, a)
        z = If (cond) <then_branch = t () => (float[N,3] p) { p = MatMul(x, w) },
                       else_branch = e () => (float[N,3] q) { q = Mul(x, a) }> }"""
    assert fold(text, ("w", "a")).ops == ["MatMul", "If"]


def test_shared_weights_are_copied() -> None:
    text = f"""g (float[N,4,8,8] x, float[4,4,3,3] w, float[4] b, {BN_4}) => (float[N,4,4,4] y) {{
        [one] a = Conv(x, w, b)
        n = BatchNormalization(a, gamma, beta, mean, var)
        r = Relu(n)
        [two] y = Conv(r, w, b) }}"""
    result = fold(text, ("w", "b", *BN))
    assert result.ops == ["Conv", "Relu", "Conv"]
    names = [t.name for t in (*result.node("one").inputs[1:], *result.node("two").inputs[1:])]
    assert names == ["one_weight", "one_bias", "w", "b"]


def test_weights_that_are_not_constant_stay() -> None:
    result = fold(conv_bn(), BN)
    assert (result.ops, result.modified) == (["Conv", "BatchNormalization"], False)


def test_a_bias_that_is_not_constant_stays() -> None:
    assert fold(conv_bn(bias=True), ("w", *BN)).ops == ["Conv", "BatchNormalization"]


def test_parameters_that_are_not_constant_stay() -> None:
    result = fold(conv_bn(), ("w", "gamma", "beta", "mean"))
    assert result.ops == ["Conv", "BatchNormalization"]
    assert set(result.ctx.batchnorm) == {"y"}
    assert fold(conv_bn(), ("w", "gamma", "mean", "var")).ctx.batchnorm == {}


def test_training_batchnorm_stays() -> None:
    text = conv_bn().replace("y = BatchNormalization(", "y, m2, v2 = BatchNormalization<training_mode=1>(")
    result = fold(text, ("w", *BN))
    assert result.ops == ["Conv", "BatchNormalization"]
    assert result.ctx.batchnorm == {}


# --- moments ------------------------------------------------------------------------------------------------------


def test_moments_are_beta_and_the_absolute_gamma() -> None:
    result = fold(conv_bn(), ("w", "b", *BN))
    source = {t.name: onnx.numpy_helper.to_array(t) for t in parse(conv_bn(), ("w", "b", *BN)).graph.initializer}
    moments = result.ctx.batchnorm["y"]
    np.testing.assert_array_equal(moments.mean, source["beta"])
    np.testing.assert_array_equal(moments.std, np.abs(source["gamma"]))
    assert moments.mean.dtype == moments.std.dtype == np.float32


def test_moments_are_those_of_the_data_the_statistics_were_taken_from() -> None:
    """A Conv's output, normalised with its own mean and variance, has the promised moments, also once scaled."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3, 8, 8)).astype(np.float32)
    w = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    text = """g (float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,4,6,6] c) { c = Conv(x, w) }"""
    c = run(parse(text, {"w": w}), {"x": x})[0]
    scale, shift = np.array([2.0, -3, 0.5, 1]).reshape(4, 1, 1), np.array([1.0, 2, -1, 0]).reshape(1, 4, 1, 1)
    constants = {
        "w": w,
        "gamma": np.array([1.0, -2, 0.5, 3]),
        "beta": np.array([0.0, 1, -1, 2]),
        "mean": c.mean((0, 2, 3)),
        "var": c.var((0, 2, 3)),
        "a": scale,
        "d": shift,
    }
    text = f"""g (float[N,3,8,8] x, float[4,3,3,3] w, {BN_4}, float[4,1,1] a, float[1,4,1,1] d) => (float[N,4,6,6] y) {{
        c = Conv(x, w)
        n = BatchNormalization<epsilon=0.0>(c, gamma, beta, mean, var)
        s = Mul(n, a)
        y = Add(s, d) }}"""
    result = fold(text, constants)
    assert result.ops == ["Conv"]
    y = run(result.model, {"x": x})[0]
    moments = result.ctx.batchnorm["y"]
    # float32 statistics of 14,400 values per channel
    np.testing.assert_allclose(y.mean((0, 2, 3)), moments.mean, atol=1e-4)
    np.testing.assert_allclose(y.std((0, 2, 3)), moments.std, rtol=1e-4)


def test_moments_of_a_batchnorm_that_stays_are_recorded() -> None:
    text = f"""g (float[N,4,8,8] x, {BN_4}) => (float[N,4,8,8] y) {{
        r = Relu(x)
        y = BatchNormalization(r, gamma, beta, mean, var) }}"""
    result = fold(text, BN)
    assert not result.modified
    assert set(result.ctx.batchnorm) == {"y"}


# --- broken networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [0.0, -1.0, float("nan")])
def test_vanishing_variance_names_the_node(variance: float) -> None:
    constants = {name: np.ones(4) for name in BN} | {"w": np.ones((4, 3, 3, 3)), "var": np.array([1, 1, variance, 1])}
    text = conv_bn().replace("BatchNormalization(", "BatchNormalization<epsilon=0.0>(")
    with pytest.raises(ModelError, match=re.escape("node 'bn' (BatchNormalization): channel 2")):
        fold(text, constants)


def test_weights_that_overflow_name_the_layer() -> None:
    constants = {name: np.ones(4) for name in BN} | {"w": np.full((4, 3, 3, 3), 1e30), "gamma": np.full(4, 1e30)}
    with pytest.raises(ModelError, match=re.escape("node 'conv' (Conv)")):
        fold(conv_bn(), constants)


# --- the algebra --------------------------------------------------------------------------------------------------


@given(group=st.integers(1, 3), out=st.integers(1, 3), inputs=st.integers(1, 3), seed=st.integers(0, 99))
def test_layouts_are_undone_and_agree(group: int, out: int, inputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    canonical = rng.standard_normal((group, out, inputs, 6))
    for op, shape in (("Conv", (group * out, inputs, 2, 3)), ("ConvTranspose", (group * inputs, out, 2, 3))):
        layout = Layout(op, group)
        stored = layout.stored(canonical, shape)
        np.testing.assert_array_equal(layout.canonical(stored), canonical)
    scale, shift = rng.standard_normal(group * inputs), rng.standard_normal(group * inputs)
    # W (s · b) = (W · s) b and t · (W b) = (t · W) b
    np.testing.assert_allclose(response(canonical, scale * shift), response(scale_inputs(canonical, scale), shift))
    gain = rng.standard_normal(group * out)
    np.testing.assert_allclose(gain * response(canonical, shift), response(scale_outputs(canonical, gain), shift))


@pytest.mark.parametrize(
    ("shape", "rank", "axis", "fits"),
    [
        ((), 4, -3, True),
        ((1,), None, -1, True),
        ((4,), None, -1, True),
        ((1, 4), None, -1, False),
        ((4,), 4, -3, False),
        ((4, 1, 1), 4, -3, True),
        ((4, 1), 4, -3, False),
        ((1, 4, 1, 1), 4, -3, True),
        ((4, 1, 1, 1), 4, -3, False),
        ((1, 1, 4, 1, 1), 4, -3, False),
        ((4, 1, 4), 4, -3, False),
    ],
)
def test_channel_vector(shape: tuple[int, ...], rank: int | None, axis: int, fits: bool) -> None:
    vector = channel_vector(np.ones(shape, np.float32), 4, rank, axis)
    assert (vector is not None) == fits
    assert vector is None or vector.shape == (4,)
