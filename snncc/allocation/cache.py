"""What was measured once, on disk: a bounded folder of small files that any process may lose or damage.

A file holds rows of numbers by a key of text, as an `.npz` that is read without pickle. Its name is a hash of
everything that the numbers depend on. Files are replaced whole. One that can't be read, or holds what nobody can have
measured, counts as empty, and one that can't be written is done without: a cache is never a reason to fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from snncc.atomic import replacing

FORMAT = 3
"""Part of every name: what an older version has measured otherwise isn't read."""
MOST_BYTES = 256 << 20
"""Size of the folder above which the files that were used longest ago are deleted."""
_MOST_FILE = 64 << 20

Rows = dict[str, tuple[float, ...]]


def _amounts(values: NDArray[np.float64]) -> bool:
    return bool((np.isfinite(values) & (values >= 0)).all())


def _sensitivity(values: NDArray[np.float64]) -> bool:
    """Whether rows are loss, spikes and operations of a candidate."""
    return values.shape[1] == 3 and _amounts(values)


def _points(values: NDArray[np.float64]) -> bool:
    """Whether rows are loss, agreement (NaN without classes), operations, MACs, and spikes of each layer."""
    return values.shape[1] > 4 and _amounts(np.delete(values, 1, axis=1)) and not (values[:, 1] < 0).any()


_SOUND: dict[str, Callable[[NDArray[np.float64]], bool]] = {"sensitivity": _sensitivity, "points": _points}
"""What rows must be, by the kind of cache."""
_OWN = re.compile(rf"({'|'.join(_SOUND)})-[0-9a-f]{{32}}\.npz")
"""Names of the files: the folder may be one that holds others too."""


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
            kind: what the rows are, "sensitivity" or "points"; the beginning of the file's name.
            conditions: everything that the rows depend on, as plain values; None: nothing is read or written.
        """
        self.path: Path | None = None
        self.rows: Rows = {}
        if conditions is None:
            return
        text = json.dumps({"format": FORMAT, **conditions}, sort_keys=True)
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home directory
            self.path = folder() / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
            self.rows = _read(self.path, _SOUND[kind])

    def add(self, rows: Mapping[str, tuple[float, ...]]) -> None:
        """Remember rows, all of one length, and write the file."""
        self.rows.update(rows)
        if self.path is not None:
            with contextlib.suppress(OSError, ValueError):
                _write(self.path, self.rows)
                _bound(self.path)


def _read(path: Path, sound: Callable[[NDArray[np.float64]], bool]) -> Rows:
    try:
        if path.stat().st_size > _MOST_FILE:
            return {}
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_FILE:
                return {}
            # Whole members, so that their checksums are compared before anything looks into them.
            members = [BytesIO(archive.read(f"{name}.npy")) for name in ("keys", "values")]
        keys, values = (npy_format.read_array(member, allow_pickle=False) for member in members)
        os.utime(path)  # files that are used stay
        if keys.ndim != 1 or values.ndim != 2 or len(keys) != len(values) or keys.dtype.kind != "U":
            return {}
        if values.dtype != np.float64 or not sound(values):
            return {}
        return {str(key): tuple(map(float, row)) for key, row in zip(keys, values, strict=True)}
    except Exception:  # zipfile, its decompressors and NumPy's parser of headers raise a dozen kinds, some undocumented
        return {}


def _write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        np.savez(stream, keys=np.array(list(rows)), values=np.array(list(rows.values()), np.float64))


def _bound(kept: Path) -> None:
    """Delete the files that were used longest ago, but not the one just written, until the folder is small enough."""
    files = []
    for path in kept.parent.glob("*.npz"):
        if not _OWN.fullmatch(path.name):
            continue
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
