"""Which nodes are weighted layers with constant weights, and which are affine maps per channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.errors import ModelError
from snncc.graph import constant, is_missing, shape_of
from snncc.passes.affine import Affine, Float, Layout, batch_norm, channel_vector

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A weighted node whose weights and bias are constant.

    Attributes:
        node: the node.
        layout: how its weights are stored.
        weight: float64 [group, out, in, kernel].
        bias: float64 [group · out]; that of a Gemm includes beta and may have any shape that broadcasts to [M, N].
            None if there is none.
        rank: rank of its output, None if it isn't known.
        axis: axis of the output's channels, from the end (-1 is the last).
    """

    node: gs.Node
    layout: Layout
    weight: Float
    bias: Float | None
    rank: int | None
    axis: int

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return int(self.weight.shape[0] * self.weight.shape[1])

    @property
    def alpha(self) -> float:
        """Gemm's alpha, which multiplies the product with the weights."""
        return float(self.node.attrs.get("alpha", 1.0)) if self.layout.op == "Gemm" else 1.0


def layer_of(node: gs.Node) -> Layer | None:
    """Describe a weighted node with constant floating-point weights; None for everything else."""
    if node.domain not in (None, "") or node.op not in _LAYERS or len(node.inputs) < 2 or not node.outputs:
        return None
    weight = constant(node.inputs[1])
    if weight is None or isinstance(node.inputs[0], gs.Constant) or not np.issubdtype(weight.dtype, np.floating):
        return None
    third = node.inputs[2] if len(node.inputs) > 2 and not is_missing(node.inputs[2]) else None
    bias = None if third is None else constant(third)
    if (third is not None and bias is None) or (node.op == "MatMul" and weight.ndim != 2):
        return None
    if node.op != "MatMul" and weight.ndim < (2 if node.op == "Gemm" else 3):
        return None  # nor is it a valid network: ONNX Runtime says why
    layout = Layout(node.op, int(node.attrs.get("group", 1)), bool(node.attrs.get("transB", 0)))
    beta = float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else 1.0
    shift = None if bias is None else beta * bias.astype(np.float64)
    if shift is not None and not _fits(shift, node, weight, layout):
        return None
    if node.op == "MatMul":
        shape = shape_of(node.outputs[0])
        return Layer(node, layout, layout.canonical(weight), shift, None if shape is None else len(shape), -1)
    return Layer(node, layout, layout.canonical(weight), shift, weight.ndim, 1 - weight.ndim)


def _fits(bias: Float, node: gs.Node, weight: NDArray[np.generic], layout: Layout) -> bool:
    """Whether a bias has the shape that the operator takes, which shape inference doesn't check."""
    if node.op == "Gemm":
        channels = weight.shape[0 if layout.trans_b else 1]
        return bias.ndim <= 2 and (bias.ndim == 0 or bias.shape[-1] in (1, channels))
    channels = weight.shape[0] if node.op == "Conv" else weight.shape[1] * layout.group
    return bias.shape == (channels,)


def affine_kind(node: gs.Node) -> str | None:
    """Return the operator of a node that may be affine per channel, None for everything else."""
    known = ("BatchNormalization", "Mul", "Div", "Add", "Sub")
    return node.op if node.domain in (None, "") and node.op in known else None


def affine_of(node: gs.Node, source: gs.Tensor, layer: Layer) -> Affine | None:
    """Return what a node does to each channel of `source`, None if it isn't an affine map per channel."""
    kind = affine_kind(node)
    if kind is None:
        return None
    if kind == "BatchNormalization":
        of_channels = node.inputs[0] is source and layer.rank is not None and layer.axis == 1 - layer.rank
        return batch_norm_of(node, layer.channels) if of_channels else None
    first = node.inputs[0] is source
    operand = constant(node.inputs[1 if first else 0])
    vector = None if operand is None else channel_vector(operand, layer.channels, layer.rank, layer.axis)
    if vector is None or not np.isfinite(vector).all():
        return None
    ones, zeros = np.ones_like(vector), np.zeros_like(vector)
    if kind == "Mul":
        return Affine(vector, zeros)
    if kind == "Add":
        return Affine(ones, vector)
    if kind == "Sub":
        return Affine(ones, -vector) if first else Affine(-ones, vector)
    return Affine(1.0 / vector, zeros) if first and vector.all() else None


def batch_norm_of(node: gs.Node, channels: int) -> Affine | None:
    """Return a BatchNormalization at inference as a map; None if it trains or its parameters aren't constant.

    Raises:
        ModelError: the map isn't finite.
    """
    values = [constant(tensor) for tensor in node.inputs[1:5]]
    if len(values) != 4 or node.attrs.get("training_mode", 0) or any(v is None or v.size != channels for v in values):
        return None
    gamma, beta, mean, variance = (v.astype(np.float64).reshape(-1) for v in values if v is not None)
    affine = batch_norm(gamma, beta, mean, variance, float(node.attrs.get("epsilon", 1e-5)))
    if not np.isfinite(affine.scale).all() or not np.isfinite(affine.shift).all():
        broken = int(np.argmin(np.isfinite(affine.scale) & np.isfinite(affine.shift)))
        raise ModelError(
            f"node '{node.name}' (BatchNormalization): channel {broken} gives no finite numbers (variance "
            f"{variance[broken]:g}, epsilon {float(node.attrs.get('epsilon', 1e-5)):g}); check the trained weights"
        )
    return affine
