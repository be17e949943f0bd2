"""Which tensors can't be negative, whatever the network is fed with."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from snncc.graph import constant, is_missing

_ALWAYS = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp", "Sqrt", "ReduceL2"})
# Not negative if none of the inputs that they take values from is. An interpolation may overshoot only if it is cubic.
_HANDED_ON = frozenset(
    {
        *("Identity", "Dropout", "Cast", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile"),
        *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "ReduceMean", "ReduceMax", "ReduceSum"),
        *("Slice", "Split", "Gather", "DepthToSpace", "SpaceToDepth", "Resize"),
    }
)
_COMBINED = frozenset({"Add", "Mul", "Div", "Concat", "Sum", "Max", "Min", "Mean"})
_MOST_STEPS = 10_000


def nonnegative(tensor: gs.Tensor, *, inputs: bool = False) -> bool:
    """Whether a tensor can't be negative by the operators that make it; False where that isn't known.

    Args:
        tensor: the tensor.
        inputs: take it for granted of what no node makes: the network's inputs.
    """
    pending, seen = [tensor], set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if len(seen) > _MOST_STEPS:
            return False
        if isinstance(current, gs.Constant):
            values = constant(current)
            if (
                values is None
                or values.dtype.kind not in "fiu"
                or not bool(np.all(np.asarray(values, np.float64) >= 0))
            ):
                return False
            continue
        if inputs and not current.inputs:
            continue
        sources = _sources(current)
        if sources is None:
            return False
        pending += sources
    return True


def _sources(tensor: gs.Tensor) -> list[gs.Tensor] | None:
    """Return the tensors that must not be negative for this one not to be; None if nothing can be said."""
    node = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    if node is None or node.domain not in (None, ""):
        return None
    if node.op in _ALWAYS:
        return []
    if node.op == "Clip":
        low = constant(node.inputs[1]) if len(node.inputs) > 1 and not is_missing(node.inputs[1]) else None
        return [] if low is not None and low.size == 1 and float(low.reshape(())) >= 0 else [node.inputs[0]]
    if node.op == "Pow":
        exponent = constant(node.inputs[1])
        return [] if exponent is not None and bool(np.all(exponent.astype(np.float64) % 2 == 0)) else None
    if node.op == "Mul" and node.inputs[0] is node.inputs[1]:
        return []
    if node.op in _HANDED_ON and node.attrs.get("mode") != "cubic":
        return [node.inputs[0]]
    return list(node.inputs) if node.op in _COMBINED else None
