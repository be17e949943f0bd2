"""Activations that an exporter wrote out as several operators, recognised by what they compute.

    SiLU          Mul(x, Sigmoid(x))
    GELU          Mul(Mul(x, 0.5), Add(Erf(Div(x, 1.414)), 1)), and many other forms
    leaky ReLU    Max(x, Mul(x, 0.1))
    hard swish    Mul(x, Div(Clip(Add(x, 3), 0, 6), 6))

Every exporter spells them in its own way, so no spelling is matched: wherever pointwise paths that part at a tensor x
meet again at y, y is a function of x, and that function is evaluated on a grid and compared with the known ones, up to
a positive factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from scipy.special import erf, expit

from snncc.errors import SnnccError
from snncc.graph import node_inputs, producers, subgraphs_of
from snncc.ops import spec_of
from snncc.runtime.segments import submodel
from snncc.runtime.session import Session

Floats = NDArray[np.float64]

_GRID = np.concatenate([np.linspace(-8, 8, 129), [-0.01, 0.01, 0.3, -0.3]])
_MOST_NODES = 16
"""No known activation needs more operators."""
_TOLERANCE = 2e-3
"""Largest deviation relative to the largest value: GELU's tanh form differs from GELU by 5e-4 of it at most."""

KNOWN: dict[str, Callable[[Floats], Floats]] = {
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * expit(x),
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "quick_gelu": lambda x: x * expit(1.702 * x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softplus": lambda x: np.logaddexp(0, x),
    "sigmoid": expit,
    "tanh": np.tanh,
    "abs": np.abs,
}


@dataclass(frozen=True)
class Pointwise:
    """A function of one tensor that several operators compute.

    Attributes:
        kind: its name; a key of `KNOWN`, or "leaky_relu".
        source: name of the tensor that it is a function of.
        output: name of the tensor that it makes.
        nodes: the operators, in topological order.
    """

    kind: str
    source: str
    output: str
    nodes: tuple[gs.Node, ...]


def decomposed_activations(graph: gs.Graph) -> list[Pointwise]:
    """Find the activations of a topologically sorted graph that are written out as several operators."""
    finder = _Finder(graph)
    found: list[Pointwise] = []
    for node in graph.nodes:
        match = finder.match(node)
        if match is not None:
            inside = {n.name for n in match.nodes}
            found = [other for other in found if not {n.name for n in other.nodes} <= inside]
            found.append(match)
    return found


def classify(function: Callable[[Floats], Floats]) -> str | None:
    """Return the name of a function of one variable, up to a positive factor; None if it isn't a known one."""
    values = function(_GRID)
    scale = float(np.abs(values).max()) if values.shape == _GRID.shape and np.isfinite(values).all() else 0.0
    if scale == 0.0:
        return None
    for kind, known in KNOWN.items():
        expected = known(_GRID)
        factor = float(values @ expected) / float(expected @ expected)
        if factor > 0 and float(np.abs(values - factor * expected).max()) < _TOLERANCE * scale:
            return kind
    return "leaky_relu" if _is_leaky(values, scale) else None


def _is_leaky(values: Floats, scale: float) -> bool:
    right, left = _GRID > 0, _GRID < 0
    slopes = [float(values[side] @ _GRID[side]) / float(_GRID[side] @ _GRID[side]) for side in (right, left)]
    fitted = np.where(right, slopes[0] * _GRID, slopes[1] * _GRID)
    kinked = slopes[0] > 0 and abs(slopes[1]) < 0.99 * slopes[0]
    return kinked and float(np.abs(values - fitted).max()) < _TOLERANCE * scale


class _Finder:
    """Follows pointwise paths back to where they part."""

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.made_by = producers(graph)
        self._origin: dict[str, str] = {}  # tensor -> the nearest tensor that all of its pointwise paths pass through
        self._kinds: dict[bytes, str | None] = {}
        for node in graph.nodes:
            if self._is_pointwise(node):
                origin = self._meeting(node)
                if origin is not None:
                    self._origin[node.outputs[0].name] = origin

    def match(self, node: gs.Node) -> Pointwise | None:
        """Return the activation that ends at a node, if the paths to it part and meet there."""
        inputs = self._variables(node)
        if not self._is_pointwise(node) or node.outputs[0].name not in self._origin or not self._joins(node, inputs):
            return None
        output, source = node.outputs[0], self._origin[node.outputs[0].name]
        nodes = self._between(source, node)
        if nodes is None:
            return None
        kind = self._kind(source, output, nodes)
        if kind is None or (kind == "relu" and (node.op != "Max" or len(nodes) > 1)):
            return None  # a ReLU is a neuron by itself, and its factor would be lost
        if kind == "relu":
            return Pointwise(kind, source, output.name, tuple(nodes))
        last = self._scaled(output)
        if last is not None:
            nodes, output = [*nodes, last], last.outputs[0]
        return Pointwise(kind, source, output.name, tuple(nodes))

    @staticmethod
    def _joins(node: gs.Node, inputs: list[gs.Tensor]) -> bool:
        """Whether paths meet at a node: several of its inputs vary, or it bounds the one that does (`Max(x, 0)`)."""
        return len(inputs) > 1 or node.op in ("Max", "Min")

    @staticmethod
    def _is_pointwise(node: gs.Node) -> bool:
        constants = [t for t in node_inputs(node) if isinstance(t, gs.Constant)]
        plain = len(node.outputs) == 1 and not any(True for _ in subgraphs_of(node))
        return spec_of(node).pointwise and plain and all(int(np.prod(t.shape)) == 1 for t in constants)

    @staticmethod
    def _variables(node: gs.Node) -> list[gs.Tensor]:
        return [t for t in node_inputs(node) if not isinstance(t, gs.Constant)]

    def _path(self, name: str) -> list[str]:
        path = [name]
        while path[-1] in self._origin and len(path) <= _MOST_NODES:
            path.append(self._origin[path[-1]])
        return path

    def _meeting(self, node: gs.Node) -> str | None:
        paths = [self._path(t.name) for t in self._variables(node)]
        if not paths:
            return None
        return next((name for name in paths[0] if all(name in path for path in paths[1:])), None)

    def _between(self, source: str, last: gs.Node) -> list[gs.Node] | None:
        """Return the nodes on the paths from a tensor to a node, in topological order; None if they are too many."""
        found: dict[str, gs.Node] = {}
        stack = [last]
        while stack:
            node = stack.pop()
            if node.name in found:
                continue
            found[node.name] = node
            if len(found) > _MOST_NODES:
                return None
            stack += [self.made_by[t.name] for t in self._variables(node) if t.name != source]
        return [node for node in self.graph.nodes if node.name in found]

    def _scaled(self, output: gs.Tensor) -> gs.Node | None:
        """Return the product with a constant that alone reads a tensor: the factor that some spellings put last."""
        if len(output.outputs) != 1 or any(output is t for t in self.graph.outputs):
            return None
        reader = output.outputs[0]
        divides = reader.op == "Div" and reader.inputs[0] is output
        scales = reader.op == "Mul" or divides
        return reader if scales and self._is_pointwise(reader) and len(self._variables(reader)) == 1 else None

    def _kind(self, source: str, output: gs.Tensor, nodes: list[gs.Node]) -> str | None:
        entry = next(t for n in nodes for t in n.inputs if t.name == source)
        flat = gs.Variable(entry.name, dtype=np.float32, shape=[None])
        if entry.dtype is None or np.dtype(entry.dtype) != np.float32:
            return None
        model = submodel(self.graph, nodes, [flat], [output])
        key = _without_names(model)
        if key not in self._kinds:
            self._kinds[key] = _evaluate(model, source, output.name)
        return self._kinds[key]


def _evaluate(model: onnx.ModelProto, source: str, output: str) -> str | None:
    try:
        session = Session(model, "a pointwise function", threads=1)

        def function(x: Floats) -> Floats:
            feeds = {source: x.astype(np.float32)}
            return np.asarray(session.run(feeds)[output], np.float64).reshape(-1)

        return classify(function)
    except SnnccError:
        return None  # it can't be run on its own: whatever it is, it is no activation


def _without_names(model: onnx.ModelProto) -> bytes:
    """Return what a model computes, as a key under which an equal one is found again."""
    numbers: dict[str, str] = {}
    copy = onnx.GraphProto()
    copy.CopyFrom(model.graph)
    for node in copy.node:
        node.name = ""
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                names[position] = numbers.setdefault(name, str(len(numbers))) if name else ""
    for tensor in copy.initializer:
        tensor.name = numbers.get(tensor.name, "")
    copy.ClearField("input")
    copy.ClearField("output")
    return bytes(copy.SerializeToString(deterministic=True))
