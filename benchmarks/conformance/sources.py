"""Where the networks come from."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx.backend.test

from conformance.isolate import PACKAGE


@dataclass(frozen=True)
class Network:
    """A network to measure.

    Attributes:
        name: what it is called in the table.
        path: its file.
        data: an archive with its inputs; None to make them up.
    """

    name: str
    path: Path
    data: Path | None = None


def given(arguments: Iterable[str]) -> list[Network]:
    """Return the networks of files (`MODEL` or `MODEL=DATA.npz`) and of folders, whatever their depth.

    Raises:
        ValueError: there is no such file or folder, or no network in it.
    """
    found = []
    for argument in arguments:
        name, _, data = argument.partition("=")
        path = Path(name)
        if path.is_dir():
            inside = sorted(path.rglob("*.onnx"))
            if not inside:
                raise ValueError(f"there is no .onnx file in '{path}'")
            found += [Network(str(p.relative_to(path).with_suffix("")), p.absolute()) for p in inside]
        elif path.is_file():
            if data and not Path(data).is_file():
                raise ValueError(f"'{data}' doesn't exist")
            found.append(Network(path.stem, path.absolute(), Path(data).absolute() if data else None))
        else:
            raise ValueError(f"'{path}' doesn't exist")
    return found


def zoo() -> list[Network]:
    """Return the bundled networks."""
    from snncc import models

    return [Network(f"zoo:{name}", Path(models.path(name))) for name in models.names(None)]


def light() -> list[Network]:
    """Return the large networks that the onnx package brings, `light_*`."""
    return [Network(path.stem, path) for path in sorted((_onnx_data() / "light").glob("*.onnx"))]


def onnx_tests() -> list[Network]:
    """Return each test of the onnx package that has a file."""
    return [Network(path.parent.name, path) for path in sorted(_onnx_data().glob("*/*/model.onnx"))]


def _onnx_data() -> Path:
    return Path(onnx.backend.test.__file__).parent / "data"


def exported(folder: Path, only: Iterable[str] = ()) -> list[Network]:
    """Export what isn't in the folder yet, in a process of its own, and return what is there then."""
    folder.mkdir(parents=True, exist_ok=True)
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(PACKAGE), *([inherited] if inherited else [])])
    command = [sys.executable, "-m", "conformance.export", str(folder), *only]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True)
    return [Network(file.stem, file.absolute()) for file in sorted(folder.glob("*.onnx"))]
