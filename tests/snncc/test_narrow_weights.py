"""Weights of 2 and 4 bits are read as bytes; whatever else is that narrow is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from loading import message
from onnx import TensorProto, helper, numpy_helper

import snncc
from snncc.config import Config
from snncc.loader import load_model
from snncc.protos import narrow_weights, widen_weights

KINDS = ["INT4", "UINT4", "INT2", "UINT2"]
RANGES = {"INT4": (-8, 8), "UINT4": (0, 16), "INT2": (-2, 2), "UINT2": (0, 4)}


def network(kind: str, *, raw: bool, block: int = 0) -> tuple[onnx.ModelProto, np.ndarray]:
    """A perceptron whose first weights are narrow, with a zero point, and what these weights are."""
    if kind not in dict(TensorProto.DataType.items()):
        pytest.skip(f"this version of onnx has no {kind}")
    code, rng = TensorProto.DataType.Value(kind), np.random.default_rng(0)
    values = rng.integers(*RANGES[kind], (6, 7))
    shape = (6 // block, 7) if block else (7,)
    scale, zero = rng.uniform(0.1, 0.2, shape).astype(np.float32), rng.integers(*RANGES[kind], shape)
    narrow = [helper.make_tensor(n, code, v.shape, v.ravel().tolist()) for n, v in (("q", values), ("z", zero))]
    if raw:
        narrow = [numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name) for tensor in narrow]
    second = rng.standard_normal((7, 3)).astype(np.float32)
    options = {"axis": 0, "block_size": block} if block else {"axis": 1}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **options),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(*end) for end in (("x", 1, ["N", 6]), ("y", 1, ["N", 3]))]
    weights = [*narrow, numpy_helper.from_array(scale, "s"), numpy_helper.from_array(second, "v")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    graph.value_info.append(helper.make_tensor_value_info("q", code, [6, 7]))
    opset = 25 if "2" in kind else 21
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=13 if opset > 21 else 10
    )
    rows = np.repeat(np.stack([scale, zero]), block, axis=1) if block else np.stack([scale, zero])[:, None]
    return model, ((values - rows[1]) * rows[0]).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("raw", "block"), [(False, 0), (True, 0), (True, 3)])
def test_narrow_weights_are_read_through(kind: str, raw: bool, block: int) -> None:
    model, weights = network(kind, raw=raw, block=block)
    x = np.random.default_rng(1).standard_normal((32, 6)).astype(np.float32)
    second = numpy_helper.to_array(model.graph.initializer[3])
    expected = np.maximum(x @ weights, 0) @ second
    found = snncc.compile(model, calibration=x, config=Config(timesteps=64)).run(x)["y"]
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_the_same_numbers_in_bytes(tmp_path: Path) -> None:
    model, _ = network("INT4", raw=True)
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    loaded = load_model(path).model
    onnx.checker.check_model(loaded, full_check=True)
    before, after = (numpy_helper.to_array(m.graph.initializer[0]) for m in (network("INT4", raw=False)[0], loaded))
    assert after.dtype == np.int8
    np.testing.assert_array_equal(after, before.astype(np.int8))


def test_what_saturates_is_refused() -> None:
    model, _ = network("INT4", raw=True)
    quantise = helper.make_node("QuantizeLinear", ["v", "t", "z"], ["u"], axis=0)  # to 4 bits
    model.graph.node.insert(0, quantise)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(7, np.float32), "t"))
    assert "tensor 'z' is int4: not supported" in message(model)


def test_a_narrow_output_is_refused() -> None:
    model, _ = network("UINT4", raw=True)
    model.graph.output.append(helper.make_tensor_value_info("q", TensorProto.UINT4, [6, 7]))
    assert "tensor 'q' is uint4: not supported" in message(model)


@pytest.mark.parametrize("raw", [False, True])
def test_too_few_numbers_are_refused(raw: bool) -> None:
    model, _ = network("INT4", raw=raw)
    model.graph.initializer[0].dims[1] = 9
    unit = "21 bytes instead of 27" if raw else "21 numbers instead of 27"
    assert f"tensor 'q' holds {unit}; export it again" in message(model)


def test_numbers_that_a_tensor_lacks_or_has_too_many_of() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,3] y) <float[3] w = {1, 2, 3}>'
        "{ m = Mul(x, w) y = Relu(m) }"
    )
    assert load_model(model).name == "g"
    model.graph.initializer[0].float_data.append(4)
    assert "tensor 'w' holds 4 numbers instead of 3; export it again" in message(model)
    del model.graph.initializer[0].float_data[1:]
    assert "tensor 'w' holds 1 numbers instead of 3; export it again" in message(model)


BRANCHES = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,2] x, bool c) => (float[N,2] y) {
    y = If (c) <then_branch = t () => (float[N,2] p) { d = DequantizeLinear (q, s) p = Mul (x, d) },
                else_branch = e () => (float[N,2] r) { f = DequantizeLinear (q, s) r = Mul (x, f) }> }"""


@pytest.mark.parametrize(("kind", "values"), [("UINT8", [200, 0]), ("INT32", [100000, 0])])
def test_a_name_that_means_another_tensor_elsewhere_is_left_alone(kind: str, values: list[int]) -> None:
    model = onnx.parser.parse_model(BRANCHES)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "s"))
    then, other = (attribute.g for attribute in model.graph.node[0].attribute)
    then.initializer.append(helper.make_tensor("q", TensorProto.INT4, [2], [1, 2]))
    other.initializer.append(helper.make_tensor("q", TensorProto.DataType.Value(kind), [2], values))
    assert narrow_weights(model) == {}
    assert "tensor 'q' is int4: not supported" in message(model)
    other.initializer[0].name = other.node[0].input[0] = "z"
    assert narrow_weights(model) == {"q": TensorProto.INT8}
    widen_weights(model)
    np.testing.assert_array_equal(numpy_helper.to_array(other.initializer[0]), values)
    np.testing.assert_array_equal(numpy_helper.to_array(then.initializer[0]), [1, 2])


def test_an_operator_of_that_name_from_another_domain_is_no_dequantisation() -> None:
    model, _ = network("INT4", raw=True)
    model.graph.node[0].domain = "com.example"
    assert narrow_weights(model) == {}


def test_a_constant_of_that_name_is_refused() -> None:
    model, _ = network("INT4", raw=True)
    constant = helper.make_node("Constant", [], ["k"], value=model.graph.initializer[0])
    model.graph.node.insert(0, constant)
    assert "tensor 'q' is int4: not supported" in message(model)


def test_negative_sizes_and_values_that_are_there_twice() -> None:
    model, _ = network("INT4", raw=False)
    weights = model.graph.initializer[3]
    del weights.dims[:]
    weights.dims.extend([-7, -3])
    assert "tensor 'v' has the negative size [-7, -3]; export it again" in message(model)
    model, _ = network("INT4", raw=False)
    model.graph.initializer[3].float_data.extend([0.0] * 21)
    assert "tensor 'v' has its values twice (float_data, raw_data); export it again" in message(model)
