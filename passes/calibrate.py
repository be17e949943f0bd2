"""Calibration: thresholds of minimum squared error, bias and gain correction, in one walk through the network.

Layer by layer in topological order, the activations of the ANN and of the SNN (whose earlier layers already spike with
their final thresholds and corrections) stand side by side at the frontier.

1. At each weighted layer, a factor and a shift per channel give the SNN's output the ANN's standard deviation and mean.
2. At each neuron, θ per channel minimises the squared error between the closed form and the ANN's activation, and the
   mean error that is left in the output becomes a shift of the current (Li et al. 2021, bias calibration).

Each layer is computed once: the cost is about 1 + T forward passes over the calibration set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Analysis, Domain, NeuronSite, Traffic
from snncc.context import Context, LayerCalibration
from snncc.data import Dataset, InputSpec, load
from snncc.errors import DataError
from snncc.graph import is_missing
from snncc.ops import Role, spec_of
from snncc.passes.base import Pass
from snncc.passes.frontier import Entry, Frontier, SpikeTrain, Temporal
from snncc.passes.layer_fit import LayerFit, along, by_channel, from_channels, match, sums, thresholds
from snncc.passes.moments import gaussian_histogram, propagate_moments
from snncc.runtime.segments import Segment, SegmentRunner, Step, increments, plan
from snncc.runtime.session import Array

_MOST_GENERATED = 1 << 28
"""Most values of one input that are made up: a gigabyte of float32."""

Progress = Callable[[int, int], None]
"""Called with the number of finished and of all steps."""


@dataclass(frozen=True)
class Calibrate(Pass):
    """Fill `ctx.layers` for every neuron and `ctx.corrections`; the graph stays as it is.

    Attributes:
        progress: told about finished steps.
    """

    progress: Progress | None = None

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Calibrate on `ctx.calibration`; without data, from BatchNormalization moments and generated inputs."""
        if ctx.calibration is not None:
            _Walk(graph, ctx, ctx.calibration, with_snn=ctx.config.bias_correction, source="data").run(self.progress)
        else:
            _without_data(graph, ctx, self.progress)
        return False


def _without_data(graph: gs.Graph, ctx: Context, progress: Progress | None) -> None:
    sites = ctx.analysis.neurons
    moments = propagate_moments(graph, ctx.batchnorm)
    for site in sites:
        if site.input in moments:
            histogram = gaussian_histogram(moments[site.input], site.activation.upper)
            config = ctx.layer_config(site.node)
            theta = thresholds(histogram, site, config)
            ctx.layers[site.node] = LayerCalibration(
                theta,
                "batchnorm",
                config.v_init,
                max_burst=config.max_burst,
                threshold_ratio=config.threshold_ratio,
            )
    missing = [site for site in sites if site.node not in ctx.layers]
    if not missing:
        ctx.warn(
            "no calibration data: thresholds come from BatchNormalization statistics, which assume normally "
            "distributed currents, and biases are not corrected. Expect a lower accuracy than with --calib"
        )
        return
    known = dict(ctx.layers)
    _Walk(graph, ctx, generate_inputs(graph), with_snn=False, source="generated").run(progress)
    ctx.layers.update(known)
    ctx.warn(
        f"no calibration data: the thresholds of {len(missing)} of {len(sites)} layers come from random inputs "
        "(standard normal), which say little about real ones, and biases are not corrected. The accuracy may be "
        "anything: give --calib for a network that you mean to use"
    )


def generate_inputs(graph: gs.Graph, samples: int = 64, seed: int = 0) -> Dataset:
    """Make standard normal inputs of the network's shapes (zeros for integer inputs).

    Raises:
        DataError: a size other than the batch is not fixed, so that no input can be made up.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for tensor in graph.inputs:
        shape = list(tensor.shape or [])
        if not shape or any(not isinstance(d, int) or d <= 0 for d in shape[1:]):
            raise DataError(
                f"input '{tensor.name}' has no fixed size {shape}, so no inputs can be generated: "
                "give calibration data with --calib"
            )
        fixed = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else 1
        size = (samples // fixed * fixed or fixed, *shape[1:])
        if math.prod(size) > _MOST_GENERATED:
            raise DataError(
                f"input '{tensor.name}' is too large {shape} for generated inputs: give calibration data with --calib"
            )
        dtype = np.dtype(tensor.dtype)
        arrays[tensor.name] = rng.standard_normal(size).astype(dtype) if dtype.kind == "f" else np.zeros(size, dtype)
    specs = [InputSpec(t.name, np.dtype(t.dtype), tuple(t.shape)) for t in graph.inputs]
    return load(arrays, specs)


class _Walk:
    """One walk through the network over one set of data."""

    def __init__(self, graph: gs.Graph, ctx: Context, data: Dataset, *, with_snn: bool, source: str) -> None:
        self.graph, self.ctx, self.config = graph, ctx, ctx.config
        self.with_snn, self.source = with_snn, source
        self.analysis: Analysis = ctx.analysis
        self.sites = {site.node: site for site in self.analysis.neurons}
        self.weighted = self._weighted_layers() if with_snn else set()
        self.steps = self._plan()
        self.frontier = Frontier(self.steps)
        chunks = list(data.batches(_chunk_size(graph, ctx.config.batch_size)))
        self.chunks = len(chunks)
        for tensor in graph.inputs:
            self.frontier.put(tensor.name, Entry([chunk[tensor.name] for chunk in chunks]))

    def _weighted_layers(self) -> set[str]:
        """Return the weighted layers whose input differs between ANN and SNN, up to the first non-linear readout."""
        driven = {n.node for n in self.analysis.layers if n.driven_by in (Traffic.SPIKES, Traffic.GRADED)}
        # A Gemm whose bias is no constant can't be scaled as a whole.
        return {n.name for n in self.graph.nodes if n.name in driven and _has_constants(n)}

    def _plan(self) -> list[Step]:
        """Return the steps up to the last node that is calibrated."""
        steps = plan(self.graph, self.analysis, self._is_break)
        calibrated = self.weighted | self.sites.keys()
        last = max(i for i, s in enumerate(steps) if isinstance(s, gs.Node) and s.name in calibrated)
        return steps[: last + 1]

    def _is_break(self, node: gs.Node) -> bool:
        if node.name in self.sites or node.name in self.weighted:
            return True
        return spec_of(node).role is Role.RATE and self.analysis.domains[node.name] is Domain.TEMPORAL

    def run(self, progress: Progress | None) -> None:
        for number, step in enumerate(self.steps, 1):
            if isinstance(step, Segment):
                self._run_segment(step)
            elif step.name in self.sites:
                self._run_neuron(self.sites[step.name])
            elif step.name in self.weighted:
                self._run_weighted(step)
            else:
                self._run_rate(step)
            self.frontier.done(step)
            if progress is not None:
                progress(number, len(self.steps))

    def _run_segment(self, segment: Segment) -> dict[str, Entry]:
        runner = SegmentRunner(self.graph, segment, self.analysis)
        names = [t.name for t in segment.inputs]
        temporal = {n for n in names if self.frontier[n].snn is not None}
        timesteps = 1 if segment.domain is Domain.READOUT else self.config.timesteps
        results = {t.name: Entry([], [] if temporal else None) for t in segment.outputs}
        for chunk in range(self.chunks):
            ann = {name: self.frontier[name].ann[chunk] for name in names}
            for name, value in runner.run(ann).items():
                results[name].ann.append(value)
            if temporal:
                feeds = {n: (self._snn(n, chunk, timesteps) if n in temporal else ann[n]) for n in names}
                for name, value in runner.run_over_time(feeds, temporal, timesteps).items():
                    _append(results[name], value)
        for name, entry in results.items():
            self.frontier.put(name, entry)
        return results

    def _snn(self, name: str, chunk: int, timesteps: int) -> NDArray[np.float32]:
        """Return the SNN's values over time, or for the readout [1, N, ...] their mean over time."""
        values = self.frontier[name].temporal(chunk)
        return values if timesteps > 1 or len(values) == 1 else values.mean(axis=0, keepdims=True)

    def _run_weighted(self, node: gs.Node) -> None:
        """Run one weighted layer and correct what it gives in the SNN."""
        inputs = tuple({t.name: t for t in node.inputs if not isinstance(t, gs.Constant)}.values())
        domain = self.analysis.domains[node.name]
        entry = self._run_segment(Segment(domain, (node,), inputs, (node.outputs[0],)))[node.outputs[0].name]
        if entry.snn is None:
            return
        _check_finite(node.name, entry.ann)
        rank = entry.ann[0].ndim
        axis = weighted_channel_axis(node, rank)
        snn = [np.asarray(value) for value in entry.snn if not isinstance(value, SpikeTrain)]
        pairs = (
            (by_channel(ann, axis), by_channel(value.mean(axis=0), axis))
            for ann, value in zip(entry.ann, snn, strict=True)
        )
        correction = match(sums(pairs), gain=self.config.gain_correction)
        self.ctx.corrections[node.name] = correction
        for value in snn:
            value *= along(correction.gain, axis, rank)
            value += along(correction.shift, axis, rank)

    def _run_rate(self, node: gs.Node) -> None:
        segment = Segment(Domain.TEMPORAL, (node,), (node.inputs[0],), (node.outputs[0],))
        runner = SegmentRunner(self.graph, segment, self.analysis)
        source, target = node.inputs[0].name, node.outputs[0].name
        entry = self.frontier[source]
        result = Entry([runner.run({source: value})[target] for value in entry.ann], None if entry.snn is None else [])
        if entry.snn is not None:
            timesteps = self.config.timesteps

            def pool(x: NDArray[np.float32]) -> NDArray[np.float32]:
                return np.asarray(runner.run_over_time({source: x}, {source}, timesteps)[target])

            for chunk in range(self.chunks):
                _append(result, increments(entry.temporal(chunk), pool))
        self.frontier.put(target, result)

    def _run_neuron(self, site: NeuronSite) -> None:
        entry = self.frontier[site.input]
        _check_finite(site.node, entry.ann)
        config = self.ctx.layer_config(site.node)
        layer = LayerFit(site, entry, config)
        theta = layer.thresholds()
        effective = (theta * np.float32(config.threshold_ratio)).astype(np.float32)
        ann: list[Array] = [layer.activation(chunk) for chunk in entry.ann]
        if not self.with_snn:
            self.ctx.layers[site.node] = LayerCalibration(
                theta,
                self.source,
                config.v_init,
                max_burst=config.max_burst,
                threshold_ratio=config.threshold_ratio,
            )
            self.frontier.put(site.output, Entry(ann))
            return
        shift, counts = layer.correct(effective)
        error, mean_error, rate = layer.errors(counts, effective)
        self.ctx.layers[site.node] = LayerCalibration(
            theta,
            self.source,
            layer.v_init,
            shift,
            mean_error,
            error,
            rate,
            max_burst=config.max_burst,
            threshold_ratio=config.threshold_ratio,
        )
        shaped = along(effective, layer.axis, site.rank)
        trains: list[Temporal] = [
            SpikeTrain(from_channels(count, layer.axis, values.shape), shaped)
            for count, values in zip(counts, ann, strict=True)
        ]
        self.frontier.put(site.output, Entry(ann, trains))


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


def _append(entry: Entry, value: NDArray[np.float32]) -> None:
    if entry.snn is not None:
        entry.snn.append(value)


def _chunk_size(graph: gs.Graph, wanted: int) -> int:
    """Return the samples per run: the network's own batch size where that is fixed."""
    first = (graph.inputs[0].shape or [None])[0]
    return first if isinstance(first, int) and first > 0 else wanted


def _check_finite(node: str, values: Sequence[Array]) -> None:
    with np.errstate(invalid="ignore"):  # the sum of both infinities: the error below says it better
        finite = all(np.isfinite(value.sum(dtype=np.float64)) for value in values)
    if not finite:
        raise DataError(
            f"NaN or infinite values arise at node '{node}' from the calibration data: check the range of the data "
            "(scaling, mean and standard deviation) and the network's weights"
        )
