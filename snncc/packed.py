"""Models larger than a protobuf message, which holds at most 2 GiB: large weights stand beside the message.

In memory they are arrays that ONNX Runtime takes as they are; on disk they are in one file beside the model's,
`NAME.onnx.data`, as ONNX's external data. Whatever writes or runs a model goes through here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from snncc.atomic import replacing
from snncc.protos import copy_fields, is_large, nested_graphs

MAX_INLINE_BYTES = 3 * 2**29
"""Most bytes of large weights in a file's message; what else there is must fit into it, too."""
COPIED_BYTES = 2**20
"""Most bytes of large weights in a message that is made to be read again in this process, where each is there twice."""

_ALIGNMENT = 4096
"""Weights begin at multiples of this in the file: they can be mapped into memory."""


@dataclass(frozen=True)
class Packed:
    """A model as a message, and what doesn't fit into it.

    Attributes:
        message: the model, serialised.
        weights: arrays by the name of the initializer, which the message only refers to.
    """

    message: bytes
    weights: dict[str, NDArray[Any]]


def pack(model: onnx.ModelProto) -> Packed:
    """Return a model as it is handed to ONNX Runtime.

    Raises:
        EncodeError: it doesn't fit into a message even without its large weights, or there is too little memory.
    """
    outer = outer_tensors(model, COPIED_BYTES)
    weights = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in outer.items()}
    return Packed(stub(model, outer).SerializeToString(), weights)


def write(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Write a model whole or not at all; weights that don't fit into its file go into one beside it, `NAME.data`.

    Returns:
        The files.

    Raises:
        OSError, ValueError: a file can't be written.
        EncodeError: see `pack`.
    """
    outer = outer_tensors(model)
    if not outer:
        with replacing(path) as stream:
            stream.write(model.SerializeToString(deterministic=True))
        return [path]
    beside = path.with_name(f"{path.name}.data")
    if beside.exists() and not path.exists():
        raise OSError(f"'{beside.name}' is there already and may hold another model's weights")
    with replacing(path) as stream, replacing(beside) as data:
        stream.write(stub(model, outer, beside.name).SerializeToString(deterministic=True))
        for tensor, offset in _placed(outer):
            data.seek(offset)
            data.write(onnx.numpy_helper.to_array(tensor).data)
    return [path, beside]


def outer_tensors(model: onnx.ModelProto, limit: int | None = None) -> dict[str, onnx.TensorProto]:
    """Return the weights, by name, that stand beside the message: none, unless there are more bytes than the limit.

    The default is what a file's message may hold.
    """
    limit = MAX_INLINE_BYTES if limit is None else limit
    graphs = (model.graph, *nested_graphs(model.graph))
    large = [t for graph in graphs for t in graph.initializer if is_large(t) and _is_plain(t)]
    if sum(_size(tensor) for tensor in large) <= limit:
        return {}
    names = Counter(name for graph in graphs for name in _defined(graph))
    names.update(info.name for graph in graphs[1:] for info in graph.input)
    return {tensor.name: tensor for tensor in large if names[tensor.name] == 1}


def stub(model: onnx.ModelProto, outer: dict[str, onnx.TensorProto], location: str = "weights") -> onnx.ModelProto:
    """Return a model that refers to weights in a file instead of holding them; without any, the model itself.

    Those of subgraphs become the main graph's, which subgraphs see: ONNX Runtime takes arrays for those only.

    Args:
        model: the model.
        outer: what `outer_tensors` found.
        location: name of the file.
    """
    if not outer:
        return model
    light = onnx.ModelProto()
    copy_fields(model, light, except_for="graph")
    copy_fields(model.graph, light.graph, except_for="initializer")
    light.graph.initializer.extend(t for t in model.graph.initializer if t.name not in outer)
    for graph in nested_graphs(light.graph):
        for tensor in [t for t in graph.initializer if t.name in outer]:
            graph.initializer.remove(tensor)
    for tensor, offset in _placed(outer):
        reference = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        reference.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", _size(tensor))):
            reference.external_data.add(key=key, value=str(value))
        light.graph.initializer.append(reference)
    return light


def _placed(outer: dict[str, onnx.TensorProto]) -> Iterator[tuple[onnx.TensorProto, int]]:
    """Yield each tensor and its first byte in the file."""
    offset = 0
    for tensor in outer.values():
        yield tensor, offset
        offset += -(-_size(tensor) // _ALIGNMENT) * _ALIGNMENT


def _size(tensor: onnx.TensorProto) -> int:
    itemsize: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims)) * itemsize


def _is_plain(tensor: onnx.TensorProto) -> bool:
    """Whether the model holds the tensor's data, and NumPy knows their type of itself: no strings, no 4-bit numbers."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return False
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    return dtype.isbuiltin == 1 and dtype.kind in "biuf"


def _defined(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names that a graph gives to values, inputs aside."""
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from node.output
