"""Shape inference as a pass."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from snncc.context import Context
from snncc.graph import infer_shapes
from snncc.passes.base import Pass


@dataclass(frozen=True)
class InferShapes(Pass):
    """Give every tensor of the main graph the type and shape that follow from the inputs and the operators."""

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the pass; see `Pass.run`.

        Raises:
            ModelError: the types or shapes of the network contradict each other.
        """
        before = _described(graph)
        infer_shapes(graph)
        return before != _described(graph)


def _described(graph: gs.Graph) -> dict[str, tuple[str, str]]:
    return {
        name: (str(tensor.dtype), str(tensor.shape))
        for name, tensor in graph.tensors().items()
        if not isinstance(tensor, gs.Constant)
    }
