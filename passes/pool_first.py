"""A MaxPool behind the first neurons moves before them, where it runs once.

    Conv ── Relu ── MaxPool      ->      Conv ── MaxPool ── Relu

A function that doesn't fall lets the largest value of a window through as the largest, so the ANN stays the same. The
current of such a neuron doesn't change over time, and of two neurons of a channel the one with the larger current has
fired more at any time: what the pool would have taken from the neurons is what one neuron makes of the largest
current. So fewer neurons fire, and there is no MaxPool of spikes.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from snncc.activations import activation_of
from snncc.context import Context
from snncc.graph import consumers
from snncc.ops import Role, spec_of
from snncc.passes.analyse import analyse
from snncc.passes.base import Pass


@dataclass(frozen=True)
class PoolFirst(Pass):
    """Move pools before the activations whose current doesn't change over time."""

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Rewrite in place; shapes have been inferred."""
        nodes = {node.name: node for node in graph.nodes}
        first = [nodes[site.node] for site in analyse(graph).neurons if site.static_input]
        changed = False
        for activation in first:
            while (pool := _pool_behind(graph, activation)) is not None:
                _swap(activation, pool)
                changed = True
        if changed:
            graph.toposort()
        return changed


def _pool_behind(graph: gs.Graph, activation: gs.Node) -> gs.Node | None:
    """Return the MaxPool that alone reads what a ReLU or a Clip makes."""
    made = activation.outputs[0]
    known = activation_of(activation)
    if known is None or known.encodes or any(made is t for t in graph.outputs):
        return None
    readers = consumers(graph).get(made.name, [])
    return readers[0] if len(readers) == 1 and spec_of(readers[0]).role is Role.POOL else None


def _swap(activation: gs.Node, pool: gs.Node) -> None:
    between, last = activation.outputs[0], pool.outputs[0]
    current, others = activation.inputs[0], list(activation.inputs[1:])
    activation.outputs, pool.outputs = [], []
    pool.inputs, pool.outputs = [current], [between]
    activation.inputs, activation.outputs = [between, *others], [last]
    between.shape = last.shape
