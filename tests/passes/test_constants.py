"""Constant nodes become initializers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_checks import parse, transform

from snncc.passes.constants import ConstantsToInitializers


@pytest.mark.parametrize(
    ("attribute", "dtype", "shape"),
    [
        ("value: tensor = float[2,1] {3, 4}", np.float32, (2, 1)),
        ("value: tensor = double[1] {3}", np.float64, (1,)),
        ("value_float: float = 3.0", np.float32, ()),
        ("value_floats: floats = [3.0, 4.0, 5.0]", np.float32, (3,)),
        ("value_int: int = 3", np.int64, ()),
        ("value_ints: ints = [3, 4, 5]", np.int64, (3,)),
    ],
)
def test_every_form_of_value(attribute: str, dtype: type, shape: tuple[int, ...]) -> None:
    kind = onnx.TensorProto.DataType.Name(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))).lower()
    result = transform(
        ConstantsToInitializers(),
        f"""g ({kind}[2,3] x) => ({kind}[2,3] y) {{
            c = Constant<{attribute}>()
            y = Add(x, c) }}""",
    )
    assert result.ops == ["Add"]
    assert result.modified
    assert (result.constant("c").dtype, result.constant("c").shape) == (dtype, shape)


def test_empty_list() -> None:
    model = parse("g (float[6] x) => (float[6] y) { c = Constant<value_ints: ints = [1]>() y = Expand(x, c) }")
    del model.graph.node[0].attribute[0].ints[:]
    assert transform(ConstantsToInitializers(), model, infer=False).constant("c").shape == (0,)


def test_strings_survive() -> None:
    text = """g (int64[2] x) => (int64[2] y, string[2] z) {
        c = Constant<value_strings: strings = ["a", "b"]>()
        k = Constant<value: tensor = string[2] {"c", "d"}>()
        z = Where(b, k, c)
        b = Cast<to=9>(x)
        y = Identity(x) }"""
    lines = text.splitlines()
    lines.insert(3, lines.pop(4))
    result = transform(ConstantsToInitializers(), "\n".join(lines))
    assert "Where" in result.ops


def test_sparse_value_becomes_dense() -> None:
    values = onnx.helper.make_tensor("v", onnx.TensorProto.FLOAT, [2], [3.0, 4.0])
    indices = onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [2, 2], [0, 1, 1, 2])
    model = parse("g (float[2,3] x) => (float[2,3] y) { c = Constant<value_float: float = 0.0>() y = Add(x, c) }")
    attribute = onnx.helper.make_attribute("sparse_value", onnx.helper.make_sparse_tensor(values, indices, [2, 3]))
    model.graph.node[0].attribute[0].CopyFrom(attribute)
    result = transform(ConstantsToInitializers(), model, infer=False)
    np.testing.assert_array_equal(result.constant("c"), [[0, 3, 0], [0, 0, 4]])


def test_an_output_of_the_network_stays_a_node() -> None:
    result = transform(
        ConstantsToInitializers(),
        """g (float[2] x) => (float[2] y, float[2] c) {
            c = Constant<value: tensor = float[2] {3, 4}>()
            y = Add(x, c) }""",
    )
    assert (result.ops, result.modified) == (["Constant", "Add"], False)


def test_subgraphs_and_what_they_capture() -> None:
    result = transform(
        ConstantsToInitializers(),
        """g (float[2] x, bool cond) => (float[2] y) {
            c = Constant<value: tensor = float[2] {3, 4}>()
            y = If (cond) <
                then_branch = t () => (float[2] p) { p = Mul(x, c) },
                else_branch = e () => (float[2] q) { d = Constant<value_float: float = 2.0>() q = Add(c, d) }> }""",
    )
    assert result.ops == ["If"]
    branches = [a.g for a in result.model.graph.node[0].attribute]
    assert sorted(n.op_type for g in branches for n in g.node) == ["Add", "Mul"]


def test_nothing_to_do() -> None:
    assert not transform(ConstantsToInitializers(), "g (float[2] x) => (float[2] y) { y = Relu(x) }").modified
