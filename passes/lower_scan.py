"""Lowering onto a Scan over timesteps, for networks whose batch axis can't hold time.

    static ──┐
             ├── Scan(states..., 0..T-1) ── [T, N, ...] ── fold ── RateDecode ── readout
    states ──┘     body: the network at one timestep, a BurstIFStep where a neuron was

The state of a neuron is its membrane potential, that of a MaxPool the sum of its inputs so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from snncc.analysis import Analysis, Domain
from snncc.context import Context
from snncc.errors import Obstacle, UnsupportedModelError
from snncc.graph import DOMAIN, shape_of, static_dims, unique_name
from snncc.ops import Role, spec_of


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
    builder = _ScanBuilder(graph, ctx)
    body_nodes = [builder.lower(node) for node in temporal]
    moved = {id(node) for node in temporal}
    step = gs.Variable("timestep", dtype=np.float32, shape=[])
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
        inputs=[*builder.states_in, step],
        outputs=[*builder.states_out, *emitted],
        name="timestep",
        opset=graph.opset,
    )
    ends = [gs.Variable(unique_name(graph, f"{t.name}.end"), dtype=t.dtype) for t in builder.states_in]
    steps = gs.Constant(unique_name(graph, "timesteps"), np.arange(ctx.config.timesteps, dtype=np.float32))
    scan = gs.Node(
        "Scan",
        name=unique_name(graph, "OverTime"),
        attrs={"body": body, "num_scan_inputs": 1},
        inputs=[*builder.initial, steps],
        outputs=[*ends, *raw],
    )
    position = min(i for i, n in enumerate(graph.nodes) if id(n) in moved)
    graph.nodes[:] = [n for n in graph.nodes if id(n) not in moved]
    graph.nodes.insert(position, scan)
    return {name: builder.fold(tensor) for name, tensor in leaving.items()}


def lowering_obstacles(graph: gs.Graph, analysis: Analysis) -> list[Obstacle]:
    """Return the nodes with a state or a window whose size can't be told before the network runs."""
    found: list[Obstacle] = []
    for node in graph.nodes:
        role = spec_of(node).role
        if analysis.domains[node.name] is not Domain.TEMPORAL:
            continue
        if role is Role.RATE:
            try:
                pool_attributes(node)
            except UnsupportedModelError as error:
                found += error.obstacles
        if not analysis.foldable and role in (Role.ACTIVATION, Role.NEURON, Role.RATE):
            shape = shape_of(node.inputs[0])
            of_samples = node.inputs[0].name in analysis.batched and shape and static_dims(shape[1:]) is not None
            if static_dims(shape) is None and not of_samples:
                found.append(_state_obstacle(node))
    return found


def _state_obstacle(node: gs.Node) -> Obstacle:
    size = "of unknown rank" if node.inputs[0].shape is None else f"{list(node.inputs[0].shape)}"
    reason = f"the network must step through a Scan, and the size {size} of this node's state isn't known"
    return Obstacle(node.name, node.op, reason, "export the network with fixed sizes")


class _ScanBuilder:
    """Collects the states of the body and what they start from."""

    def __init__(self, graph: gs.Graph, ctx: Context) -> None:
        self.graph, self.ctx = graph, ctx
        self.states_in: list[gs.Tensor] = []
        self.states_out: list[gs.Tensor] = []
        self.initial: list[gs.Tensor] = []

    def lower(self, node: gs.Node) -> gs.Node:
        """Return the node as it stands in the body."""
        role = spec_of(node).role
        if role is Role.NEURON:
            state, after = self._state(node, "v_mem", node.inputs[2])
            node.op = "BurstIFStep"
            node.attrs.pop("timesteps")
            node.inputs = [node.inputs[0], node.inputs[1], state]
            node.outputs.append(after)
        elif role is Role.RATE:
            zero = gs.Constant(unique_name(self.graph, f"{node.name}.zero"), np.array(0.0, np.float32))
            state, after = self._state(node, "total", zero)
            node.attrs = pool_attributes(node)
            node.op, node.domain = "MaxPoolIncrementStep", DOMAIN
            node.inputs = [node.inputs[0], state]
            node.outputs.append(after)
        return node

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

    def _state(self, node: gs.Node, kind: str, start: gs.Tensor) -> tuple[gs.Tensor, gs.Tensor]:
        dims = self._dims(node)
        before = gs.Variable(f"{node.name}.{kind}", dtype=np.float32)
        after = gs.Variable(f"{node.name}.{kind}.next", dtype=np.float32)
        initial = gs.Variable(unique_name(self.graph, f"{node.name}.{kind}.initial"), dtype=np.float32)
        name = unique_name(self.graph, f"initial:{node.name}.{kind}")
        self.graph.nodes.insert(0, gs.Node("Expand", name=name, inputs=[start, dims], outputs=[initial]))
        self.states_in.append(before)
        self.states_out.append(after)
        self.initial.append(initial)
        return before, after

    def _dims(self, node: gs.Node) -> gs.Tensor:
        """Return the shape of a node's first input at one timestep, as a tensor."""
        shape = shape_of(node.inputs[0])
        fixed = static_dims(shape)
        base = f"{node.name}.state_shape"
        if fixed is not None:
            return gs.Constant(unique_name(self.graph, base), np.array(fixed, np.int64))
        tail = static_dims(shape[1:]) if shape else None
        if tail is None:
            raise UnsupportedModelError([_state_obstacle(node)])
        count = gs.Variable(unique_name(self.graph, f"{base}.samples"), dtype=np.int64, shape=[1])
        dims = gs.Variable(unique_name(self.graph, base), dtype=np.int64, shape=[len(tail) + 1])
        rest = gs.Constant(unique_name(self.graph, f"{base}.rest"), np.array(tail, np.int64))
        first = {"start": 0, "end": 1}
        self.graph.nodes[:0] = [
            gs.Node("Shape", name=count.name, attrs=first, inputs=[self.graph.inputs[0]], outputs=[count]),
            gs.Node("Concat", name=dims.name, attrs={"axis": 0}, inputs=[count, rest], outputs=[dims]),
        ]
        return dims
