"""Read a model file and say in one clear line what is wrong with it, before anything is done with it.

A model comes from anywhere, so nothing in it is trusted: external data must lie in the model's folder and be as long
as the model says, no size is believed before it is compared with the file's, and whatever the onnx package raises is
turned into a `ModelError`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from snncc.errors import ModelError, ResourceError, UsageError
from snncc.external_data import check_stored_sizes, external_tensors, load_external
from snncc.graph import DOMAIN, Dim, first_line, known_dim
from snncc.model_checks import (
    check_expansion,
    check_graph,
    check_names,
    check_operators,
    check_opsets,
    check_structure,
    check_types,
    check_weights,
)
from snncc.packed import outer_tensors, stub
from snncc.protos import widen_bfloat16, widen_weights

MAX_MESSAGE_BYTES = 2**31 - 1
"""Largest message that protobuf can hold: a model file without its external data."""

# First bytes of files that people take for models, and what to do about them.
_OTHER_FORMATS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "it is a Git LFS pointer: run `git lfs pull` to fetch the model itself"),
    (0, b"PK\x03\x04", "it is a zip archive, such as a PyTorch checkpoint: export the network to ONNX first"),
    (0, b"\x89HDF", "it is an HDF5 file, such as a Keras model: export the network to ONNX first"),
    (4, b"TFL3", "it is a TensorFlow Lite model: convert it to ONNX first, for instance with tf2onnx"),
    (4, b"ORTM", "it is in ONNX Runtime's own format: use the ONNX file that it was made of"),
    (0, b"\x1f\x8b", "it is compressed with gzip: decompress it first"),
    (0, b"<", "it is a text file, perhaps a web page that was saved in the model's place: download it again"),
)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a network.

    Attributes:
        name: its name.
        dtype: its element type; object for strings.
        shape: its shape as declared, where a dimension that says nothing is None; None if the rank is unknown.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dim, ...] | None


@dataclass(frozen=True)
class LoadedModel:
    """A model that passed all checks.

    Attributes:
        model: the model, its external data loaded; what was bfloat16 is float32, weights of 4 bits are of 8.
        name: the file's name without its suffix.
        sha256: of the file's bytes, followed by those of its external files in the order of their names.
        inputs: the inputs, without those that are initializers (default values).
        outputs: the outputs.
    """

    model: onnx.ModelProto
    name: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def is_artifact(self) -> bool:
        """Whether the model is itself an artifact of snncc: it brings functions of snncc's domain."""
        return any(function.domain == DOMAIN for function in self.model.functions)


def load_model(source: str | os.PathLike[str] | onnx.ModelProto) -> LoadedModel:
    """Read and check a model.

    Args:
        source: path of an ONNX file, or a model in memory (which must hold all of its data).

    Raises:
        ModelError: the file can't be read, is no valid model, refers to unsafe or missing external data, or uses what
            isn't supported. The message is one line: the file, the reason, the remedy.
        UsageError: the source is neither a path nor a model.
    """
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        return _loaded(model, model.graph.name or "model", None, hashlib.sha256(), "model in memory")
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"the model is {source!r}: give the path of an ONNX file, or a model in memory")
    path = Path(source)
    data = _read(path)
    model = _parse(path, data)
    return _loaded(model, path.stem, path, hashlib.sha256(data), f"'{path}'")


def _loaded(model: onnx.ModelProto, name: str, path: Path | None, digest: hashlib._Hash, label: str) -> LoadedModel:
    try:
        check_structure(model)
        check_names(model)
        external = external_tensors(model, path.parent if path is not None else None)
        check_types(model)
        check_stored_sizes(model)
        check_opsets(model)
        check_expansion(model)
        check_operators(model)
        check_weights(model)
        check_graph(model, external)
        load_external(external, digest)
        if path is None:
            _hash_model(model, digest)
        widen_bfloat16(model)
        widen_weights(model)
        return LoadedModel(model, name, digest.hexdigest(), _specs(model, "input"), _specs(model, "output"))
    except ModelError as error:
        raise ModelError(f"{label}: {error}") from error.__cause__
    except MemoryError as error:
        raise ResourceError(f"{label}: not enough memory to read it") from error
    except Exception as error:  # a damaged file can say anything: whatever stumbles over it, it is the file's fault
        raise ModelError(f"{label}: is no valid ONNX model ({first_line(error)}); export it again") from error


# --- the file -----------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise ModelError(f"'{path}': is a directory; give the path of the .onnx file in it")
        if not stat.S_ISREG(info.st_mode):
            raise ModelError(f"'{path}': is no regular file; copy the model to one")
        if info.st_size == 0:
            raise ModelError(f"'{path}': is empty; export or download the model again")
        if info.st_size > MAX_MESSAGE_BYTES:
            raise ModelError(f"'{path}': is larger than 2 GiB, which ONNX can't hold; save it with external data")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"'{path}': doesn't exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ModelError(f"'{path}': can't be read ({reason}); check the path and its permissions") from error


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    for offset, magic, advice in _OTHER_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            raise ModelError(f"'{path}': is no ONNX model; {advice}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError has moved between versions
        raise ModelError(f"'{path}': is no ONNX model or is cut short; export or download it again") from error
    return model


# --- the model ----------------------------------------------------------------------------------------------------


def _hash_model(model: onnx.ModelProto, digest: hashlib._Hash) -> None:
    outer = outer_tensors(model)
    digest.update(stub(model, outer).SerializeToString(deterministic=True))
    for tensor in outer.values():
        digest.update(onnx.numpy_helper.to_array(tensor).data)


def _specs(model: onnx.ModelProto, side: str) -> tuple[TensorSpec, ...]:
    initialized = {tensor.name for tensor in model.graph.initializer}
    infos = model.graph.input if side == "input" else model.graph.output
    return tuple(_spec(info) for info in infos if side == "output" or info.name not in initialized)


def _spec(info: onnx.ValueInfoProto) -> TensorSpec:
    tensor = info.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(known_dim(dim.dim_param or (dim.dim_value or None)) for dim in tensor.shape.dim)
    return TensorSpec(info.name, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape)
