"""Removal of what no output depends on."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from snncc.context import Context
from snncc.passes.base import Pass


@dataclass(frozen=True)
class RemoveDeadNodes(Pass):
    """Remove nodes and initializers that no output depends on, in subgraphs too.

        x -> Relu -> y (output)
          -> Abs  -> z                 becomes      x -> Relu -> y

    The inputs of the network stay, used or not: they belong to its signature. Initializers need no work: those that no
    node reads aren't exported.
    """

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the pass; see `Pass.run`."""
        before = _count(graph)
        graph.cleanup(recurse_functions=False)
        return _count(graph) != before


def _count(graph: gs.Graph) -> int:
    return len(graph.nodes) + sum(_count(subgraph) for subgraph in graph.subgraphs())
