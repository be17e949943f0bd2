"""How much memory there is, as far as the system tells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from snncc.runtime.memory import available_memory

LIMITED = """
import resource
from snncc.runtime.memory import available_memory
size = 3 << 30
resource.setrlimit(resource.RLIMIT_DATA, (size, size))
left = available_memory()
block = bytearray(100 << 20)
print(left, available_memory())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system doesn't tell")
def test_a_limit_of_the_process_counts() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 0 < before < 3 << 30
    assert after < before


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="the system doesn't tell")
def test_it_is_no_more_than_the_machine_has() -> None:
    total = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) * 1024
    left = available_memory()
    assert left is not None
    assert 0 < left <= total
