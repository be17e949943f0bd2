"""Everything after the last neuron: it runs once, on means over time."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from snncc.analysis import Analysis, Domain
from snncc.runtime.segments import Segment, SegmentRunner, plan
from snncc.runtime.session import Array


class ReadoutPlan:
    """What the readout of a network is, and what it reads.

    Attributes:
        segments: its pieces, in order.
        static: names of the tensors that it reads and that are computed before the first neuron.
        temporal: names of the tensors that it reads the mean over time of.
        outputs: names of the network's outputs.
    """

    def __init__(self, network: gs.Graph, analysis: Analysis) -> None:
        neurons = {site.node for site in analysis.neurons}
        steps = plan(network, analysis, lambda node: node.name in neurons)
        self.segments = [s for s in steps if isinstance(s, Segment) and s.domain is Domain.READOUT]
        made = {t.name for node in network.nodes for t in node.outputs}
        read = list({t.name: None for s in self.segments for t in s.inputs})
        self.static = [n for n in read if n in made and analysis.tensors.get(n) is Domain.STATIC]
        self.temporal = [n for n in read if analysis.tensors.get(n) is Domain.TEMPORAL]
        self.outputs = {t.name for t in network.outputs}


class Readout(ReadoutPlan):
    """The readout of a network, ready to run."""

    def __init__(self, network: gs.Graph, analysis: Analysis, threads: int = 0, *, apart: bool = False) -> None:
        """Load it; see `SegmentRunner` for `threads` and `apart`."""
        super().__init__(network, analysis)
        self._runners = [SegmentRunner(network, s, analysis, threads, apart=apart) for s in self.segments]

    def run(self, values: dict[str, Array]) -> dict[str, Array]:
        """Run on static tensors and means over time, by name; return the outputs that this gives."""
        for runner in self._runners:
            values.update(runner.run(values))
        return {name: value for name, value in values.items() if name in self.outputs}
