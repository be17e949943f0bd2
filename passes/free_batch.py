"""What fixes the number of samples is written so that it doesn't, where that is provably the same.

    Reshape(x [1, 64, 7, 7], [1, 3136])                 ->  Reshape(x, [-1, 3136])
    Reshape(x [N, 64, 1, 1], Concat(Shape(x)[0], [64])) ->  Reshape(x, [-1, 64])
    Resize(x [1, 8, 4, 4], sizes [1, 8, 8, 8])          ->  Resize(x, scales [1, 1, 2, 2])
    Expand(x [2, 8, 1, 1], [2, 8, 7, 7])                ->  Expand(x, [1, 8, 7, 7])
    Concat(token [1, 1, 16], x [1, 16, 16], axis 1)     ->  Add(Pad(x, one row), [token, zeros])
    Gather(Transpose(x, [2, 0, 1]), i, axis 0)          ->  Gather(x, i, axis 2), the samples still at axis 0

If the sizes of one sample before and after have the same product, the row-major order of a Reshape keeps the samples
apart, so it may be applied to any number of them at once. That is what folding time into the batch axis needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from snncc.context import Context
from snncc.graph import Names, constant, is_missing, shape_of, static_dims
from snncc.ops import samplewise
from snncc.passes.base import Pass
from snncc.passes.sink_transpose import sink_transpose

Batched = Callable[[gs.Tensor], bool]


@dataclass(frozen=True)
class FreeBatch(Pass):
    """Open the first axis wherever it is provably the sample axis."""

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Rewrite nodes in place; shapes have been inferred."""
        names = Names(graph)
        batched = _inputs_with_samples(graph)
        changed = False
        pending, nodes = list(graph.nodes)[::-1], []
        while pending:
            node = pending.pop()
            rule = _RULES.get(node.op) if node.domain in (None, "", "ai.onnx") else None
            new = None if rule is None else rule(node, names, lambda t: t.name in batched)
            if new is not None:
                changed = True
                pending += new[::-1]
                continue
            if samplewise(node, lambda t: t.name in batched):
                batched.update(t.name for t in node.outputs if not is_missing(t))
            nodes.append(node)
        graph.nodes[:] = nodes
        return changed


def _inputs_with_samples(graph: gs.Graph) -> set[str]:
    """Return the inputs that share the first one's leading dimension, as the analysis does."""
    first = shape_of(graph.inputs[0]) if graph.inputs else None
    shapes = {t.name: shape_of(t) for t in graph.inputs}
    return {name for name, shape in shapes.items() if shape and first and shape[0] == first[0]}


# --- the rules: each returns the nodes that take the place of one, None if it stays as it is -------------------------


def _reshape(node: gs.Node, names: Names, batched: Batched) -> list[gs.Node] | None:
    if isinstance(node.inputs[0], gs.Constant):
        return None
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if not before or not after:
        return None
    target = constant(node.inputs[1])
    if target is not None and target.size and int(target[0]) in (0, -1):
        return None
    sample_before, sample_after = static_dims(before[1:]), static_dims(after[1:])
    if sample_before is None or sample_after is None or 0 in sample_after:
        return None
    if int(np.prod(sample_before, dtype=np.int64)) != int(np.prod(sample_after, dtype=np.int64)):
        return None
    node.inputs = [node.inputs[0], _sizes(names, f"{node.name}.shape", [-1, *sample_after])]
    node.attrs.pop("allowzero", None)
    return [node]


def _resize(node: gs.Node, names: Names, batched: Batched) -> list[gs.Node] | None:
    """Sizes become the scales that a runtime computes of them, where these give the same sizes again."""
    if len(node.inputs) < 4 or not batched(node.inputs[0]) or "axes" in node.attrs:
        return None
    sizes, shape = constant(node.inputs[3]), shape_of(node.inputs[0])
    rest = static_dims((shape or (None, None))[1:])
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch" or shape is None or rest is None:
        return None
    after = tuple(int(d) for d in sizes) if sizes is not None else shape_of(node.outputs[0])
    if not after or after[0] is None or after[0] != shape[0]:  # the samples must be neither more nor fewer
        return None
    wanted = static_dims(after[1:])
    if wanted is None or len(wanted) != len(rest) or 0 in rest:
        return None
    scales = np.array([1, *wanted], np.float32) / np.array([1, *rest], np.float32)
    again = (scales[1:] * np.array(rest, np.float32)).astype(np.int64)
    if tuple(again) != wanted:
        return None
    given = gs.Constant(names.new(f"{node.name}.scales"), scales)
    node.inputs = [node.inputs[0], node.inputs[1], given]
    return [node]


def _expand(node: gs.Node, names: Names, batched: Batched) -> list[gs.Node] | None:
    """A target for as many samples as there are anyway asks for one."""
    target, shape = constant(node.inputs[1]), shape_of(node.inputs[0])
    if target is None or not shape or not batched(node.inputs[0]) or len(target) != len(shape):
        return None
    if int(target[0]) == 1 or int(target[0]) != shape[0]:
        return None
    node.inputs[1] = _sizes(names, f"{node.name}.shape", [1, *(int(d) for d in target[1:])])
    return [node]


def _concat(node: gs.Node, names: Names, batched: Batched) -> list[gs.Node] | None:
    """What is the same for all samples is added to a padded tensor: x + 0 and 0 + c are exact."""
    shapes = [shape_of(t) for t in node.inputs]
    rank = len(shapes[0] or ())
    axis = int(node.attrs.get("axis", 0)) % rank if rank else 0
    moving = [i for i, t in enumerate(node.inputs) if batched(t)]
    fixed = {i: value for i, t in enumerate(node.inputs) if (value := _same_for_all(t)) is not None}
    consecutive = bool(moving) and moving == list(range(moving[0], moving[-1] + 1))
    if axis == 0 or not fixed or not consecutive or len(moving) + len(fixed) < len(node.inputs):
        return None
    dims = static_dims((shape_of(node.outputs[0]) or (None, None))[1:])
    values = next(iter(fixed.values()))
    dtype = np.dtype(node.outputs[0].dtype or values.dtype)
    if dims is None or dtype.kind != "f" or any(s is None or len(s) != rank for s in shapes):
        return None
    lengths = [int(s[axis]) if s and isinstance(s[axis], int) else 0 for s in shapes]  # type: ignore[arg-type]
    addend = np.zeros((1, *dims), dtype)
    start = 0
    for position, length in enumerate(lengths):
        if position in fixed:
            index = tuple(slice(start, start + length) if a == axis else slice(None) for a in range(rank))
            addend[index] = fixed[position]
        start += length
    before, after = sum(lengths[: moving[0]]), sum(lengths[moving[-1] + 1 :])
    pads = [before if a == axis else 0 for a in range(rank)] + [after if a == axis else 0 for a in range(rank)]
    return _padded(node, names, [node.inputs[i] for i in moving], pads, addend)


def _same_for_all(tensor: gs.Tensor) -> np.ndarray | None:
    """Return the one row [1, ...] of a constant, or of a constant that is expanded along its first axis."""
    value = constant(tensor)
    producer = tensor.inputs[0] if len(tensor.inputs) == 1 and not isinstance(tensor, gs.Constant) else None
    if value is None and producer is not None and producer.op == "Expand":
        value = constant(producer.inputs[0])
        tail = static_dims((shape_of(tensor) or (None, None))[1:])
        if value is None or tail is None or len(tail) >= 8:
            return None
        value = np.asarray(value)[(None,) * (len(tail) + 1 - value.ndim)] if value.ndim <= len(tail) else value
        return np.broadcast_to(value[:1], (1, *tail)) if value.shape[0] == 1 else None
    if value is None or value.ndim == 0 or value.shape[0] == 0 or value.dtype.kind != "f":
        return None
    return np.asarray(value[:1]) if (value == value[:1]).all() else None


def _padded(node: gs.Node, names: Names, moving: list[gs.Tensor], pads: list[int], addend: np.ndarray) -> list[gs.Node]:
    nodes: list[gs.Node] = []
    source = moving[0]
    shape = list(shape_of(source) or ())
    axis = int(node.attrs["axis"]) % len(shape)
    if len(moving) > 1:
        shape[axis] = sum(int((shape_of(t) or ())[axis] or 0) for t in moving)
        source = gs.Variable(names.new(f"{node.name}.joined"), dtype=addend.dtype, shape=list(shape))
        nodes.append(gs.Node("Concat", names.new(f"{node.name}.join"), dict(node.attrs), moving, [source]))
    padded = gs.Variable(names.new(f"{node.name}.padded"), dtype=addend.dtype, shape=[shape[0], *addend.shape[1:]])
    amounts = _sizes(names, f"{node.name}.pads", pads)
    nodes.append(gs.Node("Pad", names.new(f"{node.name}.pad"), {}, [source, amounts], [padded]))
    output = node.outputs[0]
    node.inputs.clear()
    node.outputs.clear()
    constant_part = gs.Constant(names.new(f"{node.name}.constant"), addend)
    nodes.append(gs.Node("Add", node.name, {}, [padded, constant_part], [output]))
    return nodes


def _sizes(names: Names, name: str, values: list[int]) -> gs.Constant:
    return gs.Constant(names.new(name), np.array(values, np.int64))


_RULES: dict[str, Callable[[gs.Node, Names, Batched], list[gs.Node] | None]] = {
    "Reshape": _reshape,
    "Resize": _resize,
    "Expand": _expand,
    "Concat": _concat,
    **dict.fromkeys(("Split", "Slice", "Gather", "Squeeze"), sink_transpose),
}
