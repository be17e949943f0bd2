"""Inputs that are made up for a network: sensible values, several samples, the same ones each time.

Floating-point inputs are standard normal, booleans a coin's toss, bytes anything. Integers are token ids within the
table (Gather) that they look up in, small where they feed none, and 1 where the name says that they mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Feeds = dict[str, NDArray[Any]]

OPEN_SIZES = (16, 64, 224)
"""Sizes to try for the open axes of images, sequences and the like; see `candidates`."""
_SMALL = 4
_MOST_IDS = 256
_PASSED_BY = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice")


def network_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that must be fed: initializers are defaults."""
    defaults = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in defaults]


def dims(value: onnx.ValueInfoProto) -> list[int | None]:
    """Return the sizes of an input, None where they are open."""
    shape = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.dim_value > 0 else None for dim in shape]


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """Return the number of samples that a run takes; None where that is open."""
    sizes = [dims(value) for value in network_inputs(model)]
    return next((size[0] for size in sizes if size and size[0] is not None), None)


def whole(count: int, batch: int | None) -> int:
    """Round a number of samples up to whole batches."""
    return count if batch is None else -(-count // batch) * batch


def candidates(model: onnx.ModelProto) -> Iterator[int]:
    """Yield sizes to try for open axes other than the batch; only the first matters where there are none."""
    is_open = any(None in dims(value)[1:] for value in network_inputs(model))
    yield from OPEN_SIZES if is_open else OPEN_SIZES[:1]


def generate(model: onnx.ModelProto, samples: int, *, seed: int, open_size: int) -> Feeds:
    """Make up inputs.

    Args:
        model: the network.
        samples: number of samples; where the batch is fixed, whole batches.
        seed: of the random numbers.
        open_size: size of open axes other than the batch.

    Returns:
        By input name an array [samples, ...]; a scalar input gets a scalar.

    Raises:
        ValueError: an input holds no numbers.
    """
    rng, feeds = np.random.default_rng(seed), {}
    for value in network_inputs(model):
        if not value.type.HasField("tensor_type"):
            raise ValueError(f"input '{value.name}' is no tensor")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        sizes = [open_size if size is None else size for size in dims(value)]
        if sizes:
            sizes[0] = samples
        feeds[value.name] = _values(rng, value.name, dtype, sizes, _upper(model, value.name))
    return feeds


def _values(
    rng: np.random.Generator, name: str, dtype: np.dtype[Any], sizes: list[int], upper: int | None
) -> NDArray[Any]:
    if dtype.kind == "f" or dtype.name == "bfloat16":
        return rng.standard_normal(sizes).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, sizes).astype(bool)
    if dtype.kind in "iu":
        if upper is None and "mask" in name.lower():
            return np.ones(sizes, dtype)
        most = min(upper or (256 if dtype == np.uint8 else _SMALL), int(np.iinfo(dtype).max) + 1)
        return rng.integers(0, most, sizes).astype(dtype)
    raise ValueError(f"input '{name}' is of type {dtype}, for which no values are made up")


def _upper(model: onnx.ModelProto, name: str) -> int | None:
    """Return how many rows the smallest table has that an input looks up in; None where there is no table."""
    tables = _constant_rows(model.graph)
    names, found = {name}, []
    for node in model.graph.node:  # in topological order
        if node.op_type == "Gather" and len(node.input) == 2 and node.input[1] in names and node.input[0] in tables:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            found.append(tables[node.input[0]][axis])
        elif node.op_type in _PASSED_BY and node.input and node.input[0] in names:
            names.update(node.output)
    return min(*found, _MOST_IDS) if found else None


def _constant_rows(graph: onnx.GraphProto) -> dict[str, list[int]]:
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            shapes.update((node.output[0], list(a.t.dims)) for a in node.attribute if a.name == "value")
        elif node.op_type == "Identity" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return {name: shape for name, shape in shapes.items() if shape}


def split(arrays: Mapping[str, NDArray[Any]], calibration: int, samples: int) -> tuple[Feeds, Feeds]:
    """Divide given data: the first samples calibrate, those after them are evaluated; the last, if too few are left."""
    count = len(next(iter(arrays.values())))
    start = max(0, min(calibration, count - samples))
    return (
        {name: array[:calibration] for name, array in arrays.items()},
        {name: array[start : start + samples] for name, array in arrays.items()},
    )
