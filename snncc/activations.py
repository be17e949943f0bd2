"""Activations: what a neuron stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from snncc.graph import DOMAIN, constant, is_missing

ENCODE = "Encode"
"""Operator of the domain `snncc` that marks where spikes encode a value: the identity, until it becomes a neuron."""


@dataclass(frozen=True)
class Activation:
    """What a neuron stands for.

    Attributes:
        kind: "relu" or "clip", which the neuron computes itself; else what it encodes: "sigmoid", "softmax", ...
        upper: largest value of the activation, infinity where there is none or it isn't known.
    """

    kind: str
    upper: float = float("inf")

    @property
    def encodes(self) -> bool:
        """Whether the neuron encodes a value that other nodes compute, of either sign."""
        return self.kind not in ("relu", "clip")


_LEAST_BOUND = 1e-30
"""A clip below this leaves nothing: its threshold would be no normal number."""


def activation_of(node: gs.Node) -> Activation | None:
    """Recognise ReLU, Clip(0, a) with constant a > 0, and the mark of an encoder; None for everything else."""
    if node.domain == DOMAIN and node.op == ENCODE:
        return Activation(str(node.attrs["activation"]))
    if node.domain not in (None, "", "ai.onnx"):
        return None
    if node.op == "Relu":
        return Activation("relu", float("inf"))
    if node.op != "Clip":
        return None
    low, high = _clip_bounds(node)
    if low == 0.0 and high is not None and high > _LEAST_BOUND:
        return Activation("relu" if np.isinf(high) else "clip", high)
    return None


def _clip_bounds(node: gs.Node) -> tuple[float | None, float | None]:
    """Return the bounds of a Clip of opset 11 or newer; None where a bound isn't constant."""
    bounds: list[float | None] = [-float("inf"), float("inf")]
    for position in (1, 2):
        if len(node.inputs) > position and not is_missing(node.inputs[position]):
            value = constant(node.inputs[position])
            bounds[position - 1] = None if value is None or value.size != 1 else float(value.reshape(()))
    return bounds[0], bounds[1]
