"""The command line: `snncc`."""

from snncc.cli.app import main

__all__ = ["main"]
