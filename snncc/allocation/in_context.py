"""Sensitivity of one layer with all other layers spiking at the uniform configuration: the authors' way.

The compiled network is cut at the layer. What reaches it is computed once; each candidate's neurons are simulated over
all timesteps, and the rest of the spiking network is run on what they emit. That costs about T times as much as to
leave the other layers as in the ANN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.allocation.metric import Distance
from snncc.allocation.sensitivity import LayerJob, Score
from snncc.allocation.suffix import cut_behind
from snncc.artifact import used_functions
from snncc.config import Config
from snncc.data import Dataset
from snncc.errors import UsageError
from snncc.graph import DOMAIN, constant
from snncc.network import SpikingNetwork
from snncc.neurons.burst_if import simulate
from snncc.neurons.signed_burst import simulate as signed_simulate
from snncc.passes.fold_thresholds import unfold_thresholds
from snncc.passes.layer_sums import along
from snncc.passes.pattern_thresholds import initial_potential
from snncc.passes.scaled import Scaled
from snncc.runtime.segments import submodel
from snncc.runtime.session import Array, Session
from snncc.runtime.unlower import lowered_graph
from snncc.sequences import mean_over


class InContext:
    """The compiled uniform configuration, ready to be cut at any layer."""

    def __init__(self, network: SpikingNetwork, data: Dataset, config: Config) -> None:
        """Prepare.

        Args:
            network: the uniform configuration, compiled.
            data: calibration data.
            config: its options.

        Raises:
            UsageError: its time isn't folded into the batch axis, so it can't be cut.
        """
        if any(node.op_type == "Scan" and node.name for node in network.model.graph.node):
            raise UsageError(
                "this network steps through time in a Scan, where its layers can't be scored with the others spiking: "
                "search with --sensitivity uneven, or compile it without a search"
            )
        self._config = config.of_a_period()
        self._batches = list(data.batches(data.inputs[0].batch or config.batch_size))
        self._graph = lowered_graph(network.model)
        unfold_thresholds(self._graph)
        self._functions = used_functions(self._graph)
        self._opsets = list(network.model.opset_import)
        self._v_init = {layer.name: layer.v_init for layer in network.record.layers}

    def scores(self, job: LayerJob) -> list[Score]:
        """Score the candidates of a layer, like `LayerJob.scores`."""
        neuron = next(n for n in self._graph.nodes if n.name == job.site.node)
        output = neuron.outputs[0].name
        behind = {n.name for n in cut_behind(self._graph, output, ()).nodes}
        cut = cut_behind(self._graph, output, (n.name for n in self._graph.nodes if n.name not in behind))
        before = [n for n in self._graph.nodes if n.name not in behind and n is not neuron]
        reads = list({t.name: t for t in (neuron.inputs[0], *cut.inputs)}.values())
        inputs = {t.name: t for t in self._graph.inputs}
        made = [t for t in reads if t.name not in inputs]
        prefix = self._session(before, list(inputs.values()), made)
        suffix = self._session(cut.nodes, [*cut.inputs, neuron.outputs[0]], cut.outputs)
        count = len(job.neurons.theta)
        dims = job.currents[0].shape[1:]
        fan_out = job.fan_out
        distance = Distance(job.class_output, count)
        spikes = np.zeros((count, *dims))
        pooled: dict[str, NDArray[np.float64]] = {}
        for feeds, of_each in zip(self._batches, job.outputs, strict=True):
            expected = {name: mean_over(value, job.count) for name, value in of_each.items()}
            values = {**feeds, **prefix.run(feeds)}
            for number in range(count):
                counts, graded = self._spikes(job, neuron, values[neuron.inputs[0].name], number)
                found = suffix.run({**values, output: graded})
                which = slice(number, number + 1)
                distance.add(expected, {name: value[None] for name, value in found.items()}, which)
                emitted = counts.sum(axis=0, dtype=np.float32)
                spikes[which] += emitted.sum(axis=0, dtype=np.float64)
                for name, passed in fan_out.pooled(emitted[None]).items():
                    pooled.setdefault(name, np.zeros((count, *passed.shape[1:])))[which] += passed
        samples = sum(len(current) for current in job.currents) / job.count
        operations = fan_out.operations(spikes / samples, {name: value / samples for name, value in pooled.items()})
        each = spikes.reshape(count, -1).sum(axis=1) / samples
        return [Score(*map(float, row)) for row in zip(distance.loss(), each, operations, strict=True)]

    def _spikes(
        self, job: LayerJob, neuron: gs.Node, current: Array, number: int
    ) -> tuple[NDArray[np.integer[Any]], NDArray[np.float32]]:
        """Simulate one candidate; return counts [T, N, ...] and graded spikes [T*N, ...]."""
        site, timesteps = job.site, self._config.timesteps
        theta, max_burst = job.neurons.theta[number], int(job.neurons.max_burst[number])
        axis = site.channel_axis if len(theta) > 1 else None
        unit = along(theta, axis, current.ndim)
        arriving, v_init = current.reshape(timesteps, -1, *current.shape[1:]), self._v_init[site.node]
        if neuron.op == "BurstIF":
            # A part of the initial potential reaches the neuron as current; in the bias it stands for the uniform θe.
            deferred = initial_potential(site, self._config) - v_init
            uniform = np.asarray(constant(neuron.inputs[1]), np.float32).reshape(-1)
            uniform = uniform * np.float32(neuron.attrs["threshold_ratio"])
            shift = along((theta - uniform) * (deferred / timesteps), axis, current.ndim)
            response = simulate(arriving, unit, timesteps, max_burst, v_init, shift)
        else:  # the current of a signed neuron was matched to the ANN's without regard to its threshold
            upper, means = float(neuron.attrs.get("upper", np.inf)), site.activation.encodes
            response = signed_simulate(arriving, unit, timesteps, max_burst, v_init, upper=upper, means=means)
        graded = Scaled(response.counts, unit).decode().reshape(current.shape)
        return np.abs(response.counts), graded

    def _session(
        self,
        nodes: list[gs.Node] | tuple[gs.Node, ...],
        inputs: list[gs.Tensor] | tuple[gs.Tensor, ...],
        outputs: list[gs.Tensor] | tuple[gs.Tensor, ...],
    ) -> Session:
        model = submodel(self._graph, nodes, inputs, outputs)
        model.functions.extend(self._functions)
        del model.opset_import[:]
        model.opset_import.extend(self._opsets)
        return Session(model, f"a part of the spiking network (domain {DOMAIN})")
