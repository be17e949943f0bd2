"""The contract of a pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import onnx_graphsurgeon as gs

from snncc.context import Context

Progress = Callable[[int, int], None]
"""Called with the number of finished and of all steps."""


class Pass(ABC):
    """One step of the pipeline: a frozen dataclass whose fields are its options.

    A pass changes the graph in place and leaves it valid (topologically sorted, every tensor produced once). It keeps
    no state of its own; what later passes need goes into typed fields of the context.

    Attributes:
        preserves_outputs: the pass keeps the network's outputs numerically equal, so the pipeline can verify it.
    """

    preserves_outputs: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The pass's name in messages, timings and dumps."""
        return type(self).__name__

    @abstractmethod
    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the pass to `graph` in place and return whether anything was changed."""
