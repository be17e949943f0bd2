"""Where spikes must encode a value that is no ReLU's, an `Encode` node marks it; a neuron takes its place later.

    Conv ── Sigmoid ── Conv             ->  Conv ── Sigmoid ── Encode ── Conv
    Softmax ── MatMul(W)                ->  Softmax ── Encode ── MatMul(W)
    LayerNormalization ┬─ MatMul(W)     ->  LayerNormalization ┬─ Encode ── MatMul(W)
                       └─ Add                                  └─ Add

An activation whose output reaches weights is encoded for everybody who reads it: that is a neuron as a ReLU's. Other
values that vary over time and aren't spikes are encoded for the weights alone, so that these see spikes and not graded
values (unless `Config.analog`). A network without activations is encoded behind its other non-linear operators.

`Encode` is the identity. It stays in the graph until calibration has found its threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from snncc.activations import ENCODE
from snncc.analysis import Analysis, Domain, Traffic
from snncc.context import Context
from snncc.graph import DOMAIN, consumers, infer_shapes, outer_inputs, unique_name
from snncc.ops import Role, is_linear, spec_of
from snncc.passes.analyse import analyse
from snncc.passes.base import Pass
from snncc.passes.pointwise import Pointwise, decomposed_activations


@dataclass(frozen=True)
class PlaceEncoders(Pass):
    """Mark what spikes must encode; see the module's docstring."""

    preserves_outputs: ClassVar[bool] = False

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Insert the marks; shapes have been inferred."""
        placing = _Placing(graph)
        placed = placing.encode_activations()
        if not placed and not any(spec_of(node).role is Role.ACTIVATION for node in graph.nodes):
            placed = placing.encode_others()
        if placed:
            graph.toposort()
            infer_shapes(graph)
        if not ctx.config.analog:
            placed |= _encode_for_weights(graph)
        if placed:
            graph.toposort()
        return placed


class _Placing:
    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.depends = _dependent(graph)

    def encode_activations(self) -> bool:
        """Encode the output of every activation that reaches weights, those written out as several nodes included."""
        decomposed = decomposed_activations(self.graph)
        inside = {node.name for match in decomposed for node in match.nodes}
        kinds = {match.output: match.kind for match in decomposed if match.kind != "relu"}
        for match in decomposed:
            self._unmake_neurons(match)
        for node in self.graph.nodes:
            spec = spec_of(node)
            if spec.activation and spec.role is Role.NONLINEAR and node.name not in inside:
                kinds[node.outputs[0].name] = node.op.lower()
        return self._encode(kinds)

    def encode_others(self) -> bool:
        """Encode the output of every operator that isn't linear and reaches weights."""
        kinds = {
            tensor.name: node.op.lower()
            for node in self.graph.nodes
            if spec_of(node).role is Role.NONLINEAR and not self._linear(node)
            for tensor in node.outputs
            if tensor.dtype is not None and np.dtype(tensor.dtype) == np.float32
        }
        return self._encode(kinds)

    def _encode(self, kinds: dict[str, str]) -> bool:
        reaching = self._reaching_weights()
        tensors = self.graph.tensors()
        wanted = [name for name in kinds if name in self.depends and name in reaching]
        for name in wanted:
            readers = list(tensors[name].outputs)
            insert(self.graph, tensors[name], kinds[name], readers)
        return bool(wanted)

    def _linear(self, node: gs.Node) -> bool:
        return is_linear(node, lambda t: t.name in self.depends)

    def _reaching_weights(self) -> set[str]:
        """Return the tensors that get to a layer with learned weights through linear nodes and pooling alone."""
        found: set[str] = set()
        for node in reversed(self.graph.nodes):
            spec = spec_of(node)
            arrives = spec.role is Role.WEIGHTED and any(isinstance(t, gs.Constant) for t in node.inputs[:2])
            passes = spec.role is Role.POOL or self._linear(node)
            if (arrives and self._linear(node)) or (passes and any(t.name in found for t in node.outputs)):
                found.update(t.name for t in node.inputs)
        return found

    def _unmake_neurons(self, match: Pointwise) -> None:
        """Spell the ReLUs inside an activation as bounds: they are steps of a function, not neurons of their own.

        `Max(x, 0)`, on the other hand, is a ReLU in disguise.
        """
        if match.kind == "relu":
            last = match.nodes[-1]
            source = next(t for n in match.nodes for t in n.inputs if t.name == match.source)
            last.op, last.attrs, last.inputs = "Relu", {}, [source]
            return
        for node in match.nodes:
            if spec_of(node).role is not Role.ACTIVATION:
                continue
            upper = node.inputs[2] if node.op == "Clip" and len(node.inputs) > 2 else None
            zero = gs.Constant(unique_name(self.graph, f"{node.name}.zero"), np.zeros((), np.float32))
            node.op, node.attrs, node.inputs = "Max", {}, [node.inputs[0], zero]
            if isinstance(upper, gs.Constant):
                output = node.outputs[0]
                bounded = gs.Variable(unique_name(self.graph, f"{output.name}.positive"), output.dtype, output.shape)
                node.outputs = [bounded]
                name = unique_name(self.graph, f"{node.name}.upper")
                self.graph.nodes.append(gs.Node("Min", name, {}, [bounded, upper], [output]))


def activation_nodes(graph: gs.Graph, analysis: Analysis) -> dict[str, str]:
    """Map the nodes that compute an activation to the name of the neuron that encodes it.

    Args:
        graph: the graph with its marks.
        analysis: its analysis.
    """
    made_by = {t.name: node for node in graph.nodes for t in node.outputs}
    found: dict[str, str] = {}
    for match in decomposed_activations(graph):
        readers = [n for n in made_by[match.output].outputs[0].outputs if n.domain == DOMAIN and n.op == ENCODE]
        found.update({node.name: readers[0].name for node in match.nodes if readers})
    for site in analysis.neurons:
        node = made_by.get(site.input)
        if site.activation.encodes and node is not None and spec_of(node).activation:
            found[node.name] = site.node
    return found


def _dependent(graph: gs.Graph) -> set[str]:
    """Return the names of the tensors that depend on a graph input."""
    depends = {t.name for t in graph.inputs}
    for node in graph.nodes:
        if any(t.name in depends for t in outer_inputs(node)):
            depends.update(t.name for t in node.outputs)
    return depends


def _encode_for_weights(graph: gs.Graph) -> bool:
    """Encode the graded values that arrive at learned weights between neurons."""
    analysis = analyse(graph)
    read_by = consumers(graph)
    made_by = {t.name: node for node in graph.nodes for t in node.outputs}
    tensors = graph.tensors()
    graded = {
        layer.source: layer.node
        for layer in analysis.layers
        if layer.learned and layer.driven_by is Traffic.GRADED and analysis.domains[layer.node] is Domain.TEMPORAL
    }
    weighted = {layer.node for layer in analysis.layers if layer.learned}
    for source in graded:
        tensor = tensors[source]
        if tensor.dtype is None or np.dtype(tensor.dtype) != np.float32:
            continue
        readers = [n for n in read_by[source] if n.name in weighted]
        insert(graph, tensor, made_by[source].op.lower(), readers)
    return bool(graded)


def insert(graph: gs.Graph, tensor: gs.Tensor, kind: str, readers: Sequence[gs.Node]) -> None:
    """Put an `Encode` behind a tensor, for some of the nodes that read it."""
    name = unique_name(graph, f"{tensor.inputs[0].name}.neuron")
    encoded = gs.Variable(unique_name(graph, f"{tensor.name}.spikes"), dtype=tensor.dtype, shape=tensor.shape)
    for node in readers:
        node.inputs = [encoded if t is tensor else t for t in node.inputs]
    node = gs.Node(ENCODE, name, {"activation": kind}, [tensor], [encoded], domain=DOMAIN)
    graph.nodes.append(node)
