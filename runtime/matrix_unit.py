"""Whether this processor has a unit that multiplies matrices of bytes (AMX), and permission to use it."""

from __future__ import annotations

import functools
import platform

_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18
"""Numbers of the system call, of what is asked of it (ARCH_REQ_XCOMP_PERM) and of the registers that it is about."""


@functools.cache
def available() -> bool:
    """Return whether it can be used. Linux wants to be asked first, once for each process."""
    if platform.system() != "Linux" or platform.machine().lower() != "x86_64":
        return False
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if not all(features.get(name, False) for name in ("amx-tile", "amx-int8", "avx512f")):
        return False
    import ctypes

    return int(ctypes.CDLL(None, use_errno=True).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA)) == 0
