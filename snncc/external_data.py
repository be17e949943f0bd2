"""Weights that a model keeps in files beside it: checked by us, before anything is opened, then read."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import onnx

from snncc.errors import ModelError
from snncc.graph import first_line
from snncc.protos import PACKED_BITS, all_tensors

MAX_TOTAL_BYTES = 16 * 2**30
"""Most external data that is read or written, and the largest file that it may stand in."""

_CHUNK = 2**24
_TYPED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor whose data stands in a file.

    Attributes:
        tensor: the tensor in the model.
        file: the file, in the model's folder.
        offset: first byte.
        length: number of bytes.
    """

    tensor: onnx.TensorProto
    file: Path
    offset: int
    length: int


def external_tensors(model: onnx.ModelProto, folder: Path | None) -> list[ExternalTensor]:
    """Find the tensors with external data and check each: a file in the model's folder that is long enough.

    Args:
        model: the model, its external data not loaded.
        folder: the folder of the model's file; None for a model in memory.

    Raises:
        ModelError: a file is missing, too short or too large, or lies outside the folder.
    """
    external = [t for t in all_tensors(model) if t.data_location == onnx.TensorProto.EXTERNAL]
    if external and folder is None:
        raise ModelError(f"tensor '{external[0].name}' has its data in a file; give the model's path instead")
    located = [_locate(tensor, folder) for tensor in external if folder is not None]
    if sum(item.length for item in located) > MAX_TOTAL_BYTES:  # several tensors may share the same bytes
        raise ModelError(f"external data takes more than {MAX_TOTAL_BYTES >> 30} GiB in all, which is refused")
    return located


def check_stored_sizes(model: onnx.ModelProto) -> None:
    """Check that every tensor in the model itself holds as many bytes, or numbers, as its type and shape say.

    Raises:
        ModelError: it doesn't.
    """
    for tensor in all_tensors(model):
        if any(dim < 0 for dim in tensor.dims):
            raise ModelError(f"tensor '{tensor.name}' has the negative size {list(tensor.dims)}; export it again")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            continue
        fields = [field for field in _TYPED if len(getattr(tensor, field))]
        fields += ["raw_data"] if tensor.HasField("raw_data") else []
        if len(fields) > 1:
            raise ModelError(f"tensor '{tensor.name}' has its values twice ({', '.join(fields)}); export it again")
        expected = _stored_bytes(tensor)
        if tensor.HasField("raw_data"):
            found, unit = len(tensor.raw_data), "bytes"
        elif expected is not None:
            field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
            expected, found, unit = _stored_numbers(tensor), len(getattr(tensor, field)), "numbers"
        if expected is not None and found != expected:
            raise ModelError(f"tensor '{tensor.name}' holds {found} {unit} instead of {expected}; export it again")


def load_external(tensors: list[ExternalTensor], digest: hashlib._Hash) -> None:
    """Read the data into the tensors, and all of the files' bytes into `digest`, in the order of their paths.

    Raises:
        ModelError: a file can't be read.
    """
    files = sorted({item.file for item in tensors})
    try:
        for file in files:
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                for item in (i for i in tensors if i.file == file):
                    stream.seek(item.offset)
                    data = stream.read(item.length)
                    if len(data) != item.length:
                        raise ModelError(f"external data file '{file.name}' changed while it was read; try again")
                    item.tensor.raw_data = data
                    item.tensor.ClearField("external_data")
                    item.tensor.ClearField("data_location")
    except OSError as error:
        raise ModelError(f"external data can't be read ({first_line(error)}); check its permissions") from error


def _locate(tensor: onnx.TensorProto, folder: Path) -> ExternalTensor:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name, location = tensor.name, entries.get("location", "")
    where = f"external data of tensor '{name}' ('{location}')"
    file = _safe_path(location, folder, where)
    size = _size(file, where)
    offset = _number(entries, "offset", 0, where)
    expected = _stored_bytes(tensor)
    length = _number(entries, "length", expected if expected is not None else max(size - offset, 0), where)
    if expected is None or length != expected:
        raise ModelError(f"{where} is {length} bytes long, its type and shape take {expected}; export it again")
    if offset + length > size:
        raise ModelError(
            f"{where} is cut short: bytes {offset} to {offset + length} are needed, the file has {size}; copy it again"
        )
    return ExternalTensor(tensor, file, offset, length)


def _safe_path(location: str, folder: Path, where: str) -> Path:
    remedy = "keep the data in the model's own folder"
    if not location or "\0" in location:
        raise ModelError(f"{where} names no file; export the model again")
    if location.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", location):
        raise ModelError(f"{where} is an absolute path, which is refused; {remedy}")
    try:
        root = folder.resolve()
        resolved = (root / location).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, before Python 3.13
        raise ModelError(f"{where} can't be resolved ({first_line(error)}); {remedy}") from error
    if not resolved.is_relative_to(root):
        raise ModelError(f"{where} lies outside the model's folder, which is refused; {remedy}")
    return resolved


def _size(file: Path, where: str) -> int:
    try:
        if not file.exists():
            raise ModelError(f"{where} is missing; copy it into the model's folder")
        if not file.is_file():
            raise ModelError(f"{where} is no regular file; copy the data into the model's folder")
        size = file.stat().st_size
    except OSError as error:
        raise ModelError(f"{where} can't be read ({error.strerror}); check its permissions") from error
    if size > MAX_TOTAL_BYTES:
        raise ModelError(
            f"{where} is larger than {MAX_TOTAL_BYTES >> 30} GiB, the most that is accepted; export a smaller network"
        )
    return size


def _number(entries: dict[str, str], key: str, default: int, where: str) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ModelError(f"{where} has the {key} {text[:40]!r}, which is no whole number; export the model again")
    return int(text)


def _stored_numbers(tensor: onnx.TensorProto) -> int:
    """Return how many numbers the field of its type holds of a tensor without raw data."""
    count = int(math.prod(tensor.dims))
    if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        return 2 * count
    bits = PACKED_BITS.get(tensor.data_type)
    return count if bits is None else -(-count * bits // 8)


def _stored_bytes(tensor: onnx.TensorProto) -> int | None:
    """Return how many bytes the raw data of a tensor takes; None for types without raw data (strings)."""
    try:
        itemsize: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:
        return None
    if tensor.data_type == onnx.TensorProto.STRING or any(dim < 0 for dim in tensor.dims):
        return None
    bits = PACKED_BITS.get(tensor.data_type, 8 * itemsize)
    return int(-(-math.prod(tensor.dims) * bits // 8))
