"""A small network with weights as if it had been trained, and ONNX Runtime without snncc."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SHAPE = (2, 8, 8)
CLASSES = 4


def small_model(batch: int | str = "N", hidden: str = "Relu") -> onnx.ModelProto:
    """Conv, Relu, MaxPool, Conv, `hidden`, Flatten, Gemm: [N, 2, 8, 8] to 4 class scores."""
    rng = np.random.default_rng(7)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        fan_in = int(np.prod(shape[1:]))
        return numpy_helper.from_array((rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["a1"], "relu1"),
        helper.make_node("MaxPool", ["a1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], "conv2"),
        helper.make_node(hidden, ["c2"], ["a2"], "relu2"),
        helper.make_node("Flatten", ["a2"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3"], ["a3"], "hidden", transB=1),
        helper.make_node("Relu", ["a3"], ["r3"], "relu3"),
        helper.make_node("Gemm", ["r3", "w4"], ["logits"], "classifier", transB=1),
    ]
    initializers = [
        weights("w1", 6, 2, 3, 3),
        weights("w2", 8, 6, 3, 3),
        numpy_helper.from_array(rng.standard_normal(8).astype(np.float32) / 10, "b2"),
        weights("w3", 16, 8 * 2 * 2),
        weights("w4", CLASSES, 16),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ann_outputs(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """Run a model in ONNX Runtime, without anything of snncc."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]
