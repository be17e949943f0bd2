"""Passes that feed each other, run until nothing changes."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from snncc.context import Context
from snncc.passes.base import Pass


@dataclass(frozen=True)
class Fixpoint(Pass):
    """Run a sequence of passes again and again until a round changes nothing.

    Attributes:
        passes: what a round runs, in this order.
        max_rounds: bound on the rounds; passes that undo each other would never end.
    """

    passes: tuple[Pass, ...]
    max_rounds: int = 16

    @property
    def name(self) -> str:
        """The passes of a round, in messages, timings and dumps."""
        return f"Fixpoint({', '.join(step.name for step in self.passes)})"

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the passes; see `Pass.run`."""
        modified = False
        for _ in range(self.max_rounds):
            changed = [step.run(graph, ctx) for step in self.passes]
            if not any(changed):
                break
            modified = True
        return modified
