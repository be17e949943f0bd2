"""The model-local ONNX functions of the domain `snncc`: neurons and what carries time, in standard operators.

Every artifact brings the functions that it uses, so it runs in stock ONNX Runtime. Time is folded into the batch
axis, time-major: a temporal tensor has the shape [T*N, ...], and row t*N + n holds sample n at timestep t. The
functions whose name ends in `Step` do one timestep of a network whose batch axis can't hold time; they stand in the
body of a Scan.

All values are float32. The NumPy form of the neuron is in `snncc.neurons.burst_if`.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx.parser

from snncc.graph import DOMAIN

MIN_OPSET = 17
"""Lowest opset for which the bodies are valid; they are so for every later one."""

_UNFOLD = """
    t = Constant <value_int: int = @timesteps> ()
    one = Constant <value_ints = [1]> ()
    minus_one = Constant <value_ints = [-1]> ()
    steps = Reshape (t, one)
    tail = Shape <start = 1> (x)
    unfolded_shape = Concat <axis = 0> (steps, minus_one, tail)
    xt = Reshape (x, unfolded_shape)"""

_FOLDED_SHAPE = """
    folded_shape = Concat <axis = 0> (minus_one, tail)"""

_THRESHOLD = """
    ratio = Constant <value_float: float = @threshold_ratio> ()
    theta = Mul (v_threshold, ratio)
    burst = Constant <value_int: int = @max_burst> ()
    psi = Cast <to = 1> (burst)
    zero = Constant <value_float = 0.0> ()"""

# Equations 2-4 of "Bursting Spikes" divided by the effective threshold: with w = v/θe and c = x/θe,
# u[t] = w[t-1] + c[t], n[t] = clip(floor(u[t]), 0, ψ), w[t] = u[t] - n[t]. The integer part of w stays exact.
_BURST = """
        u = Add (w_in, c)
        f = Floor (u)
        n = Clip (f, zero, psi)
        w_out = Sub (u, n)"""

_POOL = "MaxPool <kernel_shape: ints = @kernel_shape, strides: ints = @strides, pads: ints = @pads, " + (
    "dilations: ints = @dilations, ceil_mode: int = @ceil_mode>"
)
_POOL_ATTRIBUTES = "kernel_shape, strides, pads, dilations, ceil_mode"

_SOURCES: dict[str, tuple[str, str]] = {
    "BurstIF": (
        "Burst integrate-and-fire neuron, reset by subtraction: u = v + x, n = clip(floor(u / θe), 0, max_burst), "
        "y = θe n, v = u - y, with θe = threshold_ratio * v_threshold and v[0] = v_init * θe.",
        f"""<timesteps, max_burst, threshold_ratio>(x, v_threshold, v_init) => (y) {{
{_UNFOLD}{_FOLDED_SHAPE}{_THRESHOLD}
    ct = Div (xt, theta)
    sample_shape = Shape <start = 1> (xt)
    w0 = Expand (v_init, sample_shape)
    w_end, nt = Scan <num_scan_inputs = 1, body = step (float w_in, float c) => (float w_out, float n) {{{_BURST}
    }}> (w0, ct)
    yt = Mul (nt, theta)
    y = Reshape (yt, folded_shape)
}}""",
    ),
    "BurstIFStep": (
        "One timestep of BurstIF; v_mem is the membrane potential in units of the effective threshold.",
        f"""<max_burst, threshold_ratio>(x, v_threshold, v_mem) => (y, v_mem_next) {{{_THRESHOLD}
    c = Div (x, theta)
    w_in = Identity (v_mem){_BURST}
    v_mem_next = Identity (w_out)
    y = Mul (n, theta)
}}""",
    ),
    "MaxPoolIncrement": (
        "MaxPool of the cumulative input, as what it gains at each timestep, so that the mean of y over time is the "
        "MaxPool of the mean of x.",
        f"""<timesteps, {_POOL_ATTRIBUTES}>(x) => (y) {{{_UNFOLD}{_FOLDED_SHAPE}
    axis = Constant <value_int = 0> ()
    total = CumSum (xt, axis)
    folded = Reshape (total, folded_shape)
    pooled = {_POOL} (folded)
    pooled_tail = Shape <start = 1> (pooled)
    pooled_unfolded_shape = Concat <axis = 0> (steps, minus_one, pooled_tail)
    pooled_folded_shape = Concat <axis = 0> (minus_one, pooled_tail)
    pt = Reshape (pooled, pooled_unfolded_shape)
    from0 = Constant <value_ints = [0]> ()
    first = Slice (pt, from0, one, from0)
    none = Sub (first, first)
    earlier = Slice (pt, from0, minus_one, from0)
    before = Concat <axis = 0> (none, earlier)
    yt = Sub (pt, before)
    y = Reshape (yt, pooled_folded_shape)
}}""",
    ),
    "MaxPoolIncrementStep": (
        "One timestep of MaxPoolIncrement; total is the sum of the inputs so far.",
        f"""<{_POOL_ATTRIBUTES}>(x, total) => (y, total_next) {{
    total_next = Add (total, x)
    after = {_POOL} (total_next)
    before = {_POOL} (total)
    y = Sub (after, before)
}}""",
    ),
    "RepeatInput": (
        "Presents a constant input at every timestep.",
        """<timesteps>(x) => (y) {
    t = Constant <value_int: int = @timesteps> ()
    one = Constant <value_ints = [1]> ()
    minus_one = Constant <value_ints = [-1]> ()
    steps = Reshape (t, one)
    shape = Shape (x)
    tail = Shape <start = 1> (x)
    repeated_shape = Concat <axis = 0> (steps, shape)
    folded_shape = Concat <axis = 0> (minus_one, tail)
    repeated = Expand (x, repeated_shape)
    y = Reshape (repeated, folded_shape)
}""",
    ),
    "RateDecode": (
        "Mean over time.",
        f"""<timesteps>(x) => (y) {{{_UNFOLD}
    axis = Constant <value_ints = [0]> ()
    total = ReduceSum <keepdims = 0> (xt, axis)
    count = Cast <to = 1> (t)
    y = Div (total, count)
}}""",
    ),
    "RunningMean": (
        "Mean over time up to each timestep.",
        f"""<timesteps>(x) => (y) {{{_UNFOLD}{_FOLDED_SHAPE}
    axis = Constant <value_int = 0> ()
    total = CumSum (xt, axis)
    start = Constant <value_int = 1> ()
    end = Add (t, start)
    counts = Range (start, end, start)
    counts_f = Cast <to = 1> (counts)
    column_shape = Concat <axis = 0> (steps, one)
    column = Reshape (counts_f, column_shape)
    rows_shape = Concat <axis = 0> (steps, minus_one)
    rows = Reshape (total, rows_shape)
    mean = Div (rows, column)
    y = Reshape (mean, folded_shape)
}}""",
    ),
    "LastStep": (
        "What a folded tensor holds at the last timestep.",
        f"""<timesteps>(x) => (y) {{{_UNFOLD}
    last = Constant <value_int = -1> ()
    y = Gather <axis = 0> (xt, last)
}}""",
    ),
    "UnfoldTime": (
        "Gives time its own leading axis.",
        f"""<timesteps>(x) => (y) {{{_UNFOLD}
    y = Identity (xt)
}}""",
    ),
}


def function(name: str, opset: int) -> onnx.FunctionProto:
    """Build one function.

    Args:
        name: its name in the domain `snncc`.
        opset: opset of the model that gets it, at least `MIN_OPSET`.

    Returns:
        The function.
    """
    doc, source = _SOURCES[name]
    header = f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>\n'
    result = onnx.parser.parse_function(header + name + source)
    result.doc_string = doc
    for node in result.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _any_rank(attribute.g)
    return result


def functions(names: Iterable[str], opset: int) -> list[onnx.FunctionProto]:
    """Build the functions of the given names, sorted, each once."""
    return [function(name, opset) for name in sorted(set(names))]


def _any_rank(body: onnx.GraphProto) -> None:
    """Let the values of a Scan body have any rank: the text form could only say scalar."""
    for value in (*body.input, *body.output):
        value.type.tensor_type.ClearField("shape")
