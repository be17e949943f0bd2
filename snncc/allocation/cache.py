"""What was measured once, on disk: a bounded folder of small files that any process may lose or damage.

A file holds rows of numbers by a key of text, as an `.npz` that is read without pickle. Its name is a hash of
everything that the numbers depend on. Files are replaced whole. One that can't be read counts as empty, and one that
can't be written is done without: a cache is never a reason to fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snncc.atomic import replacing

FORMAT = 2
"""Part of every name: what an older version has measured otherwise isn't read."""
MOST_BYTES = 256 << 20
"""Size of the folder above which the files that were used longest ago are deleted."""
_MOST_FILE = 64 << 20

Rows = dict[str, tuple[float, ...]]


def folder() -> Path:
    """Return the folder: `SNNCC_CACHE`, else `snncc` in `XDG_CACHE_HOME`, else `~/.cache/snncc`."""
    own = os.environ.get("SNNCC_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "snncc"


class Cache:
    """Rows that belong to one set of conditions.

    Attributes:
        path: the file; None for a cache that only lives as long as this object.
        rows: what is known.
    """

    def __init__(self, kind: str, conditions: Mapping[str, Any] | None) -> None:
        """Open a cache.

        Args:
            kind: what the rows are, the beginning of the file's name.
            conditions: everything that the rows depend on, as plain values; None: nothing is read or written.
        """
        self.path: Path | None = None
        self.rows: Rows = {}
        if conditions is None:
            return
        text = json.dumps({"format": FORMAT, **conditions}, sort_keys=True)
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home directory
            self.path = folder() / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
            self.rows = _read(self.path)

    def add(self, rows: Mapping[str, tuple[float, ...]]) -> None:
        """Remember rows, all of one length, and write the file."""
        self.rows.update(rows)
        if self.path is not None:
            with contextlib.suppress(OSError, ValueError):
                _write(self.path, self.rows)
                _bound(self.path)


def _read(path: Path) -> Rows:
    try:
        if path.stat().st_size > _MOST_FILE:
            return {}
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_FILE:
                return {}
        with np.load(path, allow_pickle=False) as content:
            keys, values = content["keys"], content["values"]
        os.utime(path)  # files that are used stay
        if keys.ndim != 1 or values.ndim != 2 or len(keys) != len(values) or keys.dtype.kind != "U":
            return {}
        return {str(key): tuple(map(float, row)) for key, row in zip(keys, values, strict=True)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError):
        return {}


def _write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        np.savez(stream, keys=np.array(list(rows)), values=np.array(list(rows.values()), np.float64))


def _bound(kept: Path) -> None:
    """Delete the files that were used longest ago, but not the one just written, until the folder is small enough."""
    files = []
    for path in kept.parent.glob("*.npz"):
        with contextlib.suppress(OSError):  # another process may have deleted it
            status = path.stat()
            files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= MOST_BYTES:
            return
        if path != kept:
            path.unlink(missing_ok=True)
            total -= size
