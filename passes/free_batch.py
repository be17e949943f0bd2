"""Hard-coded batch sizes in Reshape become open, where that is provably the same.

    Reshape(x [1, 64, 7, 7], [1, 3136])                 ->  Reshape(x, [-1, 3136])
    Reshape(x [N, 64, 1, 1], Concat(Shape(x)[0], [64])) ->  Reshape(x, [-1, 64])

If the sizes of one sample before and after have the same product, the row-major order of a Reshape keeps the samples
apart, so it may be applied to any number of them at once. That is what folding time into the batch axis needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from snncc.context import Context
from snncc.graph import constant, shape_of, static_dims, unique_name
from snncc.passes.base import Pass


@dataclass(frozen=True)
class FreeBatch(Pass):
    """Open the first axis of every Reshape for which it is provably the sample axis."""

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Rewrite the target shapes in place; shapes have been inferred."""
        changed = False
        for node in graph.nodes:
            if node.op == "Reshape" and node.domain in (None, "") and not isinstance(node.inputs[0], gs.Constant):
                changed |= _open(graph, node)
        return changed


def _open(graph: gs.Graph, node: gs.Node) -> bool:
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if not before or not after:
        return False
    target = constant(node.inputs[1])
    if target is not None and target.size and int(target[0]) in (0, -1):
        return False
    sample_before, sample_after = static_dims(before[1:]), static_dims(after[1:])
    if sample_before is None or sample_after is None or 0 in sample_after:
        return False
    if int(np.prod(sample_before, dtype=np.int64)) != int(np.prod(sample_after, dtype=np.int64)):
        return False
    name = unique_name(graph, f"{node.name}.shape")
    node.inputs = [node.inputs[0], gs.Constant(name, np.array([-1, *sample_after], np.int64))]
    node.attrs.pop("allowzero", None)
    return True
