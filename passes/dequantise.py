"""Quantised networks are read through to floating point: what they approximate is what becomes spikes.

    x -> QuantizeLinear -> DequantizeLinear -> Conv(DequantizeLinear(w)) -> y     becomes     x -> Conv(w) -> y

Quantisation saturates, and exporters merge a ReLU into it: where no negative value can be expressed (the zero point is
the least value of the type), the quantisation of a value that may be negative is an activation, and becomes one:

    Conv -> QuantizeLinear(s, z = 0 of uint8) -> DequantizeLinear      becomes      Conv -> Clip(0, 255·s)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from snncc.context import Context
from snncc.errors import ModelError
from snncc.graph import constant, infer_shapes, is_missing
from snncc.passes.base import Pass
from snncc.passes.nonnegative import nonnegative
from snncc.passes.quantisation import Scheme, representable
from snncc.passes.quantised_ops import MICROSOFT, RULES, Builder, optional_type, scheme_of

_DOMAINS = (None, "", "ai.onnx", MICROSOFT)
_PAIR = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
# Operators that pick, move or compare quantised values: they give the same on what these stand for.
_MOVING = frozenset(
    {
        *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile", "Slice", "Split", "Gather"),
        *("GatherElements", "Identity", "MaxPool", "Concat", "DepthToSpace", "SpaceToDepth", "Resize", "Pad", "Max"),
    }
)
_ALL_INPUTS = ("Concat", "Max")


@dataclass(frozen=True)
class Dequantise(Pass):
    """Remove quantisation: DequantizeLinear of constants, pairs of Quantize- and DequantizeLinear, integer operators.

    The outputs differ from those of the quantised network by its rounding. What isn't quantised by constants, or isn't
    dequantised in the end (a quantised output), keeps its nodes. Saturation above (at 255·s) is kept where there is an
    activation, which then is a Clip; other values are let through, as are inputs of the network below their range.
    """

    preserves_outputs: ClassVar[bool] = False

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the pass; see `Pass.run`. It needs constants folded and types inferred."""
        before = sum(map(_is_quantised, graph.nodes))
        if not before:
            return False
        build = Builder(graph)
        kept = {id(tensor) for tensor in graph.outputs}
        changed = _decompose(graph, build)
        changed |= _move_up(graph, build, kept)
        changed |= _cancel_pairs(graph, build)
        changed |= _cancel_dynamic(graph)
        if not changed:
            return False
        graph.cleanup(recurse_functions=False)
        infer_shapes(graph)
        number = before - sum(map(_is_quantised, graph.nodes))
        ctx.warn(
            f"the network is quantised and was read through to floating point ({number} quantising nodes are gone): "
            "its outputs differ from the quantised network's by the rounding of that"
        )
        return True


def _is_quantised(node: gs.Node) -> bool:
    return node.domain in _DOMAINS and (node.op in _PAIR or (_domain(node), node.op) in RULES)


def _domain(node: gs.Node) -> str:
    return MICROSOFT if node.domain == MICROSOFT else ""


def _is(node: gs.Node | None, op: str) -> bool:
    return node is not None and node.op == op and node.domain in _DOMAINS


def _producer(tensor: gs.Tensor) -> gs.Node | None:
    return tensor.inputs[0] if len(tensor.inputs) == 1 else None


def _decompose(graph: gs.Graph, build: Builder) -> bool:
    build.nodes, changed = [], False
    for node in graph.nodes:
        rule = RULES.get((_domain(node), node.op)) if node.domain in _DOMAINS else None
        try:
            done = rule is not None and rule(node, build)
        except ValueError as error:  # sizes that shape inference doesn't compare
            raise ModelError(f"node '{node.name}' ({node.op}): {error}; export the network again") from error
        if done:
            changed = True
        else:
            build.nodes.append(node)
    graph.nodes[:] = build.nodes
    return changed


def _scheme(node: gs.Node) -> Scheme | None:
    """Return the scheme of a QuantizeLinear or DequantizeLinear."""
    quantised = node.outputs[0] if node.op == "QuantizeLinear" else node.inputs[0]
    scheme = scheme_of(node, 1, int(node.attrs.get("axis", 1)), optional_type(quantised))
    if scheme is None or scheme.zero.dtype.kind not in "iu":
        return None
    return Scheme(scheme.scale, scheme.zero, scheme.axis, int(node.attrs.get("block_size", 0)))


# --- DequantizeLinear moves up through what moves values --------------------------------------------------------------


def _move_up(graph: gs.Graph, build: Builder, kept: set[int]) -> bool:
    """op(q) -> DequantizeLinear becomes DequantizeLinear(q) -> op; from the last node to the first, so chains too."""
    backwards: list[gs.Node] = []
    changed = False
    for node in reversed(list(graph.nodes)):
        backwards.append(node)
        scheme = _common_scheme(node, kept) if node.op in _MOVING and node.domain in (None, "", "ai.onnx") else None
        if scheme is None:
            continue
        build.nodes = []
        for position in range(len(node.inputs) if node.op in _ALL_INPUTS else 1):
            node.inputs[position] = build.dequantise(node.inputs[position], scheme)
        if node.op == "Pad":
            _pad_with_float(node, build, scheme)
        for position, output in enumerate(node.outputs):
            value = gs.Variable(build.names.new(f"{output.name}.float"), dtype=scheme.scale.dtype, shape=output.shape)
            for reader in list(output.outputs):
                reader.op, reader.domain, reader.attrs, reader.inputs = "Identity", "", {}, [value]
            node.outputs[position] = value
        backwards += reversed(build.nodes)
        changed = True
    graph.nodes[:] = backwards[::-1]
    return changed


def _common_scheme(node: gs.Node, kept: set[int]) -> Scheme | None:
    """Return the one scalar scheme by which everyone who reads a node's outputs dequantises them, None if it isn't."""
    readers = [reader for output in node.outputs for reader in output.outputs]
    if not readers or not all(_is(reader, "DequantizeLinear") for reader in readers):
        return None
    if any(id(output) in kept or is_missing(output) or not output.outputs for output in node.outputs):
        return None
    padding = node.inputs[2] if node.op == "Pad" and len(node.inputs) > 2 else None
    if padding is not None and not is_missing(padding) and constant(padding) is None:
        return None
    schemes = [_scheme(reader) for reader in readers]
    first = schemes[0]
    if first is None or not first.is_scalar or not float(first.scale.reshape(())) > 0:
        return None
    return first if all(s is not None and s.equals(first) for s in schemes) else None


def _pad_with_float(node: gs.Node, build: Builder, scheme: Scheme) -> None:
    if node.attrs.get("mode", "constant") != "constant":
        return
    given = constant(node.inputs[2]) if len(node.inputs) > 2 and not is_missing(node.inputs[2]) else None
    value = np.zeros((), scheme.zero.dtype) if given is None else given.reshape(())
    while len(node.inputs) < 3:
        node.inputs.append(gs.Variable.empty())
    node.inputs[2] = build.dequantise(gs.Constant(f"{node.name}.padding", value), scheme)


# --- a DequantizeLinear that undoes a QuantizeLinear ------------------------------------------------------------------


def _cancel_pairs(graph: gs.Graph, build: Builder) -> bool:
    build.nodes, changed = [], False
    for node in graph.nodes:
        scheme = _scheme(node) if _is(node, "QuantizeLinear") and not isinstance(node.inputs[0], gs.Constant) else None
        undone = [] if scheme is None else [r for r in node.outputs[0].outputs if _undoes(r, scheme)]
        if scheme is not None and undone:
            source = _saturated(node, scheme, build)
            node.inputs[0] = source
            for reader in undone:
                _hand_on(reader, source)
            changed = True
        build.nodes.append(node)
    graph.nodes[:] = build.nodes
    return changed


def _undoes(node: gs.Node, scheme: Scheme) -> bool:
    other = _scheme(node) if _is(node, "DequantizeLinear") else None
    return other is not None and other.equals(scheme)


def _hand_on(node: gs.Node, source: gs.Tensor) -> None:
    before, after = source.dtype, node.outputs[0].dtype
    node.domain, node.inputs = "", [source]
    if before is None or after is None or np.dtype(before) == np.dtype(after):
        node.op, node.attrs = "Identity", {}
    else:
        node.op, node.attrs = "Cast", {"to": int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(after)))}


def _saturated(node: gs.Node, scheme: Scheme, build: Builder) -> gs.Tensor:
    """Return what a QuantizeLinear reads, through the activation that its saturation is, if it is one."""
    source: gs.Tensor = node.inputs[0]
    low, high = representable(scheme)
    producer = _producer(source)
    upper = float(high.reshape(-1)[0]) if (high == high.reshape(-1)[0]).all() else np.inf
    if not np.isfinite(upper) or upper <= 0:
        upper = np.inf
    if _is(producer, "Relu") and len(source.outputs) == 1:
        if np.isfinite(upper) and producer is not None:
            dtype = np.dtype(source.dtype or scheme.scale.dtype)
            producer.op, producer.inputs = "Clip", [producer.inputs[0], *_bounds(node, build, upper, dtype)]
        return source
    if (low != 0).any() or nonnegative(source, inputs=True):
        return source
    dtype = np.dtype(source.dtype or scheme.scale.dtype)
    name = build.names.new(f"{source.name}.relu")
    if not np.isfinite(upper):
        value = build.emit("Relu", name, [source])
    else:
        value = build.emit("Clip", name, [source, *_bounds(node, build, upper, dtype)])
    value.dtype, value.shape = dtype, source.shape
    return value


def _bounds(node: gs.Node, build: Builder, upper: float, dtype: np.dtype[np.generic]) -> tuple[gs.Tensor, gs.Tensor]:
    return (
        build.constant(f"{node.name}.min", np.zeros((), dtype)),
        build.constant(f"{node.name}.max", np.array(upper, dtype)),
    )


# --- scales that are found while the network runs ---------------------------------------------------------------------


def _cancel_dynamic(graph: gs.Graph) -> bool:
    """Mul(Div(v, s), Mul(s, c)) becomes Mul(v, c) where s is the scale of a DynamicQuantizeLinear."""
    changed = False
    for node in graph.nodes:
        while _is(node, "Mul") and _cancelled(node):
            changed = True
    return changed


def _cancelled(node: gs.Node) -> bool:
    for position in (0, 1):
        quotient = _producer(_behind(node.inputs[position]))
        if quotient is None or quotient.op != "Div":
            continue
        value, scale = quotient.inputs
        factors = Counter(id(t) for t in _factors(node.inputs[1 - position]))
        if not _is(_producer(scale), "DynamicQuantizeLinear") or not factors[id(scale)]:
            continue
        rest = [t for t in _factors(node.inputs[1 - position]) if t is not scale]
        if len(rest) == 1:
            node.inputs = [value, rest[0]]
            return True
        if not rest:
            node.op, node.attrs, node.inputs = "Identity", {}, [value]
            return True
    return False


def _behind(tensor: gs.Tensor) -> gs.Tensor:
    producer = _producer(tensor)
    while producer is not None and producer.op == "Identity":
        tensor = producer.inputs[0]
        producer = _producer(tensor)
    return tensor


def _factors(tensor: gs.Tensor) -> list[gs.Tensor]:
    """Return a tensor, or the two factors that it is the product of."""
    tensor = _behind(tensor)
    producer = _producer(tensor)
    return [_behind(t) for t in producer.inputs] if producer is not None and producer.op == "Mul" else [tensor]
