"""The walk of the calibration: layer by layer, ANN and SNN side by side; see `snncc.passes.calibrate`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Analysis, Domain, Form, NeuronSite, Traffic
from snncc.context import Context
from snncc.errors import DataError
from snncc.graph import is_missing
from snncc.passes.base import Progress
from snncc.passes.chunk_pool import ChunkPool
from snncc.passes.frontier import Entry, Frontier, Temporal
from snncc.passes.int8_layer import Int8Layer, bias_of, extremes, int8_layer
from snncc.passes.layer import Layer
from snncc.passes.layer_fit import FEW_SAMPLES, match
from snncc.passes.layer_sums import Sums, along, sums, total
from snncc.passes.neuron_fit import fit_neurons, fit_without_spikes
from snncc.passes.scaled import Scaled, add
from snncc.passes.store import Store
from snncc.passes.weight_fit import Layout, Rows, fitted_weight, presentations_held_back, with_weight
from snncc.runtime.carried import Carried
from snncc.runtime.forms import gains, running_mean
from snncc.runtime.increments import increments
from snncc.runtime.segments import Segment, SegmentRunner, Step, blocks, is_pool_over_time, plan, single
from snncc.runtime.session import Array


@dataclass(frozen=True)
class Entering:
    """What an input gives in one chunk of samples.

    Attributes:
        ann: what the ANN sees, [N, ...].
        snn: what the SNN sees over time, [T, N, ...], an array that is the walk's; None for what stays the same.
    """

    ann: Array
    snn: Array | None = None


class Walk:
    """One walk through the network over one set of data."""

    def __init__(
        self,
        graph: gs.Graph,
        ctx: Context,
        chunks: Sequence[Mapping[str, Entering]],
        pool: ChunkPool,
        store: Store,
        *,
        with_snn: bool,
        source: str,
    ) -> None:
        self.graph, self.ctx, self.config, self.pool = graph, ctx, ctx.config, pool
        self.with_snn, self.source = with_snn, source
        self.timesteps = ctx.config.period
        self.analysis: Analysis = ctx.analysis
        self.sites = {site.node: site for site in self.analysis.neurons}
        self.weighted = self._weighted_layers() if with_snn else set()
        self.steps = self._plan()
        self.store = store
        self.frontier = Frontier(self.steps, store)
        for tensor in graph.inputs:
            entering = [chunk[tensor.name] for chunk in chunks]
            snn: list[Temporal] = [e.snn for e in entering if e.snn is not None]
            # Without data the inputs are made up, and nothing of the SNN is run.
            self.frontier.put(tensor.name, Entry([e.ann for e in entering], snn or None))

    def _weighted_layers(self) -> set[str]:
        """Return the weighted layers whose input differs between ANN and SNN, up to the first non-linear readout."""
        layers = [layer for layer in self.analysis.layers if layer.learned]
        driven = {n.node for n in layers if n.driven_by in (Traffic.SPIKES, Traffic.GRADED)}
        # A Gemm whose bias is no constant can't be scaled as a whole.
        return {n.name for n in self.graph.nodes if n.name in driven and _has_constants(n)}

    def _plan(self) -> list[Step]:
        """Return the steps up to the last node that is calibrated."""
        steps = plan(self.graph, self.analysis, self._is_break)
        calibrated = self.weighted | self.sites.keys()
        last = max(i for i, s in enumerate(steps) if isinstance(s, gs.Node) and s.name in calibrated)
        return steps[: last + 1]

    def _is_break(self, node: gs.Node) -> bool:
        calibrated = node.name in self.sites or node.name in self.weighted
        return calibrated or is_pool_over_time(node, self.analysis)

    def run(self, progress: Progress | None) -> None:
        """Walk to the last layer that is calibrated, and tell about finished steps."""
        for number, step in enumerate(self.steps, 1):
            if isinstance(step, Segment):
                self._run_segment(step)
            elif step.name in self.sites:
                self._run_neuron(self.sites[step.name])
            elif step.name in self.weighted:
                self._run_weighted(step)
            else:
                self._run_pool(step)
            self.frontier.done(step)
            if progress is not None:
                progress(number, len(self.steps))

    def _run_segment(self, segment: Segment, over_time: Segment | None = None) -> dict[str, Entry]:
        """Run a segment in ANN and SNN, and in the SNN another one in its place where that is given."""
        if self._adds(segment):
            return self._run_addition(segment)
        runner = self._runner(segment)
        stepper = runner if over_time is None or over_time is segment else self._runner(over_time)
        names = [t.name for t in segment.inputs]
        temporal = {n for n in names if self.frontier[n].snn is not None}
        readout = segment.domain is Domain.READOUT
        timesteps, mode = (1, None) if readout else (self.timesteps, segment.mode)

        def work(chunk: int) -> tuple[dict[str, Array], dict[str, Array] | None]:
            ann = {name: self.frontier[name].ann[chunk] for name in names}
            result = self._kept(runner.run(ann))
            if not temporal:
                return result, None
            feeds = {n: (self._snn(n, chunk, mode) if n in temporal else ann[n]) for n in names}
            return result, self._kept(stepper.run_over_time(feeds, temporal, timesteps))

        results = self.pool.each(work)
        entries = {}
        for name in (t.name for t in segment.outputs):
            snn = [over_time[name] for _, over_time in results if over_time is not None]
            entries[name] = Entry([ann[name] for ann, _ in results], [*snn] if temporal else None)
            self.frontier.put(name, entries[name])
        return entries

    def _kept(self, values: Mapping[str, Array]) -> dict[str, Array]:
        return {name: self.store.keep(value) for name, value in values.items()}

    def _adds(self, segment: Segment) -> bool:
        """Whether a segment is the sum of two tensors of one shape that change over time, as at a residual's end."""
        node, *others = segment.nodes
        if others or node.op != "Add" or segment.domain is not Domain.TEMPORAL or len(segment.inputs) != 2:
            return False
        entries = [self.frontier[t.name] for t in segment.inputs]
        if any(self.analysis.needs_conversion(t.name, segment.mode, np.dtype(np.float32)) for t in segment.inputs):
            return False
        shapes = {tuple(a.shape for a in e.ann) for e in entries}
        return len(shapes) == 1 and all(e.snn is not None and e.ann[0].dtype == np.float32 for e in entries)

    def _run_addition(self, segment: Segment) -> dict[str, Entry]:
        """Add without ONNX Runtime: what is read is decoded or corrected on the way."""
        one, two = (self.frontier[t.name] for t in segment.inputs)

        def of_chunk(chunk: int) -> tuple[Array, NDArray[np.float32]]:
            a, b = (_scaled((entry.snn or [])[chunk]) for entry in (one, two))
            out, ann = self.store.take(a.shape), self.store.take(one.ann[chunk].shape)
            add(a, b, out)
            return np.add(one.ann[chunk], two.ann[chunk], out=ann), out

        results = self.pool.each(of_chunk)
        name = segment.outputs[0].name
        entry = Entry([ann for ann, _ in results], [snn for _, snn in results], owned=True)
        self.frontier.put(name, entry)
        return {name: entry}

    def _runner(self, segment: Segment) -> SegmentRunner:
        return SegmentRunner(self.graph, segment, self.analysis, self.pool.session_threads, self.store)

    def _snn(self, name: str, chunk: int, mode: Form | None) -> Temporal:
        """Return the SNN's values over time in a form, or for the readout (None) [1, N, ...] their mean over time."""
        value = (self.frontier[name].snn or [])[chunk]
        as_it_is = mode is not None and not self.analysis.needs_conversion(name, mode, np.dtype(np.float32))
        if isinstance(value, Scaled) and as_it_is:
            return value
        dtype = np.dtype(np.float32) if isinstance(value, Scaled) else value.dtype
        if len(value) == 1 or not self.analysis.needs_conversion(name, mode or Form.MEAN, dtype):
            return _dense(value) if mode is not None or len(value) == 1 else value[-1:]
        if mode is None:
            return np.asarray(_dense(value).mean(axis=0, keepdims=True))
        return self._in_blocks(value, running_mean if mode is Form.MEAN else gains)

    def _in_blocks(
        self, values: Temporal, work: Callable[[NDArray[np.float32], Carried | None, int], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Compute something over time [T, N, ...], block by block where all timesteps would take too much memory.

        Args:
            values: what it is computed of.
            work: computes it at some timesteps, given the values there, the state, and the number of those before.
        """
        steps = blocks(len(values), math.prod(values.shape[1:]))
        if len(steps) == 1:
            return self.store.keep(work(_dense(values), None, 0))
        carried: Carried = {}
        result: NDArray[np.float32] | None = None
        for block in steps:
            part = values[block]
            found = work(part, carried, block.start)
            if isinstance(values, Scaled):
                self.store.give(part)
            if result is None:
                result = self.store.take((len(values), *found.shape[1:]))
            result[block] = found
        return np.asarray(result)

    def _run_weighted(self, node: gs.Node) -> None:
        """Run one weighted layer and correct what it gives in the SNN."""
        inputs = tuple({t.name: t for t in node.inputs if not isinstance(t, gs.Constant)}.values())
        domain = self.analysis.domains[node.name]
        mode = self.analysis.modes.get(node.name, Form.STEP)
        segment = Segment(domain, (node,), inputs, (node.outputs[0],), mode)
        fitted = self._fit_weights(node, segment) if self.ctx.fit_weights else None
        rounded = int8_layer(node, self.ctx, fitted) if self.config.weights == "int8" else ""
        fitted = rounded.rounded() if isinstance(rounded, Int8Layer) else fitted
        over_time = segment if fitted is None else replace(segment, nodes=(with_weight(node, fitted),))
        entry = self._run_segment(segment, over_time)[node.outputs[0].name]
        if entry.snn is None:
            return
        self._check_finite(node.name, entry)
        rank = entry.ann[0].ndim
        axis = weighted_channel_axis(node, rank)

        def of_chunk(i: int) -> Sums:
            return sums(entry.ann[i], entry.temporal(i), axis, last=mode is Form.MEAN)

        def of_samples(i: int) -> list[Sums]:
            ann, snn = entry.ann[i], entry.temporal(i)
            each = [slice(n, n + 1) for n in range(len(ann))]
            return [sums(ann[n], snn[:, n], axis, last=mode is Form.MEAN) for n in each]

        few = rank > 0 and sum(map(len, entry.ann)) <= FEW_SAMPLES
        samples = [sample for chunk in self.pool.each(of_samples) for sample in chunk] if few else []
        values = total(samples or self.pool.each(of_chunk))
        correction = match(values, gain=self.config.gain_correction, samples=samples)
        if isinstance(rounded, Int8Layer) and axis is not None:
            lows, highs = zip(*self.pool.each(lambda i: extremes(entry.temporal(i), axis)), strict=True)
            low, high = np.min(lows, axis=0) - bias_of(node), np.max(highs, axis=0) - bias_of(node)
            low, high = low * correction.gain, high * correction.gain
            correction = replace(correction, low=low, high=high)
        self.ctx.corrections[node.name] = correction if fitted is None else replace(correction, weight=fitted)
        gain, shift = along(correction.gain, axis, rank), along(correction.shift, axis, rank)
        entry.snn = [Scaled(entry.temporal(i), gain, shift, self.store) for i in range(self.pool.chunks)]
        entry.matched = axis is not None

    def _fit_weights(self, node: gs.Node, segment: Segment) -> NDArray[np.float32] | None:
        """Return the weights that bring the layer's mean output nearest to the ANN's; None for those it has."""
        source, layout = node.inputs[0].name, Layout.of(node)
        if layout is None or self.frontier[source].snn is None or self.frontier[source].ann[0].ndim < 2:
            return None  # a vector has no samples to fit to
        runner = self._runner(segment)
        inputs = self.frontier[source].ann
        first = np.cumsum([0, *map(len, inputs)]).tolist()
        most = layout.positions(first[-1])

        def of_chunk(i: int) -> Rows:
            output = runner.run({source: inputs[i]})[node.outputs[0].name]
            return layout.rows(_dense(self._snn(source, i, None))[0], output, first[i], most)

        held = presentations_held_back(list(map(len, inputs)), self.config.timesteps // self.timesteps)
        return fitted_weight(layout, self.pool.each(of_chunk), held)

    def _run_pool(self, node: gs.Node) -> None:
        runner = SegmentRunner(self.graph, single(node), self.analysis, self.pool.session_threads)
        source, target = node.inputs[0].name, node.outputs[0].name
        entry = self.frontier[source]

        def pool_over_time(x: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.asarray(runner.run_over_time({source: x}, {source}, len(x))[target])

        def over_time(chunk: int) -> NDArray[np.float32]:
            values = self._snn(source, chunk, Form.STEP)
            return self._in_blocks(values, lambda x, carried, _: increments(x, pool_over_time, carried))

        result = Entry(self.pool.each(lambda i: self.store.keep(runner.run({source: entry.ann[i]})[target])))
        if entry.snn is not None:
            result.snn = [*self.pool.each(over_time)]
        self.frontier.put(target, result)

    def _run_neuron(self, site: NeuronSite) -> None:
        source = entry = self.frontier[site.input]
        self._check_finite(site.node, entry)
        if entry.snn is not None and self.analysis.needs_conversion(site.input, site.form, np.float32):
            entry = Entry(entry.ann, [*self.pool.each(lambda i: self._snn(site.input, i, site.form))])
        sensitivity = self.ctx.sensitivities.get(site.node)
        layer = Layer(site, entry, self.ctx.layer_config(site.node), self.pool, self.store, sensitivity)
        source.owned = source.owned and layer.owned  # or both the input and the output have its arrays
        if not self.with_snn:
            self.ctx.layers[site.node] = fit_without_spikes(layer, self.source)
            self.frontier.put(site.output, Entry([*layer.target], owned=layer.owned))
            return
        self.ctx.layers[site.node], effective, responses = fit_neurons(layer, self.source)
        shaped = layer.along(effective)
        trains: list[Temporal] = [Scaled(r.counts, shaped, buffers=self.store) for r in responses]
        self.frontier.put(site.output, Entry([*layer.target], trains, owned=layer.owned))

    def _check_finite(self, node: str, entry: Entry) -> None:
        if not all(self.pool.each(lambda i: _finite(entry.ann[i], self.timesteps))):
            raise DataError(
                f"NaN or infinite values arise at node '{node}' from the calibration data, or larger ones than single "
                "precision can add up: check the range of the data (scaling, mean and standard deviation) and the "
                "network's weights"
            )


def weighted_channel_axis(node: gs.Node, rank: int) -> int | None:
    """Return the axis of a weighted layer's output along which its weights can be scaled.

    None where only all of them can be: a vector of weights has no such axis, and axis 0 can't be told from samples.
    """
    if node.op != "MatMul":
        return 1
    on_the_left = isinstance(node.inputs[0], gs.Constant)
    axis = rank - 2 if on_the_left else rank - 1
    weight = node.inputs[0 if on_the_left else 1]
    return axis if axis > 0 and len(weight.shape) > 1 else None


def _has_constants(node: gs.Node) -> bool:
    return len(node.inputs) < 3 or is_missing(node.inputs[2]) or isinstance(node.inputs[2], gs.Constant)


def _scaled(values: Temporal) -> Scaled:
    return values if isinstance(values, Scaled) else Scaled(values, np.ones(1, np.float32))


def _dense(values: Temporal) -> NDArray[np.float32]:
    return values.decode() if isinstance(values, Scaled) else values


def _finite(values: Array, timesteps: int) -> bool:
    """Whether all values are finite, and so is what they add up to over the timesteps."""
    if not values.size:
        return True
    largest = max(float(values.max()), -float(values.min()))
    return largest * timesteps <= float(np.finfo(np.float32).max)  # False for NaN
