"""Cutting a graph at its neurons and running the pieces between them.

Whatever walks through a network layer by layer (calibration, the reference simulator) needs the same thing: the graph
as a sequence of linear pieces and of the nodes in between that it handles itself. Each node is in exactly one piece, so
each layer is computed once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Union

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from snncc.analysis import Analysis, Domain, Form
from snncc.graph import DOMAIN, FLOAT_OF, is_missing, outer_inputs
from snncc.neurons.functions import functions
from snncc.ops import MARKS, Role, spec_of
from snncc.runtime.buffers import BufferPool
from snncc.runtime.rows import RowSession
from snncc.runtime.session import Array, Session

_ROWS = 64
"""Samples times timesteps that run together, or all samples of one timestep: what is in flight stays in the cache."""
VALUES = 1 << 24
"""Most values of a tensor at those timesteps, 64 MB, if one timestep hasn't more."""


class OverTime(Protocol):
    """An array, or something that makes its parts when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole."""

    def __getitem__(self, steps: slice) -> Array:
        """Return the values at some timesteps; the array is the caller's."""


def blocks(timesteps: int, size: int, most: int | None = None) -> list[slice]:
    """Cut timesteps into blocks of as many as may be in memory together, at least one.

    Args:
        timesteps: their number.
        size: values at one of them.
        most: timesteps of a block at most; None: no other bound.
    """
    together = VALUES // max(1, size)
    together = max(1, together if most is None else min(together, most))
    return [slice(start, min(start + together, timesteps)) for start in range(0, timesteps, together)]


Exporter = gs.exporters.onnx_exporter.OnnxExporter


@dataclass(frozen=True)
class Segment:
    """A piece of the graph whose nodes run together.

    Attributes:
        domain: the domain that all of its nodes have.
        nodes: in topological order.
        inputs: variable tensors that it reads from outside.
        outputs: tensors that somebody outside reads.
        mode: for temporal nodes, the form of the tensors that they work on.
    """

    domain: Domain
    nodes: tuple[gs.Node, ...]
    inputs: tuple[gs.Tensor, ...]
    outputs: tuple[gs.Tensor, ...]
    mode: Form = Form.STEP


Step = Union[Segment, gs.Node]  # noqa: UP007 - gs.Node is untyped, so only this form is a type for mypy


def plan(graph: gs.Graph, analysis: Analysis, is_break: Callable[[gs.Node], bool]) -> list[Step]:
    """Order the graph as steps: each node for which `is_break` holds, preceded by the segments that feed it.

    Args:
        graph: the graph, topologically sorted.
        analysis: its analysis.
        is_break: the nodes that the caller handles itself.
    """
    groups = _group(graph, analysis, is_break)
    readers: dict[str, set[int]] = {}
    for index, group in enumerate(groups):
        for node in [group] if isinstance(group, gs.Node) else group:
            for tensor in outer_inputs(node):
                readers.setdefault(tensor.name, set()).add(index)
    final = {t.name for t in graph.outputs}
    steps: list[Step] = []
    for index, group in enumerate(groups):
        if isinstance(group, gs.Node):
            steps.append(group)
        else:
            steps.append(_segment(group, index, readers, final, analysis))
    return steps


def _group(graph: gs.Graph, analysis: Analysis, is_break: Callable[[gs.Node], bool]) -> list[list[gs.Node] | gs.Node]:
    """Assign each node to the first break that needs it; within that, to its domain and to the form it works on."""
    made_by = {t.name: node for node in graph.nodes for t in node.outputs if not is_missing(t)}
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    done: set[str] = set()
    groups: list[list[gs.Node] | gs.Node] = []

    def pending(tensors: Iterable[gs.Tensor]) -> list[gs.Node]:
        found: dict[str, gs.Node] = {}
        stack = [made_by[t.name] for t in tensors if t.name in made_by]
        while stack:
            node = stack.pop()
            if node.name in done or node.name in found:
                continue
            found[node.name] = node
            stack += [made_by[t.name] for t in outer_inputs(node) if t.name in made_by]
        return sorted(found.values(), key=lambda n: position[n.name])

    def emit(nodes: list[gs.Node]) -> None:
        for domain in (Domain.STATIC, Domain.TEMPORAL, Domain.READOUT):
            members = [n for n in nodes if analysis.domains[n.name] is domain]
            runs = itertools.groupby(members, key=lambda n: analysis.modes.get(n.name))
            groups.extend(list(run) for _, run in runs)
        done.update(n.name for n in nodes)

    for node in graph.nodes:
        if is_break(node):
            emit(pending(outer_inputs(node)))
            groups.append(node)
            done.add(node.name)
    emit(pending(graph.outputs))
    return groups


def _segment(
    nodes: list[gs.Node], index: int, readers: Mapping[str, set[int]], final: set[str], analysis: Analysis
) -> Segment:
    made = {t.name for node in nodes for t in node.outputs}
    inputs = {t.name: t for n in nodes for t in outer_inputs(n) if t.name not in made}
    outputs = [
        t
        for node in nodes
        for t in node.outputs
        if not is_missing(t) and (t.name in final or readers.get(t.name, set()) - {index})
    ]
    variable = tuple(t for t in inputs.values() if not isinstance(t, gs.Constant))
    mode = analysis.modes.get(nodes[0].name, Form.STEP)
    return Segment(analysis.domains[nodes[0].name], tuple(nodes), variable, tuple(outputs), mode)


def is_pool_over_time(node: gs.Node, analysis: Analysis) -> bool:
    """Whether a node is a MaxPool between neurons, which is applied to sums over time: see `increments`."""
    return spec_of(node).role is Role.POOL and analysis.modes.get(node.name) is Form.STEP


def single(node: gs.Node) -> Segment:
    """Return a node with one input and one output between neurons as a segment of its own."""
    return Segment(Domain.TEMPORAL, (node,), (node.inputs[0],), (node.outputs[0],))


def submodel(
    graph: gs.Graph, nodes: Iterable[gs.Node], inputs: Iterable[gs.Tensor], outputs: Iterable[gs.Tensor]
) -> onnx.ModelProto:
    """Export some nodes of a graph as a model whose inputs have a free first axis."""
    nodes = list(nodes)
    constants = {t.name: t for n in nodes for t in outer_inputs(n) if isinstance(t, gs.Constant)}
    own = {n.op for n in nodes if n.domain == DOMAIN and n.op in FLOAT_OF}
    opsets = [o for o in gs.exporters.onnx_exporter.update_import_domains(graph) if o.domain != DOMAIN]
    if own:
        opsets.append(onnx.helper.make_opsetid(DOMAIN, 1))
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [_exported(n) for n in nodes],
            "segment",
            [_describe(t, with_shape=True) for t in inputs],
            [_describe(t, with_shape=False) for t in outputs],
            initializer=[Exporter.export_tensor_proto(t) for t in constants.values()],
        ),
        opset_imports=opsets,
        functions=[*(Exporter.export_function(f) for f in graph.functions), *functions(own, graph.opset)],
    )
    model.ir_version = max(8, graph.ir_version or 8)
    return model


def _exported(node: gs.Node) -> onnx.NodeProto:
    """Export a node; a mark is the identity."""
    exported: onnx.NodeProto = Exporter.export_node(node)
    if node.domain == DOMAIN and node.op in MARKS:
        exported = onnx.helper.make_node("Identity", list(exported.input), list(exported.output), name=node.name)
    return exported


def _describe(tensor: gs.Tensor, *, with_shape: bool) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype if tensor.dtype is not None else np.float32))
    shape = None
    if with_shape and tensor.shape is not None:
        shape = [None if i == 0 or not isinstance(d, int) else d for i, d in enumerate(tensor.shape)]
    return onnx.helper.make_tensor_value_info(tensor.name, kind, shape)


class SegmentRunner:
    """A segment that is ready to run, once or over time."""

    def __init__(
        self,
        graph: gs.Graph,
        segment: Segment,
        analysis: Analysis,
        threads: int = 0,
        buffers: BufferPool | None = None,
        *,
        apart: bool = False,
    ) -> None:
        """Load the segment.

        Args:
            graph: the graph that it is a piece of.
            segment: the piece.
            analysis: the graph's analysis.
            threads: size of the session's thread pool, 0 for one thread per core.
            buffers: where the outputs over time come from; None: fresh arrays.
            apart: each sample gets, bit for bit, what it would get alone, where axis 0 enumerates samples.

        Raises:
            ModelError: ONNX Runtime can't load it.
        """
        self.segment, self._buffers = segment, buffers
        self._shapes = {t.name: _shape_of_sample(t, analysis) for t in segment.outputs}
        self._batched = analysis.batched
        self._foldable = analysis.foldable
        model = submodel(graph, segment.nodes, segment.inputs, segment.outputs)
        what = f"the layers around node '{segment.nodes[0].name}'"
        self._session: Session | RowSession
        if apart and analysis.foldable and all(t.name in analysis.batched for t in segment.outputs):
            batched = {t.name for t in segment.inputs if t.name in analysis.batched}
            self._session = RowSession(model, what, threads, batched)
        else:
            self._session = Session(model, what, threads)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once, on plain tensors."""
        return self._session.run(feeds)

    def run_over_time(
        self, feeds: Mapping[str, OverTime | Array], temporal: set[str], timesteps: int
    ) -> dict[str, Array]:
        """Run at every timestep, at as many of them together as stay in the cache.

        Args:
            feeds: temporal tensors as [T, N, ...], the others as [N, ...].
            temporal: names of the temporal ones.
            timesteps: T.

        Returns:
            The outputs as [T, N, ...].
        """
        if not self._foldable:
            results: dict[str, Array] | None = None
            for t in range(timesteps):
                step = {k: v[t : t + 1][0] if k in temporal else np.asarray(v) for k, v in feeds.items()}
                found = {name: value[None] for name, value in self._session.run(step).items()}
                results = self._placed(results, found, slice(t, t + 1), timesteps)
            return results or {}
        samples = next((v.shape[1] if n in temporal else v.shape[0] for n, v in feeds.items() if n in self._batched), 1)
        results = room = self._room(timesteps, samples)
        for block in self._blocks(feeds, temporal, timesteps, samples):
            folded = {name: self._folded(name, value, name in temporal, block) for name, value in feeds.items()}
            if room is not None:
                self._session.run_into(folded, {k: v[block].reshape(-1, *v.shape[2:]) for k, v in room.items()})
                self._give_back(folded[name] for name, value in feeds.items() if not isinstance(value, np.ndarray))
                continue
            steps = block.stop - block.start
            found = {k: v.reshape(steps, -1, *v.shape[1:]) for k, v in self._session.run(folded).items()}
            results = self._placed(results, found, block, timesteps)
        return results or {}

    def _blocks(
        self, feeds: Mapping[str, OverTime | Array], temporal: set[str], timesteps: int, samples: int
    ) -> list[slice]:
        """Cut the timesteps into those that run together."""
        sizes = [math.prod(v.shape[1:]) for n, v in feeds.items() if n in temporal]
        sizes += [samples * math.prod(shape) for shape in self._shapes.values() if shape is not None]
        return blocks(timesteps, max(sizes, default=0), _ROWS // max(1, samples))

    def _placed(
        self, results: dict[str, Array] | None, found: dict[str, Array], block: slice, timesteps: int
    ) -> dict[str, Array]:
        """Put what a block of timesteps gives into arrays for all of them, made with the first."""
        if results is None:
            if block == slice(0, timesteps):
                return found
            results = {k: self._empty((timesteps, *v.shape[1:]), v.dtype) for k, v in found.items()}
        for name, value in found.items():
            results[name][block] = value
        return results

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if self._buffers is None or dtype != np.float32:
            return np.empty(shape, dtype)
        return self._buffers.take(shape)

    def _folded(self, name: str, value: OverTime | Array, is_temporal: bool, block: slice) -> Array:
        """Return a tensor at a block of timesteps, with time folded into its first axis."""
        if is_temporal:
            part = value[block]
            return part.reshape(-1, *part.shape[2:])
        whole = np.asarray(value)
        return np.tile(whole, (block.stop - block.start,) + (1,) * (whole.ndim - 1)) if name in self._batched else whole

    def _give_back(self, arrays: Iterable[Array]) -> None:
        for array in arrays:
            if self._buffers is not None:
                self._buffers.give(array)

    def _room(self, timesteps: int, samples: int) -> dict[str, Array] | None:
        """Return arrays for the outputs over time [T, N, ...], if their sizes are known."""
        if self._buffers is None or None in self._shapes.values():
            return None
        shapes = {name: (timesteps, samples, *(shape or ())) for name, shape in self._shapes.items()}
        return {name: self._buffers.take(shape) for name, shape in shapes.items()}


def _shape_of_sample(tensor: gs.Tensor, analysis: Analysis) -> tuple[int, ...] | None:
    """Return the shape without samples of a float32 tensor; None if it isn't known, or axis 0 isn't that of samples."""
    shape = list(tensor.shape or ())
    if tensor.name not in analysis.batched or tensor.dtype != np.float32:
        return None
    return tuple(shape[1:]) if shape and all(isinstance(d, int) and d > 0 for d in shape[1:]) else None


def reads(step: Step) -> list[str]:
    """Return the names of the tensors that a step reads, constants aside."""
    if isinstance(step, Segment):
        return [t.name for t in step.inputs]
    return list({t.name: None for t in outer_inputs(step) if not isinstance(t, gs.Constant)})
