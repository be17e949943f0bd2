"""Synaptic operations that the spikes of one layer cause: spikes times exact fan-out, as the meter counts them.

MaxPools whose input comes from this layer alone pool the spikes of each sample, as the network will. Where spikes of
several layers meet in front of a MaxPool, the pooled mean spikes of this layer stand for what passes.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.allocation.deferred import DeferredSession
from snncc.analysis import Analysis, NeuronSite, Traffic
from snncc.errors import DataError
from snncc.graph import is_missing, outer_inputs
from snncc.ops import Role, spec_of
from snncc.runtime.meter import event_model
from snncc.runtime.segments import submodel
from snncc.runtime.session import Array


class FanOut:
    """Counts the synaptic operations of one layer's spikes."""

    def __init__(self, graph: gs.Graph, analysis: Analysis, site: NeuronSite, dims: tuple[int, ...]) -> None:
        """Prepare.

        Args:
            graph: the network without time, activations or neurons in place.
            analysis: its analysis.
            site: the layer.
            dims: sizes of its output for one sample.
        """
        self._output = site.output
        pools, path = _pools_behind(graph, analysis, site)
        self.pools = [p.outputs[0].name for p in pools]
        self._pool: DeferredSession | None = None
        shapes = {site.output: (1, *dims)}
        if pools:
            tensor = next(t for t in graph.tensors().values() if t.name == site.output)
            model = submodel(graph, path, [tensor], [p.outputs[0] for p in pools])
            self._pool = DeferredSession(model, f"the pooling behind node '{site.node}'", threads=1)
            sample = np.zeros((1, *dims), np.float32)
            shapes |= {name: value.shape for name, value in self._pool.run({site.output: sample}).items()}
        # The other layers are silent, but they stand where spikes of this one meet theirs.
        shapes = {s.output: (1, *_known(s)) for s in analysis.neurons if s.node != site.node} | shapes
        self._silent = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        model, self._sums = event_model(graph, analysis, shapes)
        self._session = (
            DeferredSession(model, f"the synapses behind node '{site.node}'", threads=1) if self._sums else None
        )

    def pooled(self, levels: Array) -> dict[str, Array]:
        """Return what passes each MaxPool, summed over the samples [K, ...], of the spikes [K, N, ...]."""
        if self._pool is None:
            return {}
        parts = [self._pool.run({self._output: spikes}) for spikes in levels]
        return {name: np.stack([p[name].sum(axis=0, dtype=np.float64) for p in parts]) for name in self.pools}

    def operations(self, spikes: NDArray[np.float64], pooled: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the operations, float64 [K], of spikes per neuron [K, ...] and behind each MaxPool [K, ...]."""
        if self._session is None:
            return np.zeros(len(spikes))
        totals = []
        for candidate in range(len(spikes)):
            values = {self._output: spikes[candidate]} | {n: v[candidate] for n, v in pooled.items()}
            feeds = self._silent | {name: value[None].astype(np.float32) for name, value in values.items()}
            totals.append(sum(float(value) for value in self._session.run(feeds).values()))
        return np.array(totals)


def _known(site: NeuronSite) -> tuple[int, ...]:
    if site.dims is None:
        raise DataError(
            f"the size of the output of node '{site.node}' isn't known, so its synaptic operations can't be counted: "
            "export the network with fixed sizes"
        )
    return site.dims


def _pools_behind(graph: gs.Graph, analysis: Analysis, site: NeuronSite) -> tuple[list[gs.Node], list[gs.Node]]:
    """Return the MaxPools whose input spikes are this layer's alone, and all nodes on the way to them."""
    own, path, pools = {site.output}, [], []
    neurons = {s.node for s in analysis.neurons}
    for node in graph.nodes:
        variable = [t.name for t in outer_inputs(node) if not isinstance(t, gs.Constant)]
        if not variable or not set(variable) <= own or node.name in neurons:
            continue
        if analysis.traffic.get(node.outputs[0].name) is not Traffic.SPIKES:
            continue
        path.append(node)
        own.update(t.name for t in node.outputs if not is_missing(t))
        if spec_of(node).role is Role.POOL:
            pools.append(node)
    return pools, path
