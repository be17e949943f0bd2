"""Models larger than a protobuf message, which holds at most 2 GiB: large weights stand beside the message.

In memory they are arrays that ONNX Runtime takes as they are; on disk they are in one file beside the model's,
`NAME.onnx.DIGEST.data`, as ONNX's external data. Whatever writes or runs a model goes through here.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
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
    """Write a model whole or not at all; weights that don't fit into its file go into one beside it.

    That file bears a digest of its content in its name, `NAME.DIGEST.data`, so that whatever happens each model finds
    its own. The one that the replaced model had is deleted.

    Returns:
        The files.

    Raises:
        OSError, ValueError: a file can't be written.
        EncodeError: see `pack`.
    """
    outer = outer_tensors(model)
    if not outer:
        before = _written_before(path)
        with replacing(path) as stream:
            stream.write(model.SerializeToString(deterministic=True))
        for old in before:
            old.unlink(missing_ok=True)
        return [path]
    beside = path.with_name(f"{_safe(path.name)}.{_digest(outer)}.data")
    before = _written_before(path) - {beside}
    with replacing(path) as stream, replacing(beside) as data:
        stream.write(stub(model, outer, beside.name).SerializeToString(deterministic=True))
        for tensor, offset in _placed(outer):
            data.seek(offset)
            data.write(onnx.numpy_helper.to_array(tensor).data)
    for old in before:
        old.unlink(missing_ok=True)
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
    # An input may have a main graph's initializer for its default value; in a subgraph it would mean something else.
    names.update({i.name for i in model.graph.input} - {t.name for t in model.graph.initializer})
    # ONNX Runtime drops what nobody reads, and a subgraph can't return what isn't its own.
    read = {name for graph in graphs for node in graph.node for name in node.input}
    returned = {info.name for graph in graphs[1:] for info in graph.output}
    return {t.name: t for t in large if names[t.name] == 1 and t.name in read and t.name not in returned}


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
    light = _without(model, outer)
    for tensor, offset in _placed(outer):
        reference = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        reference.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", _size(tensor))):
            reference.external_data.add(key=key, value=str(value))
        light.graph.initializer.append(reference)
    return light


def described(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model for ONNX's checker, which would make copies of large weights: they are inputs instead."""
    outer = outer_tensors(model, COPIED_BYTES)
    if not outer:
        return model
    light = _without(model, outer)
    inputs = {info.name for info in light.graph.input}
    for tensor in outer.values():
        if tensor.name not in inputs:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return light


def _without(model: onnx.ModelProto, outer: dict[str, onnx.TensorProto]) -> onnx.ModelProto:
    """Return a copy of a model without some initializers."""
    light = onnx.ModelProto()
    copy_fields(model, light, except_for="graph")
    copy_fields(model.graph, light.graph, except_for="initializer")
    light.graph.initializer.extend(t for t in model.graph.initializer if t.name not in outer)
    for graph in nested_graphs(light.graph):
        for tensor in [t for t in graph.initializer if t.name in outer]:
            graph.initializer.remove(tensor)
    return light


def _digest(outer: dict[str, onnx.TensorProto]) -> str:
    digest = hashlib.sha256()
    for tensor in outer.values():
        digest.update(onnx.numpy_helper.to_array(tensor).data)
    return digest.hexdigest()[:16]


def _safe(name: str) -> str:
    """Return a file's name without what has a meaning in other systems' paths."""
    return re.sub(r"[^\w.-]", "_", name)


def _written_before(path: Path) -> set[Path]:
    """Return the files that an earlier `write` put beside a model that is to be replaced."""
    own = re.compile(re.escape(_safe(path.name)) + r"\.[0-9a-f]{16}\.data")
    try:
        if not path.is_file() or path.stat().st_size > MAX_INLINE_BYTES:
            return set()
        old = onnx.ModelProto.FromString(path.read_bytes())
    except (OSError, DecodeError):
        return set()
    entries = (entry for tensor in old.graph.initializer for entry in tensor.external_data)
    named = {entry.value for entry in entries if entry.key == "location"}
    return {path.with_name(name) for name in named if own.fullmatch(name)}


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
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield from node.output
