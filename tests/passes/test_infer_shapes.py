"""Types and shapes follow from the inputs and the operators."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_checks import parse, transform

from snncc.config import Config
from snncc.context import Context
from snncc.errors import ModelError
from snncc.graph import import_graph, shape_of
from snncc.passes.infer_shapes import InferShapes


def test_shapes_and_types_are_found() -> None:
    result = transform(
        InferShapes(),
        """g (float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,4,6,6] y, int64[4] z) {
            c = Conv(x, w)
            y = Relu(c)
            z = Shape(c) }""",
        ("w",),
        infer=False,
    )
    assert result.modified
    tensor = result.graph.tensors()["c"]
    assert (shape_of(tensor), tensor.dtype) == (("N", 4, 6, 6), np.float32)


def test_a_second_reader_of_large_weights_sees_their_shape() -> None:
    text = "g (float[N,64] x, float[64,64] w) => (float[N,64] y) { a = MatMul(x, w) y = MatMul(a, w) }"
    assert shape_of(transform(InferShapes(), text, ("w",), infer=False).graph.tensors()["a"]) == ("N", 64)


def test_contradiction_is_an_error() -> None:
    model = parse("g (float[2,3] x, float[3,4] w) => (float[2,4] y) { y = MatMul(x, w) }")
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 5
    with pytest.raises(ModelError, match=r"contradicts itself: .*MatMul"):
        InferShapes().run(import_graph(model), Context(Config()))


def test_wrong_shape_of_an_output_is_corrected() -> None:
    """Runtimes overlook it, so it is no error."""
    model = parse("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }")
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 7
    graph = import_graph(model)
    assert InferShapes().run(graph, Context(Config()))
    assert shape_of(graph.outputs[0]) == (2, 3)


def test_names_of_output_sizes_are_kept() -> None:
    graph = import_graph(parse("g (float[N,3] x) => (float[M,3] y) { y = Relu(x) }"))
    InferShapes().run(graph, Context(Config()))
    assert shape_of(graph.outputs[0]) == ("M", 3)


def test_a_range_of_any_length_costs_nothing() -> None:
    text = """g (float[2] x) => (float y) {
        a = Constant<value: tensor = int64 {0}>()
        b = Constant<value: tensor = int64 {100000000000}>()
        c = Constant<value: tensor = int64 {1}>()
        r = Range(a, b, c)
        s = Size(r)
        t = Cast<to=1>(s)
        m = ReduceMax<keepdims=0>(x)
        y = Add(m, t) }"""
    graph = import_graph(onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>' + text))
    assert InferShapes().run(graph, Context(Config()))
    assert not isinstance(shape_of(graph.tensors()["r"])[0], int)


def test_shapes_of_foreign_operators_are_kept() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[N,3] x) => (float[N,3] y) <float[N,3] z> { z = com.microsoft.QuickGelu(x) y = Relu(z) }"""
    result = transform(InferShapes(), onnx.parser.parse_model(text), infer=False, compare=False)
    assert shape_of(result.graph.tensors()["z"]) == ("N", 3)
