"""The rest of the ANN behind one neuron, with that neuron spiking: all candidates of a layer in one batch.

For a current that is constant over time the closed form gives the neuron's mean output, so no time loop is needed:

    x [N, ...] ── · T/θe [K] ── + v0 ── Floor ── Clip 0..T·ψ [K] ── · θe/T [K] ── [K·N, ...] ── suffix ── outputs
                                              └── sum over the samples: spikes per neuron [K, ...]

Everything runs in one ONNX Runtime session. What the suffix reads besides the neuron's output is the ANN's, the same
for every candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from snncc.allocation.deferred import DeferredSession
from snncc.analysis import NeuronSite
from snncc.graph import is_missing, outer_inputs
from snncc.runtime.segments import submodel
from snncc.runtime.session import Array

_PREFIX = "snncc.search/"
CURRENT, SCALE, TOP, STEP, COPIES, NOISE = (
    f"{_PREFIX}{n}" for n in ("current", "scale", "top", "step", "copies", "noise")
)
LEVELS, SPIKES = f"{_PREFIX}levels", f"{_PREFIX}spikes"


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
        model = submodel(graph, cut.nodes, cut.inputs, cut.outputs)
        current = next(t for t in graph.tensors().values() if t.name == site.input)
        _add_neuron(model.graph, site, [int(d) if isinstance(d, int) else None for d in current.shape[1:]], neurons)
        if self._repeated:
            _repeat_inputs(model.graph, self._repeated)
        self._session = DeferredSession(model, f"the layers behind node '{site.node}'")

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
        rank = self._site.rank
        theta = self.neurons.theta[which]
        count = len(theta)
        shape = [1] * rank
        shape[self._site.channel_axis] = theta.shape[1]
        unit = (theta / np.float32(self.neurons.timesteps)).reshape(count, *shape)
        top = (self.neurons.max_burst[which] * self.neurons.timesteps).astype(np.float32)
        feeds = {
            CURRENT: current,
            SCALE: 1 / unit,
            STEP: unit,
            TOP: top.reshape(count, *[1] * rank),
            NOISE: self._offset(current.shape),
        }
        feeds |= {(_once(n) if n in self._repeated else n): inputs[n] for n in self._inputs}
        if self._repeated:
            feeds[COPIES] = np.array([count], np.int64)
        wanted = [*self.outputs, SPIKES, *([LEVELS] if levels else [])]
        values = self._session.run(feeds, wanted)
        outputs = {n: values[n].reshape(count, -1, *values[n].shape[1:]) for n in self.outputs}
        return outputs, values[SPIKES], values.get(LEVELS)

    def _offset(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return v0, disturbed where currents arrive unevenly: the same for every candidate and every run."""
        if not self.neurons.unevenness:
            return np.full([1] * len(shape), self.neurons.v_init, np.float32)
        if self._noise is None or self._noise.shape != shape:
            normal = np.random.default_rng(0).standard_normal(shape, np.float32)
            self._noise = normal * np.float32(self.neurons.unevenness) + np.float32(self.neurons.v_init)
        return self._noise


def _add_neuron(graph: onnx.GraphProto, site: NeuronSite, dims: list[int | None], neurons: Neurons) -> None:
    """Put the closed form of the neuron in front of a suffix, whose input `site.output` it replaces."""
    names = {name: f"{_PREFIX}{name}" for name in ("lowest", "steps", "scaled", "raised", "floor", "below", "graded")}
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([1], np.int64), f"{_PREFIX}samples"),
        ]
    )
    nodes = [
        helper.make_node("Mul", [CURRENT, SCALE], [names["scaled"]]),
        helper.make_node("Add", [names["scaled"], NOISE], [names["raised"]]),
        helper.make_node("Floor", [names["raised"]], [names["floor"]]),
        helper.make_node("Min", [names["floor"], TOP], [names["below"]]),
        # A neuron that encodes a value of either sign goes as far below zero as above it.
        helper.make_node("Neg", [TOP], [names["lowest"]])
        if site.activation.encodes
        else helper.make_node("Sub", [TOP, TOP], [names["lowest"]]),
        helper.make_node("Max", [names["below"], names["lowest"]], [names["steps"]]),
        helper.make_node("Abs", [names["steps"]], [LEVELS]),
        helper.make_node("Mul", [names["steps"], STEP], [names["graded"]]),
        helper.make_node("ReduceSum", [LEVELS, f"{_PREFIX}samples"], [SPIKES], keepdims=0),
        # [K, N, ...] as [K·N, ...].
        helper.make_node("Shape", [names["graded"]], [f"{_PREFIX}tail"], start=2),
        helper.make_node("Constant", [], [f"{_PREFIX}any"], value_ints=[-1]),
        helper.make_node("Concat", [f"{_PREFIX}any", f"{_PREFIX}tail"], [f"{_PREFIX}folded"], axis=0),
        helper.make_node("Reshape", [names["graded"], f"{_PREFIX}folded"], [site.output]),
    ]
    _put_first(graph, nodes)
    rank = site.rank
    sizes: list[tuple[str, list[int | None]]] = [(CURRENT, [None, *dims]), (NOISE, [None] * rank)]
    sizes += [(name, [None] * (rank + 1)) for name in (SCALE, TOP, STEP)]
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sizes)
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (SPIKES, LEVELS))


def _once(name: str) -> str:
    return f"{_PREFIX}once/{name}"


def _repeat_inputs(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    """Let each batched input be read once per candidate: [N, ...] as [K·N, ...], candidate by candidate."""
    graph.input.append(helper.make_tensor_value_info(COPIES, TensorProto.INT64, [1]))
    nodes = []
    for name in names:
        source = _once(name)
        next(i for i in graph.input if i.name == name).name = source
        tail, ones, repeats = (f"{_PREFIX}{part}/{name}" for part in ("rank", "ones", "repeats"))
        nodes += [
            helper.make_node("Shape", [source], [f"{tail}/shape"], start=1),
            helper.make_node("Shape", [f"{tail}/shape"], [tail]),
            helper.make_node(
                "ConstantOfShape", [tail], [ones], value=helper.make_tensor("one", TensorProto.INT64, [1], [1])
            ),
            helper.make_node("Concat", [COPIES, ones], [repeats], axis=0),
            helper.make_node("Tile", [source, repeats], [name]),
        ]
    _put_first(graph, nodes)


def _put_first(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
