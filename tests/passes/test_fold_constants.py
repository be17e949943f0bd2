"""What depends on constants and static shapes alone is computed; nothing that could go wrong or grow is.

Folding runs the same kernels as the unfolded graph, so comparisons are exact.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graph_checks import Transformed, parse, transform

from snncc.config import Config
from snncc.context import Context
from snncc.graph import import_graph, infer_shapes
from snncc.passes.fold_constants import FoldConstants, evaluate, known_outputs


def fold(text: str, constants: Any = (), **options: Any) -> Transformed:
    return transform(options.pop("step", FoldConstants()), text, constants, **options)


def test_a_chain_of_constants() -> None:
    result = fold(
        """g (float[N,3] x, float[3] a, float[3] b) => (float[N,3] y) {
            p = Mul(a, b)
            q = Sqrt(b)
            r = Sub(p, q)
            y = Add(x, r) }""",
        {"a": np.arange(3), "b": np.arange(3) + 1},
    )
    assert result.ops == ["Add"]
    assert result.modified
    np.testing.assert_allclose(result.constant("r"), np.arange(3) * (np.arange(3) + 1) - np.sqrt(np.arange(3) + 1))


def test_several_outputs() -> None:
    text = "g (float[2] x, float[4] a) => (float[2] y) { p, q = Split<axis=0>(a) r = Mul(x, p) y = Add(r, q) }"
    assert fold(text, ("a",)).ops == ["Mul", "Add"]


def test_left_out_inputs_and_outputs() -> None:
    text = "g (float[2] x, float[2] a, float hi) => (float[2] y) { c = Clip(a, , hi) y = Add(x, c) }"
    assert fold(text, {"a": np.array([5.0, -5]), "hi": np.array(1.0)}).ops == ["Add"]
    text = "g (float[1] x, float[1,1,4] a) => (float[1,1,2] y) { m, i = MaxPool<kernel_shape=[3]>(a) y = Add(x, m) }"
    assert fold(text, ("a",)).ops == ["Add"]


def test_quantised_weights() -> None:
    text = """g (float[N,3] x, int8[3,2] w, float s, int8 z) => (float[N,2] y) {
        f = DequantizeLinear(w, s, z)
        y = MatMul(x, f) }"""
    constants = {"w": np.arange(6).reshape(3, 2), "s": np.array(0.5), "z": np.array(1)}
    result = fold(text, constants)
    assert result.ops == ["MatMul"]
    np.testing.assert_array_equal(result.constant("f"), (np.arange(6).reshape(3, 2) - 1) * 0.5)


# --- shapes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "value"),
    [
        ("Shape(x)", None),
        ("Shape<start=1>(x)", [8, 4]),
        ("Shape<start=-1>(x)", [4]),
        ("Shape<start=1,end=2>(x)", [8]),
        ("Shape<start=-2,end=-1>(x)", [8]),
        ("Shape<start=0,end=9>(x)", None),
        ("Shape<start=2,end=1>(x)", []),
        ("Shape<end=1>(x)", None),
        ("Size(x)", None),
    ],
)
def test_shape_of_what_is_static(call: str, value: list[int] | None) -> None:
    text = f"g (float[N,8,4] x) => (float[N,8,4] z, float t) {{ z = Relu(x) s = {call} f = Cast<to=1>(s) t = ReduceSum<keepdims=0>(f) }}"  # noqa: E501
    result = fold(text)
    assert result.modified == (value is not None)
    if value is not None:
        np.testing.assert_array_equal(result.graph.tensors()["f"].values, np.array(value, np.float32))


def test_size_and_shape_of_a_static_tensor() -> None:
    text = """g (float[2,8] x) => (float[2,8] y) {
        s = Size(x)
        f = Cast<to=1>(s)
        a = Mul(x, f)
        r = Shape(x)
        y = Reshape(a, r) }"""
    result = fold(text)
    assert result.ops == ["Mul", "Reshape"]
    assert result.constant("f") == 16


@pytest.mark.parametrize(
    ("picked", "folded"),
    [
        ("Gather<axis=0>(s, one)", True),
        ("Gather<axis=0>(s, minus)", True),
        ("Gather<axis=0>(s, zero)", False),
        ("Slice(s, one1, end)", True),
        ("Slice(s, minus1, end)", True),
        ("Slice(s, zero1, end)", False),
        ("Slice(s, minus1, zero1, zero1, minus1)", True),
        ("Slice(s, minus1, under, zero1, minus1)", False),
    ],
)
def test_part_of_a_shape_with_an_unknown_batch(picked: str, folded: bool) -> None:
    text = f"""g (float[N,8,4] x, int64 zero, int64 one, int64 minus, int64[1] zero1, int64[1] one1, int64[1] minus1,
        int64[1] end, int64[1] under) => (float[N,8,4] z, float t) {{
        z = Relu(x)
        s = Shape(z)
        p = {picked}
        f = Cast<to=1>(p)
        t = ReduceSum<keepdims=0>(f) }}"""
    constants = {"zero": 0, "one": 1, "minus": -1, "zero1": [0], "one1": [1], "minus1": [-1], "end": [2**62]}
    result = fold(text, {k: np.array(v) for k, v in (constants | {"under": [-(2**62)]}).items()})
    assert result.modified == folded


# --- what isn't folded ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "c = RandomNormal<shape=[2]>() y = Add(x, c)",
        "c = RandomUniformLike(a) y = Add(x, c)",
        "c = Bernoulli(half) y = Add(x, c)",
    ],
)
def test_random_operators_stay(body: str) -> None:
    text = f"g (float[2] x, float[2] a, float[2] half) => (float[2] y) {{ {body} }}"
    assert not fold(text, {"a": np.ones(2), "half": np.full(2, 0.5)}, compare=False).modified


def test_an_output_of_the_network_stays_a_node() -> None:
    result = fold("g (float[2] x, float[2] a) => (float[2] y, float[2] z) { y = Relu(x) z = Neg(a) }", ("a",))
    assert (result.ops, result.modified) == (["Relu", "Neg"], False)


@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_division_of_integers_by_zero_stays(op: str) -> None:
    text = f"g (int64[2] x, int64[2] a, int64[2] b) => (int64[2] y) {{ c = {op}(a, b) y = Add(x, c) }}"
    assert not fold(text, {"a": np.array([1, 2]), "b": np.array([1, 0])}, compare=False).modified


def test_an_invalid_node_stays() -> None:
    inputs = [gs.Constant("a", np.arange(3)), gs.Constant("i", np.array(7))]
    node = gs.Node("Gather", "g", {}, inputs, [gs.Variable("y")])
    assert known_outputs(node, 17) is None
    assert evaluate(node, [np.arange(3), np.array(7)], 17) is None


def test_strings_stay_and_survive() -> None:
    text = """g (bool[2] x, string[2] a, string[2] b) => (bool[2] y, string[2] z) {
        y = Not(x)
        c = Identity(a)
        z = Where(x, c, b) }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>{text}')
    for name in ("a", "b"):
        info = next(i for i in model.graph.input if i.name == name)
        model.graph.input.remove(info)
        model.graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.STRING, [2], [b"p", b"q"]))
    result = transform(FoldConstants(), model)
    assert not result.modified


def test_foreign_operators_stay() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[2] x) => (float[2] y) <float[2] a = {1, 2}> { c = com.microsoft.QuickGelu(a) y = Add(x, c) }"""
    assert not transform(FoldConstants(), onnx.parser.parse_model(text)).modified


# --- results of any size --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "c = ConstantOfShape(huge)",
        "c = Expand(one, huge)",
        "c = Tile(one, huge)",
        "r = Range(zero, many, step) c = Cast<to=1>(r)",
        "c = Pad(one, pads)",
        "p = OneHot(flat, many, values) c = Reshape(p, flat)",
        'c = Resize<mode="nearest">(one, , , huge)',
    ],
)
def test_no_file_of_a_few_bytes_fills_the_memory(body: str) -> None:
    many = 10**11
    constants = {"huge": [many], "one": [1.0], "zero": 0, "many": many, "step": 1, "pads": [0, many], "flat": [-1]}
    text = f"""g (float[2] x, int64[1] huge, float[1] one, int64 zero, int64 many, int64 step, int64[2] pads,
        float[2] values, int64[1] flat) => (float y) {{
        {body}
        s = ReduceSum<keepdims=0>(c)
        m = ReduceSum<keepdims=0>(x)
        y = Add(m, s) }}"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>{text}')
    for info in list(model.graph.input)[1:]:
        model.graph.input.remove(info)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        value = np.asarray((constants | {"values": [0.0, 1.0]})[info.name], dtype=dtype)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, info.name))
    graph = import_graph(model)
    started = time.monotonic()
    infer_shapes(graph)
    FoldConstants().run(graph, Context(Config()))
    assert time.monotonic() - started < 5
    assert "ReduceSum" in [n.op for n in graph.nodes]
    assert "c" in [t.name for n in graph.nodes for t in n.outputs]


def test_the_limit_is_on_what_grows() -> None:
    text = """g (float[2,3] x, float[3] a, int64[2] s) => (float[2,3] y) {
        e = Expand(a, s)
        n = Neg(e)
        y = Add(x, n) }"""
    constants = {"a": np.ones(3), "s": np.array([2, 3])}
    assert fold(text, constants, step=FoldConstants(max_bytes=23)).ops == ["Expand", "Neg", "Add"]
    assert fold(text, constants, step=FoldConstants(max_bytes=24)).ops == ["Add"]
    text = "g (double[2,3] x, int8[2,3] a) => (double[2,3] y) { c = Cast<to=11>(a) y = Add(x, c) }"
    assert fold(text, {"a": np.ones((2, 3))}, step=FoldConstants(max_bytes=0)).ops == ["Add"]


# --- subgraphs ----------------------------------------------------------------------------------------------------


def test_inside_subgraphs() -> None:
    result = fold(
        """g (float[2] x, float[2] a, bool cond) => (float[2] y) {
            b = Neg(a)
            y = If (cond) <
                then_branch = t () => (float[2] p) { c = Abs(b) p = Mul(x, c) },
                else_branch = e () => (float[2] q) { q = Sub(x, b) }> }""",
        ("a",),
    )
    assert result.ops == ["If"]
    branches = [a.g for a in result.model.graph.node[0].attribute]
    assert [[n.op_type for n in g.node] for g in branches] == [["Mul"], ["Sub"]]


def test_float16_without_a_kernel_is_left_to_the_reference() -> None:
    node = gs.Node("Atan", "a", {}, [gs.Variable("x")], [gs.Variable("y")])
    values = evaluate(node, [np.array([1.0], np.float16)], 17)
    assert values is not None
    np.testing.assert_allclose(values[0], np.arctan([1.0]), rtol=1e-3)


def test_nothing_to_do() -> None:
    assert not fold("g (float[2] x) => (float[2] y) { y = Relu(x) }").modified
    graph = import_graph(parse("g (float[2] x) => (float[2] y) { y = Relu(x) }"))
    assert known_outputs(graph.nodes[0], 17) is None
