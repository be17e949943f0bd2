"""The rest of the ANN behind one neuron, with that neuron spiking: all candidates of a layer in one batch.

For a current that is constant over time the closed form gives the neuron's mean output, so no time loop is needed
(`snncc.neurons.candidates`). The outputs of K candidates for N samples run as one batch [K·N, ...] through the suffix;
what it reads besides is the ANN's, the same for every candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import TensorProto, helper

from snncc.allocation.deferred import DeferredSession
from snncc.analysis import NeuronSite
from snncc.graph import is_missing, outer_inputs
from snncc.neurons.candidates import outputs
from snncc.runtime.segments import submodel
from snncc.runtime.session import Array

_PREFIX = "snncc.search/"


@dataclass(frozen=True)
class Cut:
    """A graph cut behind one tensor.

    Attributes:
        nodes: those that depend on the tensor, in order.
        beside: other nodes that they need and that aren't among the finished ones, in order.
        inputs: what `nodes` read from outside, the tensor itself and constants aside.
        outputs: the graph's outputs that depend on the tensor.
    """

    nodes: tuple[gs.Node, ...]
    beside: tuple[gs.Node, ...]
    inputs: tuple[gs.Tensor, ...]
    outputs: tuple[gs.Tensor, ...]


def cut_behind(graph: gs.Graph, tensor: str, finished: Iterable[str]) -> Cut:
    """Cut a topologically sorted graph behind a tensor.

    Args:
        graph: the graph.
        tensor: name of the tensor.
        finished: names of the nodes whose outputs are there already.
    """
    done, reached = set(finished), {tensor}
    nodes: list[gs.Node] = []
    for node in graph.nodes:
        if node.name not in done and any(t.name in reached for t in outer_inputs(node)):
            nodes.append(node)
            reached.update(t.name for t in node.outputs if not is_missing(t))
    inputs = {t.name: t for n in nodes for t in outer_inputs(n) if t.name not in reached}
    variable = tuple(t for t in inputs.values() if not isinstance(t, gs.Constant))
    beside = _needed(
        {t.name for t in variable}, [n for n in graph.nodes if n.name not in done], {n.name for n in nodes}
    )
    return Cut(tuple(nodes), beside, variable, tuple(t for t in graph.outputs if t.name in reached))


def _needed(tensors: set[str], open_nodes: Sequence[gs.Node], behind: set[str]) -> tuple[gs.Node, ...]:
    wanted, found = set(tensors), []
    for node in reversed(open_nodes):
        if node.name not in behind and any(t.name in wanted for t in node.outputs):
            found.append(node)
            wanted.update(t.name for t in outer_inputs(node))
    return tuple(reversed(found))


@dataclass(frozen=True)
class Neurons:
    """The parameters of a layer's candidates.

    Attributes:
        theta: effective thresholds θe, float32 [K, C] or [K, 1].
        max_burst: ψ, int64 [K].
        timesteps: T.
        v_init: v0.
        unevenness: standard deviation, in units of θe/T, of the disturbance that stands for uneven arrival; see
            `snncc.neurons.threshold`.
    """

    theta: NDArray[np.float32]
    max_burst: NDArray[np.int64]
    timesteps: int
    v_init: float
    unevenness: float


class Suffix:
    """The suffix of one layer, ready to run."""

    def __init__(self, graph: gs.Graph, site: NeuronSite, cut: Cut, neurons: Neurons, batched: set[str]) -> None:
        """Build the session.

        Args:
            graph: the ANN in normal form.
            site: the layer.
            cut: the graph cut behind its output.
            neurons: its candidates.
            batched: names of the tensors whose axis 0 enumerates samples.
        """
        self.neurons, self._site = neurons, site
        self._noise: NDArray[np.float32] | None = None
        self._repeated = [t.name for t in cut.inputs if t.name in batched]
        self._inputs = [t.name for t in cut.inputs]
        self.outputs = [t.name for t in cut.outputs]
        behind = [t for t in cut.outputs if t.name != site.output]
        self._behind = [t.name for t in behind]
        output = next(t for t in graph.tensors().values() if t.name == site.output)
        model = submodel(graph, cut.nodes, [*cut.inputs, output], behind)
        _suit_layout(model.graph, [n for n in (*self._inputs, site.output) if n in batched])
        self._session = DeferredSession(model, f"the layers behind node '{site.node}'")

    def prepare(self, threads: int) -> None:
        """Get ready to run in several threads at once, in a session with `threads` of its own."""
        if self._behind:
            self._session.load(threads)

    def run(
        self, current: Array, inputs: Mapping[str, Array], which: slice, *, levels: bool = False
    ) -> tuple[dict[str, Array], Array, Array | None]:
        """Run some candidates over one chunk of samples.

        Args:
            current: the layer's current, float32 [N, ...].
            inputs: what else the suffix reads, [N, ...].
            which: the K candidates.
            levels: also return the spikes of each sample.

        Returns:
            The outputs by name, [K, N, ...]; the spikes over all timesteps, summed over the samples, [K, ...]; and
            the spikes of each sample [K, N, ...], or None.
        """
        theta = self.neurons.theta[which]
        count = len(theta)
        shape = [1] * (self._site.rank - 1)
        if theta.shape[1] > 1:
            shape[self._site.channel_axis - 1] = theta.shape[1]
        found = outputs(
            current,
            (theta / np.float32(self.neurons.timesteps)).reshape(count, *shape),
            self.neurons.max_burst[which] * self.neurons.timesteps,
            self._offset(current.shape),
            two_sided=self._site.activation.encodes,
            levels=levels,
        )
        repeated = self._repeated if count > 1 else ()
        feeds = {n: np.concatenate([inputs[n]] * count) if n in repeated else inputs[n] for n in self._inputs}
        feeds[self._site.output] = found.mean.reshape(-1, *current.shape[1:])
        values = {self._site.output: feeds[self._site.output]}
        if self._behind:
            values |= self._session.run(feeds, self._behind)
        each = {n: values[n].reshape(count, -1, *values[n].shape[1:]) for n in self.outputs}
        return each, found.spikes, found.levels if levels else None

    def _offset(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return v0, disturbed where currents arrive unevenly: the same for every candidate and every run."""
        if not self.neurons.unevenness:
            return np.full([1] * len(shape), self.neurons.v_init, np.float32)
        noise = self._noise
        if noise is None or noise.shape != shape:
            normal = np.random.default_rng(0).standard_normal(shape, np.float32)
            self._noise = noise = normal * np.float32(self.neurons.unevenness) + np.float32(self.neurons.v_init)
        return noise


def _suit_layout(graph: onnx.GraphProto, batched: Iterable[str]) -> None:
    """Let ONNX Runtime keep images in its blocked layout, and add where it convolves, as it does inside the whole ANN.

    It must know that the batches are of one size, and a sum must get both of its terms from operators that work in this
    layout: a MaxPool over one pixel, which changes nothing, brings what comes from outside into it.
    """
    names = set(batched)
    added = {name for node in graph.node if node.op_type == "Add" for name in node.input}
    pools = []
    for entering in graph.input:
        shape = entering.type.tensor_type.shape.dim
        if entering.name not in names or not len(shape):
            continue
        shape[0].dim_param = "samples"
        if entering.name in added and len(shape) == 4 and entering.type.tensor_type.elem_type == TensorProto.FLOAT:
            pooled = f"{_PREFIX}{entering.name}"
            for node in graph.node:
                node.input[:] = [pooled if name == entering.name else name for name in node.input]
            pools.append(helper.make_node("MaxPool", [entering.name], [pooled], kernel_shape=[1, 1]))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*pools, *rest])
