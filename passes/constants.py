"""Constant nodes become initializers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.ir.tensor import LazyValues

from snncc.context import Context
from snncc.graph import subgraphs_of
from snncc.passes.base import Pass


@dataclass(frozen=True)
class ConstantsToInitializers(Pass):
    """Turn every Constant node into an initializer, in subgraphs too.

        Constant() -> c, Add(x, c) -> y      becomes      Add(x, c) -> y   with an initializer c

    A Constant that is itself an output of the graph stays, for an output needs a node.
    """

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the pass; see `Pass.run`."""
        return _convert(graph)


def _convert(graph: gs.Graph) -> bool:
    outputs = {tensor.name for tensor in graph.outputs}
    kept: list[gs.Node] = []
    modified = False
    for node in list(graph.nodes):
        for subgraph in subgraphs_of(node):
            modified |= _convert(subgraph)
        values = constant_value(node) if node.op == "Constant" and node.domain in (None, "") else None
        if values is None or node.outputs[0].name in outputs:
            kept.append(node)
            continue
        tensor = node.outputs[0]
        node.outputs.clear()
        tensor.to_constant(values)
        modified = True
    graph.nodes[:] = kept
    return modified


def constant_value(node: gs.Node) -> NDArray[np.generic] | LazyValues | None:
    """Return what a Constant node holds, None if it can't be held as an initializer.

    Scalars and lists have the types that ONNX gives them: float32, int64 or strings.
    """
    for key, dtype in (("value_float", np.float32), ("value_floats", np.float32)):
        if key in node.attrs:
            return np.asarray(node.attrs[key], dtype=dtype)
    for key in ("value_int", "value_ints"):
        if key in node.attrs:
            return np.asarray(node.attrs[key], dtype=np.int64)
    value = node.attrs.get("value")
    return value._values if isinstance(value, gs.Constant) else None  # as it is: a lazy value isn't loaded for this
