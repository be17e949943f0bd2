"""The `light_*` networks of the onnx package with random weights.

As they come, every weight is the same number, made by a ConstantOfShape: whatever goes in, the same comes out. The
structure is that of the real networks, so here the constants become weights (He et al. 2015), biases, and statistics
with which the network stays alive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

_PROBES = 2
WEIGHTED = ("Conv", "Gemm", "MatMul")
SHIFT = 1.0  # see conformance.export.alive
# Input of a BatchNormalization: mean and spread of its values.
_NORM = {1: (1.0, 0.2), 2: (SHIFT, 0.2), 3: (0.0, 0.2), 4: (1.0, 0.0)}


def networks() -> dict[str, Callable[[Path], None]]:
    """Return what writes each network, by its name."""
    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    return {f"alive_{file.stem}": partial(_write, file) for file in sorted(folder.glob("*.onnx"))}


def _write(source: Path, path: Path) -> None:
    model = onnx.load(source)
    graph, rng = model.graph, np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = {
        node.output[0]: shapes[node.input[0]]
        for node in graph.node
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes
    }
    uses = {name: (node, index) for node in graph.node for index, name in enumerate(node.input) if name in made}
    kept = [node for node in graph.node if not (node.op_type == "ConstantOfShape" and node.output[0] in made)]
    del graph.node[:]
    graph.node.extend(kept)
    for name, shape in made.items():
        node, index = _final_use(name, uses, graph)
        values = _values(rng, node, index, tuple(int(size) for size in shape))
        graph.initializer.append(numpy_helper.from_array(values, name))
        # Files of that age (IR version 3) list every initializer as an input too.
        graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, values.shape))
    _settle(model)
    onnx.save(model, path)


def _settle(model: onnx.ModelProto) -> None:
    """Give every BatchNormalization the statistics of what it sees, and other layers normalised outputs, in place.

    In the order of the nodes, so that each layer is right before the next is looked at.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    normed = {node.input[0] for node in model.graph.node if node.op_type == "BatchNormalization"}
    layers = [node for node in model.graph.node if node.op_type in (*WEIGHTED, "BatchNormalization")]

    def constant(name: str) -> onnx.TensorProto:
        while name not in weights:  # reshaped
            name = makers[name].input[0]
        return weights[name]

    def change(name: str, values: NDArray[np.float64]) -> None:
        tensor = constant(name)
        shaped = values.reshape(tuple(tensor.dims)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(shaped, tensor.name))

    for node in layers:
        if node.op_type == "BatchNormalization":
            mean, variance = _moments(model, node.input[0])
            change(node.input[3], mean)
            change(node.input[4], np.maximum(variance, 1e-3))
        elif node.output[0] not in normed and len(node.input) == 3:
            mean, variance = _moments(model, node.output[0])
            kernel, bias = (numpy_helper.to_array(constant(name)).astype(np.float64) for name in node.input[1:])
            bias = bias.ravel()
            if node is layers[-1]:
                # The scores keep their means over the inputs, as in `enliven`: what is left without them is the small
                # difference of large sums, so that 0.3 % of noise in each layer of ShuffleNet became 9 %.
                deviation, shift = np.sqrt(np.var(mean - bias) + variance.mean()), bias
            else:
                deviation = np.sqrt(variance.mean())
                shift = bias + (bias - mean) / deviation + SHIFT
            change(node.input[1], kernel / deviation)
            change(node.input[2], shift)


def _moments(model: onnx.ModelProto, tensor: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance per channel of a tensor over a few random images."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    end = next(i for i, node in enumerate(probe.graph.node) if tensor in node.output)
    del probe.graph.node[end + 1 :]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    defaults = {initializer.name for initializer in model.graph.initializer}
    source = next(value for value in model.graph.input if value.name not in defaults)
    shape = [dim.dim_value for dim in source.type.tensor_type.shape.dim]
    rng = np.random.default_rng(1)
    images = [rng.standard_normal(shape).astype(np.float32) for _ in range(_PROBES)]
    values = np.concatenate([session.run(None, {source.name: image})[0] for image in images]).astype(np.float64)
    others = tuple(axis for axis in range(values.ndim) if axis != 1)
    return values.mean(axis=others), values.var(axis=others)


def _final_use(
    name: str, uses: dict[str, tuple[onnx.NodeProto, int]], graph: onnx.GraphProto
) -> tuple[onnx.NodeProto, int]:
    """Return the node that computes with a constant, and as which input: it may be unsqueezed before."""
    node, index = uses[name]
    while node.op_type in ("Unsqueeze", "Reshape", "Squeeze"):
        node, index = next((n, list(n.input).index(node.output[0])) for n in graph.node if node.output[0] in n.input)
    return node, index


def _values(rng: np.random.Generator, node: onnx.NodeProto, index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    mean, spread = 0.0, 0.1
    if node.op_type in WEIGHTED and index == 1:
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        fan_in = shape[0] if node.op_type != "Conv" and not transposed else math.prod(shape[1:])
        spread = math.sqrt(2 / fan_in)
    elif node.op_type == "BatchNormalization":
        mean, spread = _NORM[index]
    elif node.op_type == "Mul":  # the scale that follows a BatchNormalization
        mean, spread = 1.0, 0.2
    return rng.normal(mean, spread, shape).astype(np.float32)
