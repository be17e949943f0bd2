"""What a function isn't defined for can't reach it behind the last neuron: an approximation may leave its domain.

    mean over time ── Atanh      ->      mean over time ── Max(-1) ── Min(1) ── Atanh

Where the ANN's value is defined, it lies within these bounds, which are those of its own type, so nothing is lost.
(Among neurons, lowering guards what keeps a sum over time.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Domain
from snncc.context import Context
from snncc.graph import Names, shape_of
from snncc.passes.base import Pass
from snncc.passes.nonnegative import nonnegative

_Bounds = tuple[Any, Any]
_DOMAINS: dict[str, Callable[[np.dtype[Any]], _Bounds]] = {
    "Acos": lambda _: (-1, 1),
    "Acosh": lambda _: (1, None),
    "Asin": lambda _: (-1, 1),
    "Atanh": lambda dtype: (-_below_one(dtype), _below_one(dtype)),
    "Log": lambda dtype: (np.finfo(dtype).tiny, None),
    "Sqrt": lambda _: (0, None),
}
"""The numbers of a type that a function is defined for: the least and the largest."""


def _below_one(dtype: np.dtype[Any]) -> Any:
    return np.nextafter(dtype.type(1), dtype.type(0))


@dataclass(frozen=True)
class KeepInDomain(Pass):
    """Bound what functions with a bounded domain read in the readout."""

    preserves_outputs: ClassVar[bool] = False

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Insert the bounds in place; the readout is what `ctx.analysis` says."""
        names, changed = Names(graph), False
        for node in list(graph.nodes):
            domain = _DOMAINS.get(node.op) if node.domain in (None, "") else None
            if domain is None or ctx.analysis.domains.get(node.name) is not Domain.READOUT:
                continue
            source = node.inputs[0]
            if node.op == "Sqrt" and nonnegative(source):
                continue
            dtype = np.dtype(source.dtype or np.float32)
            # A Clip from 0 would be taken for a neuron.
            for op, limit in zip(("Max", "Min"), domain(dtype), strict=True):
                if limit is not None:
                    source = _bounded(graph, op, source, np.array(limit, dtype), names)
            node.inputs[0] = source
            changed = True
        if changed:
            graph.toposort()
        return changed


def _bounded(graph: gs.Graph, op: str, source: gs.Tensor, limit: NDArray[Any], names: Names) -> gs.Tensor:
    bound = gs.Constant(names.new(f"{source.name}.{op.lower()}.bound"), limit)
    inside = gs.Variable(names.new(f"{source.name}.{op.lower()}"), dtype=limit.dtype, shape=shape_of(source))
    name = names.new(f"{op}:{source.name}")
    graph.nodes.append(gs.Node(op, name=name, inputs=[source, bound], outputs=[inside]))
    return inside
