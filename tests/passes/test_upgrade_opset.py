"""Older opsets come up to date with the same numbers; what can't gets one clear error.

The converter only rewrites operators in terms of their successors, so comparisons are exact.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from graph_checks import assert_same

from snncc.errors import ModelError
from snncc.passes.upgrade_opset import TARGET_OPSET, upgrade_opset
from snncc.protos import opset_versions


def read(text: str, opset: int, ir: int = 8, more: str = "") -> onnx.ModelProto:
    """Parse a model; the shapes of outputs that say none are inferred."""
    model = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}{more}]>\n{text}')
    for info in model.graph.output:
        if not info.type.tensor_type.shape.dim:
            info.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for info in model.graph.output:
        info.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(model)
    return model


def upgrade(model: onnx.ModelProto) -> onnx.ModelProto:
    before = model.SerializeToString(deterministic=True)
    result, changed = upgrade_opset(model)
    assert model.SerializeToString(deterministic=True) == before
    assert changed == (result.SerializeToString(deterministic=True) != before)
    onnx.checker.check_model(result, full_check=True)
    assert opset_versions(result.opset_import)[""] >= TARGET_OPSET
    initialized = {t.name for t in result.graph.initializer}
    assert not [i.name for i in result.graph.input if i.name in initialized]
    assert upgrade_opset(result) == (result, False)
    assert_same(model, result)
    return result


SHAPE_CHAIN = """s = Shape(x)
    i = Constant<value: tensor = int64 {0}>()
    b = Gather<axis=0>(s, i)
    u = Unsqueeze<axes=[0]>(b)
    m = Constant<value: tensor = int64[1] {-1}>()
    t = Concat<axis=0>(u, m)
    y = Reshape(x, t)"""


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (7, "a, m = Dropout<ratio=0.5>(x) y = Relu(a)"),
        (9, 's = Constant<value: tensor = float[4] {1,1,2,2}>() y = Upsample<mode="nearest">(x, s)'),
        (10, 's = Constant<value: tensor = float[4] {1,1,2,2}>() y = Resize<mode="nearest">(x, s)'),
        (9, "y = Clip<min=-0.5, max=0.5>(x)"),
        (10, "y = Pad<pads=[0,0,1,1,0,0,1,1], value=1.0>(x)"),
        (9, "y = Slice<axes=[2], starts=[1], ends=[2]>(x)"),
        (11, "y = Softmax<axis=1>(x)"),
        (11, "a = Unsqueeze<axes=[0]>(x) y = Squeeze<axes=[0]>(a)"),
        (11, "y = ReduceSum<axes=[1], keepdims=0>(x)"),
        (13, "y = LeakyRelu(x)"),
        (15, "y = Identity(x)"),
    ],
)
def test_operators_old_and_new(opset: int, body: str) -> None:
    upgrade(read(f"g (float[2,3,4,4] x) => (float y) {{ {body} }}", opset))


@pytest.mark.parametrize("opset", [7, 9])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample_keeps_its_grid(opset: int, mode: str) -> None:
    """The converter alone would move it by half a pixel."""
    body = f"""s = Constant<value: tensor = float[4] {{1,1,1.5,3}}>() y = Upsample<mode="{mode}">(x, s)"""
    if opset == 7:
        body = f"""y = Upsample<mode="{mode}", scales=[1.0, 1.0, 1.5, 3.0]>(x)"""
    upgrade(read(f"g (float[2,3,4,4] x) => (float y) {{ {body} }}", opset))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", ["1,1,1.5,3", "1,1,0.5,0.75", "1,1,0.3,1"])
@pytest.mark.parametrize("initializer", [False, True])
def test_resize_keeps_its_grid(mode: str, scales: str, initializer: bool) -> None:
    made = "" if initializer else f"s = Constant<value: tensor = float[4] {{{scales}}}>()"
    given = f"<float[4] s = {{{scales}}}>" if initializer else ""
    upgrade(read(f"""g (float[2,3,8,8] x) => (float y) {given} {{ {made} y = Resize<mode="{mode}">(x, s) }}""", 10))


@pytest.mark.parametrize("scales", ["s = Constant<value: tensor = float[4] {1,1,0.5,2}>()", "s = Identity(t)"])
def test_resize_that_newer_opsets_do_not_have(scales: str) -> None:
    text = f"g (float[2,3,4,4] x) => (float y) <float[4] t = {{1,1,2,2}}> {{ {scales} y = Resize(x, s) }}"
    with pytest.raises(ModelError, match=r"node 'y' \(Resize\) of opset 10 .* export it again with opset 11"):
        upgrade_opset(read(text, 10))


@pytest.mark.parametrize(("opset", "axis"), [(7, 1), (11, 0), (12, 2), (11, -1)])
def test_hardmax_of_flattened_values(opset: int, axis: int) -> None:
    upgrade(read(f"g (float[2,3,4] x) => (float y) {{ y = Hardmax<axis={axis}>(x) }}", opset))


def test_shape_arithmetic() -> None:
    upgrade(read(f"g (float[2,3,4,4] x) => (float[2,48] y) {{ {SHAPE_CHAIN} }}", 9))


def test_current_models_are_returned_as_they_are() -> None:
    model = read("g (float[2] x) => (float[2] y) { y = Relu(x) }", 17)
    assert upgrade_opset(model)[0] is model
    newer = read("g (float[2] x) => (float[2] y) { y = Gelu(x) }", 20, 9)
    assert upgrade_opset(newer) == (newer, False)


def test_initializers_that_are_inputs_become_constants() -> None:
    model = read("g (float[2] x, float[2] w) => (float[2] y) { y = Mul(x, w) }", 8, 3)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3], np.float32), "w"))
    result, changed = upgrade_opset(model)
    assert changed
    assert [i.name for i in result.graph.input] == ["x"]
    assert result.ir_version >= 8
    result, changed = upgrade_opset(onnx.ModelProto.FromString(result.SerializeToString()))
    assert not changed


@pytest.mark.parametrize("opset", [9, 17])
def test_large_weights_keep_their_values(opset: int) -> None:
    model = read("g (float[N,64] x, float[64,64] w) => (float[N,64] y) { a = MatMul(x, w) y = Relu(a) }", opset)
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    result, _ = upgrade_opset(model)
    assert [i.name for i in result.graph.input] == ["x"]
    assert [t.name for t in result.graph.initializer] == ["w"]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(result.graph.initializer[0]), weight)


def test_names_of_nodes_and_metadata_survive() -> None:
    model = read("g (float[1,3] x) => (float y) { [first] a = Neg(x) [second] y = Squeeze<axes=[0]>(a) }", 11)
    entry = model.metadata_props.add()
    entry.key, entry.value = "classes", "cat,dog"
    result = upgrade(model)
    assert [n.name for n in result.graph.node if n.op_type != "Constant"] == ["first", "second"]
    assert [(p.key, p.value) for p in result.metadata_props] == [("classes", "cat,dog")]


def test_subgraphs_are_converted() -> None:
    text = """g (float[2,3] x, bool c) => (float y) {
        z = Neg(x)
        y = If (c) <then_branch = t () => (float[2,3] p) { k = Unsqueeze<axes=[0]>(z) p = Squeeze<axes=[0]>(k) },
                    else_branch = e () => (float[2,3] q) { q = Sub(z, x) }> }"""
    upgrade(read(text, 11))


@pytest.mark.parametrize("opset", [13, 17])
def test_model_local_functions_are_inlined(opset: int) -> None:
    text = f"""g (float[N,3] x) => (float y) {{ z = loc.scaled<k=2.0>(x) y = Relu(z) }}
        <domain: "loc", opset_import: ["" : {opset}]>
        scaled <k> (a) => (b) {{ c = Constant<value_float: float = @k>() b = Mul(a, c) }}"""
    result = upgrade(read(text, opset, more=', "loc" : 1'))
    assert [n.op_type for n in result.graph.node] == ["Constant", "Mul", "Relu"]
    assert not result.functions
    assert set(opset_versions(result.opset_import)) == {""}


def test_an_attribute_of_a_call_that_is_of_the_wrong_type_is_refused() -> None:
    text = """g (float[N,3] x) => (float[N,3] y) { z = loc.scaled<k=2.0>(x) y = Relu(z) }
        <domain: "loc", opset_import: ["" : 17]>
        scaled <k> (a) => (b) { c = Constant<value_float: float = @k>() b = Mul(a, c) }"""
    model = read(text, 17, more=', "loc" : 1')
    model.graph.node[0].attribute[0].CopyFrom(onnx.helper.make_attribute("k", "two"))
    with pytest.raises(ModelError, match=r"Mismatched attribute type in .*value_float.*; export it again"):
        upgrade_opset(model)


def test_foreign_operators_pass_through() -> None:
    text = "g (float[2,3] x) => (float y) { z = com.microsoft.QuickGelu(x) a = Unsqueeze<axes=[0]>(z) y = Relu(a) }"
    result = upgrade(read(text, 11, more=', "com.microsoft" : 1'))
    assert result.graph.node[0].domain == "com.microsoft"


def test_what_cannot_be_converted_is_named() -> None:
    text = """g (float[1,1,2,3] x, float[1] s) => (float y) <float[1] s = {2}> {
        y = BatchNormalization<spatial=0>(x, s, s, s, s) }"""
    with pytest.raises(ModelError, match=r"from opset 7 to 17: .*spatial.*export it again with opset 17"):
        upgrade_opset(read(text, 7, 3))
