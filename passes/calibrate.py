"""Calibration: thresholds of minimum squared error and bias correction, in one walk through the network.

Layer by layer in topological order, the activations of the ANN and of the SNN (whose earlier layers already spike with
their final thresholds and biases) stand side by side at the frontier. At each neuron

1. θ per channel minimises the squared error between the neuron's closed form and the ANN's activation;
2. the mean error per channel, ANN minus SNN, becomes a shift of the current (Li et al. 2021, bias calibration).

Each layer is computed once: the cost is about 1 + T forward passes over the calibration set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Analysis, Domain, NeuronSite
from snncc.config import Config
from snncc.context import Context, LayerCalibration
from snncc.data import Dataset, InputSpec, load
from snncc.errors import DataError
from snncc.neurons.burst_if import simulate
from snncc.neurons.threshold import ChannelHistogram, minimum_error_thresholds
from snncc.ops import Role, spec_of
from snncc.passes.base import Pass
from snncc.passes.frontier import Entry, Frontier, SpikeTrain
from snncc.passes.moments import gaussian_histogram, propagate_moments
from snncc.runtime.segments import Segment, SegmentRunner, Step, increments, plan
from snncc.runtime.session import Array

ROUNDS = 2

Progress = Callable[[int, int], None]
"""Called with the number of finished and of all steps."""


@dataclass(frozen=True)
class Calibrate(Pass):
    """Fill `ctx.layers` for every neuron; the graph stays as it is.

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
            ctx.layers[site.node] = LayerCalibration(_thresholds(histogram, site, ctx.config), "batchnorm")
    missing = [site for site in sites if site.node not in ctx.layers]
    if not missing:
        ctx.warn(
            "no calibration data: thresholds come from BatchNormalization statistics, which assume normally "
            "distributed currents, and biases are not corrected. Expect a lower accuracy than with --calib"
        )
        return
    generated = generate_inputs(graph)
    known = dict(ctx.layers)
    _Walk(graph, ctx, generated, with_snn=False, source="generated").run(progress)
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
        dtype = np.dtype(tensor.dtype)
        arrays[tensor.name] = rng.standard_normal(size).astype(dtype) if dtype.kind == "f" else np.zeros(size, dtype)
    specs = [InputSpec(t.name, np.dtype(t.dtype), tuple(t.shape)) for t in graph.inputs]
    return load(arrays, specs)


def _thresholds(histogram: ChannelHistogram, site: NeuronSite, config: Config) -> NDArray[np.float32]:
    """Return θ (not θe: τ is applied by the neuron), float32 [C] or [1]."""
    if not config.per_channel:
        histogram = histogram.pooled()
    upper = site.activation.upper / config.threshold_ratio  # the neuron that runs must not exceed it: τ·θ·ψ <= a
    return minimum_error_thresholds(histogram, config.timesteps, config.max_burst, config.v_init, upper=upper)


class _Walk:
    """One walk through the network over one set of data."""

    def __init__(self, graph: gs.Graph, ctx: Context, data: Dataset, *, with_snn: bool, source: str) -> None:
        self.graph, self.ctx, self.config, self.data = graph, ctx, ctx.config, data
        self.with_snn, self.source = with_snn, source
        self.analysis: Analysis = ctx.analysis
        self.sites = {site.node: site for site in self.analysis.neurons}
        self.steps = self._plan()
        self.frontier = Frontier(self.steps)
        size = _chunk_size(graph, ctx.config.batch_size)
        chunks = list(data.batches(size))
        self.chunks = len(chunks)
        for tensor in graph.inputs:
            self.frontier.put(tensor.name, Entry([chunk[tensor.name] for chunk in chunks]))

    def _plan(self) -> list[Step]:
        """Return the steps up to the last neuron: what comes after needs no calibration."""
        steps = plan(self.graph, self.analysis, self._is_break)
        last = max(i for i, s in enumerate(steps) if isinstance(s, gs.Node) and s.name in self.sites)
        return steps[: last + 1]

    def _is_break(self, node: gs.Node) -> bool:
        if node.name in self.sites:
            return True
        return spec_of(node).role is Role.RATE and self.analysis.domains[node.name] is Domain.TEMPORAL

    def run(self, progress: Progress | None) -> None:
        for number, step in enumerate(self.steps, 1):
            if isinstance(step, Segment):
                self._run_segment(step)
            elif step.name in self.sites:
                self._run_neuron(self.sites[step.name])
            else:
                self._run_rate(step)
            self.frontier.done(step)
            if progress is not None:
                progress(number, len(self.steps))

    def _run_segment(self, segment: Segment) -> None:
        runner = SegmentRunner(self.graph, segment, self.analysis)
        names = [t.name for t in segment.inputs]
        temporal = {n for n in names if self.frontier[n].snn is not None}
        results = {t.name: Entry([], [] if temporal else None) for t in segment.outputs}
        for chunk in range(self.chunks):
            ann = {name: self.frontier[name].ann[chunk] for name in names}
            for name, value in runner.run(ann).items():
                results[name].ann.append(value)
            if temporal:
                feeds = {n: (self.frontier[n].temporal(chunk) if n in temporal else ann[n]) for n in names}
                for name, value in runner.run_over_time(feeds, temporal, self.config.timesteps).items():
                    _append(results[name], value)
        for name, entry in results.items():
            self.frontier.put(name, entry)

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
        layer = _Layer(site, entry, self.config)
        _check_finite(site, entry.ann)
        theta = _thresholds(layer.histogram(), site, self.config)
        effective = (theta * np.float32(self.config.threshold_ratio)).astype(np.float32)
        ann = [layer.activation(chunk) for chunk in entry.ann]
        if not self.with_snn:
            self.ctx.layers[site.node] = LayerCalibration(theta, self.source)
            self.frontier.put(site.output, Entry(list(ann)))
            return
        shift, counts = layer.correct(effective)
        error, mean_error, rate = layer.errors(counts, effective)
        self.ctx.layers[site.node] = LayerCalibration(theta, self.source, shift, mean_error, error, rate)
        trains: list[SpikeTrain | NDArray[np.float32]] = [
            SpikeTrain(layer.restore(c, a.shape), layer.theta_shape(effective))
            for c, a in zip(counts, ann, strict=True)
        ]
        self.frontier.put(site.output, Entry(list(ann), trains))


def _append(entry: Entry, value: NDArray[np.float32]) -> None:
    if entry.snn is not None:
        entry.snn.append(value)


def _chunk_size(graph: gs.Graph, wanted: int) -> int:
    """Return the samples per run: the network's own batch size where that is fixed."""
    first = (graph.inputs[0].shape or [None])[0]
    return first if isinstance(first, int) and first > 0 else wanted


def _check_finite(site: NeuronSite, values: Sequence[Array]) -> None:
    with np.errstate(invalid="ignore"):  # the sum of both infinities: the error below says it better
        finite = all(np.isfinite(value.sum(dtype=np.float64)) for value in values)
    if not finite:
        raise DataError(
            f"node '{site.node}' gets NaN or infinite values from the calibration data: check the range of the data "
            "(scaling, mean and standard deviation) and the network's weights"
        )


class _Layer:
    """The arithmetic of one layer of neurons: arrays as [N, C, M], channels apart from everything else."""

    def __init__(self, site: NeuronSite, entry: Entry, config: Config) -> None:
        self.site, self.entry, self.config = site, entry, config
        shape = entry.ann[0].shape
        self.axis = site.channel_axis
        self.channels = shape[self.axis] if site.channels is not None else 1

    def activation(self, current: Array) -> NDArray[np.float32]:
        """Return the ANN's activation of a current."""
        return np.clip(current, np.float32(0), np.float32(self.site.activation.upper))

    def by_channel(self, values: Array, lead: int = 0) -> Array:
        """Return values [lead..., N, ...] as [lead..., N, C, M]."""
        if self.channels == 1:
            return values.reshape(*values.shape[: lead + 1], 1, -1)
        moved = np.moveaxis(values, lead + self.axis, lead + 1)
        return moved.reshape(*values.shape[: lead + 1], self.channels, -1)

    def restore(self, counts: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return [T, N, C, M] in the shape [T, N, ...] of the current."""
        if self.channels == 1:
            return counts.reshape(counts.shape[0], *shape)
        rest = [d for i, d in enumerate(shape) if i not in (0, self.axis)]
        return np.moveaxis(counts.reshape(counts.shape[0], shape[0], self.channels, *rest), 2, 1 + self.axis)

    def theta_shape(self, theta: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a threshold per channel such that it broadcasts to the current."""
        shape = [1] * self.site.rank
        shape[self.axis] = len(theta)
        return theta.reshape(shape)

    def histogram(self) -> ChannelHistogram:
        """Return the histogram of the ANN's activation."""
        histogram = ChannelHistogram(self.channels)
        for chunk in self.entry.ann:
            histogram.add(self.by_channel(np.minimum(chunk, np.float32(self.site.activation.upper))))
        return histogram

    def currents(self) -> Iterator[NDArray[np.float32]]:
        """Yield the SNN's current per chunk, [T, N, C, M] or, if it is static, [1, N, C, M]."""
        for index, ann in enumerate(self.entry.ann):
            if self.entry.snn is None:
                yield self.by_channel(ann[None], lead=1)
            else:
                yield self.by_channel(self.entry.temporal(index), lead=1)

    def spikes(self, theta: NDArray[np.float32], shift: NDArray[np.float32] | None) -> list[NDArray[np.uint8]]:
        """Simulate the layer and return the counts per chunk, uint8 [T, N, C, M]."""
        c = self.config
        return [simulate(x, theta, c.timesteps, c.max_burst, c.v_init, shift) for x in self.currents()]

    def correct(self, theta: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[NDArray[np.uint8]]]:
        """Return the shift per channel, float32 [C], and the spikes with it.

        First the mean current is matched to the ANN's; what error is left in the mean output is then added, twice.
        """
        count = sum(self.by_channel(a).shape[0] * self.by_channel(a).shape[2] for a in self.entry.ann)
        target = sum(self.by_channel(self.activation(a)).sum(axis=(0, 2), dtype=np.float64) for a in self.entry.ann)
        shift = np.zeros(self.channels)
        if self.entry.snn is not None:
            ann = sum(self.by_channel(a).sum(axis=(0, 2), dtype=np.float64) for a in self.entry.ann)
            snn = sum(x.mean(axis=0).sum(axis=(0, 2), dtype=np.float64) for x in self.currents())
            shift += (ann - snn) / count
        counts = self.spikes(theta, shift.astype(np.float32))
        for _ in range(ROUNDS):
            fired = sum(c.sum(axis=(0, 1, 3), dtype=np.int64) for c in counts)
            error = (target - theta * fired / self.config.timesteps) / count
            shift += error
            counts = self.spikes(theta, shift.astype(np.float32))
        return shift.astype(np.float32), counts

    def errors(self, counts: list[NDArray[np.uint8]], theta: NDArray[np.float32]) -> tuple[float, float, float]:
        """Return relative squared error, relative mean error, and spikes per neuron and timestep."""
        squared = energy = difference = total = fired = elements = 0.0
        for ann, count in zip(self.entry.ann, counts, strict=True):
            active = self.by_channel(self.activation(ann))
            mean = count.sum(axis=0, dtype=np.uint32) * (theta[:, None] / self.config.timesteps)
            residual = mean - active
            squared += float(np.square(residual).sum())
            difference += float(residual.sum(dtype=np.float64))
            energy += float(np.square(active).sum(dtype=np.float64))
            total += float(active.sum(dtype=np.float64))
            fired += float(count.sum(dtype=np.int64))
            elements += count.size
        return squared / (energy or 1.0), difference / (total or 1.0), fired / elements
