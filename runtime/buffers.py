"""Large arrays that are used again: the system takes longer to hand out fresh memory than NumPy to add two arrays."""

from __future__ import annotations

import bisect
import math
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT = 64
"""Bytes of which the address of an array is a multiple, as of ONNX Runtime's own: a cache line."""

_SPARE = ALIGNMENT // 4


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in one piece that begins at a multiple of `ALIGNMENT`: itself, or a copy."""
    if array.ctypes.data % ALIGNMENT == 0 and array.flags.c_contiguous:
        return array
    room = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class _Buffer(np.ndarray):
    """Memory that is a pool's, which it knows again by that: everybody else gets plain arrays that show it."""


class BufferPool:
    """Float32 arrays that were given back, for whoever needs one; safe to use from several threads.

    Attributes:
        waste: a free array is used for one that needs at least one in so many parts of it.
    """

    def __init__(self, waste: float = math.inf) -> None:
        self.waste = waste
        self._free: list[NDArray[np.float32]] = []
        self._sizes: list[int] = []  # of them, in order
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return an aligned array with anything in it: the smallest free one that is large enough, or a new one."""
        count = math.prod(shape)
        size = count + _SPARE
        with self._lock:
            place = bisect.bisect_left(self._sizes, size)
            buffer = None
            if place < len(self._sizes) and self._sizes[place] <= self.waste * size:
                buffer = self._free.pop(place)
                del self._sizes[place]
        if buffer is None:
            buffer = self._new(size)
        start = -buffer.ctypes.data % ALIGNMENT // 4
        return buffer.view(np.ndarray)[start : start + count].reshape(shape)

    def _new(self, count: int) -> NDArray[np.float32]:
        return _Buffer((count,), np.float32)

    def forget(self) -> None:
        """Leave all free arrays to the system."""
        with self._lock:
            self._free.clear()
            self._sizes.clear()

    def take_bytes(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an array of bytes with anything in it, which `give` takes back like the others."""
        return self.take_as(shape, np.uint8)

    def take_as(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array of a dtype with anything in it, which `give` takes back like the others."""
        count = math.prod(shape)
        words = -(-count * np.dtype(dtype).itemsize // 4)
        return self.take((words,)).view(dtype)[:count].reshape(shape)

    def give(self, array: NDArray[Any]) -> None:
        """Take an array back that nobody will look at again; what `take` didn't hand out is left to the system."""
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        if isinstance(base, _Buffer):
            with self._lock:
                place = bisect.bisect_left(self._sizes, base.size)
                self._free.insert(place, base)
                self._sizes.insert(place, base.size)
