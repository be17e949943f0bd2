"""The `light_*` networks of the onnx package with random weights.

As they come, every weight is the same number, made by a ConstantOfShape: whatever goes in, the same comes out. The
structure is that of the real networks, so here the constants become weights (He et al. 2015), statistics and biases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from numpy.typing import NDArray
from onnx import numpy_helper

WEIGHTED = ("Conv", "Gemm", "MatMul")
# Input of a BatchNormalization: mean and spread of its values; variances must not be negative.
_NORM = {1: (1.0, 0.2), 2: (0.0, 0.2), 3: (0.0, 0.2), 4: (1.0, 0.0)}


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
    onnx.save(model, path)


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
