"""Measure a network in a process of its own, which may crash, hang or ask for too much memory."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conformance.row import CRASHED, TIMEOUT, Row

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder that `conformance` is imported from."""


Cores = frozenset[int]
"""Numbers of processor cores; none: all."""


def shares(jobs: int) -> queue.SimpleQueue[Cores]:
    """Divide the cores among processes that run side by side, or they would fight for them: a share for each."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    free: queue.SimpleQueue[Cores] = queue.SimpleQueue()
    for job in range(jobs):
        free.put(frozenset(cores[job % len(cores) :: jobs]) if cores else frozenset())
    return free


def measure_apart(
    name: str, request: Mapping[str, Any], *, timeout: float, memory: float, cores: Cores = frozenset()
) -> Row:
    """Run `conformance.worker` on a request; see there for its keys.

    Args:
        name: the row's name.
        request: what to measure.
        timeout: seconds until the process is ended.
        memory: gibibytes that the process may use for data.
        cores: those that it may use.

    Returns:
        What the worker found until it ended, however it ended.
    """
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        order = Path(folder, "request.json")
        order.write_text(json.dumps({**request, "memory": memory}), encoding="utf-8")
        command = [sys.executable, "-m", "conformance.worker", folder]
        return run_apart(name, command, Path(folder), timeout, cores)


def run_apart(name: str, command: Sequence[str], folder: Path, timeout: float, cores: Cores = frozenset()) -> Row:
    """Run a command that writes its records into `folder/records.jsonl`, a line of JSON each, and build the row."""
    row, start = Row(name), time.monotonic()
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(PACKAGE), *([inherited] if inherited else [])])
    with (folder / "errors.txt").open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,  # so that its children end with it
        )
        if cores:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, cores)
        try:
            process.wait(timeout)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(process)
    for record in _records(folder / "records.jsonl"):
        row.add(record)
    row.seconds = time.monotonic() - start
    if late:
        row.status, row.reasons = TIMEOUT, [f"not done after {timeout:g} s, at: {row.stage}"]
    elif row.status is None:
        row.status, row.reasons = CRASHED, [f"the process ended with {_ending(process.returncode)}, at: {row.stage}"]
        row.details = _tail(folder / "errors.txt")
    return row


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _records(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:  # cut short by the end of the process
            break
    return records


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _tail(path: Path, size: int = 4000) -> str:
    return path.read_bytes()[-size:].decode("utf-8", "replace")
