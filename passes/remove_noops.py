"""Removal of nodes that hand their input on unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from snncc.context import Context
from snncc.graph import Dim, constant, is_missing, shape_of, subgraphs_of
from snncc.passes.base import Pass


@dataclass(frozen=True)
class RemoveNoOps(Pass):
    """Remove nodes that compute y = x, in subgraphs too.

        x -> Relu -> a -> Identity -> b -> Conv -> y      becomes      x -> Relu -> a -> Conv -> y

    These are: Identity; Dropout at inference; Cast to the same type; Transpose that moves nothing; Pad by nothing;
    Reshape, Flatten, Expand and Tile to a shape that is provably the one before; a product with 1, a quotient by 1, a
    sum with 0 and a difference with 0 that don't enlarge the shape; Concat, Sum, Max, Min and Mean of one tensor.

    The outputs of the network keep their names: the producer of x takes over the output's name. Where there is none
    (x is an input, an initializer or an output itself) an Identity is left.
    """

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the pass; see `Pass.run`. It needs shapes and types to see all that it can remove."""
        return _remove(graph, ctx)


def _remove(graph: gs.Graph, ctx: Context) -> bool:
    modified = False
    for node in list(graph.nodes):
        for subgraph in subgraphs_of(node):
            modified |= _remove(subgraph, ctx)
        source = passed_on(node, graph)
        if source is not None:
            modified |= _bypass(graph, node, source, ctx)
    return modified


def passed_on(node: gs.Node, graph: gs.Graph) -> gs.Tensor | None:
    """Return the input that a node hands on unchanged as its first output; None if it does more than that."""
    rule = _RULES.get(node.op) if node.domain in (None, "") else None
    if rule is None or not node.inputs or not node.outputs or is_missing(node.outputs[0]):
        return None
    outputs = {tensor.name for tensor in graph.outputs}
    if any(not is_missing(t) and (t.outputs or t.name in outputs) for t in node.outputs[1:]):
        return None  # another output, such as the mask of a Dropout, is read
    position = rule(node)
    return None if position is None else node.inputs[position]


def _bypass(graph: gs.Graph, node: gs.Node, source: gs.Tensor, ctx: Context) -> bool:
    """Let everyone who reads the output of `node` read `source` instead; return whether anything was changed."""
    target = node.outputs[0]
    outputs = {tensor.name for tensor in graph.outputs}
    if target.name not in outputs:
        _improve(source, target)
        node.inputs.clear()
        node.outputs.clear()
        _redirect(target, source)
    elif _can_be_renamed(graph, source, outputs):
        _improve(target, source)
        producer = source.inputs[0]
        position = next(i for i, t in enumerate(producer.outputs) if t is source)
        node.inputs.clear()
        node.outputs.clear()
        producer.outputs[position] = target
        _redirect(source, target)
        if source.name in ctx.batchnorm:
            ctx.batchnorm[target.name] = ctx.batchnorm[source.name]
    elif node.op != "Identity":
        node.op, node.attrs, node.inputs = "Identity", {}, [source]
        return True
    else:
        return False
    graph.nodes[:] = [n for n in graph.nodes if n is not node]
    return True


def _can_be_renamed(graph: gs.Graph, source: gs.Tensor, outputs: set[str]) -> bool:
    made_here = len(source.inputs) == 1 and any(source.inputs[0] is n for n in graph.nodes)
    return made_here and source.name not in outputs and not isinstance(source, gs.Constant)


def _redirect(old: gs.Tensor, new: gs.Tensor) -> None:
    for reader in list(old.outputs):
        for position, tensor in enumerate(reader.inputs):
            if tensor is old:
                reader.inputs[position] = new


def _improve(kept: gs.Tensor, gone: gs.Tensor) -> None:
    """Keep what only the tensor that goes away said of its type and shape."""
    if isinstance(kept, gs.Constant) or isinstance(gone, gs.Constant):
        return
    kept.dtype = gone.dtype if kept.dtype is None else kept.dtype
    old, new = shape_of(kept), shape_of(gone)
    if old is None or new is None or len(old) != len(new):
        kept.shape = kept.shape if old is not None else gone.shape
    else:
        kept.shape = [a if a is not None else b for a, b in zip(old, new, strict=True)]


# --- what does nothing: each rule returns the position of the input that is handed on, or None ---------------------


def _always(node: gs.Node) -> int | None:
    return 0


def _single(node: gs.Node) -> int | None:
    return 0 if len(node.inputs) == 1 else None


def _dropout(node: gs.Node) -> int | None:
    if len(node.inputs) < 3 or is_missing(node.inputs[2]):
        return 0
    training = constant(node.inputs[2])
    return 0 if training is not None and not training.any() else None


def _cast(node: gs.Node) -> int | None:
    known = node.inputs[0].dtype
    target = node.attrs.get("to")
    if known is None or not isinstance(target, int):
        return None
    return 0 if onnx.helper.np_dtype_to_tensor_dtype(np.dtype(known)) == target else None


def _cast_like(node: gs.Node) -> int | None:
    types = [t.dtype for t in node.inputs]
    return 0 if None not in types and np.dtype(types[0]) == np.dtype(types[1]) else None


def _transpose(node: gs.Node) -> int | None:
    perm, shape = node.attrs.get("perm"), shape_of(node.inputs[0])
    if perm is None:
        return 0 if shape is not None and len(shape) < 2 else None
    return 0 if list(perm) == list(range(len(perm))) else None


def _pad(node: gs.Node) -> int | None:
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return 0 if pads is not None and not pads.any() else None


def _same_shape(node: gs.Node) -> int | None:
    return 0 if provably_equal(shape_of(node.inputs[0]), shape_of(node.outputs[0])) else None


def _same_elements_same_shape(node: gs.Node) -> int | None:
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    return 0 if provably_equal(before, after, same_size=True) else None


def _neutral(value: float, positions: tuple[int, ...]) -> Callable[[gs.Node], int | None]:
    """One operand is constant and leaves the other as it is."""

    def rule(node: gs.Node) -> int | None:
        for position in positions:
            operand, other = constant(node.inputs[position]), node.inputs[1 - position]
            if operand is None or operand.size == 0 or isinstance(other, gs.Constant):
                continue
            if bool(np.all(operand == value)) and broadcasts_into(operand.shape, shape_of(other)):
                return 1 - position
        return None

    return rule


_RULES: dict[str, Callable[[gs.Node], int | None]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Transpose": _transpose,
    "Pad": _pad,
    "Reshape": _same_elements_same_shape,
    "Flatten": _same_elements_same_shape,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Mul": _neutral(1.0, (0, 1)),
    "Div": _neutral(1.0, (1,)),
    "Add": _neutral(0.0, (0, 1)),
    "Sub": _neutral(0.0, (1,)),
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Mean": _single,
}


def provably_equal(before: Sequence[Dim] | None, after: Sequence[Dim] | None, *, same_size: bool = False) -> bool:
    """Whether two shapes are equal whatever the network is fed with.

    Args:
        before: one shape.
        after: the other.
        same_size: both are known to have the same number of elements; then one dimension may be unknown, if all
            others agree and none of them is 0 (a symbolic size never is).
    """
    if before is None or after is None or len(before) != len(after):
        return False
    open_pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is None or a != b]
    if not open_pairs:
        return True
    unknown = len(open_pairs) == 1 and not all(isinstance(d, int) for d in open_pairs[0])
    return same_size and unknown and 0 not in _others(before, after)


def _others(before: Sequence[Dim], after: Sequence[Dim]) -> list[Dim]:
    return [a for a, b in zip(before, after, strict=True) if a is not None and a == b]


def broadcasts_into(shape: Sequence[int], into: Sequence[Dim] | None) -> bool:
    """Whether an operand of this shape leaves the shape `into` of the other operand as it is."""
    if all(size == 1 for size in shape) and (not shape or (into is not None and len(shape) <= len(into))):
        return True
    if into is None or len(shape) > len(into):
        return False
    aligned = zip(reversed(shape), reversed(into), strict=False)
    return all(size == 1 or (isinstance(dim, int) and size == dim) for size, dim in aligned)
