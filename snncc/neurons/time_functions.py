"""Sources of the model-local functions that carry time; see `snncc.neurons.functions`."""

from __future__ import annotations

UNFOLD = """
    t = Constant <value_int: int = @timesteps> ()
    one = Constant <value_ints = [1]> ()
    minus_one = Constant <value_ints = [-1]> ()
    steps = Reshape (t, one)
    tail = Shape <start = 1> (x)
    unfolded_shape = Concat <axis = 0> (steps, minus_one, tail)
    xt = Reshape (x, unfolded_shape)"""

FOLDED_SHAPE = """
    folded_shape = Concat <axis = 0> (minus_one, tail)"""

# The number of each timestep, 1 to T, as a column, and how a tensor becomes rows that it can be multiplied with.
NUMBERED = """
    first_step = Constant <value_int = 1> ()
    beyond = Add (t, first_step)
    numbers = Range (first_step, beyond, first_step)
    numbers_f = Cast <to = 1> (numbers)
    column_shape = Concat <axis = 0> (steps, one)
    column = Reshape (numbers_f, column_shape)
    rows_shape = Concat <axis = 0> (steps, minus_one)"""

# The number of periods of a sample and of timesteps in each.
_PERIODS = """
    t = Constant <value_int: int = @timesteps> ()
    r = Constant <value_int: int = @period> ()
    k = Div (t, r)
    one = Constant <value_ints = [1]> ()
    minus_one = Constant <value_ints = [-1]> ()
    count = Reshape (k, one)
    length = Reshape (r, one)"""

_POOL = "MaxPool <kernel_shape: ints = @kernel_shape, strides: ints = @strides, pads: ints = @pads, " + (
    "dilations: ints = @dilations, ceil_mode: int = @ceil_mode>"
)
_POOL_ATTRIBUTES = "kernel_shape, strides, pads, dilations, ceil_mode"

TIME: dict[str, tuple[str, str]] = {
    "Increment": (
        "What a mean over time gains at each timestep: y[t] = t z[t] - (t-1) z[t-1], so that the mean of y over the "
        "timesteps so far is z.",
        f"""<timesteps>(z) => (y) {{
    x = Identity (z){UNFOLD}{FOLDED_SHAPE}{NUMBERED}
    rows = Reshape (x, rows_shape)
    sums = Mul (rows, column)
    from0 = Constant <value_ints = [0]> ()
    first = Slice (sums, from0, one, from0)
    none = Sub (first, first)
    earlier = Slice (sums, from0, minus_one, from0)
    before = Concat <axis = 0> (none, earlier)
    gained = Sub (sums, before)
    y = Reshape (gained, folded_shape)
}}""",
    ),
    "IncrementStep": (
        "One timestep of Increment; t is its number, before is (t-1) z[t-1].",
        """(z, t, before) => (y, before_next) {
    before_next = Mul (z, t)
    y = Sub (before_next, before)
}""",
    ),
    "Finite": (
        "Zero in place of what isn't finite: a mean over few timesteps may lie where an operator isn't defined.",
        """(x) => (y) {
    zero = Constant <value_float = 0.0> ()
    nan = IsNaN (x)
    inf = IsInf (x)
    bad = Or (nan, inf)
    y = Where (bad, zero, x)
}""",
    ),
    "MaxPoolIncrement": (
        "MaxPool of the cumulative input, as what it gains at each timestep, so that the mean of y over time is the "
        "MaxPool of the mean of x.",
        f"""<timesteps, {_POOL_ATTRIBUTES}>(x) => (y) {{{UNFOLD}{FOLDED_SHAPE}
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
    "Rescale": (
        "Brings counts of spikes into the unit that is wanted.",
        """(x, gain) => (y) {
    y = Mul (x, gain)
}""",
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
    "FoldTime": (
        "Takes frames [timesteps, N, ...] in, and folds time into the batch axis. Neurons start anew after each period "
        "of timesteps: each period of a sample becomes a sample of its own.",
        f"""<timesteps, period>(x) => (y) {{{_PERIODS}
    tail = Shape <start = 2> (x)
    apart_shape = Concat <axis = 0> (count, length, minus_one)
    apart = Reshape (x, apart_shape)
    swapped = Transpose <perm = [1, 0, 2]> (apart)
    folded_shape = Concat <axis = 0> (minus_one, tail)
    y = Reshape (swapped, folded_shape)
}}""",
    ),
    "InOrder": (
        "Brings the timesteps of a folded tensor whose periods are samples of their own (see FoldTime) into order.",
        f"""<timesteps, period>(x) => (y) {{{_PERIODS}
    tail = Shape <start = 1> (x)
    apart_shape = Concat <axis = 0> (length, count, minus_one)
    apart = Reshape (x, apart_shape)
    swapped = Transpose <perm = [1, 0, 2]> (apart)
    folded_shape = Concat <axis = 0> (minus_one, tail)
    y = Reshape (swapped, folded_shape)
}}""",
    ),
    "RateDecode": (
        "Mean over time.",
        f"""<timesteps>(x) => (y) {{{UNFOLD}
    axis = Constant <value_ints = [0]> ()
    total = ReduceSum <keepdims = 0> (xt, axis)
    count = Cast <to = 1> (t)
    y = Div (total, count)
}}""",
    ),
    "RunningMean": (
        "Mean over time up to each timestep.",
        f"""<timesteps>(x) => (y) {{{UNFOLD}{FOLDED_SHAPE}{NUMBERED}
    axis = Constant <value_int = 0> ()
    total = CumSum (xt, axis)
    rows = Reshape (total, rows_shape)
    mean = Div (rows, column)
    y = Reshape (mean, folded_shape)
}}""",
    ),
    "RunningMeanStep": (
        "One timestep of RunningMean; t is its number, total the sum of the inputs so far.",
        """(x, t, total) => (y, total_next) {
    total_next = Add (total, x)
    y = Div (total_next, t)
}""",
    ),
    "LastStep": (
        "What a folded tensor holds at the last timestep.",
        f"""<timesteps>(x) => (y) {{{UNFOLD}
    last = Constant <value_int = -1> ()
    y = Gather <axis = 0> (xt, last)
}}""",
    ),
    "UnfoldTime": (
        "Gives time its own leading axis.",
        f"""<timesteps>(x) => (y) {{{UNFOLD}
    y = Identity (xt)
}}""",
    ),
}
"""By name what a function says of itself, and its text."""
