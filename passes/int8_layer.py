"""Which weighted layers can hold 8-bit weights, and what these are.

Spikes are whole numbers in units of the effective threshold θe of their channel. With the units in the weights,

    y = Σ W·(θe·n) + b = s·(Σ q·n) + b,      q = round(W·θe / s),  s = max |W·θe| / 127 per output channel

the sum is one of integers: uint8 counts (plus an offset where spikes can be negative) times int8 weights. Rounding what
is rounded already changes nothing, so calibration can put rounded weights into the network as floats, and whoever
quantises it later finds the same q: a factor per output channel only changes s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Domain, Form, NeuronSite
from snncc.context import Context
from snncc.graph import constant, is_missing, shape_of, static_dims
from snncc.ops import Role, spec_of

LARGEST = 127
"""Largest magnitude of a weight: the codes are symmetric."""
MOST_COUNTS = (1 << 15) // (2 * LARGEST)
"""Largest count: processors without 8-bit dot products add two products in 16 bits."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Spikes:
    """What a tensor of spikes holds: θe times a whole number.

    Attributes:
        unit: θe of each channel, float32 [C], or [1] for all of them.
        low: smallest number, 0 or negative.
        high: largest number.
    """

    unit: NDArray[np.float32]
    low: int
    high: int


@dataclass(frozen=True)
class Int8Layer:
    """A weighted layer that can hold 8-bit weights.

    Attributes:
        node: a Conv, Gemm or MatMul.
        spikes: what arrives, with a unit for each of its channels.
        weight: the weights as the node keeps them.
    """

    node: gs.Node
    spikes: Spikes
    weight: Floats

    @property
    def _units(self) -> Floats:
        """The units in a shape that broadcasts to the weights."""
        unit, weight = self.spikes.unit.astype(np.float64), self.weight
        if self.node.op == "Conv":
            groups = int(self.node.attrs.get("group", 1))
            of_group = np.repeat(unit.reshape(groups, -1), len(weight) // groups, axis=0)
            return of_group.reshape(*of_group.shape, *[1] * (weight.ndim - 2))
        return unit if self.node.attrs.get("transB", 0) else unit[:, None]

    @property
    def _output_axis(self) -> int:
        return 0 if self.node.op == "Conv" or self.node.attrs.get("transB", 0) else 1

    def codes(self) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """Return q, in the shape of the weights, and s for each output channel; a Gemm's α is in s."""
        scaled = np.asarray(self.weight, np.float64) * self._units
        others = tuple(i for i in range(scaled.ndim) if i != self._output_axis)
        largest = np.abs(scaled).max(axis=others, keepdims=True)
        scale = np.where(largest > 0, largest / LARGEST, 1.0)
        codes = np.clip(np.round(scaled / scale), -LARGEST, LARGEST).astype(np.int8)
        return codes, scale.reshape(-1) * float(self.node.attrs.get("alpha", 1.0))

    def rounded(self) -> NDArray[np.float32]:
        """Return the weights that the codes stand for, as the node keeps them."""
        codes, scale = self.codes()
        shape = [1] * codes.ndim
        shape[self._output_axis] = -1
        alpha = float(self.node.attrs.get("alpha", 1.0))
        return np.asarray(codes * (scale / alpha).reshape(shape) / self._units, np.float32)


def int8_layer(node: gs.Node, ctx: Context, weight: Floats | None = None) -> Int8Layer | str:
    """Return a weighted layer's 8-bit form, or why it has none.

    Args:
        node: the layer, before or after its activations became neurons.
        ctx: with the analysis, and the calibration of the neurons that feed the layer.
        weight: the weights it should have; None for those it has.
    """
    analysis = ctx.analysis
    if analysis.domains.get(node.name) is not Domain.TEMPORAL or analysis.modes.get(node.name) is not Form.STEP:
        return "runs once, on values" if analysis.domains.get(node.name) is not Domain.TEMPORAL else "runs on means"
    held = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    obstacle = _obstacle(node, held)
    if obstacle is not None or held is None:
        return obstacle or "its weights are no constant"
    sites = {site.output: site for site in analysis.neurons}
    spikes = _Trace(ctx, sites, node).spikes(node.inputs[0])
    channels = _channels(node, held)
    if spikes is None or len(spikes.unit) not in (1, channels):
        return "what arrives is no whole number of spikes"
    if spikes.high - spikes.low > MOST_COUNTS:
        return f"more than {MOST_COUNTS} spikes, or half as many of either sign, may arrive at once"
    unit = np.ascontiguousarray(np.broadcast_to(spikes.unit, (channels,)))
    return Int8Layer(node, Spikes(unit, spikes.low, spikes.high), np.asarray(held if weight is None else weight))


def bias_of(node: gs.Node) -> NDArray[np.float64]:
    """Return the constant bias of a Conv, Gemm or MatMul as what is added to each channel, [C] or [1]."""
    if len(node.inputs) < 3 or is_missing(node.inputs[2]):
        return np.zeros(1)
    bias = np.asarray(constant(node.inputs[2]), np.float64).reshape(-1)
    return bias * float(node.attrs.get("beta", 1.0))


def extremes(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and the largest value of each channel, [C].

    Args:
        values: [T, N, ...].
        axis: axis of the channels in [N, ...].
    """
    others = tuple(i for i in range(values.ndim) if i != axis + 1)
    return values.min(axis=others).astype(np.float64), values.max(axis=others).astype(np.float64)


def _obstacle(node: gs.Node, weight: NDArray[Any] | None) -> str | None:
    if node.op not in ("Conv", "Gemm", "MatMul"):
        return f"ONNX has no quantised {node.op}"
    if weight is None:
        return "its weights are no constant"
    bias = node.inputs[2] if len(node.inputs) > 2 and not is_missing(node.inputs[2]) else None
    if bias is not None and constant(bias) is None:
        return "its bias is no constant"
    if node.op == "Conv":
        padded = node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", "")
        return "its padding depends on the size of the input" if padded else None
    if weight.ndim != 2 or node.attrs.get("transA", 0) or float(node.attrs.get("alpha", 1.0)) == 0.0:
        return "its weights are no plain matrix on the right"
    return None


def _channels(node: gs.Node, weight: NDArray[Any]) -> int:
    if node.op == "Conv":
        return int(weight.shape[1]) * int(node.attrs.get("group", 1))
    return int(weight.shape[1] if node.attrs.get("transB", 0) else weight.shape[0])


class _Trace:
    """Follows a tensor back to the neurons whose spikes it holds."""

    def __init__(self, ctx: Context, sites: Mapping[str, NeuronSite], reader: gs.Node) -> None:
        self.ctx, self.sites = ctx, sites
        self.last = reader.op != "Conv"
        """The reader sums over the last axis, not over axis 1."""

    def spikes(self, tensor: gs.Tensor) -> Spikes | None:
        site = self.sites.get(tensor.name)
        if site is not None:
            return self._of_neuron(site)
        if not tensor.inputs:
            return None
        node = tensor.inputs[0]
        if node.domain not in (None, "") or self.ctx.analysis.modes.get(node.name) is not Form.STEP:
            return None
        follow: Callable[[gs.Node], Spikes | None] | None = {
            "MaxPool": self._of_first,
            "Identity": self._of_first,
            "Concat": self._of_concat,
            "Flatten": self._of_flatten,
            "Reshape": self._of_flatten,
        }.get(node.op)
        pool = node.op == "MaxPool" and spec_of(node).role is not Role.POOL
        return None if follow is None or pool else follow(node)

    def _of_neuron(self, site: NeuronSite) -> Spikes | None:
        layer = self.ctx.layers.get(site.node)
        axis = max(site.rank - 1, 1) if self.last else 1
        if layer is None or (len(layer.v_threshold) > 1 and site.channel_axis != axis):
            return None
        unit = layer.v_threshold.astype(np.float32) * np.float32(layer.threshold_ratio)
        signed = layer.signed or site.activation.encodes
        return Spikes(unit, -layer.max_burst if signed else 0, layer.max_burst)

    def _of_first(self, node: gs.Node) -> Spikes | None:
        return self.spikes(node.inputs[0])

    def _of_concat(self, node: gs.Node) -> Spikes | None:
        rank = len(shape_of(node.outputs[0]) or ())
        axis = int(node.attrs["axis"]) % rank if rank else 0
        if axis != (rank - 1 if self.last else 1):
            return None
        parts = []
        for tensor in node.inputs:
            spikes, shape = self.spikes(tensor), shape_of(tensor)
            size = shape[axis] if shape else None
            if spikes is None or not isinstance(size, int) or len(spikes.unit) not in (1, size):
                return None
            parts.append(Spikes(np.broadcast_to(spikes.unit, (size,)), spikes.low, spikes.high))
        unit = np.concatenate([p.unit for p in parts])
        return Spikes(unit, min(p.low for p in parts), max(p.high for p in parts))

    def _of_flatten(self, node: gs.Node) -> Spikes | None:
        """Follow what makes one vector of each sample; of anything else, only where there is one unit."""
        before, after = shape_of(node.inputs[0]) or (), shape_of(node.outputs[0]) or ()
        traced = _Trace(self.ctx, self.sites, gs.Node("Conv")).spikes(node.inputs[0])
        if traced is None or len(traced.unit) == 1:
            return traced
        sizes = static_dims(before[1:])
        if sizes is None or len(after) != 2 or math.prod(sizes) != after[1] or len(traced.unit) != sizes[0]:
            return None
        return Spikes(np.repeat(traced.unit, math.prod(sizes[1:])), traced.low, traced.high)
