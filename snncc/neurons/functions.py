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
from snncc.neurons.time_functions import FOLDED_SHAPE, NUMBERED, TIME, UNFOLD

MIN_OPSET = 17
"""Lowest opset for which the bodies are valid; they are so for every later one."""

_MOST = """
    burst = Constant <value_int: int = @max_burst> ()
    psi = Cast <to = 1> (burst)
    zero = Constant <value_float = 0.0> ()"""

_THRESHOLD = (
    """
    ratio = Constant <value_float: float = @threshold_ratio> ()
    theta = Mul (v_threshold, ratio)"""
    + _MOST
)

# Equations 2-4 of "Bursting Spikes" divided by the effective threshold: with w = v/θe and c = x/θe,
# u[t] = w[t-1] + c[t], n[t] = clip(floor(u[t]), 0, ψ), w[t] = u[t] - n[t]. The integer part of w stays exact.
_BURST = """
        u = Add (w_in, c)
        f = Floor (u)
        n = Clip (f, zero, psi)
        w_out = Sub (u, n)"""

# The signed neuron keeps the number of spikes it has emitted (less those it took back) at the number that the mean of
# its input so far asks for, as far as ψ allows.
_SIGNED = """
        gap = Sub (target, n_in)
        n = Clip (gap, minus_psi, psi)
        n_out = Add (n_in, n)"""

# The sum of the currents begins at v0, so that its whole part is the number of spikes that it asks for.
_UNIT_STATES = """
    minus_psi = Neg (psi)
    sample_shape = Shape <start = 1> (xt)
    total0 = Expand (v_init, sample_shape)
    n0 = Expand (zero, sample_shape)"""

_UNIT_TOTAL = """
        total_out = Add (total_in, c)
        whole = Floor (total_out)"""

_AIM = """
    minus_psi = Neg (psi)
    scaled = Div (aim, theta)
    shifted = Add (scaled, v_init)
    targets = Floor (shifted)
    sample_shape = Shape <start = 1> (targets)
    n0 = Expand (zero, sample_shape)
    n_end, nt = Scan <num_scan_inputs = 1, body = step (float n_in, float target) => (float n_out, float n) {""" + (
    _SIGNED
    + """
    }> (n0, targets)
    yt = Mul (nt, theta)
    y = Reshape (yt, folded_shape)"""
)

_AIM_STEP = """
    minus_psi = Neg (psi)
    scaled = Div (aim, theta)
    shifted = Add (scaled, v_init)
    target = Floor (shifted)
    n_in = Identity (count)""" + (
    _SIGNED
    + """
    count_next = Identity (n_out)
    y = Mul (n, theta)"""
)

_SOURCES: dict[str, tuple[str, str]] = {
    **TIME,
    "BurstIF": (
        "Burst integrate-and-fire neuron, reset by subtraction: u = v + x, n = clip(floor(u / θe), 0, max_burst), "
        "y = θe n, v = u - y, with θe = threshold_ratio * v_threshold and v[0] = v_init * θe.",
        f"""<timesteps, max_burst, threshold_ratio>(x, v_threshold, v_init) => (y) {{
{UNFOLD}{FOLDED_SHAPE}{_THRESHOLD}
    ct = Div (xt, theta)
    sample_shape = Shape <start = 1> (xt)
    w0 = Expand (v_init, sample_shape)
    w_end, nt = Scan <num_scan_inputs = 1, body = step (float w_in, float c) => (float w_out, float n) {{{_BURST}
    }}> (w0, ct)
    yt = Mul (nt, theta)
    y = Reshape (yt, folded_shape)
}}""",
    ),
    "BurstIFUnit": (
        "BurstIF in units of its effective threshold θe, which the layers around have in their weights: x is the "
        "current over θe, y the number of spikes. v_threshold and threshold_ratio say what θe was.",
        f"""<timesteps, max_burst, threshold_ratio>(x, v_threshold, v_init) => (y) {{
{UNFOLD}{FOLDED_SHAPE}{_MOST}
    sample_shape = Shape <start = 1> (xt)
    w0 = Expand (v_init, sample_shape)
    w_end, nt = Scan <num_scan_inputs = 1, body = step (float w_in, float c) => (float w_out, float n) {{{_BURST}
    }}> (w0, xt)
    y = Reshape (nt, folded_shape)
}}""",
    ),
    "BurstIFUnitConstant": (
        "BurstIFUnit whose current x [N, ...] is the same at every timestep; y is folded, [T*N, ...].",
        f"""<timesteps, max_burst, threshold_ratio>(x, v_threshold, v_init) => (y) {{{_MOST}
    t = Constant <value_int: int = @timesteps> ()
    one = Constant <value_ints = [1]> ()
    minus_one = Constant <value_ints = [-1]> ()
    steps = Reshape (t, one)
    ticks = Expand (zero, steps)
    sample_shape = Shape (x)
    tail = Shape <start = 1> (x){FOLDED_SHAPE}
    w0 = Expand (v_init, sample_shape)
    w_end, nt = Scan <num_scan_inputs = 1, body = step (float w_in, float tick) => (float w_out, float n) {{{
            _BURST.replace("(w_in, c)", "(w_in, x)")
        }
    }}> (w0, ticks)
    y = Reshape (nt, folded_shape)
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
    "SignedBurst": (
        "Signed burst neuron that encodes a value: with z the mean of the value over the timesteps so far and N the "
        "spikes so far, n = clip(floor(t z / θe + v_init) - N, -max_burst, max_burst), y = θe n, "
        "with θe = threshold_ratio * v_threshold.",
        f"""<timesteps, max_burst, threshold_ratio>(z, v_threshold, v_init) => (y) {{
    x = Identity (z){UNFOLD}{FOLDED_SHAPE}{NUMBERED}{_THRESHOLD}
    rows = Reshape (x, rows_shape)
    sums = Mul (rows, column)
    aim = Reshape (sums, unfolded_shape){_AIM}
}}""",
    ),
    "SignedBurstStep": (
        "One timestep of SignedBurst; t is its number, count the spikes so far.",
        f"""<max_burst, threshold_ratio>(z, v_threshold, v_init, t, count) => (y, count_next) {{{_THRESHOLD}
    aim = Mul (z, t){_AIM_STEP}
}}""",
    ),
    "SignedBurstRelu": (
        "Signed burst neuron with ReLU: with X the sum of the currents so far and N the spikes so far, "
        "n = clip(floor(relu(X) / θe + v_init) - N, -max_burst, max_burst), y = θe n, "
        "with θe = threshold_ratio * v_threshold.",
        f"""<timesteps, max_burst, threshold_ratio>(x, v_threshold, v_init) => (y) {{
{UNFOLD}{FOLDED_SHAPE}{_THRESHOLD}
    axis = Constant <value_int = 0> ()
    total = CumSum (xt, axis)
    aim = Relu (total){_AIM}
}}""",
    ),
    "SignedBurstReluUnit": (
        "SignedBurstRelu in units of its effective threshold θe, which the layers around have in their weights: x is "
        "the current over θe, y the number of spikes. v_threshold and threshold_ratio say what θe was.",
        f"""<timesteps, max_burst, threshold_ratio>(x, v_threshold, v_init) => (y) {{
{UNFOLD}{FOLDED_SHAPE}{_MOST}{_UNIT_STATES}
    total_end, n_end, nt = Scan <num_scan_inputs = 1, body = step (float total_in, float n_in, float c)
        => (float total_out, float n_out, float n) {{{_UNIT_TOTAL}
        target = Relu (whole){_SIGNED}
    }}> (total0, n0, xt)
    y = Reshape (nt, folded_shape)
}}""",
    ),
    "SignedBurstReluStep": (
        "One timestep of SignedBurstRelu; total is the sum of the currents so far, count the spikes so far.",
        f"""<max_burst, threshold_ratio>(x, v_threshold, v_init, total, count) => (y, total_next, count_next) {{
{_THRESHOLD}
    total_next = Add (total, x)
    aim = Relu (total_next){_AIM_STEP}
}}""",
    ),
    "SignedBurstClip": (
        "Signed burst neuron with Clip: with X the sum of the currents so far and N the spikes so far, "
        "n = clip(floor(clip(X, 0, t upper) / θe + v_init) - N, -max_burst, max_burst), y = θe n, "
        "with θe = threshold_ratio * v_threshold.",
        f"""<timesteps, max_burst, threshold_ratio, upper>(x, v_threshold, v_init) => (y) {{
{UNFOLD}{FOLDED_SHAPE}{NUMBERED}{_THRESHOLD}
    axis = Constant <value_int = 0> ()
    total = CumSum (xt, axis)
    positive = Relu (total)
    bound = Constant <value_float: float = @upper> ()
    bounds = Mul (column, bound)
    rows = Reshape (positive, rows_shape)
    bounded = Min (rows, bounds)
    aim = Reshape (bounded, unfolded_shape){_AIM}
}}""",
    ),
    "SignedBurstClipUnit": (
        "SignedBurstClip in units of its effective threshold θe, which the layers around have in their weights: x is "
        "the current over θe, y the number of spikes. v_threshold and threshold_ratio say what θe was.",
        f"""<timesteps, max_burst, threshold_ratio, upper>(x, v_threshold, v_init) => (y) {{
{UNFOLD}{FOLDED_SHAPE}{_THRESHOLD}{_UNIT_STATES}
    first_step = Constant <value_int = 1> ()
    beyond = Add (t, first_step)
    numbers = Range (first_step, beyond, first_step)
    ticks = Cast <to = 1> (numbers)
    bound = Constant <value_float: float = @upper> ()
    bound_of_step = Div (bound, theta)
    total_end, n_end, nt = Scan <num_scan_inputs = 2, body = step (float total_in, float n_in, float c, float tick)
        => (float total_out, float n_out, float n) {{{_UNIT_TOTAL}
        positive = Relu (whole)
        bound_so_far = Mul (bound_of_step, tick)
        shifted_bound = Add (bound_so_far, v_init)
        whole_bound = Floor (shifted_bound)
        target = Min (positive, whole_bound){_SIGNED}
    }}> (total0, n0, xt, ticks)
    y = Reshape (nt, folded_shape)
}}""",
    ),
    "SignedBurstClipStep": (
        "One timestep of SignedBurstClip; t is its number, total the sum of the currents so far, count the spikes.",
        f"""<max_burst, threshold_ratio, upper>(x, v_threshold, v_init, t, total, count)
        => (y, total_next, count_next) {{
{_THRESHOLD}
    total_next = Add (total, x)
    positive = Relu (total_next)
    bound = Constant <value_float: float = @upper> ()
    bounds = Mul (t, bound)
    aim = Min (positive, bounds){_AIM_STEP}
}}""",
    ),
    "Int8Conv": (
        "Convolution of spikes with 8-bit weights: x is x_scale times whole numbers n, which are at least -x_zero; "
        "y = y_scale (code - y_zero), with the 8-bit code = w_scale (sum of weight n, + bias), rounded.",
        """<strides, pads, dilations, group>(x, weight, bias, x_scale, x_zero, w_scale, y_scale, y_zero) => (y) {
    channels = Shape (x_scale)
    x_zeros = Expand (x_zero, channels)
    n = QuantizeLinear <axis = 1> (x, x_scale, x_zeros)
    unit = Constant <value_float = 1.0> ()
    nothing = Constant <value_int = 0> ()
    w_zero = Cast <to = 3> (nothing)
    c_zero = Cast <to = 2> (nothing)
    code = QLinearConv <strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations,
        group: int = @group> (n, unit, x_zero, weight, w_scale, w_zero, unit, c_zero, bias)
    y = DequantizeLinear <axis = 1> (code, y_scale, y_zero)
}""",
    ),
    "Int8MatMul": (
        "Spikes times 8-bit weights: x is x_scale times whole numbers n, which are at least -x_zero; "
        "y = y_scale (code - y_zero) + bias, with the 8-bit code = w_scale (sum of weight n) + 128, rounded.",
        """(x, weight, bias, x_scale, x_zero, w_scale, y_scale, y_zero) => (y) {
    channels = Shape (x_scale)
    x_zeros = Expand (x_zero, channels)
    n = QuantizeLinear <axis = -1> (x, x_scale, x_zeros)
    unit = Constant <value_float = 1.0> ()
    nothing = Constant <value_int = 0> ()
    zero = Cast <to = 3> (nothing)
    features = Shape (w_scale)
    w_zero = Expand (zero, features)
    middle = Constant <value_int = 128> ()
    c_zero = Cast <to = 2> (middle)
    code = QLinearMatMul (n, unit, x_zero, weight, w_scale, w_zero, unit, c_zero)
    current = DequantizeLinear <axis = -1> (code, y_scale, y_zero)
    y = Add (current, bias)
}""",
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
