"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Open a file beside the target that takes its name when the block is done, and is gone when it fails.

    Raises:
        OSError, ValueError: the target can't be written, or is no regular file, which a rename would destroy.
    """
    if target.exists() and not target.is_file():
        raise OSError("it is no regular file")
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(target)
    finally:
        Path(temporary).unlink(missing_ok=True)
