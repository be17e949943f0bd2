"""Activations that were trained in steps become one Clip, and what they were is noted for calibration.

Networks that are trained for the conversion to spikes use (QCFS, Bu et al. 2022, "Optimal ANN-SNN conversion", eq. 9)

    h(x) = λ · clip(floor(x·L/λ + φ) / L, 0, 1)

and are exported as its elementary operations, in an order that differs from code to code:

    x -> Div λ -> Clip(0, 1) -> Mul L -> Add φ -> Floor -> Div L -> Mul λ      becomes      x -> Clip(0, λ)

Any chain of additions and multiplications with scalars, bounds, and one Floor or Round is brought to the form
m · clip(floor(a·x + b), low, high) + c, from which L = high - low, λ = m·L and v0 = b - low can be read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from snncc.context import Context
from snncc.graph import Names, constant, infer_shapes, is_missing
from snncc.neurons.quantised import QuantisedActivation
from snncc.passes.base import Pass

_ROUNDING = {"Floor": 0.0, "Round": 0.5}
_LONGEST = 12  # operators before and after the rounding
_TOLERANCE = 1e-4  # relative: products of float32 constants
_LEAST = 1e-30  # a step below it, or a sum of steps above its inverse, leaves the range of float32
_MOST_LEVELS = 1 << 20  # beyond that it is no quantised activation


@dataclass(frozen=True)
class RecogniseQuantisedActivations(Pass):
    """Replace every such chain by Clip(x, 0, λ), named after its Floor or Round, and fill `ctx.quantised`.

    What a straight-through estimator leaves in the graph, x + (q(x) - x), is taken for q(x). Of a λ per channel only
    the part between its factors is replaced, in units of each channel's step; steps below zero are left alone.
    """

    preserves_outputs: ClassVar[bool] = False

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the pass; see `Pass.run`."""
        if not any(_is(node, *_ROUNDING) for node in graph.nodes):
            return False
        kept = {id(tensor) for tensor in graph.outputs}
        names = Names(graph)
        changed = False
        for node in list(graph.nodes):
            changed |= _skip_estimator(node)
        for node in list(graph.nodes):
            if _is(node, *_ROUNDING):
                changed |= _recognise(graph, node, kept, names, ctx)
        if changed:
            graph.cleanup(recurse_functions=False)
            infer_shapes(graph)
        return changed


@dataclass(frozen=True)
class Steps:
    """The function m · clip(floor(a·x + b), low, high) + c, or before the rounding clip(a·x + b, low, high).

    Attributes:
        gain: a.
        shift: b.
        low: least value, of floor(a·x + b) after the rounding.
        high: largest value.
        out_gain: m.
        out_shift: c.
        rounded: whether the rounding has been met.
    """

    gain: float = 1.0
    shift: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    out_gain: float = 1.0
    out_shift: float = 0.0
    rounded: bool = False

    def affine(self, gain: float, shift: float) -> Steps | None:
        """Return the function followed by gain·y + shift; None unless the gain is positive."""
        if not (gain > 0 and math.isfinite(gain) and math.isfinite(shift)):
            return None
        if self.rounded:
            return replace(self, out_gain=self.out_gain * gain, out_shift=self.out_shift * gain + shift)
        low, high = self.low * gain + shift, self.high * gain + shift
        return replace(self, gain=self.gain * gain, shift=self.shift * gain + shift, low=low, high=high)

    def bounded(self, low: float, high: float) -> Steps | None:
        """Return the function followed by clip(y, low, high); None if a bound lies between two steps."""
        if self.rounded:
            low, high = (_whole((bound - self.out_shift) / self.out_gain) for bound in (low, high))
        if math.isnan(low) or math.isnan(high):
            return None
        return replace(self, low=min(max(self.low, low), high), high=max(min(self.high, high), low))

    def rounding(self, shift: float) -> Steps | None:
        """Return the function followed by floor(y + shift)."""
        if self.rounded:
            return None
        # A bound that misses a whole number by the rounding of its factors was meant to be that number.
        low, high = (math.floor(b + shift + _TOLERANCE) if math.isfinite(b) else b for b in (self.low, self.high))
        return replace(self, shift=self.shift + shift, low=low, high=high, rounded=True)

    def activation(self) -> QuantisedActivation | None:
        """Return the activation that this is; None unless it rises from 0 with slope 1."""
        levels = self.high - self.low
        if not self.rounded or not 1 <= levels <= _MOST_LEVELS:
            return None
        upper = self.out_gain * levels
        v_init = self.shift - self.low
        starts_at_zero = abs(self.out_gain * self.low + self.out_shift) <= _TOLERANCE * upper
        slope = abs(self.gain * self.out_gain - 1) <= _TOLERANCE
        in_range = self.out_gain > _LEAST and upper < 1 / _LEAST
        if not (in_range and starts_at_zero and slope and -_TOLERANCE <= v_init < 1 - _TOLERANCE):
            return None
        return QuantisedActivation(upper, round(levels), max(v_init, 0.0))


def _whole(value: float) -> float:
    """Return a bound as a number of steps, NaN if it lies between two."""
    if math.isinf(value):
        return value
    nearest = round(value)
    return float(nearest) if abs(value - nearest) <= _TOLERANCE * max(1.0, abs(value)) else math.nan


def followed(steps: Steps, node: gs.Node, source: gs.Tensor) -> Steps | None:
    """Return the function followed by a node that reads `source`; None if the node isn't of the kinds that count."""
    if node.op in _ROUNDING:
        return steps.rounding(_ROUNDING[node.op])
    if node.op == "Identity":
        return steps
    if node.op == "Relu":
        return steps.bounded(0.0, math.inf)
    if node.op == "Clip":
        low, high = (_bound(node, position) for position in (1, 2))
        return steps.bounded(low, high) if node.inputs[0] is source else None
    operand = _scalar(node, source)
    if operand is None:
        return None
    first = node.inputs[0] is source
    if node.op == "Max":
        return steps.bounded(operand, math.inf)
    if node.op == "Min":
        return steps.bounded(-math.inf, operand)
    if node.op == "Add":
        return steps.affine(1.0, operand)
    if node.op == "Mul":
        return steps.affine(operand, 0.0)
    if node.op == "Sub" and first:
        return steps.affine(1.0, -operand)
    return steps.affine(1 / operand, 0.0) if node.op == "Div" and first and operand else None


def _bound(node: gs.Node, position: int) -> float:
    """Return a bound of a Clip: infinite if there is none, NaN if it isn't constant."""
    if len(node.inputs) <= position or is_missing(node.inputs[position]):
        return math.inf if position == 2 else -math.inf
    value = constant(node.inputs[position])
    return math.nan if value is None or value.size != 1 else float(value.reshape(()))


def _scalar(node: gs.Node, source: gs.Tensor) -> float | None:
    """Return the one other operand of a node if it is a constant scalar."""
    others = [t for t in node.inputs if t is not source]
    value = constant(others[0]) if len(node.inputs) == 2 and len(others) == 1 else None
    fits = value is not None and value.size == 1 and np.issubdtype(value.dtype, np.floating) and value.ndim <= 1
    return float(value.reshape(())) if fits and value is not None else None


# --- the chain around a rounding --------------------------------------------------------------------------------------


def _is(node: gs.Node | None, *ops: str) -> bool:
    return node is not None and node.op in ops and node.domain in (None, "", "ai.onnx")


def _producer(tensor: gs.Tensor) -> gs.Node | None:
    return tensor.inputs[0] if len(tensor.inputs) == 1 else None


def _skip_estimator(node: gs.Node) -> bool:
    """Let who reads x + (q - x) read q, where q is made of x by a rounding."""
    if not _is(node, "Add") or len(node.inputs) != 2:
        return False
    for difference, x in (node.inputs, reversed(node.inputs)):
        minus = _producer(difference)
        if minus is None or not _is(minus, "Sub") or minus.inputs[1] is not x or not _rounds(minus.inputs[0], x):
            continue
        node.op, node.attrs, node.inputs = "Identity", {}, [minus.inputs[0]]
        if not minus.outputs[0].outputs:  # so that it counts no more as a reader of x
            minus.inputs.clear()
        return True
    return False


def _rounds(tensor: gs.Tensor, x: gs.Tensor) -> bool:
    rounding = False
    for _ in range(2 * _LONGEST):
        node = _producer(tensor)
        if tensor is x or node is None or not node.inputs:
            break
        rounding |= _is(node, *_ROUNDING)
        tensor = next((t for t in node.inputs if not isinstance(t, gs.Constant)), node.inputs[0])
    return rounding and tensor is x


def _recognise(graph: gs.Graph, node: gs.Node, kept: set[int], names: Names, ctx: Context) -> bool:
    before, after = _chain(node, kept)
    position = len(before) - 1
    nodes = [*before, *after]
    found: list[tuple[tuple[float, int], int, int, QuantisedActivation]] = []
    for start in range(position + 1):
        for end in range(position, len(nodes)):
            activation = _activation(nodes[start : end + 1], _source(nodes, start))
            if activation is not None:
                rank = (round(abs(activation.v_init - 0.5), 3), start - end)
                found.append((rank, start, end, activation))
    if not found:
        return False
    # A bias that was added before is no part of it: it moves the shift away from 1/2. Else the longest chain: a part
    # of it is an activation too, in units that the rest scales.
    _, start, end, activation = min(found, key=lambda entry: entry[0])
    _replace(node, nodes[end], _source(nodes, start), activation, names)
    ctx.quantised[node.name] = activation
    return True


def _chain(node: gs.Node, kept: set[int]) -> tuple[list[gs.Node], list[gs.Node]]:
    """Return the nodes up to the rounding, and those after it, as long as each has one reader only."""
    before: list[gs.Node] = [node]
    after: list[gs.Node] = []
    while len(before) <= _LONGEST:
        source = _source(before, 0)
        producer = _producer(source)
        if producer is None or len(source.outputs) != 1 or id(source) in kept or not _counts(producer):
            break
        before.insert(0, producer)
    while len(after) < _LONGEST:
        output = (after[-1] if after else node).outputs[0]
        if len(output.outputs) != 1 or id(output) in kept or not _counts(output.outputs[0]):
            break
        after.append(output.outputs[0])
    return before, after


def _counts(node: gs.Node) -> bool:
    variable = [t for t in node.inputs if not isinstance(t, gs.Constant) and not is_missing(t)]
    known = (*("Identity", "Relu", "Clip", "Max", "Min", "Add", "Mul", "Sub", "Div"), *_ROUNDING)
    return _is(node, *known) and len(variable) == 1 and len(node.outputs) == 1


def _source(nodes: Sequence[gs.Node], start: int) -> gs.Tensor:
    return next((t for t in nodes[start].inputs if not isinstance(t, gs.Constant)), nodes[start].inputs[0])


def _activation(nodes: Sequence[gs.Node], source: gs.Tensor) -> QuantisedActivation | None:
    steps: Steps | None = Steps()
    for node in nodes:
        steps = None if steps is None else followed(steps, node, source)
        source = node.outputs[0]
    return None if steps is None else steps.activation()


def _replace(node: gs.Node, last: gs.Node, source: gs.Tensor, found: QuantisedActivation, names: Names) -> None:
    """Make the rounding a Clip of `source`; what is left of the chain is read by nobody."""
    output = last.outputs[0]
    dtype = np.dtype(source.dtype or output.dtype or np.float32)
    last.outputs.clear()
    node.op, node.domain, node.attrs = "Clip", "", {}
    bounds = {"min": 0.0, "max": found.upper}
    node.inputs = [source, *(gs.Constant(names.new(f"{node.name}.{k}"), np.array(v, dtype)) for k, v in bounds.items())]
    node.outputs = [output]
