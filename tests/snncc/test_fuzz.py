"""A bounded part of the fuzzing that `benchmarks/fuzz.py` does: the same cases on every machine."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or importlib.util.find_spec("resource") is None,
    reason="the worker limits its memory by POSIX",
)


def test_no_model_does_harm() -> None:
    """Every case ends in a SnnccError or in a network that works; how many are run depends on the machine."""
    command = [sys.executable, str(BENCHMARKS / "fuzz.py"), "--cases", "400", "--seconds", "15"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {text: int(number) for number, text in (line.split(None, 1) for line in done.stdout.splitlines()[1:10])}
    assert counts["ended in a SnnccError"] >= 10
    assert counts["compiled, loaded and finite where the original is"] >= 1


def test_a_worker_that_dies_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fuzz

    worker = fuzz.Worker(memory_gib=4)
    try:
        worker.process.kill()
        assert worker.run(0, 30)[0] == "crash"
        assert worker.run(0, 60)[0] in ("refused", "works", "original")  # another one took its place
        assert worker.run(1, 0.0)[0] == "hang"
        assert worker.run(10**9, 60)[0] in ("refused", "works", "original")
    finally:
        worker.close()
