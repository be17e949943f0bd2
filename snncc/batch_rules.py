"""Whether an operator treats the samples of a batch one by one: a rule for each kind, asked through the operator table.

A rule holds where axis 0 enumerates samples before and after, so that time can be folded into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from snncc.graph import constant, is_missing, node_inputs, shape_of, static_dims


@dataclass(frozen=True)
class View:
    """What a rule may ask about tensors.

    Attributes:
        batched: whether axis 0 of a tensor enumerates samples.
    """

    batched: Callable[[gs.Tensor], bool]


BatchRule = Callable[[gs.Node, View], bool]


def _rank(tensor: gs.Tensor) -> int | None:
    shape = shape_of(tensor)
    return None if shape is None else len(shape)


def first_input(node: gs.Node, view: View) -> bool:
    """The first input carries the samples and the other inputs don't."""
    return view.batched(node.inputs[0]) and not any(view.batched(t) for t in node_inputs(node)[1:])


def elementwise(node: gs.Node, view: View) -> bool:
    """Broadcasting lines the sample axes up: equal ranks where there are samples, nothing on axis 0 elsewhere."""
    inputs = node_inputs(node)
    ranks = [_rank(t) for t in inputs]
    if any(rank is None for rank in ranks):
        return False
    known = [r for r in ranks if r is not None]
    rank = max((r for t, r in zip(inputs, known, strict=True) if view.batched(t)), default=0)
    for tensor, own in zip(inputs, known, strict=True):
        shape = shape_of(tensor) or ()
        if view.batched(tensor):
            if own != rank:
                return False
        elif own > rank or (own == rank and shape[:1] != (1,)):
            return False
    return rank > 0


def axis_not_zero(default: int, attribute: str = "axis") -> BatchRule:
    """The operator works along one axis, which isn't the samples'."""

    def rule(node: gs.Node, view: View) -> bool:
        tensors = [t for t in node_inputs(node) if view.batched(t)]
        rank = _rank(tensors[0]) if tensors else None
        return rank is not None and int(node.attrs.get(attribute, default)) % rank != 0

    return rule


def gather(node: gs.Node, view: View) -> bool:
    """Indices of the samples pick rows of a table, so their first axis leads; elsewhere they'd put it further back."""
    data, indices = node.inputs[:2]
    if view.batched(indices):
        return not view.batched(data) and int(node.attrs.get("axis", 0)) % (_rank(data) or 1) == 0
    return first_input(node, view) and axis_not_zero(0)(node, view)


def concat(node: gs.Node, view: View) -> bool:
    """All inputs carry the samples, and they are joined along another axis."""
    return all(view.batched(t) for t in node_inputs(node)) and axis_not_zero(0)(node, view)


def _axes(node: gs.Node, position: int) -> list[int] | None:
    """Return the axes that a node is given as input or attribute; None: none are given or they aren't constant."""
    if "axes" in node.attrs:
        return [int(a) for a in node.attrs["axes"]]
    if len(node.inputs) > position and not is_missing(node.inputs[position]):
        value = constant(node.inputs[position])
        return None if value is None else [int(a) for a in value.reshape(-1)]
    return None


def axes_without_zero(position: int, *, of_output: bool = False) -> BatchRule:
    """The operator works along given axes, none of which is the samples'."""

    def rule(node: gs.Node, view: View) -> bool:
        axes = _axes(node, position)
        rank = _rank(node.outputs[0] if of_output else node.inputs[0])
        if axes is None or rank is None or not view.batched(node.inputs[0]):
            return False
        if not axes and not node.attrs.get("noop_with_empty_axes", 0):
            return False  # an empty list of axes means all of them
        return all(a % rank != 0 for a in axes)

    return rule


def normalisation(node: gs.Node, view: View) -> bool:
    """Scale and bias belong to the features; a bias per sample would do too, but nobody writes it."""
    return first_input(node, view) and axis_not_zero(-1)(node, view)


def all_inputs(node: gs.Node, view: View) -> bool:
    """Every input carries the samples."""
    return all(view.batched(t) for t in node_inputs(node))


def expand(node: gs.Node, view: View) -> bool:
    """The target leaves the sample axis alone: it is shorter than the rank, or has a 1 there."""
    target, rank = constant(node.inputs[1]), _rank(node.inputs[0])
    if target is None or rank is None or not view.batched(node.inputs[0]) or target.size > rank:
        return False
    return target.size < rank or int(target[0]) == 1


def tile(node: gs.Node, view: View) -> bool:
    """The sample axis is repeated once."""
    repeats = constant(node.inputs[1])
    return view.batched(node.inputs[0]) and repeats is not None and repeats.size > 0 and int(repeats[0]) == 1


def gather_elements(node: gs.Node, view: View) -> bool:
    """Data and indices carry the samples, and what is picked lies along another axis."""
    return all_inputs(node, view) and axis_not_zero(0)(node, view)


def trilu(node: gs.Node, view: View) -> bool:
    """The triangle is that of the last two axes, which the samples are not among."""
    return first_input(node, view) and (_rank(node.inputs[0]) or 0) > 2


def cumsum(node: gs.Node, view: View) -> bool:
    """It adds up along a constant axis, which isn't the samples'."""
    axis = constant(node.inputs[1])
    rank = _rank(node.inputs[0])
    return (
        axis is not None and rank is not None and view.batched(node.inputs[0]) and int(axis.reshape(-1)[0]) % rank != 0
    )


def einsum(node: gs.Node, view: View) -> bool:
    """The same letter leads every input with samples and the output, and appears nowhere else."""
    equation = str(node.attrs.get("equation", "")).replace(" ", "")
    if "..." in equation or "->" not in equation:
        return False
    left, output = equation.split("->")
    terms = left.split(",")
    leading = {term[:1] for term, t in zip(terms, node.inputs, strict=True) if view.batched(t)}
    if len(leading) != 1 or output[:1] not in leading:
        return False
    letter = output[:1]
    counts = [term.count(letter) == (1 if view.batched(t) else 0) for term, t in zip(terms, node.inputs, strict=True)]
    return all(counts) and output.count(letter) == 1


def slice(node: gs.Node, view: View) -> bool:
    """It cuts along given axes, none of which is the samples'."""
    axes = _axes(node, 3)
    rank = _rank(node.inputs[0])
    return view.batched(node.inputs[0]) and axes is not None and rank is not None and all(a % rank for a in axes)


def transpose(node: gs.Node, view: View) -> bool:
    """The sample axis stays where it is."""
    return view.batched(node.inputs[0]) and bool(node.attrs.get("perm")) and node.attrs["perm"][0] == 0


def flatten(node: gs.Node, view: View) -> bool:
    """The sample axis is left, everything else becomes one."""
    return view.batched(node.inputs[0]) and int(node.attrs.get("axis", 1)) == 1


def reshape(node: gs.Node, view: View) -> bool:
    """[0, ...] keeps the samples; so does [-1, ...] where the sizes of one sample before and after are equal."""
    target = constant(node.inputs[1])
    if target is None or target.size == 0 or not view.batched(node.inputs[0]):
        return False
    if int(target[0]) == 0 and not node.attrs.get("allowzero", 0):
        return True
    before = static_dims((shape_of(node.inputs[0]) or (None, None))[1:])
    after = tuple(int(d) for d in target[1:])
    if int(target[0]) != -1 or before is None or any(d <= 0 for d in after):
        return False
    return int(np.prod(before, dtype=np.int64)) == int(np.prod(after, dtype=np.int64))


def gemm(node: gs.Node, view: View) -> bool:
    """Rows are samples, and the bias is none that differs between them."""
    if not view.batched(node.inputs[0]) or view.batched(node.inputs[1]) or node.attrs.get("transA", 0):
        return False
    if len(node.inputs) < 3 or is_missing(node.inputs[2]):
        return True
    shift = shape_of(node.inputs[2])
    if shift is None or view.batched(node.inputs[2]):
        return shift is not None and len(shift) == 2
    return len(shift) < 2 or shift[0] == 1


def matmul(node: gs.Node, view: View) -> bool:
    """The samples are an axis that the product broadcasts over, or the rows of the left factor."""
    left, right = node.inputs[:2]
    left_rank, right_rank = _rank(left), _rank(right)
    if left_rank is None or right_rank is None:
        return False
    if view.batched(left) and view.batched(right):
        return left_rank == right_rank and left_rank >= 3
    if view.batched(left):
        return left_rank >= 2 and (right_rank <= 2 or _shared_by_samples(right, left_rank))
    return view.batched(right) and right_rank >= 3 and (left_rank <= 2 or _shared_by_samples(left, right_rank))


def _shared_by_samples(tensor: gs.Tensor, rank: int) -> bool:
    """Whether a factor of a product broadcasts over the sample axis of one of the given rank."""
    shape = shape_of(tensor) or ()
    return len(shape) < rank or (len(shape) == rank and shape[0] == 1)


def pad(node: gs.Node, view: View) -> bool:
    """Nothing is added along the sample axis."""
    rank = _rank(node.inputs[0])
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if pads is None or rank is None or not first_input(node, view):
        return False
    axes = _axes(node, 3)
    if axes is None:
        return bool(len(pads) == 2 * rank and pads[0] == 0 and pads[rank] == 0)
    return all(a % rank for a in axes)


def resize(node: gs.Node, view: View) -> bool:
    """Only scales are sure to leave the samples alone: sizes would fix their number."""
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 and not is_missing(node.inputs[2]) else None
    if scales is None and node.op == "Upsample" and len(node.inputs) > 1:
        scales = constant(node.inputs[1])
    if node.attrs.get("axes") is not None:
        return view.batched(node.inputs[0]) and all(int(a) > 0 for a in node.attrs["axes"])
    return view.batched(node.inputs[0]) and scales is not None and scales.size > 0 and float(scales[0]) == 1.0
