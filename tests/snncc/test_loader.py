"""Reading models: what is fine is read whole, what isn't ends in one line that names file, reason and remedy."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from loading import TEXT, WEIGHTED, message, parse, save

from snncc.errors import ModelError, UsageError
from snncc.loader import LoadedModel, load_model

RELU = TEXT + "g (float[N,3] x) => (float[N,3] y) { [act] y = Relu(x) }"

Change = Callable[[onnx.ModelProto], None]


# --- what is fine -------------------------------------------------------------------------------------------------


def test_a_plain_model(tmp_path: Path) -> None:
    path = save(tmp_path / "net.v1.onnx", parse(RELU))
    loaded = load_model(path)
    assert isinstance(loaded, LoadedModel)
    assert loaded.name == "net.v1"
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.model == parse(RELU)
    assert not loaded.is_artifact
    assert [(s.name, s.dtype, s.shape) for s in loaded.inputs] == [("x", np.float32, ("N", 3))]
    assert [(s.name, s.dtype, s.shape) for s in loaded.outputs] == [("y", np.float32, ("N", 3))]
    assert load_model(str(path)) == loaded


def test_a_model_in_memory_is_not_modified() -> None:
    model = parse(RELU)
    loaded = load_model(model)
    assert loaded.name == "g"
    assert loaded.model == model
    assert loaded.model is not model
    assert len(loaded.sha256) == 64


def test_initializers_are_no_inputs_of_the_signature() -> None:
    model = parse(WEIGHTED)
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3]))
    assert [s.name for s in load_model(model).inputs] == ["x"]


@pytest.mark.parametrize(
    ("dim", "shape"), [(-1, (None, 3)), (0, (None, 3)), ("?", (None, 3)), ("batch", ("batch", 3)), (4, (4, 3))]
)
def test_sizes_that_say_nothing(dim: int | str, shape: tuple[object, ...]) -> None:
    model = parse(RELU)
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    first.ClearField("dim_param")
    if isinstance(dim, str):
        first.dim_param = dim
    else:
        first.dim_value = dim
    assert load_model(model).inputs[0].shape == shape


def test_an_output_of_unknown_rank() -> None:
    model = parse(RELU)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    loaded = load_model(model)
    assert loaded.outputs[0].shape is None
    assert loaded.model == model


def test_operators_of_the_runtime_and_model_local_functions() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> '
    load_model(parse(text + "g (float[3] x) => (float[3] y) { y = com.microsoft.QuickGelu(x) }"))
    text = '<ir_version: 8, opset_import: ["" : 17, "loc" : 1]> g (float[3] x) => (float[3] y) { y = loc.f(x) } '
    load_model(parse(text + '<domain: "loc", opset_import: ["" : 17]> f (a) => (b) { b = Relu(a) }'))


def test_an_operator_that_the_runtime_does_not_have() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> '
    assert "node 'y' (Relu) is no operator of the domain 'com.microsoft' in onnxruntime" in message(
        parse(text + "g (float[3] x) => (float[3] y) { y = com.microsoft.Relu(x) }")
    )


@pytest.mark.parametrize(("op", "shape"), [("MatMul", [3, 0]), ("Gemm", [3, 0]), ("MatMul", [3, 0, 0])])
def test_weights_without_elements(op: str, shape: list[int]) -> None:
    model = parse(TEXT + f"g (float[N,3] x) => (float[N,0] y) {{ [layer] z = {op}(x, w) y = Relu(z) }}")
    model.graph.initializer.append(onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, shape, []))
    assert f"node 'layer' ({op}) has weights 'w' without elements" in message(model)


def test_an_artifact_is_recognised() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17, "snncc" : 1]> g (float[3] x) => (float[3] y) { y = snncc.f(x) } '
    model = parse(text + '<domain: "snncc", opset_import: ["" : 17]> f (a) => (b) { b = Relu(a) }')
    assert load_model(model).is_artifact


def test_the_long_name_of_the_default_domain() -> None:
    assert load_model(parse(RELU.replace('"" : 17', '"ai.onnx" : 17')))


# --- what is no model -----------------------------------------------------------------------------------------------


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "doesn't exist; check the path" in message(tmp_path / "none.onnx")
    assert "is a directory" in message(tmp_path)
    (tmp_path / "empty.onnx").touch()
    assert "is empty" in message(tmp_path / "empty.onnx")
    assert "can't be read" in message("a\0b.onnx")
    assert "can't be read" in message(tmp_path / ("n" * 300))
    (tmp_path / "loop").symlink_to("loop")
    assert "can't be read" in message(tmp_path / "loop")
    (tmp_path / "file").write_bytes(b"x")
    assert "can't be read" in message(tmp_path / "file" / "net.onnx")


@pytest.mark.parametrize("source", [None, 5, b"model.onnx", ["model.onnx"]])
def test_what_is_no_model_at_all(source: Any) -> None:
    with pytest.raises(UsageError, match="give the path of an ONNX file"):
        load_model(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a matter of POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "is no regular file" in message(tmp_path / "pipe.onnx")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_no_permission(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", parse(RELU))
    path.chmod(0)
    assert "can't be read (Permission denied)" in message(path)


def test_a_file_too_large_for_onnx(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        stream.truncate(2**31)
    assert "is larger than 2 GiB" in message(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x00" * 100, "is no ONNX model or is cut short"),
        (b"hello world, this is no model", "is no ONNX model or is cut short"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04rest", "PyTorch checkpoint"),
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
        (b"\x1c\x00\x00\x00ORTM", "ONNX Runtime's own format"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\x08\x08", "holds no network"),
        (b"\x08\x08\x3a\x00", "holds no network"),
    ],
)
def test_other_content(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    text = message(path)
    assert reason in text
    assert text.startswith(f"'{path}': ")


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    whole = parse(WEIGHTED).SerializeToString()
    path = tmp_path / "net.onnx"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        message(path)


def test_flipped_bytes_are_an_error_or_a_model(tmp_path: Path) -> None:
    """No other exception gets out, whatever the file holds."""
    whole = parse(WEIGHTED).SerializeToString()
    rng = np.random.default_rng(0)
    path = tmp_path / "net.onnx"
    for _ in range(300):
        broken = bytearray(whole)
        for position in rng.integers(0, len(whole), 3):
            broken[position] = rng.integers(0, 256)
        path.write_bytes(bytes(broken))
        with contextlib.suppress(ModelError):
            load_model(path)


# --- what is a model, but not a sound one -----------------------------------------------------------------------------


def without_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def without_ir(model: onnx.ModelProto) -> None:
    model.ClearField("ir_version")


def without_inputs(model: onnx.ModelProto) -> None:
    del model.graph.input[:]


def without_outputs(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def without_nodes(model: onnx.ModelProto) -> None:
    del model.graph.node[:]


def sequence_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_sequence_value_info("x", onnx.TensorProto.FLOAT, None))


def untyped_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].ClearField("type")


def unsorted(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, onnx.helper.make_node("Neg", ["y"], ["z"]))


def unknown_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Frobnicate"


def foreign_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "acme"


def later_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Gelu"


def gone_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Upsample"


def future_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def negative_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = -3


def foreign_opset_only(model: onnx.ModelProto) -> None:
    model.opset_import[0].domain = "acme"


def future_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 999


def foreign_opset_below_one(model: onnx.ModelProto) -> None:
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", -1))


def zipped_output(model: onnx.ModelProto) -> None:
    scores = model.graph.output[0]
    model.graph.node.append(
        onnx.helper.make_node(
            "ZipMap", [scores.name], ["zipped"], "zip", domain="ai.onnx.ml", classlabels_int64s=[0, 1]
        )
    )
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 1))
    kind = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, onnx.helper.make_tensor_type_proto(1, None))
    )
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_value_info("zipped", kind))


def name_that_is_no_text(model: onnx.ModelProto) -> None:
    data = model.SerializeToString().replace(b"act", b"\xff\xfe\xfd")
    model.ParseFromString(data)


def string_that_is_no_text(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("mode", b"ne\xa0rest"))


def subgraph_name_that_is_no_text(model: onnx.ModelProto) -> None:
    body = onnx.GraphProto(name="body")
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("then_branch", body))
    model.ParseFromString(model.SerializeToString().replace(b"body", b"bod\xb2"))


def dangling_in_a_function_before_there_were_any(model: onnx.ModelProto) -> None:
    relu = onnx.helper.make_node("Relu", ["nowhere"], ["b"], "relu")
    opset = [onnx.helper.make_opsetid("", 17)]
    model.functions.append(onnx.helper.make_function("local", "act", ["a"], ["b"], [relu], opset))
    model.graph.node[0].op_type, model.graph.node[0].domain = "act", "local"
    model.opset_import.append(onnx.helper.make_opsetid("local", 1))
    model.ir_version = 4


def bad_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("colour", "red"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_opset, "no opset_import"),
        (without_ir, "doesn't say its IR version"),
        (without_inputs, "has no inputs"),
        (without_outputs, "has no outputs"),
        (without_nodes, "holds no network"),
        (sequence_input, "'x' is no tensor (sequence)"),
        (zipped_output, "made by node 'zip' (ZipMap); export it with tensors at both ends: with skl2onnx, `convert_"),
        (untyped_output, "'y' has no type"),
        (unsorted, "is no valid ONNX model: Nodes in a graph must be topologically sorted"),
        (unknown_op, "node 'act' (Frobnicate) is no operator of opset 17"),
        (foreign_op, "node 'act' (Relu) is of the domain 'acme'"),
        (later_op, "node 'act' (Gelu) is no operator of opset 17"),
        (gone_op, "node 'act' (Upsample) is not part of opset 17 any more"),
        (future_opset, "uses opset 999"),
        (negative_opset, "uses opset -3"),
        (foreign_opset_only, "no standard opset is imported"),
        (future_ir, "with IR version 999"),
        (foreign_opset_below_one, "uses opset -1 of the domain 'com.microsoft'"),
        (name_that_is_no_text, "isn't UTF-8 text"),
        (string_that_is_no_text, "the name or string b'ne\\xa0rest' in it isn't UTF-8 text"),
        (subgraph_name_that_is_no_text, "the name or string b'bod\\xb2' in it isn't UTF-8 text"),
        (dangling_in_a_function_before_there_were_any, "Nodes in a function must be topologically sorted"),
        (bad_attribute, "Unrecognized attribute: colour"),
    ],
)
def test_unsound_models(change: Change, reason: str, tmp_path: Path) -> None:
    model = parse(RELU)
    change(model)
    text = message(save(tmp_path / "net.onnx", model))
    assert reason in text
    assert text.startswith(f"'{tmp_path / 'net.onnx'}': ")


def test_an_unknown_op_in_a_subgraph_and_in_a_function() -> None:
    text = """g (float[3] x, bool c) => (float[3] y) {
        y = If (c) <then_branch = t () => (float[3] p) { p = Relu(x) },
                    else_branch = e () => (float[3] q) { [deep] q = Relu(x) }> }"""
    model = parse(TEXT + text)
    branch = model.graph.node[0].attribute[1].g
    branch.node[0].op_type = "Frobnicate"
    assert "node 'deep' (Frobnicate)" in message(model)
    text = '<ir_version: 8, opset_import: ["" : 17, "loc" : 1]> g (float[3] x) => (float[3] y) { y = loc.f(x) } '
    model = parse(text + '<domain: "loc", opset_import: ["" : 17]> f (a) => (b) { [inner] b = Relu(a) }')
    model.functions[0].node[0].op_type = "Frobnicate"
    assert "node 'inner' (Frobnicate)" in message(model)


BFLOAT16 = onnx.TensorProto.BFLOAT16


@pytest.mark.parametrize("external", [False, True])
def test_bfloat16_is_read_as_float32(tmp_path: Path, external: bool) -> None:
    text = f"""g (float[N,3] x) => (float[N,3] y) <bfloat16[N,3] n> {{
        n = Cast<to={BFLOAT16}>(x) m = Mul(n, w) c = Constant() z = Add(m, c) y = Cast<to=1>(z) }}"""
    model = parse(TEXT + text)
    values = np.array([1.5, -2.25, 3e38], np.float32)  # the last isn't exact in bfloat16
    model.graph.initializer.append(onnx.helper.make_tensor("w", BFLOAT16, [3], values))
    value = onnx.helper.make_attribute("value", onnx.helper.make_tensor("c", BFLOAT16, [1], [0.5]))
    model.graph.node[2].attribute.append(value)
    narrow = onnx.numpy_helper.to_array(model.graph.initializer[0]).astype(np.float32)
    path = tmp_path / "net.onnx"
    options = {"save_as_external_data": True, "size_threshold": 0} if external else {}
    onnx.save(model, path, **options)
    loaded = load_model(path).model
    assert loaded.SerializeToString() != b""
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(loaded.graph.initializer[0]), narrow)
    x = np.array([[1, 2, 1e-3]], np.float32)
    session = ort.InferenceSession(loaded.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x * narrow + np.float32(0.5))


@pytest.mark.parametrize("side", ["input", "output"])
def test_bfloat16_at_the_ends_is_refused(side: str) -> None:
    model = parse(RELU)
    getattr(model.graph, side)[0].type.tensor_type.elem_type = BFLOAT16
    assert "is bfloat16, which can't be fed; export it with float32" in message(model)


@pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "FLOAT8E5M2", "INT4", "UINT4", "COMPLEX64"])
def test_types_that_are_not_supported(kind: str) -> None:
    code = onnx.TensorProto.DataType.Value(kind)
    model = parse(RELU)
    model.graph.input[0].type.tensor_type.elem_type = code
    assert f"tensor 'x' is {kind.lower()}: not supported in this version" in message(model)
    model = parse(WEIGHTED)
    model.graph.initializer[0].data_type = code
    assert f"tensor 'w' is {kind.lower()}: not supported" in message(model)
    model = parse(RELU.replace("Relu(x)", f"Cast<to={code}>(x)"))
    assert f"tensor 'y' is {kind.lower()}: not supported" in message(model)


def test_weights_of_the_wrong_size() -> None:
    model = parse(WEIGHTED)
    tensor = onnx.numpy_helper.from_array(np.ones(3, np.float32), "w")
    tensor.dims[0] = 10**9
    model.graph.initializer[0].CopyFrom(tensor)
    assert "tensor 'w' holds 12 bytes instead of 4000000000" in message(model)


@pytest.mark.parametrize("group", [0, -1, 3, 2**40])
def test_groups_that_the_channels_do_not_fit(group: int) -> None:
    text = f"g (float[1,2,4,4] x) => (float[] y) {{ [conv] y = Conv<group = {group}>(x, w) }}"
    model = parse(TEXT + text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 1, 1, 1), np.float32), "w"))
    assert f"node 'conv' (Conv) has {group} groups for 4 channels; export the network again" in message(model)


def test_an_opset_that_the_runtime_lacks_of_its_own_domain() -> None:
    model = parse(RELU)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 99))
    assert "doesn't run opset 99 of the domain 'com.microsoft' with IR version 8" in message(model)
