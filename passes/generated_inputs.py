"""Inputs that are made up, where there is no data."""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from snncc.data import Dataset, InputSpec, load
from snncc.errors import DataError
from snncc.runtime.session import Array

_MOST_GENERATED = 1 << 28
"""Most values of one input that are made up: a gigabyte of float32."""


def generate_inputs(graph: gs.Graph, samples: int, seed: int = 0) -> Dataset:
    """Make standard normal inputs of the network's shapes (zeros for integer inputs).

    Raises:
        DataError: a size other than the batch is not fixed, so that no input can be made up.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for tensor in graph.inputs:
        shape = list(tensor.shape or [])
        if not shape or any(not isinstance(d, int) or d <= 0 for d in shape[1:]):
            raise DataError(
                f"input '{tensor.name}' has no fixed size {shape}, so no inputs can be generated: "
                "give calibration data with --calib"
            )
        fixed = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else 1
        size = (samples // fixed * fixed or fixed, *shape[1:])
        if math.prod(size) > _MOST_GENERATED:
            raise DataError(
                f"input '{tensor.name}' is too large {shape} for generated inputs: give calibration data with --calib"
            )
        dtype = np.dtype(tensor.dtype)
        arrays[tensor.name] = rng.standard_normal(size).astype(dtype) if dtype.kind == "f" else np.zeros(size, dtype)
    specs = [InputSpec(t.name, np.dtype(t.dtype), tuple(t.shape)) for t in graph.inputs]
    return load(arrays, specs)
