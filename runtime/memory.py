"""How much memory there is."""

from __future__ import annotations

import os
from pathlib import Path

_LIMITS = {"RLIMIT_DATA": "VmData", "RLIMIT_AS": "VmSize"}
"""Limits of a process, and what /proc calls that which counts against them."""


def available_memory() -> int | None:
    """Return the bytes that this process may still take without being stopped; None if the system doesn't tell.

    That is what the machine has left, or what the limits of the process (`ulimit`) or of its control group leave.
    """
    found = [_machine(), *_process(), *_group()]
    known = [max(0, size) for size in found if size is not None]
    return min(known, default=None)


def _machine() -> int | None:
    """Return what the machine has left, where it tells, else all that it has."""
    left = _table(Path("/proc/meminfo")).get("MemAvailable")
    if left is not None:
        return left * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _process() -> list[int]:
    try:
        import resource
    except ImportError:
        return []
    taken = _table(Path("/proc/self/status"))
    limits = {used: resource.getrlimit(getattr(resource, name))[0] for name, used in _LIMITS.items()}
    return [limit - taken.get(used, 0) * 1024 for used, limit in limits.items() if limit != resource.RLIM_INFINITY]


def _group() -> list[int]:
    """Return what the control groups (version 2) leave; what they hold of files can be taken away."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if path is None:
        return []
    root, left = Path("/sys/fs/cgroup"), []
    for folder in (root / path, *(root / path).parents):
        if not folder.is_relative_to(root):
            break
        try:
            limit = (folder / "memory.max").read_text().strip()
        except OSError:
            continue
        if limit.isdecimal():
            left.append(int(limit) - _table(folder / "memory.stat").get("anon", 0))
    return left


def _table(path: Path) -> dict[str, int]:
    """Return the numbers of a file with a name and a number on each line."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    rows = [line.replace(":", " ").split() for line in lines]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
