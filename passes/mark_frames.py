"""Inputs that present a frame at each timestep are marked, so that every analysis of the graph sees it.

    x [N, C, H, W] ── Conv      ->      x ── Frames ── Conv

The graph stays that of one frame; the mark is the identity, until lowering gives the input its time axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from snncc.context import Context
from snncc.data.spec import InputSpec
from snncc.errors import Obstacle, UnsupportedModelError
from snncc.graph import DOMAIN, consumers, replace_reads, shape_of, unique_name
from snncc.ops import FRAMES
from snncc.passes.base import Pass
from snncc.sequences import with_frames


@dataclass(frozen=True)
class MarkFrames(Pass):
    """Put the mark behind every input that presents frames; nothing with constant inputs."""

    preserves_outputs: ClassVar[bool] = False  # true, but no runtime knows the mark

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Mark in place.

        Raises:
            UsageError: no input can present frames.
            UnsupportedModelError: such an input is an output as it is.
        """
        specs = [InputSpec(t.name, np.dtype(t.dtype), shape_of(t) or ()) for t in graph.inputs]
        names = {spec.name for spec in with_frames(specs, ctx.config) if spec.timesteps is not None}
        readers = consumers(graph)
        for tensor in graph.inputs:
            if tensor.name not in names:
                continue
            if any(tensor is t for t in graph.outputs):
                reason, remedy = "it is an output as it is, and would be a sequence there", "leave the output away"
                raise UnsupportedModelError([Obstacle(tensor.name, "input", reason, remedy)])
            marked = gs.Variable(unique_name(graph, f"{tensor.name}.now"), dtype=tensor.dtype, shape=tensor.shape)
            for node in readers.get(tensor.name, []):
                replace_reads(node, {tensor.name: marked})
            attributes = {"timesteps": ctx.config.timesteps, "period": ctx.config.period}
            name = unique_name(graph, f"Frames:{tensor.name}")
            graph.nodes.insert(0, gs.Node(FRAMES, name, attributes, [tensor], [marked], domain=DOMAIN))
        return bool(names)
