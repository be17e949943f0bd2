"""Lowering: the network with neurons becomes one that steps through time, in ONNX terms.

Time is folded into the batch axis, time-major, so that each layer is one large call and the graph keeps its shape:

    x ── Conv ── BurstIF ── Conv ── BurstIF ── Gemm ──
    x ── Conv ── RepeatInput ── BurstIF ── Conv ── BurstIF ── RateDecode ── Gemm ──
         [N,...]              [T*N,...]                                  [N,...]

Between neurons, values change their form where a node works on another one than it gets (`snncc.analysis.Form`):

    step ── RunningMean ── Softmax ── Increment ── step

An input that presents frames has a time axis of its own, which is folded too:

    x ── Frames ── Conv ──      ->      x [T,N,...] ── FoldTime ── Conv ──

Neurons may start anew after each period of R timesteps; then each period is a sample of its own until it is decoded,
and the folded axis is [R, T/R, N] instead of [T, N].

With a trace, RunningMean stands in for RateDecode, the readout runs on [T*N, ...], and the last step is the output.
A network whose batch axis can't hold time is lowered by `snncc.passes.lower_scan` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from snncc.analysis import Domain, Form
from snncc.context import Context
from snncc.graph import DOMAIN, Dim, is_missing, outer_inputs, replace_reads, shape_of, unique_name
from snncc.ops import Role, is_frames, spec_of
from snncc.passes.base import Pass
from snncc.passes.lower_scan import guarded, lower_to_scan, pool_attributes


@dataclass(frozen=True)
class LowerTime(Pass):
    """Unroll time over the batch axis, or over a Scan where that isn't possible."""

    preserves_outputs: ClassVar[bool] = False

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Lower in place; `ctx.analysis` describes the graph with its neurons."""
        lowering = _Lowering(graph, ctx)
        if ctx.analysis.foldable:
            lowering.fold()
        else:
            ctx.warn(
                "time can't be folded into the batch axis, so the network steps through a Scan, which is slower: "
                + ctx.analysis.fold_blockers[0]
            )
            lowering.scan()
        graph.cleanup(remove_unused_graph_inputs=False).toposort()
        return True


class _Lowering:
    def __init__(self, graph: gs.Graph, ctx: Context) -> None:
        self.graph, self.ctx, self.analysis = graph, ctx, ctx.analysis
        self.timesteps = {"timesteps": ctx.config.timesteps}
        self.period = {"timesteps": ctx.config.period}
        self.restarts = ctx.config.period < ctx.config.timesteps
        self.original: list[tuple[gs.Tensor, str]] = [(t, t.name) for t in graph.outputs]
        self.folded_axis = _free_symbol(graph, "T*N")
        self.shapes = [shape_of(t) for t in graph.outputs]

    def fold(self) -> None:
        """Lower onto the batch axis."""
        repeated: dict[str, gs.Tensor] = {}
        converted: dict[tuple[str, Form], gs.Tensor] = {}
        temporal = [n for n in self.graph.nodes if self.analysis.domains[n.name] is Domain.TEMPORAL]
        for node in temporal:
            mode = self.analysis.modes[node.name]
            replaced: dict[str, gs.Tensor] = {}
            for tensor in outer_inputs(node):
                if self._needs_repeat(tensor):
                    if tensor.name not in repeated:
                        repeated[tensor.name] = self._insert("RepeatInput", tensor, "repeated")
                    replaced[tensor.name] = repeated[tensor.name]
                elif self.analysis.needs_conversion(tensor.name, mode, tensor.dtype):
                    if (tensor.name, mode) not in converted:
                        converted[tensor.name, mode] = self._convert(tensor, mode)
                    replaced[tensor.name] = converted[tensor.name, mode]
            replace_reads(node, replaced)
            if is_frames(node):
                self._take_frames(node)
            if spec_of(node).role is Role.POOL and mode is Form.STEP:
                node.attrs = {**self.period, **pool_attributes(node)}
                node.op, node.domain = f"{node.op}Increment", DOMAIN
        self._make_finite(temporal)
        self._open_batch(Domain.TEMPORAL)
        self._decode({t.name: t for t in self._crossing()}, repeated)

    def _take_frames(self, node: gs.Node) -> None:
        """Give an input that presents frames its time axis."""
        tensor = node.inputs[0]
        node.op = "FoldTime"
        tensor.shape = None if tensor.shape is None else [self.ctx.config.timesteps, *tensor.shape]

    def _convert(self, tensor: gs.Tensor, mode: Form) -> gs.Tensor:
        if mode is Form.MEAN:
            return self._insert("RunningMean", tensor, "mean", self.period)
        return self._insert("Increment", tensor, "increment", self.period)

    def _make_finite(self, temporal: list[gs.Node]) -> None:
        """Guard what keeps a sum over time against values that an operator isn't defined for."""
        for tensor, readers in guarded(self.graph, self.analysis):
            finite = self._insert("Finite", tensor, "finite")
            for node in readers:
                replace_reads(node, {tensor.name: finite})

    def scan(self) -> None:
        """Lower onto a Scan; what leaves it comes back as folded spikes over time."""
        crossing = self._crossing()
        leaving = lower_to_scan(self.graph, self.ctx, crossing)
        self._decode(leaving, {})

    def _open_batch(self, domain: Domain) -> None:
        """State that axis 0 of a domain's tensors now holds time and samples."""
        for node in self.graph.nodes:
            if self.analysis.domains.get(node.name) is domain:
                for tensor in node.outputs:
                    tensor.shape = None if tensor.shape is None else self._folded_shape(tuple(tensor.shape))

    def _needs_repeat(self, tensor: gs.Tensor) -> bool:
        if isinstance(tensor, gs.Constant) or is_missing(tensor):
            return False
        static = self.analysis.tensors.get(tensor.name, Domain.STATIC) is Domain.STATIC
        return static and tensor.name in self.analysis.batched

    def _crossing(self) -> list[gs.Tensor]:
        """Return the temporal tensors that the readout or the user reads."""
        found: dict[str, gs.Tensor] = {}
        for node in self.graph.nodes:
            if self.analysis.domains.get(node.name) is Domain.READOUT:
                found.update({t.name: t for t in outer_inputs(node)})
        found.update({t.name: t for t in self.graph.outputs})
        return [t for t in found.values() if self.analysis.tensors.get(t.name) is Domain.TEMPORAL]

    def _decode(self, leaving: dict[str, gs.Tensor], repeated: dict[str, gs.Tensor]) -> None:
        """Put a decoder behind each temporal tensor that leaves (by original name) and finish the outputs."""
        trace = self.ctx.config.trace
        if trace:
            self._open_batch(Domain.READOUT)
        decoded = {name: self._decoded(name, tensor, trace=trace) for name, tensor in leaving.items()}
        for node in self.graph.nodes:
            if self.analysis.domains.get(node.name) is not Domain.READOUT:
                continue
            for tensor in outer_inputs(node):
                if trace and self._needs_repeat(tensor) and tensor.name not in repeated:
                    repeated[tensor.name] = self._insert("RepeatInput", tensor, "repeated")
            replace_reads(node, {**repeated, **decoded} if trace else decoded)
        for index, (tensor, name) in enumerate(self.original):
            self._finish_output(index, decoded.get(name, tensor), name, trace)

    def _decoded(self, name: str, tensor: gs.Tensor, *, trace: bool) -> gs.Tensor:
        """Return what the readout reads of a folded tensor that leaves under the given name."""
        varies = self.analysis.needs_conversion(name, Form.MEAN, tensor.dtype)
        if self.restarts and not varies and self.analysis.needs_conversion(name, Form.STEP, tensor.dtype):
            # It is a mean over one period only.
            varies, tensor = True, self._insert("Increment", tensor, "increment", self.period)
        if self.restarts and trace:
            tensor = self._insert("InOrder", tensor, "ordered")
        if varies:
            return self._insert("RunningMean" if trace else "RateDecode", tensor, "rate")
        return tensor if trace else self._insert("LastStep", tensor, "rate")  # it is a mean over time already

    def _finish_output(self, index: int, value: gs.Tensor, name: str, trace: bool) -> None:
        declared = self.graph.outputs[index]
        domain = self.analysis.tensors.get(name, Domain.STATIC)
        if domain is Domain.STATIC or (domain is Domain.READOUT and not trace):
            return
        declared_shape = self.shapes[index]
        shape = None if declared_shape is None else list(declared_shape)
        if declared.name == name:
            declared.name = unique_name(self.graph, f"{name}.spikes" if domain is Domain.TEMPORAL else f"{name}.folded")
        if not trace:
            final = value  # the decoder's output, which the readout may read too
            final.name, final.shape = name, shape
        else:
            final = gs.Variable(name, dtype=declared.dtype, shape=shape)
            self._add_node("LastStep", value, final)
            traced = gs.Variable(unique_name(self.graph, f"{name}_trace"), dtype=declared.dtype)
            traced.shape = None if shape is None else [self.ctx.config.timesteps, *shape]
            self._add_node("UnfoldTime", value, traced)
            self.graph.outputs.append(traced)
        self.graph.outputs[index] = final

    def _insert(self, op: str, source: gs.Tensor, suffix: str, timesteps: Mapping[str, int] | None = None) -> gs.Tensor:
        shape = shape_of(source)
        result = gs.Variable(unique_name(self.graph, f"{source.name}.{suffix}"), dtype=source.dtype)
        result.shape = None if shape is None or op in ("RateDecode", "LastStep") else self._folded_shape(shape)
        self._add_node(op, source, result, timesteps)
        return result

    def _add_node(
        self, op: str, source: gs.Tensor, result: gs.Tensor, timesteps: Mapping[str, int] | None = None
    ) -> None:
        name = unique_name(self.graph, f"{op}:{source.name}")
        attributes = {} if op == "Finite" else dict(timesteps or self.timesteps)
        if op == "InOrder":
            attributes |= {"period": self.ctx.config.period}
        node = gs.Node(op, name=name, attrs=attributes, inputs=[source], outputs=[result], domain=DOMAIN)
        self.graph.nodes.append(node)

    def _folded_shape(self, shape: tuple[Dim, ...]) -> list[Dim]:
        return [self.folded_axis, *shape[1:]] if shape else []


def _free_symbol(graph: gs.Graph, base: str) -> str:
    """Return a name for a size that no tensor's shape uses."""
    taken = {dim for t in graph.tensors().values() for dim in (shape_of(t) or ()) if isinstance(dim, str)}
    while base in taken:
        base += "'"
    return base
