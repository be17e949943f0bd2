"""The reference simulator: the network stepped through time, neuron state in NumPy arrays.

Independent of the artifact's ONNX functions and of how time was lowered: it takes the network without time
(`snncc.runtime.unlower`), runs the pieces between the neurons one timestep at a time, and advances each burst neuron by
equations 2-4 of "Bursting Spikes" as they are printed. Slow and simple: what the other executors are held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Analysis, Domain, Form
from snncc.neurons.burst_if import step as neuron_step
from snncc.neurons.signed_burst import step as signed_step
from snncc.passes.analyse import analyse
from snncc.runtime.parameters import NeuronParameters
from snncc.runtime.presented import Presented
from snncc.runtime.segments import Segment, SegmentRunner, is_pool_over_time, plan, single
from snncc.runtime.session import Array


@dataclass
class Simulation:
    """What a run of a spiking network gave.

    Attributes:
        outputs: by name, the network's outputs [N, ...].
        trace: by name, the running mean after each timestep [T, N, ...]; empty where it wasn't asked for.
        spikes: by neuron node, spikes per neuron summed over timesteps and samples, float64 [...] (one sample's shape).
            Where a network of fixed batch mixes its samples (`Analysis.separable`), summed over timesteps only.
        increments: the same for each MaxPool between neurons: the sum of what it passed on, absolute.
        samples: N.
        exits: where samples may leave early, the number of timesteps that were run for each, [N].
    """

    outputs: dict[str, Array]
    trace: dict[str, Array] = field(default_factory=dict)
    spikes: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    increments: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    samples: int = 0
    exits: NDArray[np.int64] | None = None


class _Neuron:
    """State of one layer of neurons."""

    def __init__(self, parameters: NeuronParameters) -> None:
        self.op, self.theta, self.v_init = parameters.op, parameters.theta, parameters.v_init
        self.max_burst, self.upper = parameters.max_burst, parameters.upper
        self.state: NDArray[np.floating] | None = None  # v_mem, or the number of spikes of a signed neuron
        self.total: NDArray[np.floating] | None = None

    def advance(self, value: NDArray[np.float32], t: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Take a current, or the mean of a value over t timesteps; return graded spikes and their number."""
        if self.op == "BurstIF":
            if self.state is None:
                self.state = np.broadcast_to(self.v_init * self.theta, value.shape).astype(np.float32)
            count, self.state = neuron_step(value, self.state, self.theta, self.max_burst)
        else:
            aim, before = self._aim(value, t), np.float32(0) if self.state is None else self.state
            count, self.state = signed_step(aim, np.asarray(before), self.theta, self.max_burst, float(self.v_init))
        return np.asarray(count * self.theta, np.float32), np.asarray(count, np.float32)

    def _aim(self, value: NDArray[np.float32], t: int) -> NDArray[np.float32]:
        """Return t·f(m[t]): what the spikes so far should add up to."""
        if self.op == "SignedBurst":
            return np.where(np.isfinite(value), value, np.float32(0)) * np.float32(t)
        self.total = value if self.total is None else self.total + value
        return np.minimum(np.maximum(self.total, 0), self.upper * np.float32(t)).astype(np.float32)


class _Forms:
    """Changes tensors from what arrives at a timestep to the mean so far, and back; once per timestep and tensor."""

    def __init__(self) -> None:
        self._totals: dict[str, Array] = {}
        self._before: dict[str, Array] = {}

    def mean(self, name: str, value: Array, t: int) -> Array:
        self._totals[name] = self._totals[name] + value if name in self._totals else value
        return np.asarray(self._totals[name] / np.float32(t))

    def step(self, name: str, value: Array, t: int) -> Array:
        gained = np.where(np.isfinite(value), value, np.float32(0)) * np.float32(t)
        result = gained - self._before[name] if name in self._before else gained
        self._before[name] = gained
        return np.asarray(result)


class _Now:
    """The tensors at one timestep, each in its own form, and in the other one where that is asked for."""

    def __init__(self, static: Mapping[str, Array], forms: _Forms, analysis: Analysis, t: int) -> None:
        self.values = dict(static)
        self._forms, self._analysis, self._t = forms, analysis, t
        self._converted: dict[tuple[str, Form], Array] = {}

    def get(self, name: str, form: Form) -> Array:
        value = self.values[name]
        if not self._analysis.needs_conversion(name, form, value.dtype):
            return value
        if (name, form) not in self._converted:
            convert = self._forms.mean if form is Form.MEAN else self._forms.step
            self._converted[name, form] = convert(name, value, self._t)
        return self._converted[name, form]


class ReferenceSimulator:
    """Simulates a network without time (as `unlower` returns it)."""

    def __init__(self, graph: gs.Graph, timesteps: int, threads: int = 0) -> None:
        """Load the pieces between the neurons, with a number of threads each; 0 for one per core."""
        self.graph, self.timesteps = graph, timesteps
        self.analysis = analyse(graph)
        self._presented = Presented.of(graph, self.analysis, timesteps)
        self._neurons = {site.node for site in self.analysis.neurons}
        self._steps = plan(graph, self.analysis, self._is_break)
        self._runners = {
            id(step): SegmentRunner(graph, step if isinstance(step, Segment) else single(step), self.analysis, threads)
            for step in self._steps
            if isinstance(step, Segment) or step.name not in self._neurons
        }

    def _is_break(self, node: gs.Node) -> bool:
        return node.name in self._neurons or is_pool_over_time(node, self.analysis)

    def run(self, feeds: Mapping[str, Array], *, trace: bool = False) -> Simulation:
        """Run one batch.

        Args:
            feeds: by input name, [N, ...]; [T, N, ...] where frames are presented.
            trace: also run the readout on the running mean after each timestep.
        """
        presented = self._presented
        values: dict[str, Array] = presented.feeds(feeds)
        for step in self._steps:
            if isinstance(step, Segment) and step.domain is Domain.STATIC:
                values.update(self._runners[id(step)].run(values))
        result = Simulation({}, samples=presented.samples(feeds))
        over_time = self._step_through(values, result, trace)
        static = presented.once(values)
        means = {name: presented.running(np.stack(steps)) for name, steps in over_time.items()}
        result.outputs = self._readout({**static, **{name: value[-1] for name, value in means.items()}})
        if trace:
            traced = [
                self._readout({**static, **{name: value[t] for name, value in means.items()}})
                for t in range(self.timesteps)
            ]
            result.trace = {name: np.stack([step[name] for step in traced]) for name in result.outputs}
        return result

    def _step_through(self, values: dict[str, Array], result: Simulation, trace: bool) -> dict[str, list[Array]]:
        """Run all timesteps from one start of the neurons to the next.

        Return the means over the timesteps so far of the temporal tensors that the readout reads, after each timestep
        if a trace is wanted or they are needed for the mean over several presentations, else the last ones.
        """
        neurons = {n.name: _Neuron(NeuronParameters.of(n)) for n in self.graph.nodes if n.name in self._neurons}
        cumulative: dict[str, Array] = {}
        forms = _Forms()
        wanted = self._leaving()
        leaving: dict[str, list[Array]] = {name: [] for name in wanted}
        static = {name: value for name, value in values.items() if name not in self._presented.inputs}
        for t in range(1, self._presented.period + 1):
            frames = {name: values[name][t - 1] for name in self._presented.inputs}
            now = _Now({**static, **frames}, forms, self.analysis, t)
            for step in self._steps:
                if isinstance(step, Segment):
                    if step.domain is Domain.TEMPORAL:
                        feeds = {tensor.name: now.get(tensor.name, step.mode) for tensor in step.inputs}
                        now.values.update(self._runners[id(step)].run(feeds))
                elif step.name in neurons:
                    value = now.get(step.inputs[0].name, self.analysis.modes[step.name])
                    spikes, count = neurons[step.name].advance(value, t)
                    now.values[step.outputs[0].name] = spikes
                    self._add(result.spikes, step.name, np.abs(count))
                else:
                    gained = self._increment(step, now.values, cumulative)
                    now.values[step.outputs[0].name] = gained
                    self._add(result.increments, step.name, np.abs(gained))
            for name in wanted:
                value = now.get(name, Form.MEAN)
                leaving[name] = [*leaving[name], value] if trace or self._presented.count > 1 else [value]
        return leaving

    def _increment(self, node: gs.Node, now: Mapping[str, Array], cumulative: dict[str, Array]) -> Array:
        source, target = node.inputs[0].name, node.outputs[0].name
        before = cumulative.get(node.name, np.zeros_like(now[source]))
        cumulative[node.name] = before + now[source]
        run = self._runners[id(node)].run
        return np.asarray(run({source: cumulative[node.name]})[target] - run({source: before})[target])

    def _add(self, sums: dict[str, NDArray[np.float64]], name: str, values: Array) -> None:
        total = values.sum(axis=0, dtype=np.float64) if self.analysis.separable else values.astype(np.float64)
        sums[name] = sums[name] + total if name in sums else total

    def _leaving(self) -> list[str]:
        names = {t.name for t in self.graph.outputs}
        for step in self._steps:
            if isinstance(step, Segment) and step.domain is Domain.READOUT:
                names.update(t.name for t in step.inputs)
        return [n for n in sorted(names) if self.analysis.tensors.get(n) is Domain.TEMPORAL]

    def _readout(self, values: dict[str, Array]) -> dict[str, Array]:
        values = dict(values)
        for step in self._steps:
            if isinstance(step, Segment) and step.domain is Domain.READOUT:
                values.update(self._runners[id(step)].run(values))
        return {t.name: t.values if isinstance(t, gs.Constant) else values[t.name] for t in self.graph.outputs}
