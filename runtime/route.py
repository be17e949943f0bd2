"""How a network without time is walked through: its steps in order, what they read, and what runs them."""

from __future__ import annotations

import collections
import itertools
from concurrent.futures import Executor

import onnx_graphsurgeon as gs

from snncc.analysis import Analysis, Domain, Form
from snncc.graph import outer_inputs
from snncc.ops import Role, is_frames, is_linear, spec_of
from snncc.runtime.buffers import BufferPool
from snncc.runtime.chain import Chain, Job
from snncc.runtime.coded_plan import coded_plan
from snncc.runtime.coded_run import CodedRunner
from snncc.runtime.fused_neurons import FusedNeurons
from snncc.runtime.int8_conv import Parallel
from snncc.runtime.parameters import NeuronParameters
from snncc.runtime.readout import Readout, ReadoutPlan
from snncc.runtime.segments import Segment, SegmentRunner, Step, is_pool_over_time, plan, reads, single


class Route:
    """How a network without time (as `unlower` returns it) is walked through.

    Attributes:
        analysis: the network's analysis.
        coded: what runs on 8-bit codes.
        static: the steps before the first neuron.
        temporal: those that run at every timestep.
        groups: the same, those on counts that follow each other as chains.
        leaving: names of the temporal tensors of which the mean over time is wanted in the end.
        outputs: names of the network's outputs.
        splits: whether samples can go apart.
        needs_constant: a node or output that makes sense only while the input doesn't change; None if there is none.
        frames: names of the inputs that present a frame at each timestep.
        period: timesteps after which all neurons start anew; None if they never do.
    """

    def __init__(self, graph: gs.Graph, analysis: Analysis) -> None:
        self.graph, self.analysis = graph, analysis
        self.neurons = {site.node for site in analysis.neurons}
        self.coded = coded_plan(graph, analysis)
        steps = [s for s in plan(graph, analysis, self._is_break) if not self._is_elsewhere(s)]
        self.static = [s for s in steps if isinstance(s, Segment) and s.domain is Domain.STATIC]
        self.temporal = [s for s in steps if not isinstance(s, Segment) or s.domain is Domain.TEMPORAL]
        self.fused = {n.name: FusedNeurons(NeuronParameters.of(n)) for n in graph.nodes if n.name in self.neurons}
        readout = ReadoutPlan(graph, analysis)
        self.outputs = [t.name for t in graph.outputs]
        self.leaving = {*readout.temporal, *(n for n in self.outputs if self.is_temporal(n))}
        self.reads = {id(step): self._reads(step) for step in steps}
        self.readers = collections.Counter(name for step in self.temporal for name in self.reads[id(step)])
        self.kept = self.leaving | set(self.outputs) | {t.name for t in graph.inputs}
        self.static_kept = {*self.kept, *self.readers, *readout.static}
        self.groups = self._groups()
        # Outputs that samples share are those of the whole batch.
        apart = not analysis.readout_blockers and analysis.batched.issuperset(self.outputs)
        self.splits = analysis.foldable and apart
        self.needs_constant = _needs_constant(graph, analysis)
        marks = [node for node in graph.nodes if is_frames(node)]
        self.frames = tuple(node.inputs[0].name for node in marks)
        periods = [int(n.attrs["period"]) for n in marks if n.attrs["period"] < n.attrs["timesteps"]]
        self.period = periods[0] if periods else None

    def _is_break(self, node: gs.Node) -> bool:
        coded = node.name in self.coded.layers or node.name in self.coded.inside
        return coded or node.name in self.neurons or is_pool_over_time(node, self.analysis)

    def _is_elsewhere(self, step: Step) -> bool:
        """Whether a step is no step of its own: it runs with the neuron behind it."""
        return not isinstance(step, Segment) and step.name in self.coded.inside

    def _groups(self) -> list[Step | Chain]:
        """Return the temporal steps, those on counts that follow each other as chains."""

        def is_chained(step: Step) -> bool:
            return not isinstance(step, Segment) and self.coded.chained(step.name) is not None

        groups: list[Step | Chain] = []
        for chained, steps in itertools.groupby(self.temporal, is_chained):
            found = list(steps)
            groups += [self._chain([s for s in found if not isinstance(s, Segment)])] if chained else found
        return groups

    def _chain(self, nodes: list[gs.Node]) -> Chain:
        jobs = []
        for node in nodes:
            layer = self.coded.chained(node.name)
            if layer is not None:
                reads = self.coded.terms.get(node.name, (node.inputs[0].name,))
                jobs.append(Job(node.name, layer, reads, node.outputs[0].name))
        read = [name for node in nodes for name in self.reads[id(node)]]
        inside = collections.Counter(read)
        made = {job.writes for job in jobs}
        chain = Chain(jobs, {n for n in made if n in self.kept or self.readers[n] > inside[n]})
        self.reads[id(chain)] = read
        return chain

    def _reads(self, step: Step) -> list[str]:
        terms = () if isinstance(step, Segment) else self.coded.terms.get(step.name, ())
        return list(dict.fromkeys(terms)) or reads(step)

    def has_session(self, step: Step) -> bool:
        """Whether ONNX Runtime runs a step, or takes part in it."""
        return isinstance(step, Segment) or not (step.name in self.neurons or self.coded.runs(step.name))

    def is_temporal(self, name: str) -> bool:
        """Whether a tensor has a value for each timestep."""
        return self.analysis.tensors.get(name) is Domain.TEMPORAL


def _needs_constant(graph: gs.Graph, analysis: Analysis) -> str | None:
    """Return a node that reads what is static together with means over time, so that a static value must be one too.

    A current, or what is added to currents, may be another one at each timestep.
    """

    def is_static(tensor: gs.Tensor) -> bool:
        return analysis.tensors.get(tensor.name) is Domain.STATIC and not isinstance(tensor, gs.Constant)

    for node in graph.nodes:
        if analysis.domains[node.name] is Domain.STATIC or not any(is_static(t) for t in outer_inputs(node)):
            continue
        current = spec_of(node).role is Role.NEURON or is_linear(node, lambda t: not isinstance(t, gs.Constant))
        if analysis.modes.get(node.name) is not Form.STEP or not current:
            return f"node '{node.name}'"
    return next((f"output '{t.name}'" for t in graph.outputs if is_static(t)), None)


class Runners:
    """What runs the pieces of a route between its neurons: sessions with a number of threads each, and codes."""

    def __init__(
        self, route: Route, threads: int, buffers: BufferPool, parallel: Parallel, pool: Executor | None = None
    ) -> None:
        self.buffers, self.on_codes = buffers, CodedRunner(route.coded, buffers, parallel)
        self.threads, self.pool = threads, pool

        def runner(step: Step) -> SegmentRunner:
            segment = step if isinstance(step, Segment) else single(step)
            return SegmentRunner(route.graph, segment, route.analysis, threads, buffers, apart=True)

        steps = [s for s in (*route.static, *route.temporal) if route.has_session(s)]
        self.by_step = {id(step): runner(step) for step in steps}
        self.readout = Readout(route.graph, route.analysis, threads, apart=route.splits)
