"""What a function isn't defined for can't reach it behind the last neuron: an approximation may leave its domain.

    mean over time ── Atanh      ->      mean over time ── Max(-1) ── Min(1) ── Atanh

Where the ANN's value is defined, it lies within these bounds, so nothing is lost. (Among neurons, lowering guards what
keeps a sum over time.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from snncc.analysis import Domain
from snncc.context import Context
from snncc.graph import Names, shape_of
from snncc.passes.base import Pass
from snncc.passes.nonnegative import nonnegative

_OPEN = 1.0 - 2.0**-11
"""The largest number below 1 in half precision."""
_DOMAINS: dict[str, tuple[float, float | None]] = {
    "Acos": (-1.0, 1.0),
    "Acosh": (1.0, None),
    "Asin": (-1.0, 1.0),
    "Atanh": (-_OPEN, _OPEN),
    "Log": (2.0**-24, None),
    "Sqrt": (0.0, None),
}


@dataclass(frozen=True)
class KeepInDomain(Pass):
    """Clip what functions with a bounded domain read in the readout."""

    preserves_outputs: ClassVar[bool] = False

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Insert the clips in place; the readout is what `ctx.analysis` says."""
        names, changed = Names(graph), False
        for node in list(graph.nodes):
            bounds = _DOMAINS.get(node.op) if node.domain in (None, "") else None
            if bounds is None or ctx.analysis.domains.get(node.name) is not Domain.READOUT:
                continue
            source = node.inputs[0]
            if node.op == "Sqrt" and nonnegative(source):
                continue
            for op, limit in zip(("Max", "Min"), bounds, strict=True):  # a Clip from 0 would be taken for a neuron
                if limit is not None:
                    source = _bounded(graph, op, source, limit, names)
            node.inputs[0] = source
            changed = True
        if changed:
            graph.toposort()
        return changed


def _bounded(graph: gs.Graph, op: str, source: gs.Tensor, limit: float, names: Names) -> gs.Tensor:
    dtype = np.dtype(source.dtype or np.float32)
    bound = gs.Constant(names.new(f"{source.name}.{op.lower()}.bound"), np.array(limit, dtype))
    inside = gs.Variable(names.new(f"{source.name}.{op.lower()}"), dtype=dtype, shape=shape_of(source))
    name = names.new(f"{op}:{source.name}")
    graph.nodes.append(gs.Node(op, name=name, inputs=[source, bound], outputs=[inside]))
    return inside
