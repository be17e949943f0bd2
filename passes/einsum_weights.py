"""Einsum with constant weights becomes MatMul, so that it counts as the weighted layer that it is.

The letters of an equation such as `bsd,dhk->bshk` (a Dense layer with several axes, as Keras writes attention) fall
into those of the samples B, which the weights haven't, those that are summed over K, and those of the weights alone N:

    x [B..., K...], w [K..., N...]      ->      Reshape to [B..., ΠK], MatMul with [ΠK, ΠN], Reshape to [B..., N...]

A Reshape is left out where one letter stands for all. What isn't of this form (a letter that is repeated, or common to
input, weights and output; B behind K) stays an Einsum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.context import Context
from snncc.graph import Names, constant, infer_shapes, shape_of
from snncc.passes.base import Pass


@dataclass(frozen=True)
class EinsumToMatMul(Pass):
    """Rewrite every Einsum of a variable and a constant that is a product of matrices; the MatMul takes its name."""

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the pass; see `Pass.run`."""
        names, changed = Names(graph), False
        for node in [n for n in graph.nodes if n.op == "Einsum" and n.domain in (None, "", "ai.onnx")]:
            changed |= _rewrite(graph, node, names)
        if changed:
            graph.cleanup(recurse_functions=False).toposort(recurse_functions=False)
            infer_shapes(graph)
        return changed


@dataclass(frozen=True)
class Product:
    """An equation as a product of matrices.

    Attributes:
        kept: number of letters of the samples, B.
        order: axes of the weights in the order K, N.
        summed: number of letters that are summed over, K.
    """

    kept: int
    order: tuple[int, ...]
    summed: int


def product(equation: str, *, weights: int, rank: int) -> Product | None:
    """Read the equation of an Einsum of two operands; None where it is no product of matrices.

    Args:
        equation: as the node has it.
        weights: which operand holds the weights, 0 or 1.
        rank: of the other one, for which an ellipsis may stand.
    """
    terms, arrow, out = equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    if not arrow or len(operands) != 2:
        return None
    x, w = operands[1 - weights], operands[weights]
    if x.startswith("...") and out.startswith("..."):
        hidden = "".join(chr(0x100 + i) for i in range(rank - len(x) + 3))  # letters that no equation has
        x, out = hidden + x[3:], hidden + out[3:]
    if any("." in term or len(set(term)) != len(term) for term in (x, w, out)) or len(x) != rank:
        return None
    kept = "".join(letter for letter in x if letter not in w)
    summed = x[len(kept) :]
    added = out[len(kept) :]
    is_product = x == kept + summed and out == kept + added and set(w) == set(summed) | set(added)
    if not (is_product and kept and summed and added) or set(summed) & set(added):
        return None
    return Product(len(kept), tuple(w.index(letter) for letter in summed + added), len(summed))


def _rewrite(graph: gs.Graph, node: gs.Node, names: Names) -> bool:
    values = [constant(tensor) for tensor in node.inputs]
    if len(values) != 2 or sum(value is not None for value in values) != 1:
        return False
    position = 0 if values[0] is not None else 1
    weights, x = values[position], node.inputs[1 - position]
    shape = shape_of(x)
    if weights is None or shape is None:
        return False
    found = product(str(node.attrs.get("equation", "")), weights=position, rank=len(shape))
    if found is None or len(found.order) != weights.ndim:
        return False
    moved = weights.transpose(found.order)
    summed, added = moved.shape[: found.summed], moved.shape[found.summed :]
    if 0 in moved.shape or tuple(shape[found.kept :]) != summed:  # what Einsum would broadcast
        return False
    matrix = np.ascontiguousarray(moved.reshape(math.prod(summed), math.prod(added)))
    output = node.outputs[0]
    node.op, node.attrs = "MatMul", {}
    node.inputs = [x, gs.Constant(names.new(f"{node.name}.weights"), matrix)]
    if len(summed) > 1:
        flat = gs.Variable(names.new(f"{node.name}.flat"), x.dtype)
        graph.nodes.append(_reshape(x, flat, (*[0] * found.kept, math.prod(summed)), names, f"{node.name}.flatten"))
        node.inputs[0] = flat
    if len(added) > 1:
        node.outputs = [gs.Variable(names.new(f"{node.name}.product"), output.dtype)]
        target = (*[0] * found.kept, *added)
        graph.nodes.append(_reshape(node.outputs[0], output, target, names, f"{node.name}.unflatten"))
    return True


def _reshape(source: gs.Tensor, target: gs.Tensor, shape: tuple[int, ...], names: Names, name: str) -> gs.Node:
    sizes: NDArray[Any] = np.array(shape, np.int64)
    inputs = [source, gs.Constant(names.new(f"{name}.shape"), sizes)]
    return gs.Node("Reshape", names.new(name), inputs=inputs, outputs=[target])
