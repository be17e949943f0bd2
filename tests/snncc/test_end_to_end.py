"""Networks that exporters and users really bring, compiled and held against the ANN in ONNX Runtime.

With growing T the output of a converted network approaches the ANN's; T = 64 with ψ = 4 leaves well under 5 %.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import snncc
from snncc.errors import ModelError
from snncc.evaluate import evaluate

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(16, 3, 8, 8)).astype(np.float32)


def weights(name: str, *shape: int, dtype: type = np.float32) -> onnx.TensorProto:
    values = np.random.default_rng(len(name) + sum(shape)).normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    return numpy_helper.from_array(values.astype(dtype), name)


def node(op: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def value(name: str, shape: list[int | str] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, constants, inputs, outputs) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializer=constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


CONVOLUTIONS = [weights("w", 8, 3, 3, 3), weights("w2", 8, 8, 3, 3), weights("wg", 8, 5)]
HALVES = [weights(t.name, *t.dims, dtype=np.float16) for t in CONVOLUTIONS]
BODY = [
    node("Conv", "x w", "a", pads=[1] * 4),
    node("Relu", "a", "r"),
    node("Conv", "r w2", "c", pads=[1] * 4),
    node("Relu", "c", "r2"),
]
HEAD = [node("GlobalAveragePool", "r2", "p"), node("Flatten", "p", "f"), node("Gemm", "f wg", "y")]
CAST = [node("Cast", "x", "xf", to=1), node("Sqrt", "xf", "xs"), node("Conv", "xs w", "a", pads=[1] * 4)]
INPUT, OUTPUT = [value("x", ["N", 3, 8, 8])], [value("y", ["N", 5])]


def branch(name: str, op: str) -> onnx.GraphProto:
    return helper.make_graph([node(op, "r2", name)], name, [], [value(name, ["N", 8, 1, 1])])


CASES = {
    "open image size": (model(BODY + HEAD, CONVOLUTIONS, [value("x", ["N", 3, "H", "W"])], OUTPUT), {"x": IMAGES}),
    "a batch axis named T*N": (
        model(BODY + HEAD, CONVOLUTIONS, [value("x", ["T*N", 3, 8, 8])], [value("y", ["T*N", 5])]),
        {"x": IMAGES},
    ),
    "float16": (
        model(BODY + HEAD, HALVES, [value("x", ["N", 3, 8, 8], 10)], [value("y", ["N", 5], 10)]),
        {"x": IMAGES.astype(np.float16)},
    ),
    "uint8 input, cast": (
        model(
            [*CAST, *BODY[1:], *HEAD],
            CONVOLUTIONS,
            [value("x", ["N", 3, 8, 8], TensorProto.UINT8)],
            OUTPUT,
        ),
        {"x": np.abs(IMAGES * 3).astype(np.uint8)},
    ),
    "a readout whose branches capture spikes": (
        model(
            [
                *BODY,
                node(
                    "If",
                    "cond",
                    "p",
                    then_branch=branch("p1", "GlobalAveragePool"),
                    else_branch=branch("p2", "GlobalMaxPool"),
                ),
                *HEAD[1:],
            ],
            [*CONVOLUTIONS, numpy_helper.from_array(np.array(True), "cond")],
            INPUT,
            OUTPUT,
        ),
        {"x": IMAGES},
    ),
    "an output that is the input": (
        model(BODY, CONVOLUTIONS[:2], INPUT, [value("r2", None), value("x", ["N", 3, 8, 8])]),
        {"x": IMAGES},
    ),
    "an output that is a constant": (
        model(
            BODY + HEAD,
            [*CONVOLUTIONS, numpy_helper.from_array(np.ones(2, np.float32), "k")],
            INPUT,
            [*OUTPUT, value("k", [2])],
        ),
        {"x": IMAGES},
    ),
    "weights that are an input": (
        model(
            [
                node("MatMul", "x w", "a"),
                node("Relu", "a", "r"),
                node("MatMul", "r z", "c"),
                node("Relu", "c", "r2"),
                node("MatMul", "r2 w2", "y"),
            ],
            [weights("w", 6, 8), weights("w2", 5, 2)],
            [value("x", ["N", 4, 6]), value("z", ["N", 8, 5])],
            [value("y", ["N", 4, 2])],
        ),
        {"x": RNG.normal(size=(16, 4, 6)).astype(np.float32), "z": RNG.normal(size=(16, 8, 5)).astype(np.float32)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_compiles_runs_and_is_metered(name: str) -> None:
    ann, feeds = CASES[name]
    expected = ort.InferenceSession(ann.SerializeToString()).run(None, feeds)
    network = snncc.compile(ann, calibration=feeds, config=snncc.Config(timesteps=64))
    for backend in ("ort", "numpy", "fused"):
        outputs = network.run(feeds, backend=backend, batch_size=16)  # at once: a constant comes once per batch
        for declared, reference in zip(ann.graph.output, expected, strict=True):
            got = outputs[declared.name]
            assert got.shape == reference.shape
            error = np.linalg.norm(got.astype(float) - reference.astype(float))
            assert error < 0.05 * np.linalg.norm(reference.astype(float)), (backend, declared.name)
    reading = evaluate(network, feeds, ann=ann).reading
    assert reading.spikes > 0
    assert all(layer.macs > 0 for layer in reading.layers)


def test_a_sum_over_all_axes_is_not_folded_into_the_batch() -> None:
    # An empty list of axes means all axes: samples meet, so the network steps through a Scan. The bias correction would
    # hide a wrong sum on the calibration data, so it is off.
    ann = model(
        [
            node("Relu", "x", "r"),
            node("ReduceSum", "r axes", "s"),
            node("Mul", "s k", "sk"),
            node("Sub", "r sk", "d"),
            node("Relu", "d", "y"),
        ],
        [
            numpy_helper.from_array(np.array([], np.int64), "axes"),
            numpy_helper.from_array(np.array(0.02, np.float32), "k"),
        ],
        [value("x", ["N", 4])],
        [value("y", ["N", 4])],
    )
    data = RNG.normal(size=(16, 4)).astype(np.float32)
    config = snncc.Config(timesteps=64, bias_correction=False)
    network = snncc.compile(ann, calibration=data, config=config)
    assert network.record.network["lowering"] == "scan"
    expected = ort.InferenceSession(ann.SerializeToString()).run(None, {"x": data})[0]
    got = network.run(data, batch_size=16)["y"]
    assert np.linalg.norm(got - expected) < 0.1 * np.linalg.norm(expected)


def test_the_batch_size_of_calibration_is_no_matter_of_results() -> None:
    ann = model(BODY + HEAD, CONVOLUTIONS, INPUT, OUTPUT)
    small, large = (
        snncc.compile(ann, calibration=IMAGES, config=snncc.Config(batch_size=size)).model for size in (3, 16)
    )
    assert [n.name for n in small.graph.node] == [n.name for n in large.graph.node]
    for one, other in zip(small.graph.initializer, large.graph.initializer, strict=True):
        # Not bit for bit: on some processors ONNX Runtime adds up in another order for another batch size.
        a, b = numpy_helper.to_array(one), numpy_helper.to_array(other)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(float(np.abs(a).max()), 1.0), err_msg=one.name)


def test_functions_that_unfold_without_end_are_refused() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("bomb", 1)]
    functions = [helper.make_function("bomb", "f0", ["a"], ["b"], [node("Relu", "a", "b")], imports)]
    for level in range(1, 24):
        inner = [helper.make_node(f"f{level - 1}", [i], [o], domain="bomb") for i, o in (("a", "m"), ("m", "b"))]
        functions.append(helper.make_function("bomb", f"f{level}", ["a"], ["b"], inner, imports))
    graph = helper.make_graph(
        [helper.make_node("f23", ["x"], ["y"], domain="bomb")], "g", [value("x", ["N", 2])], [value("y", ["N", 2])]
    )
    bomb = helper.make_model(graph, functions=functions, opset_imports=imports, ir_version=8)
    with pytest.raises(ModelError, match=r"unfolds into .* nodes"):
        snncc.compile(bomb)


def test_one_value_of_all_samples_between_neurons() -> None:
    """A product over the batch: the activation of a scalar is no neuron, and what reads it still converges."""
    net = model(
        [
            *(node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r u", "s"), node("Relu", "s", "q")),
            *(node("Mul", "r q", "m"), node("MatMul", "m w", "y")),
        ],
        [weights("w", 4, 4), numpy_helper.from_array(np.ones(4, np.float32), "u")],
        [value("x", [4])],
        [value("y", [4])],
    )
    x = np.random.default_rng(0).random(16).astype(np.float32)
    network = snncc.compile(net, calibration=x, config=snncc.Config(timesteps=64))
    assert [layer.name for layer in network.record.layers] == ["r"]
    session = ort.InferenceSession(net.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"x": x[i : i + 4]})[0] for i in range(0, 16, 4)])
    assert np.linalg.norm(network.run(x)["y"] - expected) < 0.02 * np.linalg.norm(expected)
