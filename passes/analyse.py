"""Time-domain analysis: which node runs when, what its inputs carry, and what stands in the way.

A network with neurons N1 and N2,

    x ── Conv ── N1 ── Conv ── N2 ── GlobalAveragePool ── Gemm ── Softmax
       static      └── temporal ──┘ └────────── readout ───────────────┘

is static before the first neuron, temporal between neurons, and readout after the last. Readout runs once, on the mean
over time: for its linear part that is the same by linearity, and the rest has nothing else to run on. Where x presents
a frame at each timestep (`snncc.Frames` marks it), it is temporal from the start.

Between neurons, what is linear works on what arrives at each timestep, and what isn't works on the means over the
timesteps so far (`snncc.analysis.Form`), so that its result, too, is a mean over time:

    N1 ── Conv ── Softmax ── Mul ── Encode ── Conv ── N2
       step │       mean       │      └──── step ────
     running mean of the input │ spikes that have this mean
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from snncc.activations import Activation, activation_of
from snncc.analysis import Analysis, Domain, Form, NeuronSite, Traffic, WeightedLayer
from snncc.context import Context
from snncc.errors import Obstacle
from snncc.graph import is_missing, node_inputs, outer_inputs, producers, shape_of, static_dims
from snncc.neurons.quantised import QuantisedActivation
from snncc.ops import (
    SIZED_BY_VALUES,
    Role,
    channel_axis,
    is_frames,
    is_linear,
    multiply_accumulates,
    sample_dims,
    samplewise,
    spec_of,
    works_on_means,
)
from snncc.passes.base import Pass
from snncc.passes.lower_scan import lowering_obstacles
from snncc.passes.sample_size import count_one_sample

_BEFORE_NEURONS = {Traffic.ANALOG, Traffic.FRAMES}


@dataclass(frozen=True)
class Analyse(Pass):
    """Fill `ctx.analysis`; the graph stays as it is."""

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Analyse the graph, whose shapes have been inferred."""
        ctx.analysis = analyse(graph, ctx.quantised)
        count_one_sample(graph, ctx.analysis)
        return False


def analyse(graph: gs.Graph, quantised: Mapping[str, QuantisedActivation] | None = None) -> Analysis:
    """Analyse a normalised graph with inferred shapes (activations or neurons in place).

    Args:
        graph: the graph.
        quantised: its activations that were trained in steps, by the name of the node.
    """
    result = Analysis(batch=_fixed_batch(graph))
    neurons = _neuron_nodes(graph)
    _assign_domains(graph, neurons, result)
    _find_sizes(graph, result)
    _assign_forms(graph, neurons, result)
    _find_batched(graph, result)
    _assign_traffic(graph, neurons, result)
    _find_obstacles(graph, neurons, result)
    _find_fold_blockers(graph, result)
    if not result.obstacles:  # a node that can't be converted would be named again as one that can't be folded
        result.obstacles += lowering_obstacles(graph, result)
    by_name = producers(graph)
    for node in graph.nodes:
        if node.name in neurons:
            result.neurons.append(_site(node, by_name, result, (quantised or {}).get(node.name)))
        elif spec_of(node).role is Role.WEIGHTED:
            layer = _layer(node, result)
            if layer is not None:
                result.layers.append(layer)
    return result


def _layer(node: gs.Node, result: Analysis) -> WeightedLayer | None:
    factors = [t for t in node.inputs[:2] if not isinstance(t, gs.Constant)]
    if not factors:
        return None
    carried = [result.traffic.get(t.name, Traffic.ANALOG) for t in factors]
    learned = len(factors) == 1
    driven_by = carried[0]
    if not learned and any(c is not Traffic.ANALOG for c in carried):
        readout, before = result.domains[node.name] is Domain.READOUT, set(carried) <= _BEFORE_NEURONS
        driven_by = Traffic.READOUT if readout else Traffic.FRAMES if before else Traffic.GRADED
    macs = multiply_accumulates(node, result.batch)
    return WeightedLayer(node.name, node.op, macs, driven_by, factors[0].name, learned)


def _fixed_batch(graph: gs.Graph) -> int | None:
    shape = shape_of(graph.inputs[0]) if graph.inputs else None
    return shape[0] if shape and isinstance(shape[0], int) else None


def _neuron_nodes(graph: gs.Graph) -> set[str]:
    """Return the names of the neurons and of the activations that depend on a graph input.

    A scalar is nobody's: where all samples make one value, there is no neuron for it.
    """
    depends = {t.name for t in graph.inputs}
    found: set[str] = set()
    # An activation that has been left is none of them.
    placed = any(spec_of(node).role is Role.NEURON for node in graph.nodes)
    roles = (Role.NEURON,) if placed else (Role.ACTIVATION,)
    for node in graph.nodes:
        if not any(t.name in depends for t in outer_inputs(node)):
            continue
        depends.update(t.name for t in node.outputs if not is_missing(t))
        source = node.inputs[0] if node.inputs else None
        if source is None or str(source.dtype) != "float32" or shape_of(source) == ():
            continue
        if spec_of(node).role in roles:
            found.add(node.name)
    return found


def _assign_domains(graph: gs.Graph, neurons: set[str], result: Analysis) -> None:
    leads_to_neuron: set[str] = set()
    for node in reversed(graph.nodes):
        if node.name in neurons or any(t.name in leads_to_neuron for t in node.outputs):
            leads_to_neuron.update(t.name for t in outer_inputs(node))
    presents = {t.name for t in graph.inputs if any(is_frames(node) for node in t.outputs)}
    result.tensors = {t.name: Domain.TEMPORAL if t.name in presents else Domain.STATIC for t in graph.inputs}
    result.forms = dict.fromkeys(presents, Form.STEP)
    for node in graph.nodes:
        inputs = [result.tensors.get(t.name, Domain.STATIC) for t in outer_inputs(node)]
        if node.name in neurons or is_frames(node):
            domain = Domain.TEMPORAL
        elif all(d is Domain.STATIC for d in inputs):
            domain = Domain.STATIC
        elif any(t.name in leads_to_neuron for t in node.outputs):
            domain = Domain.TEMPORAL
        else:
            domain = Domain.READOUT
        result.domains[node.name] = domain
        result.tensors.update({t.name: domain for t in node.outputs if not is_missing(t)})


def _find_sizes(graph: gs.Graph, result: Analysis) -> None:
    """Find what temporal tensors' shapes alone decide: it doesn't vary over time."""
    for node in graph.nodes:
        if result.domains[node.name] is not Domain.TEMPORAL:
            continue
        temporal = [t.name for t in outer_inputs(node) if result.tensors.get(t.name) is Domain.TEMPORAL]
        of_sizes = bool(temporal) and all(name in result.sizes for name in temporal)
        if spec_of(node).role is Role.SHAPE or of_sizes:
            result.sizes.update(t.name for t in node.outputs if not is_missing(t))


def _assign_forms(graph: gs.Graph, neurons: set[str], result: Analysis) -> None:
    for node in graph.nodes:
        if result.domains[node.name] is not Domain.TEMPORAL:
            continue
        mode = _mode(node, node.name in neurons, result)
        result.modes[node.name] = mode
        form = Form.STEP if node.name in neurons else mode
        result.forms.update({t.name: form for t in node.outputs if not is_missing(t)})


def _mode(node: gs.Node, is_neuron: bool, result: Analysis) -> Form:
    spec = spec_of(node)
    if is_neuron:
        return Form.MEAN if works_on_means(node) else Form.STEP
    varying = [t for t in outer_inputs(node) if _varies(t, result)]
    if not varying:
        return Form.STEP
    if spec.role is Role.SHAPE:
        return result.forms.get(varying[0].name, Form.STEP)  # nothing to convert: values don't matter
    if spec.role is Role.POOL or is_linear(node, lambda t: _varies(t, result)):
        return Form.MEAN if all(result.forms.get(t.name) is Form.MEAN for t in varying) else Form.STEP
    return Form.MEAN


def _find_batched(graph: gs.Graph, result: Analysis) -> None:
    """Follow the sample axis from the inputs that share the first input's leading dimension."""
    first = shape_of(graph.inputs[0]) if graph.inputs else None
    for tensor in graph.inputs:
        shape = shape_of(tensor)
        if shape and first and shape[0] == first[0]:
            result.batched.add(tensor.name)
    for node in graph.nodes:
        if samplewise(node, lambda t: t.name in result.batched):
            result.batched.update(t.name for t in node.outputs if not is_missing(t))


def _assign_traffic(graph: gs.Graph, neurons: set[str], result: Analysis) -> None:
    result.traffic = {
        t.name: Traffic.FRAMES if result.tensors[t.name] is Domain.TEMPORAL else Traffic.ANALOG for t in graph.inputs
    }
    for node in graph.nodes:
        carried = _traffic_out(node, node.name in neurons, result)
        result.traffic.update({t.name: carried for t in node.outputs if not is_missing(t)})


def _traffic_out(node: gs.Node, is_neuron: bool, result: Analysis) -> Traffic:
    if is_neuron:
        return Traffic.SPIKES
    incoming = {result.traffic.get(t.name, Traffic.ANALOG) for t in outer_inputs(node)}
    if Traffic.FRAMES in incoming and incoming <= _BEFORE_NEURONS and result.domains[node.name] is Domain.TEMPORAL:
        sized = spec_of(node).role is Role.SHAPE or (node.outputs and node.outputs[0].name in result.sizes)
        return Traffic.ANALOG if sized else Traffic.FRAMES
    if result.modes.get(node.name) is Form.MEAN:
        return Traffic.GRADED
    if incoming <= {Traffic.ANALOG}:
        return Traffic.ANALOG
    spec = spec_of(node)
    if spec.role is Role.SHAPE or (node.outputs and node.outputs[0].name in result.sizes):
        return Traffic.ANALOG
    readout = result.domains[node.name] is Domain.READOUT
    linear = is_linear(node, lambda t: result.traffic.get(t.name, Traffic.ANALOG) is not Traffic.ANALOG)
    passes = spec.keeps_spikes and (linear or (spec.role is Role.POOL and not readout))
    if passes and incoming <= {Traffic.ANALOG, Traffic.SPIKES} and not _mixes_in_analog(node, result):
        return Traffic.SPIKES
    return Traffic.READOUT if readout else Traffic.GRADED


def _mixes_in_analog(node: gs.Node, result: Analysis) -> bool:
    """Whether a sum or concatenation lets values through that are no spikes, or input changes what a spike is worth."""
    analog = [t for t in node_inputs(node) if result.traffic.get(t.name, Traffic.ANALOG) is Traffic.ANALOG]
    return bool(analog) if spec_of(node).linear_in is None else any(not isinstance(t, gs.Constant) for t in analog)


def _find_obstacles(graph: gs.Graph, neurons: set[str], result: Analysis) -> None:
    if not neurons:
        reason = (
            "nothing in it would spike: no activation, or other non-linear operator, depends on its input and feeds a "
        )
        result.obstacles.append(
            Obstacle(
                graph.name,
                "graph",
                f"{reason}weighted layer",
                "a linear network gains nothing from spikes: run it as it is",
            )
        )
    for node in graph.nodes:
        if result.domains[node.name] is not Domain.TEMPORAL:
            continue
        if spec_of(node).random:
            reason = "it gives other values in every run, and so would the spikes that come of it"
            remedy = "export the network for inference (evaluation mode), without random operators"
            result.obstacles.append(Obstacle(node.name, _op_name(node), reason, remedy))
        if _changes_size(node, result):
            reason = "how much comes out depends on the values that reach it, which change from timestep to timestep"
            remedy = "export the network without it, e.g. with a mask that sets to zero what is left out"
            result.obstacles.append(Obstacle(node.name, _op_name(node), reason, remedy))
        for tensor in node.outputs:
            if not is_missing(tensor) and tensor.type != "tensor_type" and _leaves_its_form(tensor, graph, result):
                reason = f"its output '{tensor.name}' is no tensor, and has no mean over time"
                remedy = "export the network without sequences and optional values between its layers"
                result.obstacles.append(Obstacle(node.name, _op_name(node), reason, remedy))


def _changes_size(node: gs.Node, result: Analysis) -> bool:
    """Whether a temporal node has outputs of another size at each timestep."""
    picked_by = node.inputs[1:2] if node.op == "Compress" else node.inputs
    over_time = any(result.tensors.get(t.name) is Domain.TEMPORAL for t in picked_by)
    return node.op in SIZED_BY_VALUES and node.domain in (None, "") and over_time


def _op_name(node: gs.Node) -> str:
    return str(node.op if node.domain in (None, "", "ai.onnx") else f"{node.domain}.{node.op}")


def _leaves_its_form(tensor: gs.Tensor, graph: gs.Graph, result: Analysis) -> bool:
    """Whether a temporal value would have to be converted, or decoded for the readout or the user."""
    if any(tensor is t for t in graph.outputs):
        return True
    form = result.forms.get(tensor.name)
    return any(result.modes.get(node.name) is not form for node in tensor.outputs)


def _varies(tensor: gs.Tensor, result: Analysis) -> bool:
    return result.tensors.get(tensor.name) is Domain.TEMPORAL and tensor.name not in result.sizes


def _find_fold_blockers(graph: gs.Graph, result: Analysis) -> None:
    for node in graph.nodes:
        domain = result.domains[node.name]
        if domain is Domain.STATIC or samplewise(node, lambda t: t.name in result.batched):
            continue
        line = f"node '{node.name}' ({node.op}) does not treat the samples of a batch one by one"
        (result.fold_blockers if domain is Domain.TEMPORAL else result.readout_blockers).append(line)


def _site(
    node: gs.Node, by_name: dict[str, gs.Node], result: Analysis, quantised: QuantisedActivation | None
) -> NeuronSite:
    current = node.inputs[0]
    shape = shape_of(current) or ()
    axis = channel_axis(current, by_name)
    size = shape[axis] if 0 < axis < len(shape) else None  # axis 0 can't hold channels: calibration sums over it
    return NeuronSite(
        node=node.name,
        input=current.name,
        output=node.outputs[0].name,
        activation=activation_of(node) or Activation("relu", float("inf")),
        form=result.modes[node.name],
        static_input=result.tensors.get(current.name, Domain.STATIC) is Domain.STATIC,
        channel_axis=axis,
        channels=size if isinstance(size, int) else None,
        rank=len(shape),
        dims=_dims_of_sample(current, result),
        quantised=quantised,
    )


def _dims_of_sample(tensor: gs.Tensor, result: Analysis) -> tuple[int, ...] | None:
    if tensor.name in result.batched or result.batch is None:
        return sample_dims(shape_of(tensor))
    return static_dims(shape_of(tensor)) if result.batch == 1 else None
