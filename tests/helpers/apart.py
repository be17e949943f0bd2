"""Tests that run in a process of their own, as if the processor had fewer instructions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_APART = "SNNCC_TEST_APART"


def is_apart() -> bool:
    """Whether this is such a process."""
    return _APART in os.environ


def run_apart(patch: str, file: str, select: str, folder: Path) -> None:
    """Run tests of a file after a statement that patches snncc; machine code is kept apart, in a folder.

    Raises:
        AssertionError: one of them failed, or none was selected.
    """
    code = f"import pytest, sys; {patch}; "
    code += f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {file!r}, '-k', {select!r}]))"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), _APART: "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
