"""θ moves from the neurons of a lowered network into the weights around them: spikes become whole numbers.

    x ── Conv(W) ── BurstIF(θ) ── Conv(V) ──      ->      x ── Conv(W/θ) ── BurstIFUnit ── Conv(V·θ) ──

A neuron then neither divides its current by θe nor multiplies its spikes with it. Scaling a current and what a neuron
makes of it by the same factor is exact but for the rounding of the weights. The factor is one per channel and goes
through sums, pools and what only moves channels. Where something else reads the spikes, such as the sum at the end of a
residual branch, or makes the current, a `Rescale` stands in between; a neuron that would need two keeps its θ.

A neuron whose current is the same at every timestep takes it once, without `RepeatInput`.

The nodes keep `v_threshold` and `threshold_ratio`, so `unfold_thresholds` brings back the network as it was: whatever
looks into an artifact works on that. What is read while an artifact runs comes in its `units`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.context import Context
from snncc.graph import (
    DOMAIN,
    Dim,
    Names,
    constant,
    consumers,
    is_missing,
    producers,
    shape_of,
    static_dims,
)
from snncc.ops import Role, spec_of
from snncc.passes.affine import Layout, scale_inputs, scale_outputs
from snncc.passes.base import Pass

UNIT, CONSTANT = "Unit", "Constant"
FOLDABLE = ("BurstIF", "SignedBurstRelu", "SignedBurstClip")
"""The neurons that exist in units of their thresholds, under their name and `UNIT`."""
_UNITS = {op + UNIT + end: op for op in FOLDABLE for end in ("", CONSTANT)}
RESCALE, REPEAT, DECODE = "Rescale", "RepeatInput", "RateDecode"
_RANGE = (1e-30, 1e30)
"""Thresholds beyond these aren't folded: products with them may be no normal number."""

Gain = NDArray[np.float64]
"""Factors of a tensor's channels, in its rank; 1 along all other axes, and along axis 0."""


@dataclass(frozen=True)
class FoldThresholds(Pass):
    """Fold the thresholds of a network whose time is folded into the batch axis; 8-bit weights have their own units."""

    preserves_outputs: ClassVar[bool] = False

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Rewrite neurons and weights in place."""
        return ctx.config.weights == "float32" and fold_thresholds(graph)


def fold_thresholds(graph: gs.Graph) -> bool:
    """Fold the thresholds of a lowered graph in place; return whether there was one to fold."""
    walk = _Walk(graph)
    neurons = [node for node in graph.nodes if node.domain == DOMAIN and node.op in FOLDABLE]
    places = {n.name: walk.around(n, into=False) for n in neurons if _in_range(_threshold(n))}
    chosen = _worthwhile(places)
    factors = _product(place for name, of_it in places.items() if name in chosen for place in of_it)
    if not chosen or not _scale(graph, factors):
        return False
    names = Names(graph)
    for place in factors:
        if place.kind == "edge":
            _insert_rescale(graph, place, names)
    for node in neurons:
        if node.name in chosen:
            node.op += UNIT
            source = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
            if node.op == FOLDABLE[0] + UNIT and source is not None and _repeats(source, node):
                node.op, node.inputs[0] = node.op + CONSTANT, source.inputs[0]
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    return True


def unfold_thresholds(graph: gs.Graph) -> None:
    """Undo `fold_thresholds` in place, but for the rounding of the weights."""
    neurons = [node for node in graph.nodes if node.domain == DOMAIN and node.op in _UNITS]
    if not neurons:
        return
    walk = _Walk(graph)
    factors = _product(place for node in neurons for place in walk.around(node, into=True))
    _scale(graph, factors)
    names = Names(graph)
    for node in neurons:
        if node.op.endswith(CONSTANT):
            _insert_repeat(graph, node, names)
        node.op = _UNITS[node.op]
    for node in [n for n in graph.nodes if n.domain == DOMAIN and n.op == RESCALE]:
        source, target = node.inputs[0], node.outputs[0]
        for reader in list(target.outputs):
            reader.inputs = [source if t is target else t for t in reader.inputs]
        node.inputs.clear()
        node.outputs.clear()
    graph.cleanup(remove_unused_graph_inputs=False).toposort()


def units(graph: gs.Graph) -> dict[str, Gain]:
    """Return what 1 stands for in the tensors of a lowered graph that are in units of a threshold, by name."""
    walk = _Walk(graph)
    for node in graph.nodes:
        if node.domain == DOMAIN and node.op in _UNITS:
            walk.around(node, into=False)
    return walk.units


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a factor goes.

    Attributes:
        kind: "inputs" or "outputs" of a weighted node, "constant" for an addend, or "edge", where nothing takes it.
        node: the node.
        position: which of its inputs, for the last two.
        gain: the factor, in the rank of the tensor that is scaled.
    """

    kind: str
    node: gs.Node
    position: int
    gain: Gain

    @property
    def key(self) -> tuple[str, str, int]:
        """What places that are one have in common."""
        return self.kind, self.node.name, self.position


class _Walk:
    """Looks from a neuron for what can take its threshold.

    Attributes:
        units: by name, what 1 stands for in the tensors that it passed, if θe leaves the neuron.
    """

    def __init__(self, graph: gs.Graph) -> None:
        self.made_by, self.read_by = producers(graph), consumers(graph)
        self.outputs = {t.name for t in graph.outputs}
        self.units: dict[str, Gain] = {}

    def around(self, neuron: gs.Node, *, into: bool) -> list[_Place]:
        """Return where θe goes that leaves a neuron, or, with `into`, that comes back."""
        theta = _threshold(neuron)
        after, before = (1 / theta, theta) if into else (theta, 1 / theta)
        return [*self._after(neuron.outputs[0], after), *self._before(neuron, 0, before)]

    def _after(self, tensor: gs.Tensor, gain: Gain) -> Iterator[_Place]:
        """Multiply what reads a tensor."""
        self.units[tensor.name] = gain
        if tensor.name in self.outputs:
            yield _Place("edge", gs.Node("", name=tensor.name), -1, gain)
        for node in self.read_by.get(tensor.name, []):
            positions = [i for i, t in enumerate(node.inputs) if t is tensor]
            if not positions:  # a subgraph reads it
                yield _Place("edge", node, -1, gain)
            for position in positions:
                yield from self._read(node, position, gain)

    def _read(self, node: gs.Node, position: int, gain: Gain) -> Iterator[_Place]:
        spec = spec_of(node)
        if spec.role is Role.WEIGHTED and _takes(node, position, gain):
            yield _Place("inputs", node, 0, gain)
        elif spec.by_channel and _along_channels(gain):
            yield from self._after(node.outputs[0], gain)
        elif (flat := _flattened(node, gain)) is not None:
            yield from self._after(node.outputs[0], flat)
        else:
            yield _Place("edge", node, position, gain)

    def _before(self, node: gs.Node, position: int, gain: Gain) -> Iterator[_Place]:
        """Multiply what makes an input of a node."""
        tensor = node.inputs[position]
        edge = _Place("edge", node, position, gain)
        maker, shape = self.made_by.get(tensor.name), shape_of(tensor)
        readers = [t for n in self.read_by.get(tensor.name, []) for t in n.inputs if t is tensor]
        if maker is None or tensor.name in self.outputs or len(readers) != 1 or not _fits(shape, gain):
            yield edge
            return
        self.units[tensor.name] = 1 / gain
        spec = spec_of(maker)
        if spec.role is Role.WEIGHTED and _gives(maker, gain):
            yield _Place("outputs", maker, 0, gain)
        elif maker.op == "Add" and maker.domain in (None, ""):
            for index, term in enumerate(maker.inputs):
                if constant(term) is None:
                    yield from self._before(maker, index, gain)
                else:
                    yield _Place("constant", maker, index, gain)
        elif (spec.by_channel and _along_channels(gain)) or (maker.domain == DOMAIN and maker.op == REPEAT):
            yield from self._before(maker, 0, gain)
        else:
            del self.units[tensor.name]
            yield edge


def _threshold(neuron: gs.Node) -> Gain:
    """Return θe in the rank of the current."""
    theta = constant(neuron.inputs[1])
    if theta is None:
        raise ValueError(f"node '{neuron.name}' has no constant threshold")
    # The neuron multiplies in float32.
    return (theta.astype(np.float32) * np.float32(neuron.attrs["threshold_ratio"])).astype(np.float64)


def _in_range(theta: Gain) -> bool:
    return bool((theta > _RANGE[0]).all() and (theta < _RANGE[1]).all())


def _along_channels(gain: Gain) -> bool:
    """Whether a factor varies along axis 1 at most."""
    return gain.size == 1 or (gain.ndim > 1 and gain.shape[1] == gain.size)


def _takes(node: gs.Node, position: int, gain: Gain) -> bool:
    """Whether the weights of a node can take a factor of its input."""
    if node.domain not in (None, "") or position != 0 or constant(node.inputs[1]) is None:
        return False
    if node.op == "Gemm":
        return not node.attrs.get("transA", 0) and _along_channels(gain)
    return _of_matrix(node, gain) if node.op == "MatMul" else _along_channels(gain)


def _gives(node: gs.Node, gain: Gain) -> bool:
    """Whether the weights of a node, and its bias, can take a factor of its output."""
    if node.domain not in (None, "") or constant(node.inputs[1]) is None:
        return False
    if len(node.inputs) > 2 and not is_missing(node.inputs[2]) and constant(node.inputs[2]) is None:
        return False
    return _of_matrix(node, gain) if node.op == "MatMul" else _along_channels(gain)


def _of_matrix(node: gs.Node, gain: Gain) -> bool:
    weight = constant(node.inputs[1])
    return gain.size == 1 or (gain.shape[-1] == gain.size and weight is not None and weight.ndim == 2)


def _flattened(node: gs.Node, gain: Gain) -> Gain | None:
    """Return the factor behind a node that makes each sample a vector; None if it is something else."""
    if node.op not in ("Flatten", "Reshape") or node.domain not in (None, ""):
        return None
    source, shape = node.inputs[0], shape_of(node.outputs[0])
    if shape_of(source) is None and source.inputs and source.inputs[0].op == DECODE:
        source = source.inputs[0].inputs[0]
    dims = static_dims((shape_of(source) or (None,))[1:])
    if not dims or shape is None:
        return None
    if len(shape) != 2 or shape[1] != np.prod(dims) or gain.ndim != len(dims) + 1:
        return None
    return np.broadcast_to(gain, (1, *dims)).reshape(1, -1)


def _fits(shape: tuple[Dim, ...] | None, gain: Gain) -> bool:
    """Whether a tensor of a shape can be multiplied by a factor without becoming larger."""
    return (
        shape is not None
        and len(shape) == gain.ndim
        and all(g in (1, d) for g, d in zip(gain.shape, shape, strict=True))
    )


def _worthwhile(places: Mapping[str, Sequence[_Place]]) -> set[str]:
    """Return the neurons that need one `Rescale` at most, half of one that they share with another neuron."""
    chosen = set(places)
    while True:
        edges = {name: {p.key for p in places[name] if p.kind == "edge"} for name in chosen}
        shared = Counter(key for keys in edges.values() for key in keys)
        dropped = {
            name
            for name, keys in edges.items()
            if sum(1 / shared[key] for key in keys) > 1 or any(position < 0 for _, _, position in keys)
        }
        if not dropped:
            return chosen
        chosen -= dropped


def _product(places: Iterable[_Place]) -> list[_Place]:
    """Return each place once, with all that it is multiplied by."""
    found: dict[tuple[str, str, int], _Place] = {}
    for place in places:
        before = found.get(place.key)
        found[place.key] = place if before is None else replace(before, gain=before.gain * place.gain)
    return list(found.values())


def _scale(graph: gs.Graph, places: Iterable[_Place]) -> bool:
    """Scale weights and addends; False if one wouldn't be finite, and then nothing is changed."""
    changes: list[tuple[gs.Node, int, NDArray[np.float32]]] = []
    weighted: dict[str, list[_Place]] = {}
    for place in places:
        node = place.node
        if place.kind == "constant":
            changes.append((node, place.position, _float32(_value(node, place.position) * place.gain)))
        elif place.kind != "edge":
            weighted.setdefault(node.name, []).append(place)
        if place.kind == "outputs" and len(node.inputs) > 2 and not is_missing(node.inputs[2]):
            changes.append((node, 2, _float32(_value(node, 2) * place.gain.reshape(-1))))
    changes += [(of_node[0].node, 1, _scaled_weight(of_node)) for of_node in weighted.values()]
    if not all(np.isfinite(value).all() for _, _, value in changes):
        return False
    names = Names(graph)
    for node, position, value in changes:
        old = node.inputs[position]
        others = len(old.outputs) > 1  # whatever else reads it keeps it
        node.inputs[position] = gs.Constant(names.new(old.name) if others else old.name, value)
    return True


def _value(node: gs.Node, position: int) -> NDArray[np.float64]:
    value = constant(node.inputs[position])
    if value is None:
        raise ValueError(f"input {position} of node '{node.name}' is no constant")
    return value.astype(np.float64)


def _float32(value: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return value.astype(np.float32)


def _scaled_weight(places: Sequence[_Place]) -> NDArray[np.float32]:
    """Return the weights of a node, scaled on one side or on both."""
    node = places[0].node
    weight, attributes = _value(node, 1), node.attrs
    layout = Layout(node.op, int(attributes.get("group", 1)), bool(attributes.get("transB", 0)))
    scaled = layout.canonical(weight)
    groups, outputs, inputs = scaled.shape[:3]
    for place in places:
        scale, channels = (scale_inputs, inputs) if place.kind == "inputs" else (scale_outputs, outputs)
        scaled = scale(scaled, np.broadcast_to(place.gain.reshape(-1), (groups * channels,)))
    return _float32(layout.stored(scaled, weight.shape))


def _insert_rescale(graph: gs.Graph, place: _Place, names: Names) -> None:
    source = place.node.inputs[place.position]
    name = names.new(f"{place.node.name}.{RESCALE.lower()}")
    gain = gs.Constant(names.new(f"{name}.gain"), _float32(place.gain))
    scaled = gs.Variable(names.new(f"{name}.output"), dtype=source.dtype, shape=source.shape)
    graph.nodes.append(gs.Node(RESCALE, name=name, inputs=[source, gain], outputs=[scaled], domain=DOMAIN))
    place.node.inputs[place.position] = scaled


def _repeats(maker: gs.Node, neuron: gs.Node) -> bool:
    """Whether a node presents a current at each of the timesteps that a neuron has."""
    of_time = maker.attrs.get("timesteps") == neuron.attrs["timesteps"]
    return bool(maker.domain == DOMAIN and maker.op == REPEAT and of_time)


def _insert_repeat(graph: gs.Graph, neuron: gs.Node, names: Names) -> None:
    source, attributes = neuron.inputs[0], {"timesteps": neuron.attrs["timesteps"]}
    name = names.new(f"{REPEAT}:{source.name}")
    repeated = gs.Variable(names.new(f"{source.name}.repeated"), dtype=source.dtype, shape=neuron.outputs[0].shape)
    graph.nodes.append(gs.Node(REPEAT, name=name, attrs=attributes, inputs=[source], outputs=[repeated], domain=DOMAIN))
    neuron.inputs[0] = repeated
