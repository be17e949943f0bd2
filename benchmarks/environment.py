"""When, where and with what a figure was measured; shared by the scripts beside it."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

LIBRARIES = ("snncc", "onnx", "onnxruntime", "numpy")


def environment() -> dict[str, Any]:
    """Return the date, the versions and the machine as plain values, for JSON."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _version(name: str) -> str:
    if name == "snncc":  # may run from a checkout that isn't installed
        from snncc import __version__

        return __version__
    return importlib.metadata.version(name)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def signature() -> str:
    """Return the same in one line, to stand below a table."""
    now = environment()
    versions = ", ".join(f"{name} {version}" for name, version in now["versions"].items())
    return f"{now['date']}; {versions}, Python {now['python']}; {now['system']}, {now['cores']} cores"


def peak_memory() -> int:
    """Return this process's peak in bytes, on Linux; what getrusage says is at least that of the process before it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
