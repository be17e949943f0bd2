"""Lowering onto a Scan over timesteps, for networks whose batch axis can't hold time.

    static ──┐
             ├── Scan(states..., 0..T-1) ── [T, N, ...] ── fold ── RateDecode ── readout
    frames ──┤
    states ──┘     body: the network at one timestep, a BurstIFStep where a neuron was

The state of a neuron is its membrane potential, or what it has summed up and emitted; that of a MaxPool and of a
running mean is the sum of the inputs so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from snncc.analysis import Analysis, Domain, Form
from snncc.context import Context
from snncc.errors import Obstacle, UnsupportedModelError
from snncc.graph import (
    DOMAIN,
    captured,
    is_missing,
    outer_inputs,
    replace_reads,
    shape_of,
    static_dims,
    subgraphs_of,
    unique_name,
)
from snncc.ops import Role, is_frames, is_partial, spec_of, works_on_means

_MOST_ELEMENTS = 1 << 31
"""Largest state whose declared size is taken at its word."""


def pool_attributes(node: gs.Node) -> dict[str, Any]:
    """Return the attributes of a MaxPool with every default written out and padding made explicit.

    Raises:
        UnsupportedModelError: the padding depends on a size that isn't known.
    """
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    strides = [int(s) for s in node.attrs.get("strides", [1] * len(kernel))]
    dilations = [int(d) for d in node.attrs.get("dilations", [1] * len(kernel))]
    mode = node.attrs.get("auto_pad", "NOTSET")
    pads = [int(p) for p in node.attrs.get("pads", [0] * (2 * len(kernel)))]
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        sizes = static_dims((shape_of(node.inputs[0]) or (None, None))[2:])
        if sizes is None or len(sizes) != len(kernel):
            reason = f"its padding {mode} depends on an input size that isn't fixed"
            remedy = "export the network with a fixed image size or explicit pads"
            raise UnsupportedModelError([Obstacle(node.name, node.op, reason, remedy)])
        pads = _same_pads(sizes, kernel, strides, dilations, upper=mode == "SAME_UPPER")
    elif mode == "VALID":
        pads = [0] * (2 * len(kernel))
    ceil_mode = int(node.attrs.get("ceil_mode", 0))
    return {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations, "ceil_mode": ceil_mode}


def _same_pads(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], *, upper: bool
) -> list[int]:
    before, after = [], []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (k - 1) * dilation + 1
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        small, large = total // 2, total - total // 2
        before.append(small if upper else large)
        after.append(large if upper else small)
    return before + after


def lower_to_scan(graph: gs.Graph, ctx: Context, crossing: Sequence[gs.Tensor]) -> dict[str, gs.Tensor]:
    """Move the temporal nodes into a Scan.

    Args:
        graph: the graph with neurons; changed in place.
        ctx: context with the analysis of that graph.
        crossing: temporal tensors that are needed outside.

    Returns:
        For each of `crossing`, by name, the folded tensor [T*N, ...] that replaces it.
    """
    temporal = [n for n in graph.nodes if ctx.analysis.domains[n.name] is Domain.TEMPORAL]
    builder = _ScanBuilder(graph, ctx, shadows(graph, temporal, ctx.analysis))
    for node in temporal:
        builder.lower(node)
    builder.make_finite(guarded(graph, ctx.analysis))
    body_nodes = builder.nodes
    for tensor in (t for node in body_nodes for t in node.outputs):
        # ONNX Runtime makes room for what the Scan emits by the sizes it finds here, and a file may lie about them.
        tensor.shape = None if tensor.shape is None else [None] * len(tensor.shape)
    moved = {id(node) for node in temporal}
    emitted, leaving, raw = [], {}, []
    for tensor in crossing:
        emit = gs.Variable(f"{tensor.name}.emitted", dtype=tensor.dtype)
        body_nodes.append(gs.Node("Identity", name=f"emit:{tensor.name}", inputs=[tensor], outputs=[emit]))
        emitted.append(emit)
        stacked = gs.Variable(unique_name(graph, f"{tensor.name}.over_time"), dtype=tensor.dtype)
        raw.append(stacked)
        leaving[tensor.name] = stacked
    body = gs.Graph(
        nodes=body_nodes,
        inputs=[*builder.states_in, builder.step, *builder.frames],
        outputs=[*builder.states_out, *emitted],
        name="timestep",
        opset=graph.opset,
    )
    ends = [gs.Variable(unique_name(graph, f"{t.name}.end"), dtype=t.dtype) for t in builder.states_in]
    steps = gs.Constant(unique_name(graph, "timesteps"), np.arange(1, ctx.config.timesteps + 1, dtype=np.float32))
    scan = gs.Node(
        "Scan",
        name=unique_name(graph, "OverTime"),
        attrs={"body": body, "num_scan_inputs": 1 + len(builder.frames)},
        inputs=[*builder.initial, steps, *builder.sequences],
        outputs=[*ends, *raw],
    )
    for tensor in builder.sequences:
        tensor.shape = None if tensor.shape is None else [ctx.config.timesteps, *tensor.shape]
    position = min(i for i, n in enumerate(graph.nodes) if id(n) in moved)
    graph.nodes[:] = [n for n in graph.nodes if id(n) not in moved]
    graph.nodes.insert(position, scan)
    return {name: builder.fold(tensor) for name, tensor in leaving.items()}


def lowering_obstacles(graph: gs.Graph, analysis: Analysis) -> list[Obstacle]:
    """Return the nodes with a state or a window whose size can't be told before the network runs.

    A state, and what a Scan emits, must have a rank that shape inference finds; sizes may come from a first run.
    """
    found: list[Obstacle] = []
    for node in graph.nodes:
        if analysis.domains[node.name] is not Domain.TEMPORAL:
            continue
        mode = analysis.modes[node.name]
        if spec_of(node).role is Role.POOL and mode is Form.STEP:
            try:
                pool_attributes(node)
            except UnsupportedModelError as error:
                found += error.obstacles
        if analysis.foldable:
            continue
        kept = [t for t in _states_before(node, mode, analysis) if shape_of(t) is None]
        kept += [t for t in node.outputs if not is_missing(t) and shape_of(t) is None and _leaves(t, graph, analysis)]
        if _captures_temporal(node, analysis):
            kept += [t for t in node.outputs if not is_missing(t) and not _has_known_size(t, analysis)]
        found += [_state_obstacle(node, t) for t in kept[:1]]
    return found


def _leaves(tensor: gs.Tensor, graph: gs.Graph, analysis: Analysis) -> bool:
    """Whether the Scan emits a temporal tensor."""
    readers = [n for n in graph.nodes if any(t.name == tensor.name for t in outer_inputs(n))]
    is_output = any(t.name == tensor.name for t in graph.outputs)
    return is_output or any(analysis.domains[n.name] is not Domain.TEMPORAL for n in readers)


def _captures_temporal(node: gs.Node, analysis: Analysis) -> bool:
    """Whether a subgraph of a node reads a temporal tensor: such a node can't be copied."""
    return any(t.name in analysis.forms for sub in subgraphs_of(node) for t in captured(sub))


def shadows(graph: gs.Graph, temporal: Sequence[gs.Node], analysis: Analysis) -> dict[str, gs.Tensor]:
    """Copy what leads to the tensors whose state has an open size, to run once before the timesteps.

    Nothing but the shapes of the copies is used: a state must have its shape before the first timestep.

    Args:
        graph: the graph; the copies are added to it.
        temporal: its temporal nodes, in order.
        analysis: its analysis.

    Returns:
        The copies, by the names of the tensors that they stand for.
    """
    wanted = {
        t.name
        for node in temporal
        for t in _states_before(node, analysis.modes[node.name], analysis)
        if t.name in analysis.forms and not _has_known_size(t, analysis)
    }
    needed = set(wanted)
    for node in reversed(temporal):
        if any(t.name in needed for t in node.outputs):
            needed.update(t.name for t in node.inputs)
    copies: dict[str, gs.Tensor] = {}
    for node in temporal:
        if not any(t.name in needed for t in node.outputs):
            continue
        neuron = spec_of(node).role in (Role.ACTIVATION, Role.NEURON)
        inputs = [copies.get(t.name, t) for t in (node.inputs[:1] if neuron else node.inputs)]
        outputs = [t if is_missing(t) else _shadow(graph, t) for t in node.outputs]
        copies.update({t.name: c for t, c in zip(node.outputs, outputs, strict=True) if not is_missing(t)})
        op, attrs, domain = ("Identity", {}, None) if neuron else (node.op, dict(node.attrs), node.domain)
        if is_frames(node):  # the shape of one frame
            now = gs.Constant(unique_name(graph, f"{node.name}.first"), np.array(0, np.int64))
            op, attrs, domain, inputs = "Gather", {"axis": 0}, None, [node.inputs[0], now]
        name = unique_name(graph, f"{node.name}.shape_only")
        graph.nodes.append(gs.Node(op, name, attrs, inputs, outputs, domain=domain))
    return copies


def _shadow(graph: gs.Graph, tensor: gs.Tensor) -> gs.Tensor:
    return gs.Variable(unique_name(graph, f"{tensor.name}.shape_only"), dtype=tensor.dtype)


def _states_before(node: gs.Node, mode: Form, analysis: Analysis) -> list[gs.Tensor]:
    """Return the inputs of a temporal node that need a state: a neuron's, or one that changes its form."""
    role = spec_of(node).role
    if role in (Role.ACTIVATION, Role.NEURON) or (role is Role.POOL and mode is Form.STEP):
        return [node.inputs[0]]
    return [t for t in outer_inputs(node) if analysis.needs_conversion(t.name, mode, t.dtype)]


def _has_known_size(tensor: gs.Tensor, analysis: Analysis) -> bool:
    shape = shape_of(tensor)
    fixed = static_dims(shape)
    if fixed is not None:  # a file may declare any size of an output: a monstrous one is not to be believed
        return math.prod(fixed) <= _MOST_ELEMENTS
    of_samples = tensor.name in analysis.batched and shape and static_dims(shape[1:]) is not None
    return bool(of_samples)


def guarded(graph: gs.Graph, analysis: Analysis) -> list[tuple[gs.Tensor, list[gs.Node]]]:
    """Find the means over time that may not be finite at first, with the nodes that would carry that on.

    Args:
        graph: the graph, lowered but for this; neurons and increments are those that sum up what they read.
        analysis: the analysis of the graph before it was lowered.

    Returns:
        Tensors, each with the nodes of the domain `snncc` that read it.
    """
    unsafe: set[str] = set()
    for node in graph.nodes:
        if analysis.modes.get(node.name) is not Form.MEAN or works_on_means(node):
            continue
        if is_partial(node) or any(t.name in unsafe for t in outer_inputs(node)):
            unsafe.update(t.name for t in node.outputs)
    tensors = graph.tensors()
    keeping = ("Increment", "IncrementStep", "SignedBurst", "SignedBurstStep")
    found = []
    for name in sorted(unsafe & tensors.keys()):
        readers = [n for n in tensors[name].outputs if n.domain == DOMAIN and n.op in keeping]
        if readers:
            found.append((tensors[name], readers))
    return found


def _state_obstacle(node: gs.Node, tensor: gs.Tensor) -> Obstacle:
    what = "rank" if tensor.shape is None else f"size {list(tensor.shape)}"
    reason = f"the network must step through a Scan, and the {what} of this node's state isn't known"
    return Obstacle(node.name, node.op, reason, "export the network with fixed sizes")


class _ScanBuilder:
    """Collects the nodes of the body, its states and what they start from."""

    def __init__(self, graph: gs.Graph, ctx: Context, copies: dict[str, gs.Tensor]) -> None:
        self.graph, self.ctx, self.copies = graph, ctx, copies
        self.nodes: list[gs.Node] = []
        self.step = gs.Variable("timestep", dtype=np.float32, shape=[])
        self.states_in: list[gs.Tensor] = []
        self.states_out: list[gs.Tensor] = []
        self.initial: list[gs.Tensor] = []
        self.sequences: list[gs.Tensor] = []  # the inputs that present frames
        self.frames: list[gs.Tensor] = []  # the frame of each at a timestep
        self._converted: dict[tuple[str, Form], gs.Tensor] = {}
        self._zero: gs.Constant | None = None

    def lower(self, node: gs.Node) -> None:
        """Put a node into the body, as it stands there, with what converts its inputs before it."""
        role, analysis = spec_of(node).role, self.ctx.analysis
        mode = analysis.modes[node.name]
        current = node.inputs[0] if node.inputs else None  # a converted tensor is known inside the body only
        wanted = [t for t in outer_inputs(node) if analysis.needs_conversion(t.name, mode, t.dtype)]
        replace_reads(node, {t.name: self._as(t, mode) for t in wanted})
        if is_frames(node):
            self._take_frames(node)
        if role is Role.NEURON:
            self._lower_neuron(node, current)
        elif role is Role.POOL and mode is Form.STEP:
            state, after = self._state(node.name, "total", self._nothing(), current)
            node.attrs = pool_attributes(node)
            node.op, node.domain = "MaxPoolIncrementStep", DOMAIN
            node.inputs = [node.inputs[0], state]
            node.outputs.append(after)
        self.nodes.append(node)

    def _take_frames(self, node: gs.Node) -> None:
        self.sequences.append(node.inputs[0])
        self.frames.append(gs.Variable(f"{node.inputs[0].name}.frame", dtype=node.inputs[0].dtype))
        node.op, node.domain, node.attrs, node.inputs = "Identity", None, {}, [self.frames[-1]]

    def _lower_neuron(self, node: gs.Node, current: gs.Tensor) -> None:
        node.attrs.pop("timesteps")
        if node.op == "BurstIF":
            state, after = self._state(node.name, "v_mem", node.inputs[2], current)
            node.inputs = [*node.inputs[:2], state]
            node.outputs.append(after)
        else:
            kinds = ("count",) if node.op == "SignedBurst" else ("total", "count")
            numbered = [] if node.op == "SignedBurstRelu" else [self.step]
            states = [self._state(node.name, kind, self._nothing(), current) for kind in kinds]
            node.inputs = [*node.inputs, *numbered, *(before for before, _ in states)]
            node.outputs = [*node.outputs, *(after for _, after in states)]
        node.op = f"{node.op}Step"

    def _as(self, tensor: gs.Tensor, mode: Form) -> gs.Tensor:
        """Return a tensor in another form."""
        if (tensor.name, mode) in self._converted:
            return self._converted[tensor.name, mode]
        op, kind, suffix = (
            ("RunningMean", "total", "mean") if mode is Form.MEAN else ("Increment", "before", "increment")
        )
        name = unique_name(self.graph, f"{op}:{tensor.name}")
        state, after = self._state(name, kind, self._nothing(), tensor)
        result = gs.Variable(f"{tensor.name}.{suffix}", dtype=np.float32)
        inputs = [tensor, self.step, state]
        self.nodes.append(gs.Node(f"{op}Step", name, {}, inputs, [result, after], domain=DOMAIN))
        self._converted[tensor.name, mode] = result
        return result

    def make_finite(self, found: list[tuple[gs.Tensor, list[gs.Node]]]) -> None:
        """Guard tensors; see `guarded`."""
        for tensor, readers in found:
            finite = gs.Variable(f"{tensor.name}.finite", dtype=np.float32)
            guard = gs.Node("Finite", f"Finite:{tensor.name}", {}, [tensor], [finite], domain=DOMAIN)
            position = min(i for i, node in enumerate(self.nodes) if any(node is r for r in readers))
            self.nodes.insert(position, guard)
            for node in readers:
                replace_reads(node, {tensor.name: finite})

    def _nothing(self) -> gs.Constant:
        if self._zero is None:
            self._zero = gs.Constant(unique_name(self.graph, "nothing"), np.array(0.0, np.float32))
        return self._zero

    def fold(self, tensor: gs.Tensor) -> gs.Tensor:
        """Merge the leading time axis of a stacked tensor [T, N, ...] into the next one."""
        folded = gs.Variable(unique_name(self.graph, f"{tensor.name}.folded"), dtype=tensor.dtype)
        flat = gs.Variable(unique_name(self.graph, f"{tensor.name}.tail"), dtype=np.int64)
        shape = gs.Variable(unique_name(self.graph, f"{tensor.name}.shape"), dtype=np.int64)
        free = gs.Constant(unique_name(self.graph, f"{tensor.name}.free"), np.array([-1], np.int64))
        name = tensor.name
        self.graph.nodes += [
            gs.Node("Shape", name=f"tail:{name}", attrs={"start": 2}, inputs=[tensor], outputs=[flat]),
            gs.Node("Concat", name=f"shape:{name}", attrs={"axis": 0}, inputs=[free, flat], outputs=[shape]),
            gs.Node("Reshape", name=f"fold:{name}", inputs=[tensor, shape], outputs=[folded]),
        ]
        return folded

    def _state(self, owner: str, kind: str, start: gs.Tensor, like: gs.Tensor) -> tuple[gs.Tensor, gs.Tensor]:
        """Make a state of the shape of a tensor; return it before and after the timestep."""
        dims = self._dims(owner, like)
        before = gs.Variable(f"{owner}.{kind}", dtype=np.float32)
        after = gs.Variable(f"{owner}.{kind}.next", dtype=np.float32)
        initial = gs.Variable(unique_name(self.graph, f"{owner}.{kind}.initial"), dtype=np.float32)
        name = unique_name(self.graph, f"initial:{owner}.{kind}")
        self.graph.nodes.insert(0, gs.Node("Expand", name=name, inputs=[start, dims], outputs=[initial]))
        self.states_in.append(before)
        self.states_out.append(after)
        self.initial.append(initial)
        return before, after

    def _dims(self, owner: str, tensor: gs.Tensor) -> gs.Tensor:
        """Return the shape of a tensor at one timestep, as a tensor."""
        shape = shape_of(tensor)
        fixed = static_dims(shape)
        base = f"{owner}.state_shape"
        if fixed is not None and _has_known_size(tensor, self.ctx.analysis):
            return gs.Constant(unique_name(self.graph, base), np.array(fixed, np.int64))
        if not _has_known_size(tensor, self.ctx.analysis):
            return self._dims_of_copy(base, tensor)
        tail = static_dims((shape or ())[1:]) or ()
        count = gs.Variable(unique_name(self.graph, f"{base}.samples"), dtype=np.int64, shape=[1])
        dims = gs.Variable(unique_name(self.graph, base), dtype=np.int64, shape=[len(tail) + 1])
        rest = gs.Constant(unique_name(self.graph, f"{base}.rest"), np.array(tail, np.int64))
        axis = 1 if self.ctx.analysis.tensors[self.graph.inputs[0].name] is Domain.TEMPORAL else 0
        first = {"start": axis, "end": axis + 1}
        self.graph.nodes[:0] = [
            gs.Node("Shape", name=count.name, attrs=first, inputs=[self.graph.inputs[0]], outputs=[count]),
            gs.Node("Concat", name=dims.name, attrs={"axis": 0}, inputs=[count, rest], outputs=[dims]),
        ]
        return dims

    def _dims_of_copy(self, base: str, tensor: gs.Tensor) -> gs.Tensor:
        """Return the shape of a tensor of open size: that of its copy, or its own if it is static."""
        dims = gs.Variable(unique_name(self.graph, base), dtype=np.int64)
        source = self.copies.get(tensor.name, tensor)
        self.graph.nodes.append(gs.Node("Shape", name=dims.name, inputs=[source], outputs=[dims]))
        return dims
