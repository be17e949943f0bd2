"""A measurement that hangs, crashes or is cut short still makes a row."""

from __future__ import annotations

import os
import queue
import sys
import time
from pathlib import Path

import pytest
from conformance.isolate import run_apart, shares
from conformance.row import COMPILED, CRASHED, TIMEOUT

WRITE = """
import json, os, sys, time
def note(**record):
    print(json.dumps(record), file=open("records.jsonl", "a"))
note(opset=17, stage="compile T=4")
"""


def run(folder: Path, code: str, timeout: float = 30) -> tuple[object, float]:
    start = time.monotonic()
    row = run_apart("net", [sys.executable, "-c", WRITE + code], folder, timeout)
    return row, time.monotonic() - start


def test_records_become_a_row(tmp_path: Path) -> None:
    row, _ = run(tmp_path, f"note(status={COMPILED!r}, nodes=3)")
    assert (row.name, row.opset, row.nodes, row.status) == ("net", 17, 3, COMPILED)
    assert row.seconds > 0


def test_hang_ends_with_its_children_and_keeps_what_was_found(tmp_path: Path) -> None:
    child = "import time; open('alive', 'a').close(); time.sleep(3); open('late', 'a').close()"
    code = f"import subprocess\nsubprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(60)"
    row, seconds = run(tmp_path, code, timeout=1.5)
    assert (row.status, row.opset) == (TIMEOUT, 17)
    assert row.reasons == ["not done after 1.5 s, at: compile T=4"]
    assert seconds < 3
    assert (tmp_path / "alive").exists()
    time.sleep(3)
    assert not (tmp_path / "late").exists()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no process to cores")
def test_processes_side_by_side_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 4, 5})
    assert [sorted(share) for share in _all(shares(1))] == [[3, 4, 5]]
    assert [sorted(share) for share in _all(shares(2))] == [[3, 5], [4]]
    assert [sorted(share) for share in _all(shares(4))] == [[3], [4], [5], [3]]
    monkeypatch.undo()
    core = min(os.sched_getaffinity(0))
    wait = "time.sleep(0.5)\n"  # until the process that started it has bound it
    code = WRITE + wait + f"note(status={COMPILED!r}, nodes=sorted(os.sched_getaffinity(0)))"
    row = run_apart("net", [sys.executable, "-c", code], tmp_path, 30, frozenset([core]))
    assert row.nodes == [core]


def _all(free: queue.SimpleQueue[frozenset[int]]) -> list[frozenset[int]]:
    return [free.get() for _ in range(free.qsize())]


def test_crash_says_how_and_at_what(tmp_path: Path) -> None:
    row, _ = run(tmp_path, "os.abort()")
    assert row.status == CRASHED
    assert row.reasons == ["the process ended with signal SIGABRT, at: compile T=4"]


def test_exit_without_a_status_is_a_crash_and_keeps_the_messages(tmp_path: Path) -> None:
    row, _ = run(tmp_path, "raise SystemExit('out of everything')")
    assert row.reasons == ["the process ended with exit code 1, at: compile T=4"]
    assert "out of everything" in row.details


def test_record_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    row, _ = run(tmp_path, """open("records.jsonl", "a").write('{"nodes": 1')""")
    assert (row.opset, row.nodes, row.status) == (17, None, CRASHED)
