"""Files that commands read and write. An output is tried before the work starts, and written whole or not at all."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from snncc import atomic
from snncc.data import Dataset, ImageOptions, InputSpec
from snncc.data import load as load_data
from snncc.errors import SnnccError, UsageError
from snncc.graph import first_line
from snncc.network import SpikingNetwork, load
from snncc.sources import resolve, resolve_data


class OutputError(SnnccError):
    """A file can't be written."""


def open_network(source: str) -> SpikingNetwork:
    """Load a compiled network.

    Raises:
        SnnccError: it can't be read or is none.
    """
    return load(resolve(source))


def open_data(
    source: str,
    inputs: Sequence[InputSpec],
    *,
    labels: str | None = None,
    image: ImageOptions | None = None,
    limit: int | None = None,
) -> Dataset:
    """Open the data that an option names; see `snncc.data.load`."""
    return load_data(resolve_data(source), inputs, labels=labels, image=image, limit=limit)


def check_output(path: Path, option: str, inputs: Mapping[str, str | os.PathLike[str]]) -> None:
    """Check before the work starts that a file can be written in the end.

    Args:
        path: the file.
        option: the option that chooses it, for messages.
        inputs: files, or folders of them, that must not be overwritten, by what they are: what is read, or written too.

    Raises:
        UsageError: it is one of them, or in one of them.
        OutputError: it can't be written.
    """
    for what, other in inputs.items():
        if same_file(path, Path(other)):
            raise UsageError(f"'{path}' is the {what} itself, which would be overwritten: choose another {option}")
        if _is_read_from(path, Path(other)):
            raise UsageError(f"'{path}' is part of the {what}, which would be overwritten: choose another {option}")
    advice = f"choose another place with {option}"
    try:
        _check_kind(path, advice)
        if not path.parent.is_dir():
            raise OutputError(f"can't write '{path}': there is no directory '{path.parent}'; create it or {advice}")
        # Permission bits say little (root, read-only mounts, quotas): what counts is whether it works.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise OutputError(f"can't write '{path}': {reason}; {advice}") from error


def same_file(left: Path, right: Path) -> bool:
    """Return whether two paths are one file or folder, which need not be there yet."""
    try:
        return left.resolve() == right.resolve() or (left.exists() and right.exists() and left.samefile(right))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links that lead to each other
        return False


def _is_read_from(path: Path, folder: Path) -> bool:
    """Return whether a file is one that is read where a folder of images or recordings is given."""
    from snncc.data.folder import IMAGE_SUFFIXES
    from snncc.events import SUFFIXES

    try:
        inside = folder.is_dir() and path.is_file() and folder.resolve() in path.resolve().parents
    except (OSError, ValueError, RuntimeError):
        return False
    return inside and path.suffix.lower() in (*IMAGE_SUFFIXES, *SUFFIXES)


def _check_kind(path: Path, advice: str) -> None:
    """Refuse what a rename would destroy: to write atomically as root to /dev/null is to replace the device."""
    if path.is_dir():
        raise OutputError(f"can't write '{path}': it is a directory; {advice}")
    if path.exists() and not path.is_file():
        raise OutputError(f"can't write '{path}': it is no regular file; {advice}")


@contextmanager
def replacing(path: Path, option: str) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of `path` when the block is done, and is gone when it fails.

    Raises:
        OutputError: the file can't be written.
    """
    advice = f"choose another place with {option}"
    _check_kind(path, advice)
    try:
        with atomic.replacing(path) as stream:
            yield stream
    except (OSError, ValueError) as error:
        raise OutputError(f"can't write '{path}': {first_line(error)}; {advice}") from error


def save_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as an `.npz`, the same bytes for the same arrays.

    Raises:
        OutputError: the file can't be written.
    """
    # np.savez takes names as keyword arguments, so an output couldn't be called `file`.
    with replacing(path, "--output") as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
