"""Everything after the last neuron: it runs once, on means over time."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from snncc.analysis import Analysis, Domain
from snncc.runtime.segments import Segment, SegmentRunner, plan
from snncc.runtime.session import Array


class Readout:
    """The readout of a network.

    Attributes:
        static: names of the tensors that it reads and that are computed before the first neuron.
        temporal: names of the tensors that it reads the mean over time of.
        outputs: names of the network's outputs.
    """

    def __init__(self, network: gs.Graph, analysis: Analysis, threads: int = 0, *, apart: bool = False) -> None:
        """Load what follows the last neuron; see `SegmentRunner` for `threads` and `apart`."""
        neurons = {site.node for site in analysis.neurons}
        steps = plan(network, analysis, lambda node: node.name in neurons)
        readout = [s for s in steps if isinstance(s, Segment) and s.domain is Domain.READOUT]
        self._runners = [SegmentRunner(network, s, analysis, threads, apart=apart) for s in readout]
        made = {t.name for node in network.nodes for t in node.outputs}
        read = {t.name: None for s in readout for t in s.inputs if analysis.tensors.get(t.name) is Domain.STATIC}
        self.static = [name for name in read if name in made]
        temporal = {t.name: None for s in readout for t in s.inputs}
        self.temporal = [name for name in temporal if analysis.tensors.get(name) is Domain.TEMPORAL]
        self.outputs = {t.name for t in network.outputs}

    def run(self, values: dict[str, Array]) -> dict[str, Array]:
        """Run on static tensors and means over time, by name; return the outputs that this gives."""
        for runner in self._runners:
            values.update(runner.run(values))
        return {name: value for name, value in values.items() if name in self.outputs}
