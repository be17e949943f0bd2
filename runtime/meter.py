"""The meter: spikes, synaptic operations and energy.

A burst of k is k spikes wherever spikes are counted. A synaptic operation is one spike times one of the weights that it
meets: the fan-out is counted exactly, borders of convolutions included, by sending the spike counts through the layer
with all of its weights set to one. On the way from a neuron to the weights, pooling, reshaping and sums pass spikes on:
average pooling forwards each of them, so what follows meets each of them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Analysis, Traffic
from snncc.graph import FLOAT_OF, constant, is_missing
from snncc.ops import Role, spec_of
from snncc.passes.analyse import analyse
from snncc.runtime.presented import Presented
from snncc.runtime.reference import Simulation
from snncc.runtime.segments import Exporter
from snncc.runtime.session import Session


@dataclass(frozen=True)
class EnergyProfile:
    """What operations cost.

    Attributes:
        name: name of the profile.
        mac: joules per multiply-accumulate.
        ac: joules per accumulate (a synaptic operation).
        spike: joules per spike emitted, on top.
        source: where the numbers come from.
    """

    name: str
    mac: float
    ac: float
    spike: float
    source: str


CMOS_45NM = EnergyProfile(
    "45nm", 4.6e-12, 0.9e-12, 0.0, "Horowitz, ISSCC 2014: 32-bit float multiply 3.7 pJ + add 0.9 pJ, 45 nm CMOS"
)
SPIKES = EnergyProfile(
    "spikes",
    12.5e-12,
    0.0,
    77e-15,
    "energy in proportion to the spikes, whatever their fan-out, as the paper compares SNNs. The factor is ours to "
    "choose: 77 fJ, which the ROLLS chip takes for one synaptic event (Qiao et al. 2015); 12.5 pJ per operation of the "
    "ANN is 80 GFLOP/s per watt (Hu et al. 2018)",
)
PROFILES = {profile.name: profile for profile in (CMOS_45NM, SPIKES)}


@dataclass(frozen=True)
class LayerActivity:
    """Activity of one layer of neurons, per sample.

    Attributes:
        name: the neuron's node.
        neurons: number of neurons.
        spikes: spikes over all timesteps.
        firing_rate: spikes per neuron and timestep.
    """

    name: str
    neurons: int
    spikes: float
    firing_rate: float


@dataclass(frozen=True)
class LayerOperations:
    """Operations of one weighted layer, per sample.

    Attributes:
        name: the node.
        op: its operator.
        driven_by: "spikes", "graded", "frames", "analog" or "readout".
        macs: multiply-accumulates of the ANN; where neurons start anew within a sample, of all that it sees of it.
        synaptic_operations: accumulates caused by spikes over all timesteps; 0 where no spikes arrive.
        snn_macs: multiply-accumulates that the SNN needs because no spikes arrive.
    """

    name: str
    op: str
    driven_by: str
    macs: int
    synaptic_operations: float
    snn_macs: float


@dataclass(frozen=True)
class Reading:
    """What the meter shows, per sample.

    Attributes:
        timesteps: T.
        neurons: a row per layer of neurons.
        layers: a row per weighted layer.
        mean_timesteps: timesteps that were run, on average; T if no sample may leave early.
    """

    timesteps: int
    neurons: tuple[LayerActivity, ...]
    layers: tuple[LayerOperations, ...]
    mean_timesteps: float | None = None

    @property
    def spikes(self) -> float:
        """Spikes of the whole network."""
        return sum(n.spikes for n in self.neurons)

    @property
    def neuron_count(self) -> int:
        """Neurons of the whole network."""
        return sum(n.neurons for n in self.neurons)

    @property
    def firing_rate(self) -> float:
        """Spikes per neuron and timestep, over the whole network."""
        return self.spikes / max(self.neuron_count * (self.mean_timesteps or self.timesteps), 1)

    @property
    def synaptic_operations(self) -> float:
        """Synaptic operations of the whole network."""
        return sum(layer.synaptic_operations for layer in self.layers)

    @property
    def ann_macs(self) -> int:
        """Multiply-accumulates of the ANN."""
        return sum(layer.macs for layer in self.layers)

    @property
    def snn_macs(self) -> float:
        """Multiply-accumulates that remain in the SNN."""
        return sum(layer.snn_macs for layer in self.layers)

    def energy(self, profile: EnergyProfile) -> tuple[float, float]:
        """Return the energy of the ANN and of the SNN under a profile, in joules."""
        snn = self.synaptic_operations * profile.ac + self.snn_macs * profile.mac + self.spikes * profile.spike
        return self.ann_macs * profile.mac, snn


class Meter:
    """Adds up the activity of simulated batches and turns it into operations and energy."""

    def __init__(self, network: gs.Graph, timesteps: int) -> None:
        """Prepare to measure a network without time (as `unlower` returns it)."""
        self.network, self.timesteps = network, timesteps
        self.analysis = analyse(network)
        self._presented = Presented.of(network, self.analysis, timesteps)
        self.samples = 0
        self._steps = 0  # timesteps that were run, over all samples
        self._early = False
        self._batch = 0  # samples of one run, where they can't be told apart
        self._spikes: dict[str, NDArray[np.float64]] = {}
        self._increments: dict[str, NDArray[np.float64]] = {}

    def add(self, batch: Simulation) -> None:
        """Add the activity of a batch."""
        self._batch = self._batch or batch.samples
        self.samples += batch.samples
        self._steps += batch.samples * self.timesteps if batch.exits is None else int(batch.exits.sum())
        self._early = self._early or batch.exits is not None
        for name, values in batch.spikes.items():
            self._spikes[name] = self._spikes.get(name, 0.0) + values
        for name, values in batch.increments.items():
            self._increments[name] = self._increments.get(name, 0.0) + values

    def reading(self) -> Reading:
        """Return the activity per sample, of what was run: a sample that left early needs nothing from then on."""
        count = max(self.samples, 1)
        steps = self._steps / count if self._early else self.timesteps
        neurons = []
        for site in self.analysis.neurons:
            spikes = self._spikes[site.node]
            per_sample = float(spikes.sum()) / count
            size = spikes.size if self.analysis.separable else spikes.size // self._batch
            neurons.append(LayerActivity(site.node, size, per_sample, per_sample / (size * steps)))
        operations = self._operations(count)
        layers = []
        for layer in self.analysis.layers:
            macs = layer.macs or 0
            # Who may leave after any timestep must look at the readout after each.
            often = dict.fromkeys((Traffic.GRADED, Traffic.FRAMES), steps)
            often |= {Traffic.SPIKES: 0, Traffic.READOUT: steps if self._early else 1}
            times = often.get(layer.driven_by, 1)
            done = operations.get(layer.node, 0.0)
            ann = macs * self._presented.count  # the ANN sees each presentation
            layers.append(LayerOperations(layer.node, layer.op, layer.driven_by.value, ann, done, float(macs * times)))
        return Reading(self.timesteps, tuple(neurons), tuple(layers), steps)

    def _operations(self, count: int) -> dict[str, float]:
        events = {
            node.outputs[0].name: self._events(node, count)
            for node in self.network.nodes
            if self.analysis.traffic[node.outputs[0].name] is Traffic.SPIKES
            and (node.name in self._spikes or node.name in self._increments)
        }
        model, names = event_model(self.network, self.analysis, {n: e.shape for n, e in events.items()})
        if not names:
            return {}
        session = Session(model, "the meter's event network", threads=1)
        values = session.run({name: events[name].astype(np.float32) for name in session.inputs})
        return {node: float(values[output]) for node, output in names.items()}

    def _events(self, node: gs.Node, count: int) -> NDArray[np.float64]:
        """Return the spikes that a neuron or a MaxPool emits per sample, [1, ...] (all samples where they mix)."""
        emitted = self._spikes.get(node.name, self._increments.get(node.name, np.zeros(0))) / count
        emitted = emitted[None] if self.analysis.separable else emitted
        if node.name in self._spikes:
            return emitted
        found = _thresholds_behind(node.inputs[0], set())
        if len(found) == 1 and _broadcasts(found[0].shape, emitted.shape):
            return np.asarray(emitted / found[0])
        return np.asarray(emitted / min((float(t.min()) for t in found), default=1.0))


def _thresholds_behind(tensor: gs.Tensor, seen: set[str]) -> list[NDArray[np.float64]]:
    """Return the effective thresholds of the neurons whose spikes arrive at a MaxPool, by channel where that is known.

    Where spikes of several thresholds arrive, the smallest must stand for all: the count then errs on the high side.
    """
    if tensor.name in seen or not tensor.inputs:
        return []
    seen.add(tensor.name)
    node = tensor.inputs[0]
    spec = spec_of(node)
    theta = constant(node.inputs[1]) if spec.role is Role.NEURON else None
    if theta is not None:
        return [theta.astype(np.float64) * float(node.attrs["threshold_ratio"])]
    found = [theta for t in node.inputs if not isinstance(t, gs.Constant) for theta in _thresholds_behind(t, seen)]
    if node.op == "Transpose":
        return [theta.transpose(node.attrs.get("perm")) for theta in found]
    # What moves the channels elsewhere leaves no more than one threshold for all of them.
    return found if spec.channel_axis == "same" else [np.full([1] * theta.ndim, theta.min()) for theta in found]


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return np.prod(shape) == 1 or (
        len(shape) == len(target) and all(a in (1, b) for a, b in zip(shape, target, strict=True))
    )


def event_model(
    network: gs.Graph, analysis: Analysis, sources: Mapping[str, tuple[int, ...]]
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Build the network that counts synaptic operations: spike counts in, a sum per weighted layer out.

    Args:
        network: the network without time.
        analysis: its analysis.
        sources: by tensor name, the shape [1, ...] of the spike counts that enter there.

    Returns:
        The model, whose inputs bear the names of `sources`, and the name of the output for each weighted node that
        spikes reach.
    """
    builder = _EventBuilder(analysis, set(sources))
    for node in network.nodes:
        builder.visit(node)
    graph = onnx.helper.make_graph(
        builder.nodes,
        "events",
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, list(s)) for n, s in sources.items()],
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, []) for n in builder.sums.values()],
        initializer=list(builder.initializers.values()),
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", network.opset)])
    model.ir_version = max(8, network.ir_version or 8)
    return model, builder.sums


class _EventBuilder:
    """Rewrites nodes so that they move counts instead of values."""

    def __init__(self, analysis: Analysis, sources: set[str]) -> None:
        self.analysis, self.known = analysis, sources
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.sums: dict[str, str] = {}

    def visit(self, node: gs.Node) -> None:
        if node.outputs and node.outputs[0].name in self.known:
            return
        inputs = [t for t in node.inputs if not is_missing(t)]
        counted = [t for t in inputs if t.name in self.known]
        role = spec_of(node).role
        if not counted:
            return
        if role is Role.WEIGHTED:
            if any(isinstance(t, gs.Constant) for t in node.inputs[:2]):
                self._weighted(node)
        elif self.analysis.traffic.get(node.outputs[0].name) is Traffic.SPIKES:
            self._pass_on(node, counted)

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.initializers.setdefault(name, onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def _weighted(self, node: gs.Node) -> None:
        inputs = []
        for index, tensor in enumerate(node.inputs[:2]):
            if isinstance(tensor, gs.Constant):
                ones = np.ones(tensor.shape, np.float32)
                inputs.append(self._constant(f"{node.name}.ones.{index}", ones))
            else:
                inputs.append(tensor.name)
        attributes = {k: v for k, v in node.attrs.items() if k not in ("alpha", "beta")}
        copy = gs.Node(FLOAT_OF.get(node.op, node.op), name=node.name, attrs=attributes)
        proto = Exporter.export_node(copy)
        proto.input.extend(inputs)
        proto.output.append(f"{node.name}.reached")
        self.nodes.append(proto)
        total = f"{node.name}.operations"
        self.nodes.append(onnx.helper.make_node("ReduceSum", [f"{node.name}.reached"], [total], keepdims=0))
        self.sums[node.name] = total

    def _pass_on(self, node: gs.Node, counted: list[gs.Tensor]) -> None:
        output = node.outputs[0].name
        names = [t.name for t in counted]
        if node.op in ("Add", "Sub", "Sum", "Mean"):
            self.nodes.append(onnx.helper.make_node("Sum", names, [output]))
        elif node.op in ("Mul", "Div", "Neg", "Identity"):
            self.nodes.append(onnx.helper.make_node("Identity", names[:1], [output]))
        elif node.op == "AveragePool":
            self._sum_pool(node, output)
        elif node.op in ("GlobalAveragePool", "ReduceMean", "ReduceSum"):
            self._reduce(node, output)
        else:
            self._same(node)
        self.known.update(t.name for t in node.outputs if not is_missing(t))

    def _sum_pool(self, node: gs.Node, output: str) -> None:
        """Sum the counts of each window: a depthwise convolution with ones."""
        kernel = [int(k) for k in node.attrs["kernel_shape"]]
        attributes = {k: v for k, v in node.attrs.items() if k not in ("ceil_mode", "count_include_pad")}
        if node.attrs.get("ceil_mode", 0):
            # Enough padding at the end for one more window wherever a part of one would be left over.
            strides = node.attrs.get("strides", [1] * len(kernel))
            pads = list(node.attrs.get("pads", [0] * (2 * len(kernel))))
            attributes["pads"] = pads[: len(kernel)] + [
                p + s - 1 for p, s in zip(pads[len(kernel) :], strides, strict=True)
            ]
        channels = int(node.inputs[0].shape[1])
        ones = self._constant(f"{output}.ones", np.ones((channels, 1, *kernel), np.float32))
        attributes["group"] = channels
        inputs = [node.inputs[0].name, ones]
        self.nodes.append(onnx.helper.make_node("Conv", inputs, [output], **attributes))

    def _reduce(self, node: gs.Node, output: str) -> None:
        if node.op == "GlobalAveragePool":
            rank = len(node.inputs[0].shape)
            axes = self._constant(f"{output}.axes", np.arange(2, rank, dtype=np.int64))
            self.nodes.append(onnx.helper.make_node("ReduceSum", [node.inputs[0].name, axes], [output], keepdims=1))
            return
        proto = Exporter.export_node(node)
        proto.op_type = "ReduceSum"
        kept = [a for a in proto.attribute if a.name != "axes"]
        if len(kept) < len(proto.attribute):
            axes = self._constant(f"{output}.axes", np.array(node.attrs["axes"], np.int64))
            del proto.input[1:]
            proto.input.append(axes)
            del proto.attribute[:]
            proto.attribute.extend(kept)
        for tensor in node.inputs[1:]:
            if isinstance(tensor, gs.Constant):
                self._constant(tensor.name, tensor.values)
        self.nodes.append(proto)

    def _same(self, node: gs.Node) -> None:
        """Shape operators move counts as they move values; padding adds none."""
        proto = Exporter.export_node(node)
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant):
                value = np.zeros_like(tensor.values) if node.op == "Pad" and index == 2 else tensor.values
                name = f"{node.name}.constant.{index}"
                proto.input[index] = self._constant(name, value)
        self.nodes.append(proto)
