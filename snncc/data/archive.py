"""NumPy files: `.npz` archives read member by member, and memory-mapped `.npy` files. Pickle is never used."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from snncc.data.convert import refuse_objects
from snncc.errors import DataError

MAX_MEMBER_BYTES = 16 * 2**30
"""Most bytes that one array of an `.npz` may declare: a small archive can unpack to more than any memory holds."""

# NumPy reads a header as a literal of Python, and hands on most of what that raises.
_HEADER = (tokenize.TokenError, SyntaxError, TypeError, OverflowError)
_UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error),
    *_HEADER,
)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _read_header(stream: IO[bytes], where: str) -> _Header:
    """Read the header of a `.npy` stream, which says what the rest will take before any of it is allocated.

    Raises:
        DataError: the array holds Python objects.
        ValueError: the header is damaged.
    """
    version = npy_format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = npy_format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = npy_format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"format version {version} holds no plain numbers")
    if dtype.hasobject:
        refuse_objects(where)
    if any(size < 0 for size in shape):
        raise ValueError(f"the header declares the shape {list(shape)}")
    return _Header(shape, dtype, stream.tell())


class NpzArchive(Mapping[str, NDArray[Any]]):
    """The arrays of an `.npz` file by key; each is read when it is asked for.

    Raises:
        DataError: the file is no readable archive.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except _UNREADABLE as error:
            raise DataError(
                f"{path} is no readable .npz archive ({error}): it may be truncated or of another kind; "
                "write it again with np.savez"
            ) from error
        self._keys = tuple(dict.fromkeys(name[:-4] for name in names if name.endswith(".npy")))

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __contains__(self, key: object) -> bool:
        # Mapping's own test reads the array, which may be large.
        return key in self._keys

    def __getitem__(self, key: str) -> NDArray[Any]:
        """Read one array.

        Raises:
            KeyError: there is none of this key.
            DataError: it is damaged, holds objects, or declares more than `MAX_MEMBER_BYTES`.
        """
        if key not in self._keys:
            raise KeyError(key)
        where = f"{self._path}: array '{key}'"
        try:
            with zipfile.ZipFile(self._path) as archive:
                info = archive.getinfo(f"{key}.npy")
                with archive.open(info) as stream:
                    header = _read_header(stream, where)
                _check_member(header, info, where)
                with archive.open(info) as stream:
                    return npy_format.read_array(stream, allow_pickle=False)
        except _UNREADABLE as error:
            raise DataError(
                f"{where} is damaged ({error}): the archive may be truncated; write it again with np.savez"
            ) from error


def _check_member(header: _Header, info: zipfile.ZipInfo, where: str) -> None:
    declared = max(header.nbytes, info.file_size)
    if declared > MAX_MEMBER_BYTES:
        raise DataError(
            f"{where} declares {declared / 2**30:.1f} GiB, more than the {MAX_MEMBER_BYTES / 2**30:g} GiB accepted "
            "from an archive (it may be a zip bomb); save large data as .npy, which is read piece by piece"
        )
    if header.offset + header.nbytes > info.file_size:
        raise ValueError(f"its header declares {header.nbytes} bytes, {info.file_size - header.offset} are there")


def open_npy(path: Path) -> NDArray[Any]:
    """Open a `.npy` file as a read-only memory map.

    Raises:
        DataError: the file can't be read, is damaged or truncated, or holds Python objects.
    """
    try:
        with path.open("rb") as stream:
            header = _read_header(stream, str(path))
        present = path.stat().st_size - header.offset
        if header.nbytes > present:
            raise ValueError(f"its header declares {header.nbytes} bytes, {present} are there")
        if header.nbytes == 0:  # not every NumPy can map nothing
            return np.empty(header.shape, header.dtype)
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped
    except _UNREADABLE as error:
        raise DataError(
            f"{path} is no readable .npy file ({error}): it may be truncated or of another kind "
            "(pickled data is refused); write it again with np.save"
        ) from error
