"""What can be said of a network without compiling it: facts of the file, size, and what a refusal says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from conformance.inputs import network_inputs

if TYPE_CHECKING:
    from snncc.errors import Obstacle

WORK = 10**12
"""Most work of one calibration, in multiply-accumulates: fewer samples are taken for a large network."""
VALUE = 64
"""A value of an activation costs about as much as so many multiply-accumulates: most of the time of a MobileNet goes to
neurons and other elementwise operators, not to convolutions."""
EVALUATED = 4
"""The share of that work that an evaluation takes is one in so many."""
FEWEST = 4, 2
"""Samples that are calibrated and evaluated even of a network that is too large. Fewer say little about others: their
largest activations are far below the next sample's, and an error on one is chance."""


def read(path: str) -> onnx.ModelProto:
    """Read a model without its external data, for what it says about itself."""
    return onnx.load(path, load_external_data=False)


def facts(model: onnx.ModelProto) -> dict[str, Any]:
    """Return exporter, opset and number of nodes."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    version = model.producer_version.split(" ")[0]  # tf2onnx adds a commit
    exporter = f"{model.producer_name} {version}".strip() or None
    return {"exporter": exporter, "opset": opset, "nodes": len(model.graph.node)}


@dataclass(frozen=True)
class Weight:
    """How large a network is, for one sample.

    Attributes:
        macs: multiply-accumulates, as far as they are known.
        values: of all its tensors.
    """

    macs: int
    values: int

    def calibration(self, wanted: int, timesteps: int) -> int:
        """Return how many samples to calibrate on at T timesteps: those that were wanted, or what the limit allows."""
        return max(1, min(wanted, max(FEWEST[0], self._affordable(WORK, timesteps))))

    def evaluation(self, wanted: int, timesteps: int) -> int:
        """Return how many samples to evaluate, one after the other, at T timesteps."""
        return max(1, min(wanted, max(FEWEST[1], self._affordable(WORK // EVALUATED, timesteps))))

    def _affordable(self, work: int, timesteps: int) -> int:
        return work // max(1, (self.macs + VALUE * self.values) * (timesteps + 1))


def tensor_sizes(model: onnx.ModelProto, open_size: int) -> list[int]:
    """Return how many values each tensor of one sample has, as far as its shape is known.

    Args:
        model: the network.
        open_size: size of the open axes of its inputs, batch aside.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    batch = 1
    for value in network_inputs(sized):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value <= 0:
                dim.dim_value = open_size if axis else 1
            elif axis == 0:
                batch = dim.dim_value
    try:
        graph = onnx.shape_inference.infer_shapes(sized, data_prop=True).graph
    except Exception:  # whatever is wrong with the model: it isn't for this estimate to say
        graph = sized.graph
    sizes = []
    weights = {tensor.name for tensor in graph.initializer}  # some exporters describe them too
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.name in weights:
            continue
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if all(size > 0 for size in shape):
            sizes.append(math.prod(shape) // batch)
    return sizes


def grouped(obstacles: Iterable[Obstacle]) -> list[str]:
    """Return a line for each different reason, with the nodes that it holds for."""
    groups: dict[tuple[str, str], list[str]] = {}
    for obstacle in obstacles:
        groups.setdefault((obstacle.op, obstacle.reason), []).append(obstacle.node)
    lines = []
    for (op, reason), nodes in groups.items():
        shown = ", ".join(f"'{node}'" for node in nodes[:2])
        more = f" and {len(nodes) - 2} more" if len(nodes) > 2 else ""
        lines.append(f"{op} {shown}{more}: {reason}")
    return lines
