"""The frontier of a calibration walk: activations of ANN and SNN side by side, only as long as somebody needs them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snncc.passes.scaled import Scaled
from snncc.runtime.buffers import BufferPool
from snncc.runtime.segments import Step, reads
from snncc.runtime.session import Array

Temporal = Scaled | NDArray[np.float32]
"""What the SNN carries: spikes or graded values [T, N, ...]."""


@dataclass
class Entry:
    """One tensor in ANN and SNN, a list entry per chunk of samples.

    Attributes:
        ann: values in the ANN, [N, ...].
        snn: values in the SNN; None for a static tensor, which is the same in both.
        matched: the SNN's mean over time and samples is known to be the ANN's, in each channel.
        owned: nobody else has the arrays of the ANN's values.
    """

    ann: list[Array]
    snn: list[Temporal] | None = None
    matched: bool = False
    owned: bool = False

    def temporal(self, chunk: int) -> NDArray[np.float32]:
        """Return a chunk of the SNN's values as floats [T, N, ...]; the tensor isn't static."""
        if self.snn is None:
            raise ValueError("a static tensor has no values over time")
        value = self.snn[chunk]
        return value.decode() if isinstance(value, Scaled) else value


class Frontier:
    """The live tensors, dropped after their last reader; their arrays then go back to the buffers."""

    def __init__(self, steps: Iterable[Step], buffers: BufferPool | None = None) -> None:
        self._buffers = buffers or BufferPool()
        self._entries: dict[str, Entry] = {}
        self._readers: dict[str, int] = {}
        for step in steps:
            for name in reads(step):
                self._readers[name] = self._readers.get(name, 0) + 1

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def put(self, name: str, entry: Entry) -> None:
        """Keep a tensor if somebody will read it."""
        if self._readers.get(name, 0):
            self._entries[name] = entry

    def done(self, step: Step) -> None:
        """Note that a step has read its inputs."""
        for name in reads(step):
            self._readers[name] -= 1
            if not self._readers[name] and (entry := self._entries.pop(name, None)) is not None:
                self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        """Give back the arrays that nobody but the frontier has; those of the SNN's values always are such."""
        for value in entry.snn or ():
            self._buffers.give(value.values if isinstance(value, Scaled) else value)
        for array in entry.ann if entry.owned else ():
            self._buffers.give(array)
