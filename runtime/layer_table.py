"""Layers as rows of a table that compiled code reads: sizes, and the addresses of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NEURONS, POOL = 0, 1
"""What a layer is."""
NO_CONV, FLOATS, MATRICES = 0, 1, 2
"""What runs a convolution."""

TOGETHER, APART, APART_ROUNDED = 0, 1, 2
"""How a convolution in floats reads its channels: all for each output, or each for itself; the sums rounded or not."""
CODES = 4
"""Rows of `code` for rounded sums: what is added, what they are multiplied by, the size of a step, the code of zero."""

_SIZES = 9
CONV = np.dtype(
    [
        ("kind", "i8"),  # NO_CONV, FLOATS or MATRICES
        ("values", "i8"),  # counts uint8 [T, N, height, width, channels]
        ("height", "i8"),
        ("width", "i8"),
        ("channels", "i8"),
        ("weights", "i8"),  # float32 [blocks, inputs, columns] or int8 [blocks, inputs, columns, 16, 64]
        ("blocks", "i8"),
        ("inputs", "i8"),
        ("columns", "i8"),
        ("starts", "i8"),  # int64 [start_count]: where runs of inputs, or steps, begin in a window
        ("start_count", "i8"),
        ("unit", "i8"),  # float32 [width, channels]: spikes; for FLOATS
        ("phases", "i8"),  # int64 [phase_count, 2], and so on: for MATRICES
        ("phase_count", "i8"),
        ("zero", "i8"),  # int32 [3 or 1, features]
        ("scale", "i8"),  # float32 [features]
        ("code", "i8"),  # float32 [2, features] for MATRICES, `CODES` rows for FLOATS
        ("features", "i8"),
        ("sizes", "i8", (_SIZES,)),  # see `float_tile.drive` and `matrix_tile.drive`
    ]
)
LAYER = np.dtype(
    [
        ("kind", "i8"),  # NEURONS or POOL
        ("parts", "i8"),
        ("rows", "i8"),  # of the output, in a part
        ("channels", "i8"),  # of the output, in a part
        ("together", "i8"),  # timesteps that are convolved together
        ("padded", "i8"),  # floats of the padded input of them
        ("signed", "i8"),
        ("timesteps", "i8"),
        ("done", "i8"),  # timesteps before
        ("samples", "i8"),
        ("height", "i8"),
        ("width", "i8"),
        ("features", "i8"),
        ("counts", "i8"),  # uint8 [T, N, H, W, C], written
        ("emitted", "i8"),  # float64 [H, W, C], written: spikes over time and samples
        ("residual", "i8"),  # counts that are added, as `counts`, or uint8 [C] that add nothing
        ("has_residual", "i8"),
        ("added", "i8"),  # float32 [added_steps, N, H, W, C] that is added, or 0
        ("added_steps", "i8"),
        ("theta", "i8"),  # float32 [C], like bias and unit filled up to whole vectors
        ("bias", "i8"),
        ("unit", "i8"),  # the spikes of `residual`
        ("state", "i8"),  # float32 [N, H, W, C]: v_mem, or spikes of signed neurons so far; 0 where nothing is kept
        ("sums", "i8"),  # float32: currents of signed neurons so far
        ("v_init", "f4"),
        ("max_burst", "f4"),
        ("upper", "f4"),
        ("zero", "f4"),  # code of no spike in `residual`
        ("offset", "f4"),  # code of no spike in `counts`
        ("window", "i8", (6,)),  # of a pool: height, width, strides, rows above, columns to the left
        ("source", "i8", (3,)),  # of a pool: counts uint8 [T, N, height, width, C] with the `offset`, height, width
        ("before", "i8", (2,)),  # int32: what a pool has read [N, height, width, C] and given so far; 0 at the start
        ("after", "i8", (2,)),  # int32: the same, written; 0 where nothing is kept
    ]
)


def address(array: NDArray[Any]) -> int:
    """Return where a contiguous array stands; whoever writes it into a table keeps the array."""
    if not array.flags.c_contiguous:
        raise ValueError("the array isn't contiguous")
    return int(array.__array_interface__["data"][0])
