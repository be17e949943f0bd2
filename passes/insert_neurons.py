"""Activations, and what marks a value to encode, become burst neurons.

    Relu(x)            ->  snncc.BurstIF(x, v_threshold, v_init) <timesteps=T, max_burst=ψ, threshold_ratio=τ>,
                           or snncc.SignedBurstRelu where calibration chose a signed neuron
    Clip(x, 0, a)      ->  the same, θ was chosen such that τ·θ·ψ <= a; or snncc.SignedBurstClip
    snncc.Encode(z)    ->  snncc.SignedBurst(z, v_threshold, v_init) <...>

The node keeps its name and its output, so the network's topology stays as a reader knows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from snncc.activations import Activation
from snncc.context import Context
from snncc.graph import DOMAIN, unique_name
from snncc.passes.base import Pass


@dataclass(frozen=True)
class InsertNeurons(Pass):
    """Replace every calibrated activation by its neuron."""

    preserves_outputs: ClassVar[bool] = False

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Rewrite the activations in place."""
        nodes = {node.name: node for node in graph.nodes}
        for site in ctx.analysis.neurons:
            layer = ctx.layers[site.node]
            theta = layer.v_threshold
            shape = [1] * max(site.rank, 1)
            shape[site.channel_axis] = len(theta)
            node = nodes[site.node]
            ctx.activations[site.node] = site.activation
            threshold = gs.Constant(unique_name(graph, f"{site.node}.v_threshold"), theta.reshape(shape))
            v_init = gs.Constant(unique_name(graph, f"{site.node}.v_init"), np.array(layer.v_init, np.float32))
            node.op, node.domain = neuron_op(site.activation, signed=layer.signed), DOMAIN
            node.inputs = [node.inputs[0], threshold, v_init]
            node.attrs = {
                "timesteps": ctx.config.period,
                "max_burst": layer.max_burst,
                "threshold_ratio": float(layer.threshold_ratio),
            }
            if node.op == "SignedBurstClip":
                node.attrs["upper"] = float(site.activation.upper)
        return bool(ctx.analysis.neurons)


def neuron_op(activation: Activation, *, signed: bool) -> str:
    """Return the operator of the domain `snncc` that stands for an activation."""
    if activation.encodes:
        return "SignedBurst"
    if not signed:
        return "BurstIF"
    return "SignedBurstRelu" if activation.kind == "relu" else "SignedBurstClip"
