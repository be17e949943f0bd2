"""What snncc knows about operators: the one table that every pass asks.

An operator has a role, the inputs in which it is linear, a rule that says whether it treats the samples of a batch
one by one (so that time can be folded into the batch axis), and the axis of the channels of its output. Passes ask for
these; no pass keeps a list of operator names. What isn't in the table is `Role.NONLINEAR`: between neurons it runs on
means over time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from snncc import batch_rules as rules
from snncc.activations import ENCODE, activation_of
from snncc.graph import (
    DOMAIN,
    INT8_CONV,
    INT8_MATMUL,
    ML_DOMAIN,
    SCALERS,
    Dim,
    constant,
    is_missing,
    node_inputs,
    shape_of,
    static_dims,
)


class Role(enum.Enum):
    """What an operator is to the conversion."""

    WEIGHTED = "weighted"  # linear, with learned weights: its input spikes become synaptic operations
    LINEAR = "linear"  # linear or affine without learned weights: passes time through
    ACTIVATION = "activation"  # becomes a neuron
    NEURON = "neuron"  # is one already
    POOL = "pool"  # MaxPool: positively homogeneous, so it can be applied to sums over time and emit what they gain
    SHAPE = "shape"  # depends on the shape of its inputs only
    NONLINEAR = "nonlinear"  # anything else: runs on means over time


@dataclass(frozen=True)
class OpSpec:
    """One row of the table.

    Attributes:
        role: what the operator is to the conversion.
        linear_in: positions of the inputs that may vary over time together; None: all of them.
        single: of these, only one may vary (a product is linear in either factor, not in both).
        batch: whether the node maps samples to samples, axis 0 to axis 0; None: unknown, so no.
        channel_axis: axis of the output's channels; "same": that of the first input; "last".
        by_channel: each channel of the output scales with the same channel of the input, if by a positive factor.
        keeps_spikes: a train of spikes at the input leaves as a train of spikes (possibly moved, merged or scaled).
        pointwise: each element of the output depends on the elements at the same place of the inputs only.
        activation: a pointwise function that networks use as activation; a neuron goes behind it.
        partial: not finite for some finite inputs (a division by zero, say), which means over few timesteps may hit.
        random: gives other values in every run.
    """

    role: Role
    linear_in: tuple[int, ...] | None = (0,)
    single: bool = False
    batch: rules.BatchRule | None = None
    channel_axis: int | str = "same"
    by_channel: bool = False
    keeps_spikes: bool = False
    pointwise: bool = False
    activation: bool = False
    partial: bool = False
    random: bool = False


FRAMES = "Frames"
"""Operator of the domain `snncc` that marks an input that presents a frame at each timestep: the identity."""
MARKS = (ENCODE, FRAMES)


def _resize_is_linear(node: gs.Node) -> bool:
    return node.attrs.get("mode", "nearest") in ("nearest", "linear", "cubic")


_WEIGHTS = {
    "Conv": OpSpec(Role.WEIGHTED, batch=rules.first_input, channel_axis=1),
    "ConvTranspose": OpSpec(Role.WEIGHTED, batch=rules.first_input, channel_axis=1),
    "Gemm": OpSpec(Role.WEIGHTED, linear_in=(0, 2), batch=rules.gemm, channel_axis=1),
    "MatMul": OpSpec(Role.WEIGHTED, linear_in=(0, 1), single=True, batch=rules.matmul, channel_axis="last"),
}

_LINEAR = {
    "Add": OpSpec(Role.LINEAR, linear_in=None, batch=rules.elementwise, keeps_spikes=True, pointwise=True),
    "Sub": OpSpec(Role.LINEAR, linear_in=None, batch=rules.elementwise, keeps_spikes=True, pointwise=True),
    "Sum": OpSpec(Role.LINEAR, linear_in=None, batch=rules.elementwise, keeps_spikes=True, pointwise=True),
    "Mean": OpSpec(Role.LINEAR, linear_in=None, batch=rules.elementwise, keeps_spikes=True, pointwise=True),
    "Neg": OpSpec(Role.LINEAR, batch=rules.first_input, keeps_spikes=True, pointwise=True),
    "Mul": OpSpec(
        Role.LINEAR, linear_in=(0, 1), single=True, batch=rules.elementwise, keeps_spikes=True, pointwise=True
    ),
    "Div": OpSpec(Role.LINEAR, batch=rules.elementwise, keeps_spikes=True, pointwise=True, partial=True),
    "BatchNormalization": OpSpec(Role.LINEAR, batch=rules.first_input),
    "AveragePool": OpSpec(Role.LINEAR, batch=rules.first_input, by_channel=True, keeps_spikes=True),
    "GlobalAveragePool": OpSpec(Role.LINEAR, batch=rules.first_input, by_channel=True, keeps_spikes=True),
    "ReduceMean": OpSpec(Role.LINEAR, batch=rules.axes_without_zero(1), keeps_spikes=True),
    "ReduceSum": OpSpec(Role.LINEAR, batch=rules.axes_without_zero(1), keeps_spikes=True),
    "Identity": OpSpec(Role.LINEAR, batch=rules.first_input, by_channel=True, keeps_spikes=True, pointwise=True),
    "Concat": OpSpec(Role.LINEAR, linear_in=None, batch=rules.concat, keeps_spikes=True),
    "Split": OpSpec(Role.LINEAR, batch=rules.axis_not_zero(0), keeps_spikes=True),
    "Reshape": OpSpec(Role.LINEAR, batch=rules.reshape, channel_axis=1, keeps_spikes=True),
    "Flatten": OpSpec(Role.LINEAR, batch=rules.flatten, channel_axis=1, keeps_spikes=True),
    "Squeeze": OpSpec(Role.LINEAR, batch=rules.axes_without_zero(1), channel_axis=1, keeps_spikes=True),
    "Unsqueeze": OpSpec(
        Role.LINEAR, batch=rules.axes_without_zero(1, of_output=True), channel_axis=1, keeps_spikes=True
    ),
    "Transpose": OpSpec(Role.LINEAR, batch=rules.transpose, keeps_spikes=True),
    "Slice": OpSpec(Role.LINEAR, batch=rules.slice, keeps_spikes=True),
    "Gather": OpSpec(Role.LINEAR, batch=rules.gather, keeps_spikes=True),
    "Pad": OpSpec(Role.LINEAR, batch=rules.pad, keeps_spikes=True),
    "DepthToSpace": OpSpec(Role.LINEAR, batch=rules.first_input, channel_axis=1, keeps_spikes=True),
    "SpaceToDepth": OpSpec(Role.LINEAR, batch=rules.first_input, channel_axis=1, keeps_spikes=True),
    "Resize": OpSpec(Role.LINEAR, batch=rules.resize, keeps_spikes=True),
    "Upsample": OpSpec(Role.LINEAR, batch=rules.resize, keeps_spikes=True),
    "Expand": OpSpec(Role.LINEAR, batch=rules.expand, keeps_spikes=True),
    "Tile": OpSpec(Role.LINEAR, batch=rules.tile, keeps_spikes=True),
    "GatherElements": OpSpec(Role.LINEAR, batch=rules.gather_elements, keeps_spikes=True),
    "Trilu": OpSpec(Role.LINEAR, batch=rules.trilu, keeps_spikes=True),
    "CumSum": OpSpec(Role.LINEAR, batch=rules.cumsum),
    "Einsum": OpSpec(Role.LINEAR, linear_in=None, single=True, batch=rules.einsum),
}

# Pointwise functions that networks use as activations.
_ACTIVATIONS = (
    *("Abs", "Celu", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Selu", "Sigmoid"),
    *("Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu"),
)
_POINTWISE = (
    *("BitwiseNot", "Cast", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "IsInf", "IsNaN", "Not", "Round", "Sign"),
    *("Sin", "Sinh", "Atan", "Asinh"),
)
_PARTIAL = ("Acos", "Acosh", "Asin", "Atanh", "Log", "Reciprocal", "Sqrt", "Tan")
_COMPARING = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Or", "Where", "Xor")
_SPATIAL = (
    *("DequantizeLinear", "Dropout", "GlobalLpPool", "GlobalMaxPool", "GroupNormalization", "InstanceNormalization"),
    *("LRN", "LpPool", "QuantizeLinear", "MaxRoiPool"),
)
_ALONG_AXIS = {
    **dict.fromkeys(("Hardmax", "LogSoftmax", "LpNormalization", "RMSNormalization", "Softmax", "TopK"), -1),
    **dict.fromkeys(("ArgMax", "ArgMin"), 0),
}
_REDUCTIONS = {
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare"), False),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp"), True),
}
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def _nonlinear(
    batch: rules.BatchRule | None = None, *, pointwise: bool = False, activation: bool = False, partial: bool = False
) -> OpSpec:
    return OpSpec(Role.NONLINEAR, batch=batch, pointwise=pointwise, activation=activation, partial=partial)


_NONLINEAR = {
    "Relu": OpSpec(Role.ACTIVATION, batch=rules.first_input, pointwise=True, activation=True),
    "Clip": OpSpec(Role.ACTIVATION, batch=rules.first_input, pointwise=True, activation=True),
    "MaxPool": OpSpec(Role.POOL, batch=rules.first_input, by_channel=True, keeps_spikes=True),
    **{op: _nonlinear(rules.first_input, pointwise=True, activation=True) for op in _ACTIVATIONS},
    "PRelu": _nonlinear(rules.elementwise, pointwise=True, activation=True),
    **{op: _nonlinear(rules.first_input, pointwise=True) for op in _POINTWISE},
    **{op: _nonlinear(rules.first_input, pointwise=True, partial=True) for op in _PARTIAL},
    **{op: _nonlinear(rules.elementwise, pointwise=True) for op in _COMPARING},
    **{op: _nonlinear(rules.elementwise, pointwise=True, partial=True) for op in ("Mod", "Pow")},
    **{op: _nonlinear(rules.first_input) for op in _SPATIAL},
    **{op: _nonlinear(rules.axis_not_zero(axis), partial=op == "LpNormalization") for op, axis in _ALONG_AXIS.items()},
    **{op: _nonlinear(rules.axes_without_zero(1), partial=partial) for op, partial in _REDUCTIONS.items()},
    "LayerNormalization": _nonlinear(rules.normalisation),
    "GridSample": _nonlinear(rules.all_inputs),
    **{op: OpSpec(Role.NONLINEAR, random=True) for op in _RANDOM},
    "Shape": OpSpec(Role.SHAPE),
    "Size": OpSpec(Role.SHAPE),
}

_TABLE = {**_WEIGHTS, **_LINEAR, **_NONLINEAR}

_NEURONS = (
    *("BurstIF", "SignedBurst", "SignedBurstRelu", "SignedBurstClip"),
    # In artifacts, in units of their thresholds: see `snncc.passes.fold_thresholds`.
    *("BurstIFUnit", "BurstIFUnitConstant", "SignedBurstReluUnit", "SignedBurstClipUnit"),
)

_SNNCC = {
    **{op: OpSpec(Role.NEURON, batch=rules.first_input) for op in _NEURONS},
    INT8_CONV: OpSpec(Role.WEIGHTED, batch=rules.first_input, channel_axis=1),
    INT8_MATMUL: OpSpec(Role.WEIGHTED, batch=rules.first_input, channel_axis="last"),
    "MaxPoolIncrement": OpSpec(Role.POOL, batch=rules.first_input, by_channel=True, keeps_spikes=True),
    "RateDecode": OpSpec(Role.LINEAR, by_channel=True),
    ENCODE: OpSpec(Role.ACTIVATION, batch=rules.first_input),
    FRAMES: OpSpec(Role.LINEAR, batch=rules.first_input, pointwise=True),
}

_UNKNOWN = OpSpec(Role.NONLINEAR)


def spec_of(node: gs.Node) -> OpSpec:
    """Return the row of the table for a node; the role takes the node's attributes and inputs into account."""
    if node.domain == DOMAIN:
        return _SNNCC.get(node.op, _UNKNOWN)
    if node.domain == ML_DOMAIN and node.op in SCALERS:
        return _nonlinear(rules.first_input)
    if node.domain not in (None, "", "ai.onnx"):
        return _UNKNOWN
    spec = _TABLE.get(node.op, _UNKNOWN)
    if spec.role is Role.ACTIVATION and activation_of(node) is None:
        return replace(spec, role=Role.NONLINEAR)
    if node.op in ("Resize", "Upsample") and not _resize_is_linear(node):
        return OpSpec(Role.NONLINEAR, batch=spec.batch)
    if node.op == "Cast" and node.inputs[0].inputs and is_frames(node.inputs[0].inputs[0]):
        return OpSpec(Role.LINEAR, batch=spec.batch, pointwise=True)  # from one floating-point type to another
    if node.op == "Pad" and node.attrs.get("mode", "constant") not in ("constant", "reflect", "edge", "wrap"):
        return _UNKNOWN
    if node.op in ("BatchNormalization", "Dropout") and _trains(node):
        return OpSpec(Role.NONLINEAR, random=node.op == "Dropout")
    if node.op == "MaxPool" and len(node.outputs) > 1 and not is_missing(node.outputs[1]):
        return _nonlinear(spec.batch)  # the indices of the maxima are no increment
    return spec


SIZED_BY_VALUES = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})
"""Operators that pick from their input: how much comes out depends on the values."""


def is_frames(node: gs.Node) -> bool:
    """Whether a node is the mark of an input that presents frames."""
    return bool(node.domain == DOMAIN and node.op == FRAMES)


def is_partial(node: gs.Node) -> bool:
    """Whether a node may give what isn't finite for some finite input; see `OpSpec.partial`."""
    if not spec_of(node).partial:
        return False
    second = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if second is None or node.op not in ("Div", "Pow"):
        return True
    if node.op == "Div":
        return not second.all()
    exponent = second.astype(np.float64)
    return bool((exponent < 0).any() or (exponent != np.round(exponent)).any())


def works_on_means(node: gs.Node) -> bool:
    """Whether a neuron, or the mark of one, takes the mean of a value over time, and not a current."""
    return node.domain == DOMAIN and node.op in (ENCODE, "SignedBurst")


def _trains(node: gs.Node) -> bool:
    """Whether a node is meant for training: its result depends on the batch or on chance."""
    if node.op == "BatchNormalization":
        return bool(node.attrs.get("training_mode", 0))
    if len(node.inputs) < 3 or is_missing(node.inputs[2]):
        return False
    mode = constant(node.inputs[2])
    return mode is None or bool(mode.reshape(-1)[0])


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
    return rule is not None and rule(node, rules.View(batched))


def multiply_accumulates(node: gs.Node, batch: int | None = None) -> int | None:
    """Return the multiply-accumulates of a weighted node for one sample; None if a size is unknown.

    Padding counts as in the usual tables: every output element costs the whole kernel.

    Args:
        node: the node.
        batch: the network's fixed number of samples; None: axis 0 of the node's tensors is the sample axis.
    """
    data = node.inputs[0] if node.op == "ConvTranspose" else node.outputs[0]
    shape = shape_of(data) or (None, None)
    whole = None if batch is None else static_dims(shape)
    dims = static_dims(shape[1:]) if whole is None else whole
    fan_in = _fan_in(node)
    if fan_in is None or dims is None:
        return None
    total = int(np.prod(dims, dtype=np.int64)) * fan_in
    return total if whole is None or batch is None else total // batch


def _fan_in(node: gs.Node) -> int | None:
    """Return the weights that each element of the output (of the input, for ConvTranspose) meets."""
    left, right = (shape_of(t) for t in node.inputs[:2])
    if node.op in ("Conv", "ConvTranspose", INT8_CONV):
        dims = static_dims(right[1:]) if right else None
        return None if dims is None else int(np.prod(dims, dtype=np.int64))
    if node.op == "Gemm":
        summed = [(right or ())[1 if node.attrs.get("transB", 0) else 0 :][:1]]
    else:
        summed = [(left or ())[-1:], (right or ())[-2:][:1]]
    sizes = [part[0] for part in summed if part and isinstance(part[0], int)]
    return sizes[0] if sizes else None


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
