"""Operators of old opsets whose meaning onnx's version converter changes without a word; it works on ONNX messages.

Up to opset 10, Upsample and Resize map an output position x to x / scale (in today's words: asymmetric) and take the
lower neighbour where they enlarge, the upper where they shrink; the converter leaves the new defaults (half_pixel,
round_prefer_floor). Up to opset 12, Hardmax flattens its input to two dimensions at `axis`; the converter drops that.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from snncc.errors import ModelError
from snncc.protos import all_graphs, describe, domain_of

_RESIZE_CHANGED, _HARDMAX_CHANGED = 11, 13


def explicit_hardmax(model: onnx.ModelProto, version: int) -> None:
    """Write the flattening of a Hardmax of an opset before 13 as nodes, in place."""
    if version >= _HARDMAX_CHANGED:
        return
    for graph in all_graphs(model):
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            nodes += _flattened(node) if _is(node, "Hardmax") else [node]
        if len(nodes) != len(graph.node):
            del graph.node[:]
            graph.node.extend(nodes)


def _flattened(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    source, output = node.input[0], node.output[0]
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    flat, picked, shape = (f"{output}__{part}" for part in ("flat", "picked", "shape"))
    return [
        helper.make_node("Flatten", [source], [flat], axis=axis),
        helper.make_node("Hardmax", [flat], [picked], node.name, axis=1),
        helper.make_node("Shape", [source], [shape]),
        helper.make_node("Reshape", [picked, shape], [output]),
    ]


def old_sampling(model: onnx.ModelProto, version: int) -> dict[str, str]:
    """Return how each Upsample and Resize of an opset before 11 picks a neighbour, by the name of its output.

    Raises:
        ModelError: a Resize to the nearest neighbour enlarges along one axis and shrinks along another, or its scales
            aren't constant: no operator of today does the same.
    """
    if version >= _RESIZE_CHANGED:
        return {}
    found: dict[str, str] = {}
    for graph in all_graphs(model):
        constants = {t.name: t for t in graph.initializer}
        constants |= {
            n.output[0]: a.t for n in graph.node if _is(n, "Constant") for a in n.attribute if a.name == "value"
        }
        for node in graph.node:
            if _is(node, "Upsample") or _is(node, "Resize"):
                found[node.output[0]] = _neighbour(node, constants)
    return found


def _neighbour(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> str:
    mode = next((a.s for a in node.attribute if a.name == "mode"), b"nearest")
    if mode != b"nearest" or node.op_type == "Upsample":  # which only enlarges
        return "floor"
    scales = constants.get(node.input[1])
    values = np.zeros(0) if scales is None else onnx.numpy_helper.to_array(scales)
    if values.size and (values >= 1).all():
        return "floor"
    if values.size and (values <= 1).all():
        return "ceil"
    raise ModelError(
        f"{describe(node)} of opset 10 has scales that aren't constant, or that are above 1 and below it: that can't "
        "be expressed in newer opsets; export it again with opset 11 or later"
    )


def set_sampling(model: onnx.ModelProto, sampling: dict[str, str]) -> None:
    """Write what `old_sampling` returned into the converted nodes, in place."""
    for graph in all_graphs(model):
        for node in graph.node:
            if _is(node, "Resize") and node.output[0] in sampling:
                kept = [a for a in node.attribute if a.name not in ("coordinate_transformation_mode", "nearest_mode")]
                del node.attribute[:]
                node.attribute.extend(kept)
                node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
                node.attribute.append(helper.make_attribute("nearest_mode", sampling[node.output[0]]))


def _is(node: onnx.NodeProto, op: str) -> bool:
    return node.op_type == op and domain_of(node.domain) == ""
