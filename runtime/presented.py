"""What the inputs of a network without time present, as executors take it: see `snncc.sequences`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from snncc import sequences
from snncc.analysis import Analysis
from snncc.ops import is_frames
from snncc.runtime.session import Array


@dataclass(frozen=True)
class Presented:
    """The inputs that present frames, and the periods after which neurons start anew.

    Attributes:
        inputs: their names; none with constant inputs.
        period: R, timesteps of a period.
        count: T/R, presentations of a sample.
        batched: names of the tensors whose axis 0 enumerates samples.
    """

    inputs: tuple[str, ...]
    period: int
    count: int
    batched: frozenset[str]

    @classmethod
    def of(cls, network: gs.Graph, analysis: Analysis, timesteps: int) -> Presented:
        """Read them from the marks of a network without time, which runs for T timesteps."""
        marks = [node for node in network.nodes if is_frames(node)]
        period = int(marks[0].attrs["period"]) if marks else timesteps
        names = tuple(node.inputs[0].name for node in marks)
        return cls(names, period, timesteps // period, frozenset(analysis.batched))

    def samples(self, feeds: Mapping[str, Array]) -> int:
        """Return the number N of samples of a batch."""
        return sequences.samples_of(feeds, self.inputs)

    def feeds(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return a batch with each presentation as a sample of its own: frames as [R, (T/R)·N, ...], in new arrays."""
        result = {}
        for name, value in feeds.items():
            if name in self.inputs:
                result[name] = sequences.per_period(value, self.period)
            else:
                result[name] = sequences.repeated(value, self.count) if name in self.batched else value
        return result

    def apart(self, feeds: Mapping[str, Array], rows: slice) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return some samples of a batch: what stays the same [N, ...], and the frames [T, N, ...]."""
        constant = {n: v[rows] for n, v in feeds.items() if n not in self.inputs}
        return constant, {n: feeds[n][:, rows] for n in self.inputs}

    def once(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Return static tensors for each sample, of those for each presentation."""
        found = {}
        for name, value in values.items():
            if name not in self.inputs:
                each = self.count > 1 and name in self.batched
                found[name] = value[: len(value) // self.count] if each else value
        return found

    def running(self, means: Array) -> Array:
        """Return means over all timesteps so far [T, N, ...], of those within periods [R, (T/R)·N, ...].

        Without presentations it is what it was, whatever the number of timesteps that it holds.
        """
        return sequences.running_over(means, self.count)
