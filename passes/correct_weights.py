"""Gain and shift of a weighted layer's output move into its weights and bias.

    y -> g·y + s   for   y = Conv(x, W, b)      becomes   y = Conv(x, g·W, g·b + s)
                         y = MatMul(x, W)                 y = Add(MatMul(x, g·W), s)

with g and s per output channel. Weights that other nodes share are copied first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.context import Context, WeightCorrection
from snncc.graph import constant, is_missing, unique_name
from snncc.passes.base import Pass

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class CorrectWeights(Pass):
    """Apply the corrections of weighted layers that calibration found."""

    preserves_outputs: ClassVar[bool] = False

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Rewrite weights and biases."""
        nodes = {node.name: node for node in graph.nodes}
        for name, correction in ctx.corrections.items():
            _apply(graph, nodes[name], correction)
        if ctx.corrections:
            graph.toposort()
        return bool(ctx.corrections)


def _apply(graph: gs.Graph, node: gs.Node, correction: WeightCorrection) -> None:
    position = 0 if isinstance(node.inputs[0], gs.Constant) else 1
    weight = correction.weight if correction.weight is not None else constant(node.inputs[position])
    if weight is None:
        raise ValueError(f"node '{node.name}' has no constant weights")
    scaled = scale_weight(node, np.asarray(weight, np.float64), correction.gain, on_the_left=position == 0)
    node.inputs[position] = _new(graph, f"{node.name}.weight", scaled)
    if node.op == "MatMul":
        _add_after(graph, node, correction.shift, on_the_left=position == 0)
        return
    beta = float(node.attrs.get("beta", 1.0))
    has_bias = len(node.inputs) > 2 and not is_missing(node.inputs[2]) and beta != 0.0
    if has_bias and constant(node.inputs[2]) is None:
        raise ValueError(f"node '{node.name}' has no constant bias")
    old = np.asarray(constant(node.inputs[2]), np.float64) * beta if has_bias else np.zeros(1)
    bias = old * correction.gain + correction.shift
    node.inputs = [*node.inputs[:2], _new(graph, f"{node.name}.bias", bias)]
    if node.op == "Gemm":
        node.attrs["beta"] = 1.0


def scale_weight(node: gs.Node, weight: Floats, gain: Floats, *, on_the_left: bool = False) -> Floats:
    """Scale the output channels of a weighted layer's weights, or all of them by a single factor."""
    if gain.size == 1:
        return np.asarray(weight * gain[0])
    if node.op == "Conv":
        return weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    if node.op == "ConvTranspose":
        # [C_in, C_out / groups, ...]: group k of the input channels makes group k of the output channels.
        groups = int(node.attrs.get("group", 1))
        split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        factors = gain.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        return (split * factors).reshape(weight.shape)
    if node.op == "Gemm":
        return weight * (gain[:, None] if node.attrs.get("transB", 0) else gain[None, :])
    if on_the_left:
        return weight * gain[:, None]
    return weight * gain


def _add_after(graph: gs.Graph, node: gs.Node, shift: Floats, *, on_the_left: bool) -> None:
    """Put an Add behind a MatMul, or use the one that is there."""
    output = node.outputs[0]
    value = shift[:, None] if on_the_left else shift
    readers = list(output.outputs)
    is_output = any(output is t for t in graph.outputs)
    if len(readers) == 1 and not is_output and readers[0].op == "Add" and readers[0].domain in (None, ""):
        add = readers[0]
        index = next((i for i, t in enumerate(add.inputs) if isinstance(t, gs.Constant)), None)
        if index is not None:
            add.inputs[index] = _new(graph, f"{add.name}.bias", np.add(add.inputs[index].values, value))
            return
    raw = gs.Variable(unique_name(graph, f"{output.name}.uncorrected"), dtype=output.dtype, shape=output.shape)
    node.outputs = [raw]
    bias = _new(graph, f"{node.name}.bias", value)
    name = unique_name(graph, f"{node.name}.bias_correction")
    graph.nodes.append(gs.Node("Add", name=name, inputs=[raw, bias], outputs=[output]))


def _new(graph: gs.Graph, name: str, value: Floats) -> gs.Constant:
    return gs.Constant(unique_name(graph, name), np.ascontiguousarray(value, np.float32))
