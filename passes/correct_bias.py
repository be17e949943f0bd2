"""Bias correction: the shift of a layer's current moves into the bias that makes the current.

    Conv(x, W, b) ── BurstIF            ->  Conv(x, W, b + δ) ── BurstIF
    Conv(x, W, b) ── Add(y) ── BurstIF  ->  Conv(x, W, b + δ) ── Add(y) ── BurstIF
    Conv(x, W, b) ── MaxPool ── BurstIF ->  Conv(x, W, b + δ) ── MaxPool ── BurstIF
    anything else ── BurstIF            ->  anything else ── Add(δ) ── BurstIF

A bias is changed only where nothing but this neuron sees it; a constant that others share is copied first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.context import Context
from snncc.graph import constant, consumers, is_missing, producers, shape_of, unique_name
from snncc.ops import Role, spec_of
from snncc.passes.base import Pass

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Apply the bias shifts that calibration found."""

    preserves_outputs: ClassVar[bool] = False

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Fold each shift, or add it explicitly."""
        nodes = {node.name: node for node in graph.nodes}
        changed = False
        for site in ctx.analysis.neurons:
            shift = ctx.layers[site.node].bias_shift
            if shift is None or not np.any(shift):
                continue
            shape = [1] * max(site.rank, 1)
            shape[site.channel_axis] = len(shift)
            delta = shift.reshape(shape)
            if not _Folder(graph).fold(nodes[site.node].inputs[0], delta, site.channel_axis):
                _add_explicitly(graph, nodes[site.node], delta)
            changed = True
        if changed:
            graph.toposort()
        return changed


class _Folder:
    """Looks for the bias behind a tensor."""

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.made_by = producers(graph)
        self.read_by = consumers(graph)
        self.outputs = {t.name for t in graph.outputs}

    def fold(self, current: gs.Tensor, delta: Floats, axis: int) -> bool:
        """Add `delta` (in the rank of `current`, along `axis`) to a bias behind `current`; False if there is none."""
        node = self.made_by.get(current.name)
        if node is None or current.name in self.outputs or len(self.read_by.get(current.name, [])) != 1:
            return False
        if node.domain not in (None, ""):
            return False
        if node.op in ("Conv", "ConvTranspose") and axis == 1:
            return self._into_vector(node, delta.reshape(-1), self._features(node))
        if node.op == "Gemm" and axis == 1 and float(node.attrs.get("beta", 1.0)) != 0.0:
            return self._into_vector(node, delta.reshape(-1) / float(node.attrs.get("beta", 1.0)), self._features(node))
        if spec_of(node).role is Role.POOL and axis == 1:
            return self.fold(node.inputs[0], delta, axis)  # the largest value of each channel moves by as much
        if node.op == "Add":
            return self._into_sum(node, delta, axis)
        return False

    def _into_sum(self, node: gs.Node, delta: Floats, axis: int) -> bool:
        for position, term in enumerate(node.inputs):
            value = constant(term)
            if value is not None:
                total = np.asarray(np.add(value, delta), np.float32)
                node.inputs[position] = gs.Constant(unique_name(self.graph, f"{node.name}.bias"), total)
                return True
        rank = delta.ndim
        names = [t.name for t in node.inputs]
        same_rank = [t for t in node.inputs if len(shape_of(t) or ()) == rank and names.count(t.name) == 1]
        return any(self.fold(term, delta, axis) for term in same_rank)

    @staticmethod
    def _features(node: gs.Node) -> int | None:
        weight = constant(node.inputs[1])
        if weight is None:
            return None
        if node.op == "ConvTranspose":
            return int(weight.shape[1]) * int(node.attrs.get("group", 1))
        if node.op == "Gemm":
            return int(weight.shape[0] if node.attrs.get("transB", 0) else weight.shape[1])
        return int(weight.shape[0])

    def _into_vector(self, node: gs.Node, delta: Floats, features: int | None) -> bool:
        if features is None or delta.size not in (1, features):
            return False  # the layer's output is broadcast along the neuron's channels
        has_bias = len(node.inputs) > 2 and not is_missing(node.inputs[2])
        old = constant(node.inputs[2]) if has_bias else np.zeros(features, np.float32)
        if old is None or old.ndim > 1:
            return False
        new = gs.Constant(
            unique_name(self.graph, f"{node.name}.bias"),
            np.asarray(np.broadcast_to(old, (features,)) + delta, np.float32),
        )
        node.inputs = [*node.inputs[:2], new]
        return True


def _add_explicitly(graph: gs.Graph, neuron: gs.Node, delta: Floats) -> None:
    current = neuron.inputs[0]
    name = unique_name(graph, f"{neuron.name}.bias_correction")
    shifted = gs.Variable(unique_name(graph, f"{name}.output"), dtype=current.dtype, shape=current.shape)
    bias = gs.Constant(unique_name(graph, f"{name}.bias"), np.asarray(delta, np.float32))
    graph.nodes.append(gs.Node("Add", name=name, inputs=[current, bias], outputs=[shifted]))
    neuron.inputs[0] = shifted
