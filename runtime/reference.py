"""The reference simulator: the network stepped through time, neuron state in NumPy arrays.

Independent of the artifact's ONNX functions and of how time was lowered: it takes the network without time
(`snncc.runtime.unlower`), runs the linear pieces between the neurons one timestep at a time, and advances each neuron
by equations 2-4 of "Bursting Spikes" as they are printed. Slow and simple: what the other executors are held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Domain
from snncc.graph import constant
from snncc.neurons.burst_if import step as neuron_step
from snncc.ops import Role, spec_of
from snncc.passes.analyse import analyse
from snncc.runtime.segments import Segment, SegmentRunner, plan
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
    """

    outputs: dict[str, Array]
    trace: dict[str, Array] = field(default_factory=dict)
    spikes: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    increments: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    samples: int = 0


class _Neuron:
    """State of one layer of neurons."""

    def __init__(self, node: gs.Node) -> None:
        theta, v_init = constant(node.inputs[1]), constant(node.inputs[2])
        if theta is None or v_init is None:
            raise ValueError(f"node '{node.name}' has no constant threshold and initial potential")
        self.theta = theta.astype(np.float32) * np.float32(node.attrs["threshold_ratio"])
        self.v_init = np.float32(v_init)
        self.max_burst = int(node.attrs["max_burst"])
        self.v_mem: NDArray[np.floating] | None = None

    def advance(self, current: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self.v_mem is None:
            self.v_mem = np.broadcast_to(self.v_init * self.theta, current.shape).astype(np.float32)
        count, self.v_mem = neuron_step(current, self.v_mem, self.theta, self.max_burst)
        return np.asarray(count * self.theta, np.float32), np.asarray(count, np.float32)


class ReferenceSimulator:
    """Simulates a network without time (as `unlower` returns it)."""

    def __init__(self, graph: gs.Graph, timesteps: int) -> None:
        self.graph, self.timesteps = graph, timesteps
        self.analysis = analyse(graph)
        self._neurons = {site.node for site in self.analysis.neurons}
        self._steps = plan(graph, self.analysis, self._is_break)
        self._runners = {
            id(step): SegmentRunner(graph, step if isinstance(step, Segment) else _single(step), self.analysis)
            for step in self._steps
            if isinstance(step, Segment) or step.name not in self._neurons
        }

    def _is_break(self, node: gs.Node) -> bool:
        if node.name in self._neurons:
            return True
        return spec_of(node).role is Role.RATE and self.analysis.domains[node.name] is Domain.TEMPORAL

    def run(self, feeds: Mapping[str, Array], *, trace: bool = False) -> Simulation:
        """Run one batch.

        Args:
            feeds: by input name, [N, ...].
            trace: also run the readout on the running mean after each timestep.
        """
        values: dict[str, Array] = dict(feeds)
        for step in self._steps:
            if isinstance(step, Segment) and step.domain is Domain.STATIC:
                values.update(self._runners[id(step)].run(values))
        result = Simulation({}, samples=len(next(iter(feeds.values()))))
        totals = self._step_through(values, result, trace)
        decoded = {name: total / np.float32(self.timesteps) for name, total in totals.items()}
        result.outputs = self._readout({**values, **decoded})
        return result

    def _step_through(self, values: dict[str, Array], result: Simulation, trace: bool) -> dict[str, Array]:
        """Run all timesteps and return the sums over time of the temporal tensors that the readout reads."""
        neurons = {n.name: _Neuron(n) for n in self.graph.nodes if n.name in self._neurons}
        cumulative: dict[str, Array] = {}
        wanted = self._leaving()
        totals: dict[str, Array] = {}
        traced: dict[str, list[Array]] = {}
        for t in range(1, self.timesteps + 1):
            now = dict(values)
            for step in self._steps:
                if isinstance(step, Segment):
                    if step.domain is Domain.TEMPORAL:
                        now.update(self._runners[id(step)].run(now))
                elif step.name in neurons:
                    spikes, count = neurons[step.name].advance(now[step.inputs[0].name])
                    now[step.outputs[0].name] = spikes
                    self._add(result.spikes, step.name, count)
                else:
                    gained = self._increment(step, now, cumulative)
                    now[step.outputs[0].name] = gained
                    self._add(result.increments, step.name, np.abs(gained))
            for name in wanted:
                totals[name] = totals[name] + now[name] if name in totals else now[name]
            if trace:
                running = {name: total / np.float32(t) for name, total in totals.items()}
                for name, value in self._readout({**values, **running}).items():
                    traced.setdefault(name, []).append(value)
        result.trace = {name: np.stack(steps) for name, steps in traced.items()}
        return totals

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


def _single(node: gs.Node) -> Segment:
    return Segment(Domain.TEMPORAL, (node,), (node.inputs[0],), (node.outputs[0],))
