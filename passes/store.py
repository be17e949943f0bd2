"""Where a calibration keeps its arrays: in memory as long as there is room, beyond that in files.

The files are mapped into memory, so that whoever reads or writes an array needn't know where it is; the system writes
to the disk what doesn't fit, and only that. They have no name from the moment on in which they are made: the system
takes them back when the last array in them is gone, or the process, however it ends.
"""

from __future__ import annotations

import functools
import math
import mmap
import os
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from snncc.errors import DataError
from snncc.runtime.buffers import ALIGNMENT, BufferPool

A = TypeVar("A", bound=NDArray[Any])

FILE = 1 << 28
"""Bytes of a file that holds several arrays; a larger array has one of its own."""
_WASTE = 4
"""A free array is used for one of at least this fraction of its size."""
_VARIABLES = ("TMPDIR", "TEMP", "TMP")


class Store(BufferPool):
    """Arrays that are kept in memory up to a limit and in files beyond it; safe to use from several threads.

    Attributes:
        limit: most bytes in memory; None: as many as there are.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(_WASTE)
        self.limit = limit
        self._held = _Held()
        self._room = threading.Lock()
        self._file: mmap.mmap | None = None
        self._used = 0

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return a new array with anything in it.

        Raises:
            DataError: there is room neither in memory nor on the disk.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if self._has_room(size):
            array: NDArray[Any] = np.empty(shape, dtype)
            self._count(array)
            return array
        return self._in_file(size).view(dtype).reshape(shape)

    def keep(self, array: A) -> A:
        """Return an array that will be there for long: as it is, or where there is no room, a copy in a file.

        Raises:
            DataError: there is no room for the copy.
        """
        owner = _owner(array)
        if owner in self._held or isinstance(owner.base, mmap.mmap):
            return array
        if self._has_room(owner.nbytes):
            self._count(owner)
            return array
        copy = self._in_file(array.nbytes).view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy  # type: ignore[return-value] # it has the type of the array

    def _new(self, count: int) -> NDArray[np.float32]:
        if not self._has_room(4 * count):
            return self._in_file(4 * count).view(np.float32)
        buffer = super()._new(count)
        self._count(buffer)
        return buffer

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes may be added to those in memory, if need be after those are let go that wait."""
        if self.limit is None or self._held.total + size <= self.limit:
            return True
        self.forget()
        return self._held.total + size <= self.limit

    def _count(self, array: NDArray[Any]) -> None:
        if self.limit is not None:
            self._held.count(array)

    def _in_file(self, size: int) -> NDArray[np.uint8]:
        """Return bytes in a file, which lives as long as they do."""
        if size > FILE:
            return np.ndarray((size,), np.uint8, _mapped(size))
        with self._room:
            start = -(-self._used // ALIGNMENT) * ALIGNMENT
            if self._file is None or start + size > FILE:
                self._file, start = _mapped(FILE), 0
            self._used = start + size
            return np.ndarray((size,), np.uint8, self._file, start)


class _Held:
    """The bytes of arrays that own their memory, each counted as long as it lives.

    Apart from the store: what waits for the end of an array is kept until then, and would keep the arrays of the store.

    Attributes:
        total: bytes.
    """

    def __init__(self) -> None:
        self.total = 0
        self._bytes: dict[int, int] = {}  # by the identity of an array
        self._lock = threading.RLock()  # an array may end wherever another one begins

    def __contains__(self, array: NDArray[Any]) -> bool:
        return id(array) in self._bytes

    def count(self, array: NDArray[Any]) -> None:
        """Count an array from now on."""
        with self._lock:
            self._bytes[id(array)] = array.nbytes
            self.total += array.nbytes
        weakref.finalize(array, self._gone, id(array)).atexit = False

    def _gone(self, identity: int) -> None:
        with self._lock:
            self.total -= self._bytes.pop(identity)


def _owner(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array whose memory an array shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@functools.cache
def _folder() -> Path:
    """Return the folder of the files: the one of the environment, or else one that isn't held in memory itself."""
    usual = Path(tempfile.gettempdir())
    if any(name in os.environ for name in _VARIABLES):
        return usual
    lasting = Path("/var/tmp")  # noqa: S108 - files there have no name
    return lasting if os.access(lasting, os.W_OK) else usual


def _mapped(size: int) -> mmap.mmap:
    """Return a file without a name, mapped into memory."""
    try:
        with tempfile.TemporaryFile(dir=_folder()) as file:
            if hasattr(os, "posix_fallocate"):  # or a full disk would end the process later, on writing
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise DataError(
            f"the calibration takes more memory than there is, and '{_folder()}' can't hold the rest "
            f"({error.strerror or error}): calibrate on fewer samples, or set TMPDIR to a folder on a larger disk"
        ) from error
