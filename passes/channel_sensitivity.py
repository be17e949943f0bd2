"""How much an error of each channel of a layer disturbs the layers that read it.

A layer's channels don't matter alike. A small disturbance of one channel at a time, of one size for all, is sent
through what lies between the layer and the next neurons, and what arrives there is measured against the variance of
what arrives anyway. Nothing between has to be linear, and nobody has to know what it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Analysis, NeuronSite
from snncc.config import Config
from snncc.data import Dataset
from snncc.graph import outer_inputs
from snncc.passes.layer_sums import by_channel
from snncc.runtime.segments import submodel
from snncc.runtime.session import Array, Session
from snncc.sequences import ann_feeds

SAMPLES = 4
"""So many samples are disturbed: positions and channels of the next layers say the rest."""
_LARGE = 1 << 17  # a sample of more values says enough alone
_SIZE = 0.1  # of the disturbance, relative to the root mean square of the layer's output
_VALUES = 1 << 24  # most values of a disturbed batch
_DEAD = np.float32(1e-3)  # a channel that varies by less, relative to the liveliest, is measured as if it didn't
_NONE = np.float32(1e-12)


@dataclass(frozen=True)
class _Reach:
    """What lies between a layer and the next neurons."""

    site: NeuronSite
    source: gs.Tensor
    nodes: list[gs.Node]
    beside: list[gs.Tensor]
    ends: list[gs.Tensor]


def channel_sensitivities(
    graph: gs.Graph, analysis: Analysis, data: Dataset, config: Config, names: Iterable[str]
) -> dict[str, NDArray[np.float64]]:
    """Measure layers of neurons; none if the options spread no τ.

    Args:
        graph: the ANN in normal form.
        analysis: its analysis.
        data: calibration data; the first few samples are used.
        config: the options.
        names: the nodes of the layers whose τ isn't 1.

    Returns:
        By node: relative squared error of what reaches the next neurons, for a squared error of 1 in each channel,
        float64 [C], 0 where that isn't defined. Layers without channels, or that nothing reads, are missing.
    """
    wanted = set(names) if config.ratio_per_channel and config.per_channel else set()
    sites = {site.node: site for site in analysis.neurons}
    chosen = [site for site in analysis.neurons if site.node in wanted and (site.channels or 1) > 1]
    reaches = [reach for reach in (_reach(graph, sites, site) for site in chosen) if reach.ends]
    if not reaches:
        return {}
    batch = data.inputs[0].batch
    feeds = ann_feeds(next(iter(data.batches(batch or SAMPLES))), data.inputs, config.period)
    read = {t.name: t for r in reaches for t in (r.source, *r.beside, *r.ends)}
    given = {t.name for t in graph.inputs}
    made = [t for name, t in read.items() if name not in given]
    ann = Session(submodel(graph, graph.nodes, graph.inputs, made), "the ANN").run(feeds)
    known = {**feeds, **ann}
    axes = {site.input: site.channel_axis for site in analysis.neurons}
    alone = batch is not None or not analysis.separable
    return {r.site.node: _measured(graph, r, known, axes, alone=alone or not _tiles(r, analysis)) for r in reaches}


def _tiles(reach: _Reach, analysis: Analysis) -> bool:
    """Whether all that is read has samples on axis 0; a shape, say, has not."""
    return all(t.name in analysis.batched for t in reach.beside)


def _reach(graph: gs.Graph, sites: Mapping[str, NeuronSite], site: NeuronSite) -> _Reach:
    reached, nodes = {site.output}, []
    for node in graph.nodes:
        if node.name not in sites and any(t.name in reached for t in outer_inputs(node)):
            nodes.append(node)
            reached.update(t.name for t in node.outputs)
    made = {t.name for node in nodes for t in node.outputs}
    inputs = {t.name: t for node in nodes for t in outer_inputs(node) if not isinstance(t, gs.Constant)}
    beside = [t for name, t in inputs.items() if name not in made and name != site.output]
    ends = {other.input for other in sites.values()} | {t.name for t in graph.outputs}
    outputs = [t for node in nodes for t in node.outputs if t.name in ends and t.dtype == np.float32]
    source = graph.tensors()[site.output]
    return _Reach(site, source, nodes, beside, outputs)


def _measured(
    graph: gs.Graph, reach: _Reach, known: Mapping[str, Array], axes: Mapping[str, int], *, alone: bool
) -> NDArray[np.float64]:
    """Measure one layer; `alone`: one channel at a time, as a batch can't be made larger or smaller."""
    deviations = {t.name: _deviation(known[t.name], axes.get(t.name)) for t in reach.ends}
    if not alone and known[reach.source.name][0].size > _LARGE:
        known = {t.name: known[t.name][:1] for t in (reach.source, *reach.beside, *reach.ends)}
    value = known[reach.source.name]
    axis, rng = reach.site.channel_axis, np.random.default_rng(0)
    channels = value.shape[axis]
    size = np.float32(_SIZE * math.sqrt(float(np.square(value).mean())) or 1.0)
    noise = np.moveaxis(size * rng.choice(np.array([-1, 1], np.float32), value.shape), axis, 0)
    session = Session(submodel(graph, reach.nodes, [reach.source, *reach.beside], reach.ends), "a part of the ANN")
    beside = {t.name: known[t.name] for t in reach.beside}
    found = np.zeros(channels)
    largest = max(known[t.name].size for t in (reach.source, *reach.beside, *reach.ends))
    step = 1 if alone else max(1, _VALUES // max(1, largest))
    for start in range(0, channels, step):
        which = range(start, min(start + step, channels))
        disturbed = np.repeat(value[None], len(which), axis=0)
        for row, channel in enumerate(which):
            np.moveaxis(disturbed[row], axis, 0)[channel] += noise[channel]
        feeds = {name: np.concatenate([v] * len(which)) for name, v in beside.items()}
        feeds[reach.source.name] = disturbed.reshape(-1, *value.shape[1:])
        for name, got in session.run(feeds).items():
            moved = got.reshape(len(which), *known[name].shape) - known[name]
            found[which.start : which.stop] += np.square(moved / deviations[name]).reshape(len(which), -1).mean(axis=1)
    return np.where(np.isfinite(found), found, 0.0) / float(size) ** 2


def _deviation(value: Array, axis: int | None) -> Array:
    """Return the standard deviation per channel, or of all values, in a shape that broadcasts."""
    if axis is None or value.ndim < 2:
        return np.asarray(np.maximum(value.std(keepdims=True), _NONE))
    of_channel = by_channel(value, axis).std(axis=(0, 2))
    shape = [1] * value.ndim
    shape[axis] = len(of_channel)
    least = np.maximum(_DEAD * of_channel.max(initial=np.float32(0)), _NONE)
    return np.asarray(np.maximum(of_channel, least).reshape(shape))
