"""Rows on disk: each as soon as it is there, so that an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import importlib
import json
import threading
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from conformance.row import Row

PACKAGES = ("snncc", "snncc.passes", "snncc.runtime", "snncc.models")


def code_state() -> str:
    """Return what stands for the compiler's source: two runs with the same one ran the same code."""
    digest = hashlib.sha256()
    for name in PACKAGES:
        folder = Path(str(importlib.import_module(name).__file__)).parent
        # Folders that are links lead to the other packages.
        files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.py")}
        inside = [name for name in files if not any((folder / p).is_symlink() for p in Path(name).parents[:-1])]
        for path in sorted(inside):
            digest.update(f"{name}/{path}\0".encode() + files[path].read_bytes() + b"\0")
    return digest.hexdigest()[:12]


class Results:
    """The rows of a run and the file that keeps them.

    Rows that are there already are taken over if they were measured with the same options, limits and code.
    """

    def __init__(self, path: Path | None, options: Mapping[str, Any]) -> None:
        """Read the file, if there is one.

        Args:
            path: where the rows are kept; None: nowhere.
            options: what the rows depend on, as plain values.

        Raises:
            ValueError: the file is no such file.
        """
        self.path, self.options = path, dict(options)
        self.code = code_state()
        self._lock = threading.Lock()
        self._rows: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                same = found["options"] == self.options and found["code"] == self.code
                self._rows = {row["name"]: row for row in found["rows"]} if same else {}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"'{path}' doesn't hold the rows of an earlier run: choose another file") from error

    def known(self, name: str) -> Row | None:
        """Return the row of a network from an earlier run."""
        kept = self._rows.get(name)
        if kept is None:
            return None
        row = Row(name)
        own = {field.name for field in fields(Row)}
        for key, value in kept.items():
            if key in own and key != "steps":
                row.add({key: value})
        for step in kept["steps"]:
            row.add({"step": step})
        return row

    def keep(self, row: Row) -> None:
        """Add a row and write the file."""
        from environment import environment

        from snncc.atomic import replacing
        from snncc.report.text import to_json

        with self._lock:
            self._rows[row.name] = row.to_dict()
            if self.path is None:
                return
            found = {
                "environment": environment(),
                "options": self.options,
                "code": self.code,
                "rows": list(self._rows.values()),
            }
            with replacing(self.path) as file:
                file.write((to_json(found) + "\n").encode())
