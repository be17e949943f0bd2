"""The fused executor: the network layer by layer over all timesteps, each part by what does it fastest.

Linear pieces between neurons run in ONNX Runtime with time folded into the batch axis, into arrays that are used again
and again. Neurons are one compiled loop over all timesteps, in place. Samples go through in chunks small enough for the
cache, several chunks side by side; what is static is computed once, and so is what follows the last neuron.

Layers with 8-bit weights run on whole numbers, and so do the neurons and pools around them, channels last: see
`snncc.runtime.coded_plan`.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Analysis, Domain, Form
from snncc.passes.analyse import analyse
from snncc.runtime.buffers import BufferPool
from snncc.runtime.coded_plan import coded_plan
from snncc.runtime.coded_run import CodedRunner
from snncc.runtime.forms import gains, running_mean
from snncc.runtime.fused_neurons import FusedNeurons
from snncc.runtime.increments import absolute_sum, increments
from snncc.runtime.int8_conv import Coded, Parallel, alone
from snncc.runtime.parameters import NeuronParameters
from snncc.runtime.readout import Readout
from snncc.runtime.reference import Simulation
from snncc.runtime.segments import Segment, SegmentRunner, Step, is_pool_over_time, plan, reads, single
from snncc.runtime.session import Array
from snncc.runtime.threads import available_cores

_SAMPLES = 8
"""Samples of a chunk."""

_PARTS = 4
"""Parts that a layer is cut into for each thread: on a busy machine one is soon done and another isn't."""
_LEAST = 48
"""Least items of a part, and what their number is a multiple of: whole tiles of `snncc.runtime.int8_tile`."""


class FusedExecutor:
    """Simulates a network without time (as `unlower` returns it) whose time can be folded into the batch axis.

    The spikes are those of `ReferenceSimulator`, up to the rounding of the linear pieces.
    """

    def __init__(self, graph: gs.Graph, timesteps: int, threads: int = 0) -> None:
        """Prepare the pieces; their sessions are opened when they are first needed.

        Args:
            graph: the network.
            timesteps: T.
            threads: threads for everything, 0 for one per core.

        Raises:
            ValueError: time can't be folded, or samples of a batch are mixed; see `runs`.
        """
        self.graph, self.timesteps = graph, timesteps
        self.threads = threads or available_cores()
        self.analysis = analyse(graph)
        if not runs(self.analysis):
            raise ValueError("this network needs another executor")
        self.outputs = [t.name for t in graph.outputs]
        self._neurons = {site.node for site in self.analysis.neurons}
        self._coded = coded_plan(graph, self.analysis)
        steps = plan(graph, self.analysis, self._is_break)
        self._steps = [s for s in steps if not self._is_elsewhere(s)]
        self._fused = {n.name: FusedNeurons(NeuronParameters.of(n)) for n in graph.nodes if n.name in self._neurons}
        self._readout = Readout(graph, self.analysis)
        self._leaving = set(self._readout.temporal)
        self._leaving |= {n for n in self.outputs if self.analysis.tensors.get(n) is Domain.TEMPORAL}
        self._reads = {id(step): self._read_by(step) for step in self._steps}
        self._readers = collections.Counter(name for names in self._reads.values() for name in names)
        self._kept = self._leaving | set(self._readout.static) | set(self.outputs) | {t.name for t in graph.inputs}
        # Outputs that samples share are those of the whole batch.
        self._splits = not self.analysis.readout_blockers and self.analysis.batched.issuperset(self.outputs)
        self._buffers = BufferPool()
        self._on_codes = CodedRunner(self._coded, timesteps, self._buffers)
        self._pool = ThreadPoolExecutor(self.threads, "snncc-fused")
        self._opened: dict[int, dict[int, SegmentRunner]] = {}

    def _is_break(self, node: gs.Node) -> bool:
        coded = node.name in self._coded.layers or node.name in self._coded.sums
        return coded or node.name in self._neurons or is_pool_over_time(node, self.analysis)

    def _read_by(self, step: Step) -> list[str]:
        terms = () if isinstance(step, Segment) else self._coded.terms.get(step.name, ())
        return list(dict.fromkeys(terms)) or reads(step)

    def _is_elsewhere(self, step: Step) -> bool:
        """Whether a step is no step of its own: the readout, or a sum that the neuron behind it makes."""
        if isinstance(step, Segment):
            return step.domain is Domain.READOUT
        return step.name in self._coded.sums

    def _runs_alone(self, step: Step) -> bool:
        """Whether a step needs no ONNX Runtime."""
        if isinstance(step, Segment):
            return False
        coded = self._coded
        return step.name in self._neurons or step.name in coded.layers or step.name in coded.pools

    def run(self, feeds: Mapping[str, Array], *, trace: bool = False) -> Simulation:
        """Run one batch; see `ReferenceSimulator.run`."""
        samples = len(next(iter(feeds.values())))
        size = min(_SAMPLES, -(-samples // self.threads)) if self._splits else samples
        chunks = [{k: v[start : start + size] for k, v in feeds.items()} for start in range(0, samples, size)]
        single_chunk = len(chunks) == 1
        runners = self._runners(self.threads if single_chunk else 1)
        parallel = self._parallel if single_chunk else alone
        work = [_Chunk(self, chunk, runners, trace, parallel) for chunk in chunks]
        parts = [work[0].run()] if single_chunk else list(self._pool.map(_Chunk.run, work))
        return _joined(parts, samples)

    def _parallel(self, work: Callable[[int, int], None], items: int) -> None:
        """Run work on parts of the items, side by side; not from within the pool."""
        size = max(_LEAST, -(-items // (self.threads * _PARTS)))
        starts = range(0, items, -(-size // _LEAST) * _LEAST)
        list(self._pool.map(work, starts, [min(start + starts.step, items) for start in starts]))

    def _runners(self, threads: int) -> dict[int, SegmentRunner]:
        """Return what runs the steps that are no neurons, by their identity; opened with the first batch."""
        if threads not in self._opened:
            steps = [s for s in self._steps if not self._runs_alone(s)]
            self._opened[threads] = {
                id(step): SegmentRunner(
                    self.graph,
                    step if isinstance(step, Segment) else single(step),
                    self.analysis,
                    threads,
                    self._buffers,
                )
                for step in steps
            }
        return self._opened[threads]


def runs(analysis: Analysis) -> bool:
    """Whether a network can be run by the fused executor."""
    return analysis.foldable and analysis.separable


@dataclass
class _Chunk:
    """A few samples on their way through the network."""

    executor: FusedExecutor
    feeds: dict[str, Array]
    runners: Mapping[int, SegmentRunner]
    trace: bool
    parallel: Parallel
    values: dict[str, Any] = field(default_factory=dict)
    result: Simulation = field(default_factory=lambda: Simulation({}))

    def run(self) -> Simulation:
        owner = self.executor
        self.values.update(self.feeds)
        left = dict(owner._readers)
        for step in owner._steps:
            if isinstance(step, Segment):
                self._run_segment(step)
            elif step.name in owner._coded.neurons:
                self._run_coded_neuron(step)
            elif step.name in owner._neurons:
                self._run_neuron(step, left)
            elif step.name in owner._coded.layers:
                self._run_layer(step)
            elif step.name in owner._coded.pools:
                self._run_coded_pool(step)
            else:
                self._run_pool(step)
            for name in owner._reads[id(step)]:
                left[name] -= 1
                if not left[name] and name not in owner._kept:
                    self._drop(name)
        self._finish()
        return self.result

    def _is_temporal(self, name: str) -> bool:
        return self.executor.analysis.tensors.get(name) is Domain.TEMPORAL

    def _in_form(self, name: str, form: Form) -> Array:
        value = self.values[name]
        value = self.executor._on_codes.dense(value) if isinstance(value, Coded) else value
        if not self._is_temporal(name) or not self.executor.analysis.needs_conversion(name, form, value.dtype):
            return value
        return running_mean(value) if form is Form.MEAN else gains(value)

    def _run_segment(self, segment: Segment) -> None:
        runner = self.runners[id(segment)]
        names = [t.name for t in segment.inputs]
        if segment.domain is Domain.STATIC:
            self.values.update(runner.run({n: self.values[n] for n in names}))
            return
        feeds = {name: self._in_form(name, segment.mode) for name in names}
        temporal = {name for name in names if self._is_temporal(name)}
        self.values.update(runner.run_over_time(feeds, temporal, self.executor.timesteps))

    def _run_neuron(self, node: gs.Node, left: Mapping[str, int]) -> None:
        owner, source = self.executor, node.inputs[0].name
        value = self._in_form(source, owner.analysis.modes[node.name])
        if not self._is_temporal(source):
            value = value[None]
        mine = value is self.values[source] and left[source] == 1 and source not in owner._kept
        spikes = value if mine else owner._buffers.take((owner.timesteps, *value.shape[1:]))
        self.result.spikes[node.name] = owner._fused[node.name].fire(value, spikes)
        self.values[node.outputs[0].name] = spikes
        if mine:
            del self.values[source]

    def _run_coded_neuron(self, node: gs.Node) -> None:
        terms = []
        for name in self.executor._coded.terms[node.name]:
            value = self.values[name]
            if not isinstance(value, Coded):
                value = self._in_form(name, Form.STEP)
                value = value if self._is_temporal(name) else value[None]
            terms.append(value)
        coded, spikes = self.executor._on_codes.neurons(node.name, terms, self.parallel)
        self.values[node.outputs[0].name], self.result.spikes[node.name] = coded, spikes

    def _run_layer(self, node: gs.Node) -> None:
        source = self.values[node.inputs[0].name]
        self.values[node.outputs[0].name] = self.executor._on_codes.layer(node.name, source, self.parallel)

    def _run_coded_pool(self, node: gs.Node) -> None:
        coded, passed = self.executor._on_codes.pool(node.name, self.values[node.inputs[0].name])
        self.values[node.outputs[0].name], self.result.increments[node.name] = coded, passed

    def _run_pool(self, node: gs.Node) -> None:
        owner, source, target = self.executor, node.inputs[0].name, node.outputs[0].name
        runner = self.runners[id(node)]

        def pooled(x: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.asarray(runner.run_over_time({source: x}, {source}, owner.timesteps)[target])

        gained = increments(np.asarray(self._in_form(source, Form.STEP)), pooled)
        self.values[target] = gained
        self.result.increments[node.name] = absolute_sum(gained)

    def _drop(self, name: str) -> None:
        value = self.values.pop(name, None)
        array = value.values if isinstance(value, Coded) else value
        if array is not None and self._is_temporal(name) and (array.dtype == np.float32 or array is not value):
            self.executor._buffers.give(array)

    def _finish(self) -> None:
        """Run the readout on the means over time; with a trace, on those after each timestep too."""
        owner = self.executor
        means = {n: self._in_form(n, Form.MEAN) for n in owner._leaving}
        static = {n: v for n, v in self.values.items() if n not in means}
        last = {n: (v[-1] if self._is_temporal(n) else v) for n, v in means.items()}
        self.result.outputs = self._outputs({**static, **last})
        if self.trace:
            steps = [
                self._outputs({**static, **{n: (v[t] if self._is_temporal(n) else v) for n, v in means.items()}})
                for t in range(owner.timesteps)
            ]
            self.result.trace = {name: np.stack([s[name] for s in steps]) for name in owner.outputs}
        for name in [n for n in self.values if self._is_temporal(n)]:
            self._drop(name)

    def _outputs(self, values: dict[str, Array]) -> dict[str, Array]:
        owner = self.executor
        done = {**values, **owner._readout.run(dict(values))}
        constants = {t.name: t.values for t in owner.graph.outputs if isinstance(t, gs.Constant)}
        return {name: np.array(constants[name] if name in constants else done[name]) for name in owner.outputs}


def _joined(parts: list[Simulation], samples: int) -> Simulation:
    first = parts[0]
    if len(parts) == 1:
        first.samples = samples
        return first
    result = Simulation({n: np.concatenate([p.outputs[n] for p in parts]) for n in first.outputs}, samples=samples)
    result.trace = {n: np.concatenate([p.trace[n] for p in parts], axis=1) for n in first.trace}
    result.spikes = {n: np.sum([p.spikes[n] for p in parts], axis=0) for n in first.spikes}
    result.increments = {n: np.sum([p.increments[n] for p in parts], axis=0) for n in first.increments}
    return result
