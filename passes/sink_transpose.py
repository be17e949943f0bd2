"""What takes a part of a transposed tensor takes it before the Transpose.

The Transpose then can leave the samples at axis 0:

qkv [N, L, 3, H, D] -> Transpose [3, N, H, L, D] -> Gather(i, axis 0) -> [N, H, L, D]
becomes
qkv [N, L, 3, H, D] -> Gather(i, axis 2) -> [N, L, H, D] -> Transpose(0, 2, 1, 3)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from snncc.graph import Dim, Names, constant, is_missing, shape_of


def sink_transpose(node: gs.Node, names: Names, batched: Callable[[gs.Tensor], bool]) -> list[gs.Node] | None:
    """Exchange a Split, Slice, Gather or Squeeze with the Transpose before it.

    Args:
        node: the node.
        names: the names in the graph.
        batched: whether axis 0 of a tensor enumerates samples.

    Returns:
        The node and the Transposes of its outputs; None where there is no Transpose that moves the samples away.
    """
    transpose = node.inputs[0].inputs[0] if len(node.inputs[0].inputs) == 1 else None
    if transpose is None or transpose.op != "Transpose" or transpose.domain not in (None, "", "ai.onnx"):
        return None
    source, perm = transpose.inputs[0], [int(a) for a in transpose.attrs.get("perm", ())]
    if not perm or perm[0] == 0 or not batched(source) or shape_of(source) is None:
        return None
    axes = _axes(node, len(perm))
    if axes is None:
        return None
    gone = {perm[a] for a in axes} if node.op == "Squeeze" or _takes_one(node) else set()
    left = [a for a in perm if a not in gone]
    kept = sorted(left)
    moved = [kept.index(a) for a in left]
    _set_axes(node, names, [perm[a] for a in axes])
    node.inputs[0] = source
    transposes: list[gs.Node] = []
    for position, output in enumerate(node.outputs):
        if is_missing(output):
            continue
        inner = gs.Variable(names.new(f"{output.name}.moved"), dtype=output.dtype, shape=_inverse(output, moved))
        node.outputs[position] = inner
        name = names.new(f"{node.name}.transpose")
        transposes.append(gs.Node("Transpose", name, {"perm": moved}, [inner], [output]))
    return [node, *transposes]


def _takes_one(node: gs.Node) -> bool:
    """Whether a Gather picks one index, so that its axis goes away."""
    index = constant(node.inputs[1]) if node.op == "Gather" else None
    return index is not None and index.ndim == 0


def _axes(node: gs.Node, rank: int) -> list[int] | None:
    """Return the axes that a node works along; None if they aren't known."""
    if node.op == "Split":
        return [int(node.attrs.get("axis", 0)) % rank]
    if node.op == "Gather":
        index = constant(node.inputs[1])
        return [int(node.attrs.get("axis", 0)) % rank] if index is not None and index.ndim <= 1 else None
    position = 1 if node.op == "Squeeze" else 3
    value = constant(node.inputs[position]) if len(node.inputs) > position else None
    return None if value is None or not value.size else [int(a) % rank for a in value.reshape(-1)]


def _set_axes(node: gs.Node, names: Names, axes: list[int]) -> None:
    if node.op in ("Split", "Gather"):
        node.attrs["axis"] = axes[0]
        return
    position = 1 if node.op == "Squeeze" else 3
    node.inputs[position] = gs.Constant(names.new(f"{node.name}.axes"), np.array(axes, np.int64))


def _inverse(tensor: gs.Tensor, perm: list[int]) -> list[Dim] | None:
    """Return the shape that `perm` makes into the tensor's."""
    shape = shape_of(tensor)
    if shape is None or len(shape) != len(perm):
        return None
    return [shape[perm.index(axis)] for axis in range(len(perm))]
