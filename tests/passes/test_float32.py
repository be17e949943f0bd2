"""Networks in float16 and float64 compute in float32 and keep their signature.

Against float16 the difference is float16's rounding (2^-11, some tens of times); against float64 it is float32's.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_checks import ROUNDING, parse, transform

from snncc.passes.float32 import ComputeInFloat32, to_float32

TOLERANCE = {"float16": 1e-2, "double": ROUNDING}


def float_types(model: onnx.ModelProto) -> set[int]:
    """Return the floating-point types of all initializers and inner tensors."""
    types = {v.type.tensor_type.elem_type for v in model.graph.value_info}
    types |= {t.data_type for t in model.graph.initializer}
    return types & {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_a_whole_network(kind: str) -> None:
    result = transform(
        ComputeInFloat32(),
        f"""g ({kind}[N,3] x, {kind}[3,4] w, {kind}[4] b) => ({kind}[N,4] y, int64[2] s) {{
            c = Gemm(x, w, b)
            y = Relu(c)
            s = Shape(c) }}""",
        ("w", "b"),
        tolerance=TOLERANCE[kind],
    )
    assert result.ops == ["Cast", "Gemm", "Relu", "Shape", "Cast"]
    assert result.modified
    assert float_types(result.model) == {onnx.TensorProto.FLOAT}


def test_float32_is_left_alone() -> None:
    text = "g (float[N,3] x, int64[3] i) => (float[N,3] y) { c = Cast<to=1>(i) y = Add(x, c) }"
    assert not transform(ComputeInFloat32(), text).modified


@pytest.mark.parametrize("kind", ["float16", "double"])
@pytest.mark.parametrize(
    "body",
    [
        "c = Cast<to={code}>(i) y = Add(x, c)",
        "c = ConstantOfShape<value: tensor = {kind}[1] {{2}}>(n) y = Add(x, c)",
        "f = Cast<to=1>(x) g = Relu(f) h = CastLike(g, x) y = Neg(h)",
        "f = Cast<to=1>(x) y = Cast<to={code}>(f)",
        "c = Constant<value: tensor = {kind}[3] {{1, 2, 3}}>() y = Mul(x, c)",
        "a = Identity(x) y = Identity(a)",
        "y = Identity(x)",
    ],
)
def test_types_that_operators_name(kind: str, body: str) -> None:
    code = {"float16": 10, "double": 11}[kind]
    body = body.format(kind=kind, code=code)
    text = f"g ({kind}[3] x, int64[3] i, int64[1] n) => ({kind}[3] y) {{ {body} }}"
    result = transform(ComputeInFloat32(), parse(text, {"n": np.array([3])}), tolerance=TOLERANCE[kind])
    assert float_types(result.model) <= {onnx.TensorProto.FLOAT}


def test_a_matrix_of_ones_follows() -> None:
    text = """g (double[3] x, int64[2,3] m) => (double[3] y) {
        e = EyeLike<dtype=11>(m)
        c = ReduceSum<keepdims=0>(e)
        y = Mul(x, c) }"""
    assert float_types(transform(ComputeInFloat32(), text, tolerance=ROUNDING).model) == {onnx.TensorProto.FLOAT}


def test_random_operators_follow() -> None:
    text = """g (double[2] x) => (double[2] y) {
        c = RandomNormal<dtype=11, shape=[2]>()
        d = RandomUniformLike<dtype=11>(x)
        e = Add(c, d)
        y = Add(x, e) }"""
    result = transform(ComputeInFloat32(), text, compare=False)
    assert float_types(result.model) == {onnx.TensorProto.FLOAT}


def test_an_output_that_others_read() -> None:
    text = "g (float16[2] x) => (float16[2] y, float16[2] z) { y = Neg(x) z = Abs(y) }"
    result = transform(ComputeInFloat32(), text, tolerance=TOLERANCE["float16"])
    assert sorted(result.ops) == ["Abs", "Cast", "Cast", "Cast", "Neg"]
    assert [t.name for t in result.node("z").inputs] == ["y_float32"]


def test_an_input_that_is_cast_to_float32_already() -> None:
    text = "g (float16[2] x) => (float[2] y) { f = Cast<to=1>(x) y = Relu(f) }"
    assert not transform(ComputeInFloat32(), text).modified


def test_mixed_inputs() -> None:
    text = """g (double[2] x, float[2] u, int64[2] i) => (float[2] y, double[2] z) {
        f = Cast<to=1>(x)
        y = Add(f, u)
        z = Neg(x) }"""
    result = transform(ComputeInFloat32(), text, tolerance=ROUNDING)
    assert [t.dtype for t in result.graph.inputs] == [np.float64, np.float32, np.int64]


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_subgraphs_and_what_they_capture(kind: str) -> None:
    result = transform(
        ComputeInFloat32(),
        f"""g ({kind}[2] x, {kind}[2] w, bool cond) => ({kind}[2] y) {{
            a = Mul(x, w)
            y = If (cond) <
                then_branch = t () => ({kind}[2] p) {{ p = Mul(x, a) }},
                else_branch = e () => ({kind}[2] q) {{
                    c = Constant<value: tensor = {kind}[1] {{3}}>()
                    d = Sub(a, c)
                    q = Mul(d, w) }}> }}""",
        ("w",),
        tolerance=TOLERANCE[kind],
    )
    assert float_types(result.model) == {onnx.TensorProto.FLOAT}


def test_the_body_of_a_scan() -> None:
    text = """g (double[2] s, double[5,2] x) => (double[2] e, double[5,2] y) {
        e, y = Scan<num_scan_inputs=1, body = b (double[2] i, double[2] v) => (double[2] o, double[2] r) {
            o = Add(i, v)
            r = Neg(o) }>(s, x) }"""
    assert transform(ComputeInFloat32(), text, tolerance=ROUNDING).modified


def test_input_straight_to_output_is_left_alone() -> None:
    model = parse("g (double[2] x) => (double[2] y) { y = Neg(x) }")
    model.graph.output.append(model.graph.input[0])
    result = transform(ComputeInFloat32(), model, tolerance=ROUNDING)
    assert [t.name for t in result.graph.outputs] == ["y", "x"]


def test_masks_stay_finite() -> None:
    text = "g (double[3] x, double[3] mask) => (double[3] y) { a = Add(x, mask) y = Softmax<axis=0>(a) }"
    transform(ComputeInFloat32(), text, {"mask": np.array([0, -1e308, 0])}, tolerance=ROUNDING)


def test_conversion_of_extreme_values() -> None:
    info = np.finfo(np.float32)
    values = np.array([1e308, -1e308, 1e-300, -1e-300, 0.0, np.inf, -np.inf, np.nan, 1e-40, 0.1])
    got = to_float32(values)
    assert got.dtype == np.float32
    want = [info.max, info.min, info.tiny, -info.tiny, 0, np.inf, -np.inf, np.nan, np.float32(1e-40), np.float32(0.1)]
    np.testing.assert_array_equal(got, np.array(want, np.float32))


def test_every_float16_is_kept() -> None:
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(to_float32(values), values.astype(np.float32))
