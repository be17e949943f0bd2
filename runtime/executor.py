"""Running an artifact in ONNX Runtime, plainly or with a look inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from snncc.analysis import Form
from snncc.artifact import FUNCTIONS_VERSION, used_functions
from snncc.errors import ArtifactError
from snncc.graph import DOMAIN, unique_name
from snncc.ops import Role, spec_of
from snncc.passes.analyse import analyse
from snncc.passes.fold_thresholds import units
from snncc.runtime.forms import running_mean
from snncc.runtime.presented import Presented
from snncc.runtime.readout import Readout
from snncc.runtime.reference import Simulation
from snncc.runtime.session import Array, Session
from snncc.runtime.unlower import NEURON_STEPS, is_time_scan, lowered_graph


class OrtExecutor:
    """The artifact as it is, in ONNX Runtime."""

    def __init__(self, model: onnx.ModelProto, threads: int = 0) -> None:
        self.session = Session(model, "the spiking network", threads)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch: by name, inputs [N, ...] to outputs."""
        return self.session.run(feeds)


class InstrumentedExecutor:
    """The artifact with extra outputs: the spikes of every layer, and what the readout reads over time."""

    def __init__(self, model: onnx.ModelProto, network: gs.Graph, timesteps: int, threads: int = 0) -> None:
        """Instrument an artifact.

        Args:
            model: the artifact.
            network: the same without time, as `unlower` returns it.
            timesteps: T.
            threads: threads for ONNX Runtime, 0 for one per core.
        """
        self.timesteps = timesteps
        self.outputs = [t.name for t in network.outputs]
        analysis = analyse(network)
        self._presented = Presented.of(network, analysis, timesteps)
        self._readout = Readout(network, analysis, threads)
        self._means = {name for name, form in analysis.forms.items() if form is Form.MEAN} | analysis.sizes
        axes = [0, 1] if analysis.separable else [0]
        self._probes = _Instrumented(model, self._readout.static, self._readout.temporal, axes)
        self._session = Session(self._probes.model, "the instrumented network", threads)

    def run(self, feeds: Mapping[str, Array], *, trace: bool = False) -> Simulation:
        """Run one batch and look inside; the result is that of `ReferenceSimulator.run`."""
        wanted = [*self.outputs, *self._probes.spikes, *self._probes.increments]
        if trace:
            wanted += [n for n in (*self._probes.leaving, *self._readout.static) if n not in wanted]
        values = self._session.run(feeds, wanted)
        samples = self._presented.samples(feeds)
        result = Simulation({name: values[name] for name in self.outputs}, samples=samples)
        result.spikes = {node: values[name].astype(np.float64) for name, node in self._probes.spikes.items()}
        result.increments = {node: values[name].astype(np.float64) for name, node in self._probes.increments.items()}
        if trace:
            result.trace = self._trace(feeds, values)
        return result

    def _trace(self, feeds: Mapping[str, Array], values: Mapping[str, Array]) -> dict[str, Array]:
        static = {n: v for n, v in feeds.items() if n not in self._presented.inputs}
        static |= {name: values[name] for name in self._readout.static}
        running = {}
        for probe, name in self._probes.leaving.items():
            folded = values[probe]
            unfolded = folded.reshape(self._presented.period, -1, *folded.shape[1:])
            if name not in self._means and folded.dtype.kind == "f":
                unfolded = running_mean(unfolded)
            running[name] = self._presented.running(unfolded)
        traced: dict[str, list[Array]] = {name: [] for name in self.outputs}
        for t in range(self.timesteps):
            done = self._readout.run({**static, **{name: value[t] for name, value in running.items()}})
            for name in self.outputs:
                traced[name].append(done.get(name, values[name]))
        return {name: np.stack(steps) for name, steps in traced.items()}


class _Instrumented:
    """An artifact with probes.

    Attributes:
        model: the model with extra outputs.
        spikes: name of the extra output -> neuron node.
        increments: name of the extra output -> MaxPool node.
        leaving: name of a temporal tensor [T*N, ...] that the readout reads the mean of -> its name in the network
            without time.
    """

    def __init__(
        self, model: onnx.ModelProto, static: Iterable[str], temporal: Iterable[str], summed: list[int]
    ) -> None:
        """Add the probes.

        Args:
            model: the artifact.
            static: tensors to expose as they are.
            temporal: names, in the network without time, of the temporal tensors to expose.
            summed: the axes of [T, N, ...] that the activity in a Scan is summed over.
        """
        self.graph = lowered_graph(model)
        self._units = units(self.graph)
        self.spikes: dict[str, str] = {}
        self.increments: dict[str, str] = {}
        self.leaving: dict[str, str] = {}
        self._summed = summed
        for node in list(self.graph.nodes):
            self._probe(node)
        tensors = self.graph.tensors()
        for name in static:
            self._expose(tensors[name])
        from_scan = {_name_without_time(t): t for t in tensors.values() if _is_folded(t)}
        for name in temporal:
            tensor = from_scan.get(name, tensors.get(name))
            if tensor is None:
                raise ArtifactError(f"the artifact has no tensor '{name}': compile the network again")
            tensor = self._in_values(tensor)
            self._expose(tensor)
            self.leaving[tensor.name] = name
        self.model = gs.export_onnx(self.graph, do_type_check=False)
        self.model.functions.extend(used_functions(self.graph))
        if not any(entry.domain == DOMAIN for entry in self.model.opset_import):
            self.model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, FUNCTIONS_VERSION))

    def _probe(self, node: gs.Node) -> None:
        if is_time_scan(node):
            self._probe_scan(node)
        elif spec_of(node).role is Role.NEURON:
            counts = self._counts(node.outputs[0], node)
            self.spikes[self._sum(counts, node.name, [0])] = node.name
        elif node.domain == DOMAIN and node.op == "MaxPoolIncrement":
            gained = self._absolute(self._in_values(node.outputs[0]))
            self.increments[self._sum(gained, node.name, [0])] = node.name

    def _probe_scan(self, scan: gs.Node) -> None:
        body = scan.attrs["body"]
        for node in [n for n in body.nodes if n.domain == DOMAIN and n.op in (*NEURON_STEPS, "MaxPoolIncrementStep")]:
            emit = gs.Variable(f"{node.name}.probe", dtype=np.float32)
            body.nodes.append(gs.Node("Identity", name=f"probe:{node.name}", inputs=[node.outputs[0]], outputs=[emit]))
            body.outputs.append(emit)
            stacked = gs.Variable(unique_name(self.graph, f"{node.name}.probe"), dtype=np.float32)
            scan.outputs.append(stacked)
            if node.op in NEURON_STEPS:
                self.spikes[self._sum(self._counts(stacked, node), node.name, self._summed)] = node.name
            else:
                self.increments[self._sum(self._absolute(stacked), node.name, self._summed)] = node.name

    def _add(self, op: str, inputs: list[gs.Tensor], base: str) -> gs.Tensor:
        result = gs.Variable(unique_name(self.graph, f"{base}.{op.lower()}"), dtype=np.float32)
        self.graph.nodes.append(gs.Node(op, name=result.name, inputs=inputs, outputs=[result]))
        return result

    def _in_values(self, tensor: gs.Tensor) -> gs.Tensor:
        """Return a tensor that may be counts in the unit that it has in the network without time."""
        unit = self._units.get(tensor.name)
        if unit is None:
            return tensor
        gain = gs.Constant(unique_name(self.graph, f"{tensor.name}.unit"), unit.astype(np.float32))
        return self._add("Mul", [tensor, gain], tensor.name)

    def _counts(self, spikes: gs.Tensor, neuron: gs.Node) -> gs.Tensor:
        if spikes.name in self._units:
            return spikes if neuron.op.startswith("BurstIF") else self._absolute(spikes)
        theta = neuron.inputs[1].values * np.float32(neuron.attrs["threshold_ratio"])
        divisor = gs.Constant(unique_name(self.graph, f"{neuron.name}.theta"), theta.astype(np.float32))
        signed = self._add("Round", [self._add("Div", [spikes, divisor], neuron.name)], neuron.name)
        return signed if neuron.op in ("BurstIF", "BurstIFStep") else self._absolute(signed)

    def _absolute(self, values: gs.Tensor) -> gs.Tensor:
        return self._add("Abs", [values], values.name)

    def _sum(self, values: gs.Tensor, base: str, axes: list[int]) -> str:
        over = gs.Constant(unique_name(self.graph, f"{base}.axes"), np.array(axes, np.int64))
        total = gs.Variable(unique_name(self.graph, f"{base}.total"), dtype=np.float32)
        node = gs.Node("ReduceSum", name=total.name, attrs={"keepdims": 0}, inputs=[values, over], outputs=[total])
        self.graph.nodes.append(node)
        self.graph.outputs.append(total)
        return str(total.name)

    def _expose(self, tensor: gs.Tensor) -> None:
        if all(tensor is not t for t in self.graph.outputs):
            tensor.dtype = tensor.dtype or np.float32
            self.graph.outputs.append(tensor)


def _is_folded(tensor: gs.Tensor) -> bool:
    """Whether a tensor is what a Scan over the timesteps emits, with time folded into its first axis."""
    fold = tensor.inputs[0] if tensor.inputs else None
    return fold is not None and fold.op == "Reshape" and any(is_time_scan(n) for n in fold.inputs[0].inputs)


def _name_without_time(folded: gs.Tensor) -> str:
    """Return what a folded tensor from a Scan is called in the network without time; see `unlower`."""
    stacked = folded.inputs[0].inputs[0]
    scan = stacked.inputs[0]
    emitted = scan.attrs["body"].outputs[scan.outputs.index(stacked)]
    return str(emitted.inputs[0].inputs[0].name)
