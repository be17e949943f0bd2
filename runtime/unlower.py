"""From an artifact back to the network without time: one graph that shows each neuron as a node.

The inverse of lowering. Whatever looks into an artifact (reference simulator, meter, inspection) works on this form and
derives the time domains anew, so it does not depend on how time was lowered:

    BurstIFUnit, ..., Rescale                              ->  BurstIF, ..., the weights as they were
    FoldTime                                               ->  Frames, which marks an input of frames
    RepeatInput, RunningMean, Increment, RateDecode, ...   ->  nothing
    BurstIF, SignedBurst, ...                              ->  the same
    MaxPoolIncrement                                       ->  MaxPool
    Scan(body)                                             ->  the body's nodes; BurstIFStep -> BurstIF, and so on
    outputs of a trace                                     ->  dropped
"""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from snncc.artifact import Record
from snncc.errors import ArtifactError
from snncc.graph import DOMAIN, import_graph, infer_shapes, name_nodes, replace_reads
from snncc.ops import FRAMES, is_frames
from snncc.passes.fold_thresholds import unfold_thresholds

_TRANSPARENT = {"RepeatInput", "RateDecode", "RunningMean", "Increment", "Finite", "LastStep", "InOrder"}
_TRANSPARENT |= {"RunningMeanStep", "IncrementStep"}
NEURON_STEPS = ("BurstIFStep", "SignedBurstStep", "SignedBurstReluStep", "SignedBurstClipStep")


def unlower(model: onnx.ModelProto, record: Record) -> gs.Graph:
    """Return the network of an artifact without time, with inferred shapes.

    Raises:
        ArtifactError: the artifact isn't built as snncc builds them.
    """
    graph = lowered_graph(model)
    unfold_thresholds(graph)
    replaced: dict[str, gs.Tensor] = {}
    for node in list(graph.nodes):
        if is_time_scan(node):
            _splice(graph, node, record, replaced)
    kept = []
    for node in graph.nodes:
        if node.domain == DOMAIN and node.op in _TRANSPARENT:
            replaced[node.outputs[0].name] = node.inputs[0]
        elif node.domain == DOMAIN and node.op == "UnfoldTime":
            graph.outputs = [t for t in graph.outputs if t is not node.outputs[0]]
        else:
            kept.append(node)
    _rewire(graph, kept, replaced)
    for node in kept:
        if node.domain == DOMAIN and node.op == "MaxPoolIncrement":
            node.op, node.domain = "MaxPool", None
            node.attrs.pop("timesteps", None)
        elif node.domain == DOMAIN and node.op == "FoldTime":
            node.op, node.attrs = FRAMES, {"timesteps": record.timesteps, "period": record.period}
    for tensor in graph.inputs:
        if any(is_frames(node) for node in tensor.outputs) and tensor.shape:
            tensor.shape = list(tensor.shape)[1:]
    graph.nodes[:] = kept
    _forget_shapes(graph)
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    name_nodes(graph)
    infer_shapes(graph)
    return graph


def lowered_graph(model: onnx.ModelProto) -> gs.Graph:
    """Return the graph of an artifact as it is, without its functions; the artifact is left alone."""
    return import_graph(model, functions=False)


def is_time_scan(node: gs.Node) -> bool:
    """Whether a node is the Scan over timesteps that lowering made, not one of the network's own."""
    return node.op == "Scan" and any(n.domain == DOMAIN for b in _bodies(node) for n in b.nodes)


def _bodies(node: gs.Node) -> list[gs.Graph]:
    return [value for value in node.attrs.values() if isinstance(value, gs.Graph)]


def _rewire(graph: gs.Graph, kept: list[gs.Node], replaced: dict[str, gs.Tensor]) -> None:
    def final(tensor: gs.Tensor) -> gs.Tensor:
        while tensor.name in replaced:
            tensor = replaced[tensor.name]
        return tensor

    sources = {name: final(tensor) for name, tensor in replaced.items()}
    for node in kept:
        replace_reads(node, sources)
    for index, tensor in enumerate(graph.outputs):
        source = final(tensor)
        if source is not tensor:
            name = tensor.name
            tensor.inputs.clear()
            output = gs.Variable(name, dtype=tensor.dtype, shape=tensor.shape)
            kept.append(gs.Node("Identity", name=f"output:{name}", inputs=[source], outputs=[output]))
            graph.outputs[index] = output


def _splice(graph: gs.Graph, scan: gs.Node, record: Record, replaced: dict[str, gs.Tensor]) -> None:
    """Put the nodes of a Scan's body in its place, one timestep without its states.

    What the body emits at each timestep comes back folded; `replaced` learns which tensor of the body it is.
    """
    body = _bodies(scan)[0]
    states = len(body.outputs) - sum(1 for t in body.outputs if t.name.endswith(".emitted"))
    emitted = list(zip(scan.outputs[states:], body.outputs[states:], strict=True))
    initial = dict(zip((t.name for t in body.inputs), scan.inputs, strict=False))
    inner = []
    frames = {t.name for t in body.inputs[states + 1 :]}
    for node in body.nodes:
        if node.op in NEURON_STEPS:
            if node.op == "BurstIFStep":
                start = initial[node.inputs[2].name].inputs[0].inputs[0]
                node.inputs = [node.inputs[0], node.inputs[1], start]
            node.op = node.op.removesuffix("Step")
            node.inputs = node.inputs[:3]
            node.attrs["timesteps"] = record.timesteps
            node.outputs = node.outputs[:1]
        elif node.op == "Identity" and node.inputs[0].name in frames:
            node.op, node.domain, node.inputs = FRAMES, DOMAIN, [initial[node.inputs[0].name]]
            node.attrs = {"timesteps": record.timesteps, "period": record.timesteps}
        elif node.op == "MaxPoolIncrementStep":
            node.op, node.domain = "MaxPool", None
            node.inputs, node.outputs = node.inputs[:1], node.outputs[:1]
        inner.append(node)
    position = graph.nodes.index(scan)
    graph.nodes[position : position + 1] = inner
    for stacked, value in emitted:
        readers = [n for n in stacked.outputs if n.op == "Reshape"]
        if len(readers) != 1:
            raise ArtifactError(f"'{stacked.name}' is not folded as snncc folds it: compile the network again")
        emit = value.inputs[0]
        replaced[readers[0].outputs[0].name] = emit.inputs[0]
        readers[0].outputs, readers[0].inputs, emit.outputs = [], [], []


def _forget_shapes(graph: gs.Graph) -> None:
    """Drop inferred shapes, which spoke of time folded into the batch axis."""
    keep = {t.name for t in (*graph.inputs, *graph.outputs)}
    for name, tensor in graph.tensors().items():
        if isinstance(tensor, gs.Variable) and name not in keep:
            tensor.shape = None
