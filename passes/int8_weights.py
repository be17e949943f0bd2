"""Weighted layers that spikes drive get 8-bit weights.

    Conv(x, W, b)  ->  snncc.Int8Conv(x, q, bias, x_scale, x_zero, w_scale, y_scale, y_zero)
    Gemm, MatMul   ->  snncc.Int8MatMul(x, q, bias, x_scale, x_zero, w_scale, y_scale, y_zero)

The functions say QuantizeLinear, QLinearConv or QLinearMatMul, DequantizeLinear: standard operators. Their currents
have 8 bits too; each channel has a scale of its own, so that the 256 values span what calibration saw, and the neurons
behind add up the rounding errors of T timesteps, which cancel. Everything else stays in single precision: layers that
no spikes reach (the first one) or that run once, on means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.context import Context
from snncc.graph import DOMAIN, INT8_CONV, INT8_MATMUL, Names
from snncc.passes.base import Pass
from snncc.passes.int8_layer import Int8Layer, bias_of, int8_layer

LEVELS = 255
"""Steps between the smallest and the largest current."""
MIDDLE = 128
"""The code of a current of zero where a layer has no integer bias that could move it."""
_INT32 = np.iinfo(np.int32).max

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class QuantiseWeights(Pass):
    """Give every layer 8-bit weights that can have them, if the configuration asks for that."""

    preserves_outputs: ClassVar[bool] = False

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Rewrite the layers; what stays as it is is noted in `ctx.float_layers`, with the reason."""
        if ctx.config.weights != "int8":
            return False
        nodes = {node.name: node for node in graph.nodes}
        names, changed = Names(graph), False
        for weighted in ctx.analysis.layers:
            node, correction = nodes[weighted.node], ctx.corrections.get(weighted.node)
            layer = int8_layer(node, ctx)
            if isinstance(layer, str) or correction is None or correction.low is None or correction.high is None:
                ctx.float_layers[node.name] = layer if isinstance(layer, str) else "calibration doesn't reach it"
                continue
            _rewrite(layer, correction.low, correction.high, names)
            changed = True
        if not changed:
            ctx.warn("no layer could be given 8-bit weights: spikes reach none of them as whole numbers")
        return changed


@dataclass(frozen=True)
class Currents:
    """How a layer's outputs are coded: y = (code - zero) · step (+ bias, behind a matrix).

    Attributes:
        step: float32 [C].
        zero: uint8 [C].
    """

    step: NDArray[np.float32]
    zero: NDArray[np.uint8]


def codes_of(low: Floats, high: Floats, *, centred: bool) -> Currents:
    """Return the codes that span a range per channel, zero included.

    Args:
        low: smallest output of each channel, [C].
        high: largest.
        centred: zero has the code `MIDDLE`.
    """
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if centred:
        step = np.maximum(high, -low) / (LEVELS - MIDDLE)
        zero = np.full(len(step), MIDDLE)
    else:
        step = (high - low) / LEVELS
        zero = np.round(-low / np.where(step > 0, step, 1.0))
    step = np.where(step > np.finfo(np.float32).tiny, step, 1.0)
    return Currents(step.astype(np.float32), np.clip(zero, 0, LEVELS).astype(np.uint8))


def _rewrite(layer: Int8Layer, low: Floats, high: Floats, names: Names) -> None:
    node = layer.node
    codes, scale = layer.codes()
    bias = np.broadcast_to(bias_of(node), scale.shape)
    is_conv = node.op == "Conv"
    currents = codes_of(low + bias, high + bias, centred=False) if is_conv else codes_of(low, high, centred=True)
    if is_conv:
        # The accumulator starts where the code of zero is: QLinearConv has one zero point for all channels.
        start = bias / scale + currents.zero * (currents.step / scale)
        added: NDArray[Any] = np.clip(np.round(start), -_INT32, _INT32).astype(np.int32)
    else:
        added = bias.astype(np.float32)
        codes = np.ascontiguousarray(codes.T if node.attrs.get("transB", 0) else codes)
    values = {
        "weight": codes,
        "bias": added,
        "x_scale": layer.spikes.unit,
        "x_zero": np.array(-layer.spikes.low, np.uint8),
        "w_scale": (scale / currents.step).astype(np.float32),
        "y_scale": currents.step,
        "y_zero": currents.zero,
    }
    constants = [gs.Constant(names.new(f"{node.name}.int8.{key}"), value) for key, value in values.items()]
    node.inputs = [node.inputs[0], *constants]
    node.attrs = _conv_attributes(node, codes.ndim - 2) if is_conv else {}
    node.op, node.domain = INT8_CONV if is_conv else INT8_MATMUL, DOMAIN


def _conv_attributes(node: gs.Node, rank: int) -> dict[str, Any]:
    """Return all attributes of a convolution: a function has no defaults for them."""
    attributes = node.attrs
    pads = [0] * (2 * rank) if attributes.get("auto_pad") == "VALID" else attributes.get("pads", [0] * (2 * rank))
    return {
        "strides": list(attributes.get("strides", [1] * rank)),
        "pads": list(pads),
        "dilations": list(attributes.get("dilations", [1] * rank)),
        "group": int(attributes.get("group", 1)),
    }
