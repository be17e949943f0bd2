"""Folders that hold samples as files, in them or in one subfolder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from snncc.errors import DataError


def scan(root: Path, suffixes: Sequence[str], what: str) -> tuple[tuple[Path, ...], tuple[str, ...] | None]:
    """Return the files sorted by relative path, and the names of the class folders where there are any.

    Args:
        root: the folder.
        suffixes: what the files' names may end in, in lower case; hidden files are left out.
        what: what they are, for messages.

    Raises:
        DataError: there are none, or their classes aren't clear.
        OSError: the folder can't be read.
    """

    def counts(path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        return path.suffix.lower() in suffixes and not hidden and path.is_file()

    entries = sorted((path for path in root.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
    classes = [path for path in entries if path.is_dir()]
    flat = [path for path in entries if counts(path)]
    nested = [path for folder in classes for path in folder.rglob("*") if counts(path)]
    if flat and nested:
        raise DataError(
            f"folder {root} holds {what} ('{flat[0].name}') beside subfolders of {what} "
            f"('{nested[0].relative_to(root).parts[0]}'), so their classes aren't clear; move all into class folders"
        )
    if not flat and not nested:
        raise DataError(
            f"folder {root} holds no {what}; accepted are {', '.join(suffixes)}, in it or in one subfolder per class"
        )
    nested.sort(key=lambda path: path.relative_to(root).parts)
    # A class folder without files still counts: leaving it out would shift the indices of those after it.
    return (tuple(flat), None) if flat else (tuple(nested), tuple(path.name for path in classes))
