"""`python -m conformance.export DIR [NAME ...]`: export what isn't in DIR yet.

A family whose libraries aren't installed is left out, and a network that its exporter can't export too; both are said.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

FAMILIES = ("torch_networks", "sklearn_networks", "keras_networks", "light_networks")
"""Modules with a function `networks()`: by file name without suffix, what writes the file."""


def export(folder: Path, name: str, write: Callable[[Path], None]) -> None:
    """Write a network whole or not at all."""
    target, temporary = folder / f"{name}.onnx", folder / f"{name}.part"
    if target.exists():
        return
    try:
        write(temporary)
        temporary.rename(target)
        print(f"exported {name}", file=sys.stderr, flush=True)
    except Exception as error:  # exporters raise whatever they like
        print(f"can't export {name}: {type(error).__name__}: {_line(error)}", file=sys.stderr, flush=True)
    finally:
        temporary.unlink(missing_ok=True)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[-1][:300]


def main() -> None:
    """Export all networks, or those that are named."""
    parser = argparse.ArgumentParser(prog="conformance.export", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="only networks whose name begins so")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        try:
            networks = importlib.import_module(f"conformance.export.{family}").networks()
        except (ImportError, OSError, RuntimeError) as error:  # torchvision and torch built for different devices, say
            print(f"left out {family}: {_line(error)}", file=sys.stderr, flush=True)
            continue
        for name, write in networks.items():
            if not options.names or name.startswith(tuple(options.names)):
                export(options.folder, name, write)


if __name__ == "__main__":
    main()
