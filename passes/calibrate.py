"""Calibration: thresholds of minimum squared error, bias and gain correction, in one walk through the network.

Layer by layer in topological order, the activations of the ANN and of the SNN (whose earlier layers already spike with
their final thresholds and corrections) stand side by side at the frontier.

1. At each weighted layer, a factor and a shift per channel give the SNN's output the ANN's standard deviation and mean.
2. At each neuron, θ per channel minimises the squared error between the closed form and the ANN's activation, and the
   mean error that is left in the output becomes a shift of the current (Li et al. 2021, bias calibration).

Each layer is computed once: the cost is about 1 + T forward passes over the calibration set, plus the simulation of the
neurons. The chunks of the set go through a layer side by side; what is summed over them is summed in their order. What
the frontier holds beyond half of the memory that is left is in files (`snncc.passes.store`): a set of any size will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from snncc.context import Context
from snncc.data import Dataset, InputSpec
from snncc.graph import export_model, import_graph, static_dims
from snncc.neurons.spread import spread
from snncc.passes.base import Pass, Progress
from snncc.passes.calibration_walk import Entering, Walk
from snncc.passes.channel_sensitivity import channel_sensitivities
from snncc.passes.chunk_pool import ChunkPool
from snncc.passes.generated_inputs import generate_inputs
from snncc.passes.layer_fit import saturation, thresholds
from snncc.passes.moments import gaussian_histogram, propagate_moments
from snncc.passes.neuron_fit import layer_calibration
from snncc.passes.pattern_thresholds import pattern_thresholds
from snncc.passes.store import Store
from snncc.runtime.memory import available_memory
from snncc.runtime.session import Array
from snncc.sequences import ann_feeds, per_period
from snncc.sources import sized_graph

VALUES = 1 << 28
"""Most values of a tensor of one chunk over all timesteps, 1 GB, if one sample hasn't more."""
GENERATED = 64
"""Inputs that are made up where there are no data, as long as no tensor has more than `VALUES` for them."""


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
            _calibrate_on(graph, ctx, ctx.calibration, ctx.config.bias_correction, "data", self.progress)
        else:
            _without_data(graph, ctx, self.progress)
        return False


def _calibrate_on(
    graph: gs.Graph, ctx: Context, data: Dataset, with_snn: bool, source: str, progress: Progress | None
) -> None:
    if data is ctx.calibration:
        with_ratio = [s.node for s in ctx.analysis.neurons if ctx.layer_config(s.node).threshold_ratio != 1]
        ctx.sensitivities = channel_sensitivities(graph, ctx.analysis, data, ctx.config, with_ratio)
    available = available_memory()
    store = Store(None if available is None else available // 2)
    batches = data.batches(_chunk_size(graph, data, ctx, with_snn=with_snn))
    framed = [spec.name for spec in data.inputs if spec.timesteps is not None] if with_snn else []
    chunks = [_entering(batch, data.inputs, framed, ctx.config.period, store) for batch in batches]
    with ChunkPool(len(chunks)) as pool:
        Walk(graph, ctx, chunks, pool, store, with_snn=with_snn, source=source).run(progress)


def _entering(
    batch: Mapping[str, Array], inputs: Sequence[InputSpec], framed: Sequence[str], period: int, store: Store
) -> dict[str, Entering]:
    """Return what a batch gives to the ANN's inputs, and to those of the SNN that vary over time."""

    def kept(value: Array) -> Array:
        return value if isinstance(value.base, np.ndarray) else store.keep(value)  # a view: the data's own memory

    over_time = {name: kept(per_period(batch[name], period)) for name in framed}
    return {name: Entering(kept(ann), over_time.get(name)) for name, ann in ann_feeds(batch, inputs, period).items()}


def _without_data(graph: gs.Graph, ctx: Context, progress: Progress | None) -> None:
    sites = ctx.analysis.neurons
    moments = propagate_moments(graph, ctx.batchnorm)
    for site in sites:
        config = ctx.layer_config(site.node)  # its timesteps are those of a period
        # A burst neuron is as good only where it has as many levels as the activation, and nothing arrives unevenly.
        exact = site.quantised is not None and config.timesteps * config.max_burst == site.quantised.levels
        signed = config.neuron == "signed" or (config.neuron == "auto" and not (exact and site.static_input))
        theta = pattern_thresholds(site, config, 1, signed=signed)
        if theta is not None:
            ctx.layers[site.node] = layer_calibration(config, theta, "pattern", config.v_init, signed=signed)
        elif site.input in moments:
            histogram = gaussian_histogram(moments[site.input], site.activation.upper)
            theta = thresholds(histogram, site, config)
            theta = spread(theta, config.threshold_ratio, [histogram], None, saturation(site, config))
            ctx.layers[site.node] = layer_calibration(config, theta, "batchnorm", config.v_init)
    missing = [site for site in sites if site.node not in ctx.layers]
    if not missing:
        if any(layer.source == "batchnorm" for layer in ctx.layers.values()):
            ctx.warn(
                "no calibration data: thresholds come from BatchNormalization statistics, which assume normally "
                "distributed currents, and biases are not corrected. Expect a lower accuracy than with --calib"
            )
        else:
            ctx.warn("no calibration data: thresholds come from the steps of the training, biases are not corrected")
        return
    known = dict(ctx.layers)
    largest = max((size for size in _sizes(graph, ctx.analysis.batch) if size), default=1)
    inputs = generate_inputs(graph, max(1, min(GENERATED, VALUES // largest)))  # a large sample says as much as many
    _calibrate_on(graph, ctx, inputs, False, "generated", progress)
    ctx.layers.update(known)
    ctx.warn(
        f"no calibration data: the thresholds of {len(missing)} of {len(sites)} layers come from random inputs "
        "(standard normal), which say little about real ones, and biases are not corrected. The accuracy may be "
        "anything: give --calib for a network that you mean to use"
    )


def _chunk_size(graph: gs.Graph, data: Dataset, ctx: Context, *, with_snn: bool) -> int:
    """Return the samples per run: the network's own batch size where that is fixed, else as many as are wanted.

    Fewer, where a tensor of so many samples would have more than `VALUES` over time. That depends on the network and on
    T alone: how samples are cut into chunks decides in which order they are added up.
    """
    if ctx.analysis.batch:
        return ctx.analysis.batch
    sizes = _sizes(graph, None)
    if None in sizes:
        sizes = _sizes(sized_graph(import_graph(export_model(graph)), data), None)
    largest = max((size for size in sizes if size is not None), default=1)
    return max(1, min(ctx.config.batch_size, VALUES // max(1, largest * (ctx.config.timesteps if with_snn else 1))))


def _sizes(graph: gs.Graph, batch: int | None) -> list[int | None]:
    """Return the number of values of each tensor for one sample, None where it isn't known."""
    shapes = [tensor.shape for tensor in graph.tensors().values() if isinstance(tensor, gs.Variable)]
    return [_size_of(shape, batch) for shape in shapes]


def _size_of(shape: Sequence[Any] | None, batch: int | None) -> int | None:
    dims = static_dims(shape and shape[1:])
    if dims is None:
        return None
    first = shape[0] if shape and isinstance(shape[0], int) else 0
    # What a sample becomes may have a first axis that is longer than the batch.
    return math.prod(dims) * (max(1, first // batch) if batch else 1)
