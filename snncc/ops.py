"""What snncc knows about operators: the one table that every pass asks.

An operator has a role, the inputs in which it is linear, a rule that says whether it treats the samples of a batch
one by one (so that time can be folded into the batch axis), and the axis of the channels of its output. Passes ask for
these; no pass keeps a list of operator names. What isn't in the table is `Role.OTHER`: fine where it runs once (before
the first neuron or after the last), an obstacle between neurons.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from snncc.graph import DOMAIN, Dim, constant, is_missing, node_inputs, shape_of, static_dims


class Role(enum.Enum):
    """What an operator is to the conversion."""

    WEIGHTED = "weighted"  # linear, with learned weights: its input spikes become synaptic operations
    LINEAR = "linear"  # linear or affine without learned weights: passes time through
    ACTIVATION = "activation"  # becomes a neuron
    NEURON = "neuron"  # is one already
    RATE = "rate"  # not linear, applied to cumulative values, emits increments
    SHAPE = "shape"  # depends on the shape of its inputs only
    OTHER = "other"  # anything else


@dataclass(frozen=True)
class View:
    """What a rule may ask about tensors.

    Attributes:
        batched: whether axis 0 of a tensor enumerates samples.
    """

    batched: Callable[[gs.Tensor], bool]


BatchRule = Callable[[gs.Node, View], bool]


@dataclass(frozen=True)
class OpSpec:
    """One row of the table.

    Attributes:
        role: what the operator is to the conversion.
        linear_in: positions of the inputs that may vary over time together; None: all of them.
        single: of these, only one may vary (a product is linear in either factor, not in both).
        batch: whether the node maps samples to samples, axis 0 to axis 0; None: unknown, so no.
        channel_axis: axis of the output's channels; "same": that of the first input; "last".
        keeps_spikes: a train of spikes at the input leaves as a train of spikes (possibly moved, merged or scaled).
    """

    role: Role
    linear_in: tuple[int, ...] | None = (0,)
    single: bool = False
    batch: BatchRule | None = None
    channel_axis: int | str = "same"
    keeps_spikes: bool = False


@dataclass(frozen=True)
class Activation:
    """An activation that becomes a neuron.

    Attributes:
        kind: "relu" or "clip".
        upper: largest value of the activation, infinity for ReLU.
    """

    kind: str
    upper: float


def activation_of(node: gs.Node) -> Activation | None:
    """Recognise ReLU and Clip(0, a) with constant a > 0; None for everything else."""
    if node.domain not in (None, "", "ai.onnx"):
        return None
    if node.op == "Relu":
        return Activation("relu", float("inf"))
    if node.op != "Clip":
        return None
    low, high = _clip_bounds(node)
    if low == 0.0 and high is not None and high > 0.0:
        return Activation("relu" if np.isinf(high) else "clip", high)
    return None


def _clip_bounds(node: gs.Node) -> tuple[float | None, float | None]:
    """Return the bounds of a Clip of opset 11 or newer; None where a bound isn't constant."""
    bounds: list[float | None] = [-float("inf"), float("inf")]
    for position in (1, 2):
        if len(node.inputs) > position and not is_missing(node.inputs[position]):
            value = constant(node.inputs[position])
            bounds[position - 1] = None if value is None or value.size != 1 else float(value.reshape(()))
    return bounds[0], bounds[1]


# --- rules for the batch axis -------------------------------------------------------------------------------------


def _rank(tensor: gs.Tensor) -> int | None:
    shape = shape_of(tensor)
    return None if shape is None else len(shape)


def _first_input(node: gs.Node, view: View) -> bool:
    """The first input carries the samples and the other inputs don't."""
    return view.batched(node.inputs[0]) and not any(view.batched(t) for t in node_inputs(node)[1:])


def _elementwise(node: gs.Node, view: View) -> bool:
    """Broadcasting lines the sample axes up: equal ranks where there are samples, nothing on axis 0 elsewhere."""
    inputs = node_inputs(node)
    ranks = [_rank(t) for t in inputs]
    if any(rank is None for rank in ranks):
        return False
    known = [r for r in ranks if r is not None]
    rank = max((r for t, r in zip(inputs, known, strict=True) if view.batched(t)), default=0)
    for tensor, own in zip(inputs, known, strict=True):
        shape = shape_of(tensor) or ()
        if view.batched(tensor):
            if own != rank:
                return False
        elif own > rank or (own == rank and shape[:1] != (1,)):
            return False
    return rank > 0


def _axis_not_zero(default: int, attribute: str = "axis") -> BatchRule:
    """The operator works along one axis, which isn't the samples'."""

    def rule(node: gs.Node, view: View) -> bool:
        tensors = [t for t in node_inputs(node) if view.batched(t)]
        rank = _rank(tensors[0]) if tensors else None
        return rank is not None and int(node.attrs.get(attribute, default)) % rank != 0

    return rule


def _gather(node: gs.Node, view: View) -> bool:
    """Indices of the samples pick rows of a table, so their first axis leads; elsewhere they'd put it further back."""
    data, indices = node.inputs[:2]
    if view.batched(indices):
        return not view.batched(data) and int(node.attrs.get("axis", 0)) % (_rank(data) or 1) == 0
    return _first_input(node, view) and _axis_not_zero(0)(node, view)


def _concat(node: gs.Node, view: View) -> bool:
    return all(view.batched(t) for t in node_inputs(node)) and _axis_not_zero(0)(node, view)


def _axes(node: gs.Node, position: int) -> list[int] | None:
    """Return the axes that a node is given as input or attribute; None: none are given or they aren't constant."""
    if "axes" in node.attrs:
        return [int(a) for a in node.attrs["axes"]]
    if len(node.inputs) > position and not is_missing(node.inputs[position]):
        value = constant(node.inputs[position])
        return None if value is None else [int(a) for a in value.reshape(-1)]
    return None


def _axes_without_zero(position: int, *, of_output: bool = False) -> BatchRule:
    """The operator works along given axes, none of which is the samples'."""

    def rule(node: gs.Node, view: View) -> bool:
        axes = _axes(node, position)
        rank = _rank(node.outputs[0] if of_output else node.inputs[0])
        if axes is None or rank is None or not view.batched(node.inputs[0]):
            return False
        if not axes and not node.attrs.get("noop_with_empty_axes", 0):
            return False  # an empty list of axes means all of them
        return all(a % rank != 0 for a in axes)

    return rule


def _slice(node: gs.Node, view: View) -> bool:
    axes = _axes(node, 3)
    rank = _rank(node.inputs[0])
    return view.batched(node.inputs[0]) and axes is not None and rank is not None and all(a % rank for a in axes)


def _transpose(node: gs.Node, view: View) -> bool:
    return view.batched(node.inputs[0]) and bool(node.attrs.get("perm")) and node.attrs["perm"][0] == 0


def _flatten(node: gs.Node, view: View) -> bool:
    return view.batched(node.inputs[0]) and int(node.attrs.get("axis", 1)) == 1


def _reshape(node: gs.Node, view: View) -> bool:
    """[0, ...] keeps the samples; so does [-1, ...] where the sizes of one sample before and after are equal."""
    target = constant(node.inputs[1])
    if target is None or target.size == 0 or not view.batched(node.inputs[0]):
        return False
    if int(target[0]) == 0 and not node.attrs.get("allowzero", 0):
        return True
    before = static_dims((shape_of(node.inputs[0]) or (None, None))[1:])
    after = tuple(int(d) for d in target[1:])
    if int(target[0]) != -1 or before is None or any(d <= 0 for d in after):
        return False
    return int(np.prod(before, dtype=np.int64)) == int(np.prod(after, dtype=np.int64))


def _gemm(node: gs.Node, view: View) -> bool:
    if not view.batched(node.inputs[0]) or view.batched(node.inputs[1]) or node.attrs.get("transA", 0):
        return False
    if len(node.inputs) < 3 or is_missing(node.inputs[2]):
        return True
    shift = shape_of(node.inputs[2])
    if shift is None or view.batched(node.inputs[2]):
        return shift is not None and len(shift) == 2
    return len(shift) < 2 or shift[0] == 1


def _matmul(node: gs.Node, view: View) -> bool:
    left, right = node.inputs[:2]
    left_rank, right_rank = _rank(left), _rank(right)
    if left_rank is None or right_rank is None:
        return False
    if view.batched(left) and view.batched(right):
        return left_rank == right_rank and left_rank >= 3
    if view.batched(left):
        return left_rank >= 2 and right_rank <= 2
    return view.batched(right) and right_rank >= 3 and left_rank <= 2


def _pad(node: gs.Node, view: View) -> bool:
    rank = _rank(node.inputs[0])
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if pads is None or rank is None or not _first_input(node, view):
        return False
    axes = _axes(node, 3)
    if axes is None:
        return bool(len(pads) == 2 * rank and pads[0] == 0 and pads[rank] == 0)
    return all(a % rank for a in axes)


def _resize(node: gs.Node, view: View) -> bool:
    """Only scales are sure to leave the samples alone: sizes would fix their number."""
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 and not is_missing(node.inputs[2]) else None
    if scales is None and node.op == "Upsample" and len(node.inputs) > 1:
        scales = constant(node.inputs[1])
    if node.attrs.get("axes") is not None:
        return view.batched(node.inputs[0]) and all(int(a) > 0 for a in node.attrs["axes"])
    return view.batched(node.inputs[0]) and scales is not None and scales.size > 0 and float(scales[0]) == 1.0


def _expand(node: gs.Node, view: View) -> bool:
    """A target of the same rank that asks for one sample leaves any number of them as they are."""
    target, rank = constant(node.inputs[1]), _rank(node.inputs[0])
    return _first_input(node, view) and target is not None and len(target) == rank and int(target[0]) == 1


def _resize_is_linear(node: gs.Node) -> bool:
    return node.attrs.get("mode", "nearest") in ("nearest", "linear", "cubic")


# --- the table ----------------------------------------------------------------------------------------------------

_WEIGHTS = {
    "Conv": OpSpec(Role.WEIGHTED, batch=_first_input, channel_axis=1),
    "ConvTranspose": OpSpec(Role.WEIGHTED, batch=_first_input, channel_axis=1),
    "Gemm": OpSpec(Role.WEIGHTED, linear_in=(0, 2), batch=_gemm, channel_axis=1),
    "MatMul": OpSpec(Role.WEIGHTED, linear_in=(0, 1), single=True, batch=_matmul, channel_axis="last"),
}

_LINEAR = {
    "Add": OpSpec(Role.LINEAR, linear_in=None, batch=_elementwise, keeps_spikes=True),
    "Sub": OpSpec(Role.LINEAR, linear_in=None, batch=_elementwise, keeps_spikes=True),
    "Sum": OpSpec(Role.LINEAR, linear_in=None, batch=_elementwise, keeps_spikes=True),
    "Mean": OpSpec(Role.LINEAR, linear_in=None, batch=_elementwise, keeps_spikes=True),
    "Neg": OpSpec(Role.LINEAR, batch=_first_input, keeps_spikes=True),
    "Mul": OpSpec(Role.LINEAR, linear_in=(0, 1), single=True, batch=_elementwise, keeps_spikes=True),
    "Div": OpSpec(Role.LINEAR, batch=_elementwise, keeps_spikes=True),
    "BatchNormalization": OpSpec(Role.LINEAR, batch=_first_input),
    "AveragePool": OpSpec(Role.LINEAR, batch=_first_input, keeps_spikes=True),
    "GlobalAveragePool": OpSpec(Role.LINEAR, batch=_first_input, keeps_spikes=True),
    "ReduceMean": OpSpec(Role.LINEAR, batch=_axes_without_zero(1), keeps_spikes=True),
    "ReduceSum": OpSpec(Role.LINEAR, batch=_axes_without_zero(1), keeps_spikes=True),
    "Identity": OpSpec(Role.LINEAR, batch=_first_input, keeps_spikes=True),
    "Concat": OpSpec(Role.LINEAR, linear_in=None, batch=_concat, keeps_spikes=True),
    "Split": OpSpec(Role.LINEAR, batch=_axis_not_zero(0), keeps_spikes=True),
    "Reshape": OpSpec(Role.LINEAR, batch=_reshape, channel_axis=1, keeps_spikes=True),
    "Flatten": OpSpec(Role.LINEAR, batch=_flatten, channel_axis=1, keeps_spikes=True),
    "Squeeze": OpSpec(Role.LINEAR, batch=_axes_without_zero(1), channel_axis=1, keeps_spikes=True),
    "Unsqueeze": OpSpec(Role.LINEAR, batch=_axes_without_zero(1, of_output=True), channel_axis=1, keeps_spikes=True),
    "Transpose": OpSpec(Role.LINEAR, batch=_transpose, keeps_spikes=True),
    "Slice": OpSpec(Role.LINEAR, batch=_slice, keeps_spikes=True),
    "Gather": OpSpec(Role.LINEAR, batch=_gather, keeps_spikes=True),
    "Pad": OpSpec(Role.LINEAR, batch=_pad, keeps_spikes=True),
    "Expand": OpSpec(Role.LINEAR, batch=_expand, keeps_spikes=True),
    "Tile": OpSpec(Role.LINEAR, batch=_expand, keeps_spikes=True),
    "DepthToSpace": OpSpec(Role.LINEAR, batch=_first_input, channel_axis=1, keeps_spikes=True),
    "SpaceToDepth": OpSpec(Role.LINEAR, batch=_first_input, channel_axis=1, keeps_spikes=True),
    "Resize": OpSpec(Role.LINEAR, batch=_resize, keeps_spikes=True),
    "Upsample": OpSpec(Role.LINEAR, batch=_resize, keeps_spikes=True),
}

_UNARY = (
    *("Abs", "Cast", "Ceil", "Celu", "Cos", "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu"),
    *("HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Not", "QuantizeLinear", "Reciprocal"),
    *("Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"),
)
_SPATIAL = ("GlobalMaxPool", "InstanceNormalization", "LRN", "LpPool")
_BROADCASTING = (
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Pow", "PRelu", "Where"),
)

_NONLINEAR = {
    "Relu": OpSpec(Role.ACTIVATION, batch=_first_input),
    "Clip": OpSpec(Role.ACTIVATION, batch=_first_input),
    "MaxPool": OpSpec(Role.RATE, batch=_first_input, keeps_spikes=True),
    # Known so that samples can be followed through what runs once, before the first neuron and after the last.
    "Softmax": OpSpec(Role.OTHER, batch=_axis_not_zero(-1)),
    "LogSoftmax": OpSpec(Role.OTHER, batch=_axis_not_zero(-1)),
    "LayerNormalization": OpSpec(Role.OTHER, batch=_axis_not_zero(-1)),
    **{op: OpSpec(Role.OTHER, batch=_first_input) for op in (*_UNARY, *_SPATIAL)},
    **{op: OpSpec(Role.OTHER, batch=_elementwise) for op in _BROADCASTING},
    "ArgMax": OpSpec(Role.OTHER, batch=_axis_not_zero(0)),
    "Shape": OpSpec(Role.SHAPE),
    "Size": OpSpec(Role.SHAPE),
}

_TABLE = {**_WEIGHTS, **_LINEAR, **_NONLINEAR}

_SNNCC = {"BurstIF": OpSpec(Role.NEURON, batch=_first_input)}

_OTHER = OpSpec(Role.OTHER)


def spec_of(node: gs.Node) -> OpSpec:
    """Return the row of the table for a node; the role takes the node's attributes and inputs into account."""
    if node.domain == DOMAIN:
        return _SNNCC.get(node.op, _OTHER)
    if node.domain not in (None, "", "ai.onnx"):
        return _OTHER
    spec = _TABLE.get(node.op, _OTHER)
    if spec.role is Role.ACTIVATION and activation_of(node) is None:
        return OpSpec(Role.OTHER, batch=spec.batch)
    if node.op in ("Resize", "Upsample") and not _resize_is_linear(node):
        return OpSpec(Role.OTHER, batch=spec.batch)
    if node.op == "Pad" and node.attrs.get("mode", "constant") not in ("constant", "reflect", "edge", "wrap"):
        return _OTHER
    if node.op == "BatchNormalization" and node.attrs.get("training_mode", 0):
        return _OTHER
    if node.op == "MaxPool" and len(node.outputs) > 1 and not is_missing(node.outputs[1]):
        return _OTHER  # the indices of the maxima are no increment
    return spec


def is_linear(node: gs.Node, varies: Callable[[gs.Tensor], bool]) -> bool:
    """Whether the node is linear (or affine) in those of its inputs that vary over time.

    Args:
        node: the node.
        varies: says of a tensor whether its values change over time.
    """
    spec = spec_of(node)
    if spec.role not in (Role.LINEAR, Role.WEIGHTED):
        return False
    positions = [i for i, t in enumerate(node.inputs) if not is_missing(t) and varies(t)]
    if spec.linear_in is not None and any(p not in spec.linear_in for p in positions):
        return False
    return not (spec.single and len(positions) > 1)


def samplewise(node: gs.Node, batched: Callable[[gs.Tensor], bool]) -> bool:
    """Whether the node maps samples to samples with the sample axis at 0 before and after."""
    rule = spec_of(node).batch
    return rule is not None and rule(node, View(batched))


def multiply_accumulates(node: gs.Node, batch: int | None = None) -> int | None:
    """Return the multiply-accumulates of a weighted node for one sample; None if a size is unknown.

    Padding counts as in the usual tables: every output element costs the whole kernel.

    Args:
        node: the node.
        batch: the network's fixed number of samples; None: axis 0 of the node's tensors is the sample axis.
    """
    weights = next((t for t in node.inputs[:2] if isinstance(t, gs.Constant)), None)
    data = node.inputs[0] if node.op == "ConvTranspose" else node.outputs[0]
    shape = shape_of(data) or (None, None)
    whole = None if batch is None else static_dims(shape)
    dims = static_dims(shape[1:]) if whole is None else whole
    if weights is None or dims is None:
        return None
    total = int(np.prod(dims, dtype=np.int64)) * _fan_in(node, weights)
    return total if whole is None or batch is None else total // batch


def _fan_in(node: gs.Node, weights: gs.Constant) -> int:
    """Return the weights that each element of the output (of the input, for ConvTranspose) meets."""
    shape = weights.shape
    if node.op in ("Conv", "ConvTranspose"):
        return int(np.prod(shape[1:], dtype=np.int64))
    if node.op == "Gemm":
        return int(shape[1] if node.attrs.get("transB", 0) else shape[0])
    on_the_left = weights is node.inputs[0]
    return int(shape[-1] if on_the_left or len(shape) == 1 else shape[-2])


def channel_axis(tensor: gs.Tensor, by_name: dict[str, gs.Node]) -> int:
    """Return the axis of a tensor that holds its channels, following the nodes that made it.

    Axis 1 for what comes from convolutions and Gemm, the last axis after a MatMul, moved along by Transpose; 1 where
    nothing is known. Always less than the rank.

    Args:
        tensor: a tensor with known rank.
        by_name: the producer of each tensor, by the tensor's name.
    """
    rank = len(shape_of(tensor) or ())
    return min(_trace_channel(tensor, by_name, rank), max(rank - 1, 0))


def _trace_channel(tensor: gs.Tensor, by_name: dict[str, gs.Node], rank: int) -> int:
    transposed: list[list[int]] = []
    axis = 1
    for _ in range(10_000):
        node = by_name.get(tensor.name)
        if node is None:
            break
        rule = spec_of(node).channel_axis
        if node.op == "Transpose" and node.domain in (None, ""):
            perm = node.attrs.get("perm") or list(range(rank))[::-1]
            transposed.append([int(p) for p in perm])
        elif rule == "last":
            axis = rank - 1
            break
        elif rule != "same":
            axis = int(rule)
            break
        candidates = [t for t in node_inputs(node) if not isinstance(t, gs.Constant)]
        if not candidates:
            break
        tensor = candidates[0]
    for perm in reversed(transposed):
        axis = perm.index(axis) if axis in perm else 1
    return axis


def sample_dims(shape: tuple[Dim, ...] | None) -> tuple[int, ...] | None:
    """Return the sizes of one sample (everything but axis 0), None if one isn't known."""
    return None if shape is None else static_dims(shape[1:])
