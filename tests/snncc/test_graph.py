"""Helpers around graphs: nothing is lost on the way in and out, names are unique, shapes are inferred."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest
from graph_checks import run

from snncc.errors import ModelError
from snncc.graph import (
    captured,
    constant,
    consumers,
    export_model,
    first_line,
    import_graph,
    infer_shapes,
    is_missing,
    known_dim,
    merge_shapes,
    node_inputs,
    outer_inputs,
    producers,
    shape_of,
    static_dims,
    subgraphs_of,
    unique_name,
)

IF = """g (float[2] x, bool cond) => (float[2] y, float[2] a) <float[2] w = {1, 2}> {
    [neg] a = Neg(x)
    [if] y = If (cond) <
        then_branch = t () => (float[2] p) { [inner] h = Mul(a, w) p = Abs(h) },
        else_branch = e () => (float[2] q) {
            q = If (cond) <then_branch = tt () => (float[2] r) { r = Sub(x, a) },
                           else_branch = te () => (float[2] s) { s = Relu(x) }> }> }"""


def parse(text: str, opset: int = 17) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')


def empty_list(name: str, kind: int) -> onnx.AttributeProto:
    attribute = onnx.AttributeProto()
    attribute.name, attribute.type = name, kind  # type: ignore[assignment]
    return attribute


# --- import and export ----------------------------------------------------------------------------------------------


def test_the_model_is_left_alone() -> None:
    model = parse("g (float[2,3] x, float[3] w) => (float[2,3] y) { y = Mul(x, w) }")
    model.graph.input.pop()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "w"))
    model.graph.node[0].domain = "ai.onnx"
    before = model.SerializeToString(deterministic=True)
    graph = import_graph(model)
    graph.tensors()["w"].name = "renamed"
    onnx.checker.check_model(export_model(graph), full_check=True)
    assert model.SerializeToString(deterministic=True) == before


def test_every_node_has_a_name_of_its_own() -> None:
    graph = import_graph(parse("g (float[2] x) => (float[2] y) { [n] a = Neg(x) [n] b = Neg(a) y = Relu(b) }"))
    assert [node.name for node in graph.nodes] == ["n", "n_2", "y"]


@pytest.mark.parametrize("dim", [-1, 0, "?", "", "None"])
def test_sizes_that_say_nothing_are_unknown(dim: int | str) -> None:
    model = parse("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    first.Clear()
    setattr(first, "dim_param" if isinstance(dim, str) else "dim_value", dim)
    assert shape_of(import_graph(model).inputs[0]) == (None, 3)


def test_the_long_name_of_the_default_domain() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.opset_import[0].domain = "ai.onnx"
    model.graph.node[0].domain = "ai.onnx"
    after = export_model(import_graph(model))
    onnx.checker.check_model(after, full_check=True)
    assert [(o.domain, o.version) for o in after.opset_import] == [("", 17)]


def test_empty_lists_say_the_default() -> None:
    model = parse("g (float x) => (float y) { a = Transpose(x) y = ReduceMax(a) }")
    model.graph.node[0].attribute.append(empty_list("perm", onnx.AttributeProto.INTS))
    onnx.checker.check_model(export_model(import_graph(model)), full_check=True)


def test_sparse_initializers_become_dense() -> None:
    model = parse("g (float[2,3] x, float[2,3] w) => (float[2,3] y) { y = Add(x, w) }")
    model.graph.input.pop()
    values = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [5.0, 6.0])
    flat = onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [2], [1, 5])
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, flat, [2, 3]))
    value = constant(import_graph(model).tensors()["w"])
    assert value is not None
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, [[0, 5, 0], [0, 0, 6]])
    model.graph.sparse_initializer[0].dims[0] = 10**12
    with pytest.raises(ModelError, match="sparse initializer 'w'"):
        import_graph(model)


def test_attributes_that_would_be_lost_are_refused() -> None:
    model = parse("g (float[2] x) => (float[2] y) { [some] o = Optional(x) y = OptionalGetElement(o) }")
    kind = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [2])
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("type", kind))
    with pytest.raises(ModelError, match=r"node 'some' \(Optional\): its attribute 'type' of type TYPE_PROTO"):
        import_graph(model)


def test_descriptions_of_optional_values_are_no_obstacle() -> None:
    model = parse("g (float[2] x) => (float[2] y) { o = Optional(x) y = OptionalGetElement(o) }")
    model = onnx.shape_inference.infer_shapes(model)
    assert [v.type.WhichOneof("value") for v in model.graph.value_info] == ["optional_type"]
    onnx.checker.check_model(export_model(import_graph(model)), full_check=True)


def test_functions_and_subgraphs_survive() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "loc" : 1]> g (float[2] x) => (float[2] y) { y = loc.f<k = 3>(x) }
        <domain: "loc", opset_import: ["" : 17]> f <k> (a) => (b) { c = Constant<value_int: int = @k>()
        d = CastLike(c, a) b = Mul(a, d) }"""
    after = export_model(import_graph(onnx.parser.parse_model(text)))
    onnx.checker.check_model(after, full_check=True)
    assert [(f.domain, f.name, len(f.node)) for f in after.functions] == [("loc", "f", 3)]
    onnx.checker.check_model(export_model(import_graph(parse(IF))), full_check=True)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    model = parse("g (float[2] x) => (float[2] y) { [n] a = Neg(x) [n] y = Neg(a) }")
    del model.opset_import[:]
    gs.import_onnx(model)
    gs.export_onnx(gs.import_onnx(model))
    assert capfd.readouterr() == ("", "")


# --- questions ------------------------------------------------------------------------------------------------------


def test_constants() -> None:
    tensor = gs.Constant("c", np.array([1, 2]))
    np.testing.assert_array_equal(constant(tensor), [1, 2])
    assert constant(gs.Variable("v")) is None
    assert shape_of(tensor) == (2,)
    assert shape_of(gs.Constant("e", np.zeros((0, 3)))) == (0, 3)
    assert shape_of(gs.Variable("v")) is None


def test_constant_strings_can_still_be_exported() -> None:
    model = parse("g (float[2] x, string[1] s) => (float[2] y, string[1] t) { y = Relu(x) t = Identity(s) }")
    model.graph.input.pop()
    model.graph.initializer.append(onnx.helper.make_tensor("s", onnx.TensorProto.STRING, [1], [b"hello"]))
    graph = import_graph(model)
    value = constant(graph.tensors()["s"])
    assert value is not None
    assert value.tolist() == [b"hello"] or value.tolist() == ["hello"]
    after = export_model(graph)
    assert after.graph.initializer[0].string_data == [b"hello"]


def test_inputs_that_are_left_out() -> None:
    graph = import_graph(parse("g (float[2] x, float hi) => (float[2] y) { y = Clip(x, , hi) }"))
    assert [is_missing(t) for t in graph.nodes[0].inputs] == [False, True, False]
    assert [t.name for t in node_inputs(graph.nodes[0])] == ["x", "hi"]


def test_what_subgraphs_capture() -> None:
    graph = import_graph(parse(IF))
    branch = graph.nodes[1]
    assert [t.name for t in outer_inputs(branch)] == ["cond", "a", "x"]
    assert [sorted(t.name for t in captured(s)) for s in subgraphs_of(branch)] == [["a"], ["a", "cond", "x"]]
    readers = {name: [n.name for n in nodes] for name, nodes in consumers(graph).items()}
    assert readers == {"x": ["neg", "if"], "cond": ["if"], "a": ["if"]}
    assert {name: n.name for name, n in producers(graph).items()} == {"a": "neg", "y": "if"}


@pytest.mark.parametrize("name", ["x", "y", "w", "neg", "if", "inner", "h", "r"])
def test_unique_names_avoid_those_in_subgraphs(name: str) -> None:
    graph = import_graph(parse(IF))
    assert unique_name(graph, name) == f"{name}_2"
    assert unique_name(graph, "fresh") == "fresh"


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_shapes_flow_through_large_weights_and_subgraphs() -> None:
    text = "g (float[N,50] x, float[50,50] w) => (float[N,50] y) { a = MatMul(x, w) s = Shape(a) y = Reshape(a, s) }"
    model = parse(text)
    model.graph.input.pop()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((50, 50), np.float32), "w"))
    graph = import_graph(model)
    infer_shapes(graph)
    assert shape_of(graph.tensors()["a"]) == ("N", 50)
    assert isinstance(graph.tensors()["w"], gs.Constant)
    assert model.graph.initializer[0].name == "w"
    graph = import_graph(parse(IF))
    infer_shapes(graph)
    assert shape_of(graph.tensors()["y"]) == (2,)


def test_made_up_names_do_not_outlive_their_inference() -> None:
    """Two runs of inference give the same name to different sizes."""
    graph = import_graph(parse("g (float[a,b] x) => (int64 y) { n = NonZero(x) y = Size(n) }"))
    graph.tensors()["n"].shape = [2, "unk__7"]
    infer_shapes(graph)
    shape = shape_of(graph.tensors()["n"])
    assert shape is not None
    assert shape[0] == 2
    assert shape[1] != "unk__7"


def test_made_up_names_stay_out_of_the_signature() -> None:
    model = parse("g (float[a,b] x) => (int64[2,b] y) { n = NonZero(x) y = Neg(n) }")
    model.graph.output[0].type.tensor_type.shape.dim[1].Clear()
    graph = import_graph(model)
    infer_shapes(graph)
    assert shape_of(graph.outputs[0]) == (2, None)


def test_inputs_are_never_changed() -> None:
    graph = import_graph(parse("g (float[N,3] x) => (float[M,3] y) { y = Relu(x) }"))
    infer_shapes(graph)
    assert shape_of(graph.inputs[0]) == ("N", 3)
    assert shape_of(graph.outputs[0]) == ("M", 3)


@pytest.mark.parametrize(
    ("old", "new", "keep", "merged"),
    [
        (None, None, False, None),
        (None, [1, "N"], False, [1, "N"]),
        ([1, "N"], None, False, [1, "N"]),
        ([None, "M", 3], ["N", "N", "N"], False, ["N", "N", 3]),
        ([None, "M", 3], ["N", "N", "N"], True, ["N", "M", 3]),
        (["M", 3], [4, 5], True, [4, 5]),
        ([2, 3], [2, 3, 4], False, [2, 3, 4]),
        ([-1, "?"], [None, None], False, [None, None]),
        ([2], [0], False, [0]),
    ],
)
def test_merging(old: object, new: object, keep: bool, merged: object) -> None:
    assert merge_shapes(old, new, keep_names=keep) == merged  # type: ignore[arg-type]


def test_small_questions() -> None:
    assert [known_dim(d) for d in (3, "N", 0, -1, "?", "", None)] == [3, "N", None, None, None, None, None]
    assert static_dims((2, 3)) == (2, 3)
    assert static_dims(()) == ()
    assert static_dims(iter((2, 3))) == (2, 3)
    assert static_dims((2, "N")) is None
    assert static_dims((2, -1)) is None
    assert static_dims(None) is None
    assert first_line(ValueError("\n  one \n two")) == "one"
    assert first_line(ValueError("")) == "ValueError"
    assert first_line(ValueError("x" * 999), 10) == "x" * 10


def test_large_weights_are_not_copied() -> None:
    """They stay the model's own bytes until somebody asks for their values; subgraphs find them too."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,64] x, bool c) => (float[2,64] y) {
        y = If (c) <then_branch = t () => (float[2,64] p) { p = MatMul(x, w) },
                    else_branch = e () => (float[2,64] q) { q = Add(x, small) }> }"""
    model = onnx.parser.parse_model(text)
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(values[:1], "small"))
    graph = import_graph(model)
    assert [t.name for t in graph.inputs] == ["x", "c"]
    weight = next(t for t in next(iter(subgraphs_of(graph.nodes[0]))).nodes[0].inputs if t.name == "w")
    assert weight._values.tensor is model.graph.initializer[0]
    exported = export_model(graph)
    onnx.checker.check_model(exported, full_check=True)
    feed = {"x": np.ones((2, 64), np.float32), "c": np.array(True)}
    np.testing.assert_array_equal(run(exported, feed)[0], run(model, feed)[0])
    np.testing.assert_array_equal(constant(weight), values)


def test_a_subgraphs_output_that_says_nothing_can_be_exported_again() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,3] x, bool c) => (float[2,3] y) {
        y = If (c) <then_branch = t () => (float[2,3] p) { p = Neg(x) },
                    else_branch = e () => (float[2,3] q) { q = Abs(x) }> }"""
    model = onnx.parser.parse_model(text)
    model.graph.node[0].attribute[0].g.output[0].type.Clear()
    exported = export_model(import_graph(model))
    onnx.checker.check_model(exported, full_check=True)
