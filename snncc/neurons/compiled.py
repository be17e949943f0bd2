"""Loops that are compiled to machine code by Numba when they are first called, and kept on disk for the next process.

NumPy would read and write the memory once for each operation; a neuron has about ten of them for each value.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_LOCK = threading.Lock()


def compiled(function: F) -> F:
    """Compile a function of arrays and scalars; it runs without Python's global lock.

    It may call NumPy's functions of scalars, but no other compiled function. Numba itself is loaded with the first
    call: it takes as long as all other imports together.
    """

    @functools.cache
    def machine_code() -> Callable[..., Any]:
        import numba

        # No fast-math options: the result is that of IEEE arithmetic in the order that is written there.
        try:
            return cast("Callable[..., Any]", numba.njit(nogil=True, error_model="numpy", cache=True)(function))
        except RuntimeError:  # there is no folder that the code could be kept in
            return cast("Callable[..., Any]", numba.njit(nogil=True, error_model="numpy")(function))

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        with _LOCK:
            code = machine_code()
        return code(*arguments)

    return cast("F", call)
