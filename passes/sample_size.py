"""Multiply-accumulates of layers that don't have their samples on axis 0.

A transformer that was written sequence first moves them to axis 1, where an open size could be anything. In a copy of
the network that takes one sample, all sizes are those of a sample, wherever the samples went.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_graphsurgeon as gs

from snncc.analysis import Analysis
from snncc.errors import SnnccError
from snncc.graph import export_model, import_graph, infer_shapes, shape_of, static_dims
from snncc.ops import multiply_accumulates


def count_one_sample(graph: gs.Graph, analysis: Analysis) -> None:
    """Fill in `macs` of the layers that have none, where one sample tells them.

    Args:
        graph: the graph; it stays as it is.
        analysis: its analysis; the layers are replaced.
    """
    if analysis.batch is not None or all(layer.macs is not None for layer in analysis.layers):
        return
    copy = import_graph(export_model(graph))
    for tensor in copy.inputs:
        if tensor.name in analysis.batched:
            tensor.shape = [1, *tensor.shape[1:]]
    for tensor in copy.tensors().values():  # what depends on the open batch is to be found anew
        if isinstance(tensor, gs.Variable) and tensor not in copy.inputs:
            tensor.shape = None
    try:
        infer_shapes(copy)
    except SnnccError:  # a network that can't take one sample
        return
    nodes = {node.name: node for node in copy.nodes}
    analysis.layers = [
        layer if layer.macs is not None else replace(layer, macs=_of_one_sample(nodes[layer.node]))
        for layer in analysis.layers
    ]


def _of_one_sample(node: gs.Node) -> int | None:
    sized = all(static_dims(shape_of(tensor)) is not None for tensor in (node.inputs[0], node.outputs[0]))
    return multiply_accumulates(node, 1) if sized else None
