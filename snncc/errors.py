"""Everything that snncc raises on purpose: one tree under `SnnccError`.

A message is one or a few short lines that say what is wrong (naming the file or node), why, and what to do about it.
The command line prints it without a traceback and exits with `exit_code`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SnnccError(Exception):
    """Base of all errors raised by snncc.

    Attributes:
        exit_code: what the command line exits with: 1 for a failure, 2 for wrong usage.
    """

    exit_code = 1


class UsageError(SnnccError):
    """An option or argument is out of range or unknown."""

    exit_code = 2


class ModelError(SnnccError):
    """A model file can't be read, is invalid or unsafe, or breaks when it is run."""


class DataError(SnnccError):
    """Calibration or evaluation data can't be read or doesn't fit the model."""


class PassError(SnnccError):
    """A pass of the pipeline failed; the message names it."""


class ResourceError(SnnccError, MemoryError):
    """There is too little memory."""


class ArtifactError(SnnccError):
    """A file is no artifact of snncc, or its record is damaged."""


@dataclass(frozen=True)
class Obstacle:
    """A node that stands in the way of a conversion.

    Attributes:
        node: the node's name.
        op: its operator, with the domain where it isn't the standard one.
        reason: why it can't be converted.
        remedy: what the user can do.
    """

    node: str
    op: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"node '{self.node}' ({self.op}): {self.reason}; {self.remedy}"


class UnsupportedModelError(SnnccError):
    """The network holds nodes that can't be converted; `obstacles` lists every one of them."""

    def __init__(self, obstacles: Sequence[Obstacle], shown: int = 8) -> None:
        self.obstacles = tuple(obstacles)
        lines = [f"cannot convert this network: {len(self.obstacles)} obstacle(s)"]
        lines += [f"  {obstacle}" for obstacle in self.obstacles[:shown]]
        if len(self.obstacles) > shown:
            lines.append(f"  ... and {len(self.obstacles) - shown} more: `snncc inspect` lists them all")
        super().__init__("\n".join(lines))
