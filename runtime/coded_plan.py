"""What the fused executor runs on 8-bit codes: layers with 8-bit weights, convolutions of spikes, neurons and pools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from snncc.analysis import Analysis, Domain, Form, NeuronSite
from snncc.graph import DOMAIN, FLOAT_OF, INT8_CONV, consumers, producers
from snncc.runtime.coded import CodedNeurons
from snncc.runtime.conv_neurons import ConvNeurons, PoolOverTime
from snncc.runtime.int8_conv import Int8Layer, runs_natively
from snncc.runtime.matrix_conv import MOST_INPUTS
from snncc.runtime.matrix_unit import available
from snncc.runtime.parameters import NeuronParameters
from snncc.runtime.segments import is_pool_over_time
from snncc.runtime.spike_conv import MOST_IN_FLOATS, SpikeConv, runs_in_float


@dataclass
class CodedPlan:
    """The nodes that run on codes.

    Attributes:
        layers: layers with 8-bit weights, by the name of the node.
        neurons: neurons that write counts.
        driven: those of them that the convolutions of their current run with, in float32.
        terms: names of the tensors that such a neuron reads: what is convolved comes first, the rest is added.
        inside: nodes that run with the neuron behind them: convolutions, and sums of two tensors.
        pools: MaxPools over time on counts.
    """

    layers: dict[str, Int8Layer] = field(default_factory=dict)
    neurons: dict[str, CodedNeurons] = field(default_factory=dict)
    driven: dict[str, ConvNeurons] = field(default_factory=dict)
    terms: dict[str, tuple[str, ...]] = field(default_factory=dict)
    inside: set[str] = field(default_factory=set)
    pools: dict[str, PoolOverTime] = field(default_factory=dict)

    def chained(self, node: str) -> ConvNeurons | PoolOverTime | None:
        """Return what a node is in a `snncc.runtime.chain`, if it is part of one."""
        return self.driven.get(node) or self.pools.get(node)

    def runs(self, node: str) -> bool:
        """Whether a node runs on codes."""
        return node in self.layers or node in self.neurons or node in self.pools


def coded_plan(graph: gs.Graph, analysis: Analysis) -> CodedPlan:
    """Choose the nodes of a network without time (as `unlower` returns it).

    There are none if time can't be folded into the batch axis, or samples of a batch are mixed.
    """
    plan = CodedPlan()
    if not analysis.foldable or not analysis.separable:
        return plan
    chooser = _Chooser(graph, analysis, plan)
    for site in analysis.neurons:
        chooser.drive(site)
    for node in graph.nodes:
        stepwise = analysis.domains[node.name] is Domain.TEMPORAL and analysis.modes[node.name] is Form.STEP
        is_ours = node.domain == DOMAIN and node.op in FLOAT_OF and node.name not in chooser.convolutions
        if is_ours and stepwise and runs_natively(node):
            plan.layers[node.name] = Int8Layer(node)
    if plan.layers or chooser.driving:
        for site in analysis.neurons:
            chooser.neuron(site)
        for node in graph.nodes:
            chooser.pool(node)
    return plan


class _Chooser:
    def __init__(self, graph: gs.Graph, analysis: Analysis, plan: CodedPlan) -> None:
        self.analysis, self.plan = analysis, plan
        self.nodes = {node.name: node for node in graph.nodes}
        self.made_by, self.read_by = producers(graph), consumers(graph)
        self.outputs = {t.name for t in graph.outputs}
        self.neurons = {site.output: site for site in analysis.neurons}
        self.driving: dict[str, list[gs.Node]] = {}
        self.convolutions: set[str] = set()

    def drive(self, site: NeuronSite) -> None:
        """Let a neuron run with the convolutions that only it reads, if these read what can be counts."""
        if not self._fits(site):
            return
        terms, _ = self._terms(site, self._is_convolution)
        found = [self.made_by[name] for name in terms if self._is_convolution(name)]
        if found and len({node.op for node in found}) == 1:
            self.driving[site.node] = found
            self.convolutions |= {node.name for node in found}

    def _is_convolution(self, tensor: str) -> bool:
        node = self.made_by.get(tensor)
        if node is None or len(self.read_by[tensor]) != 1 or tensor in self.outputs:
            return False
        temporal = self.analysis.domains[node.name] is Domain.TEMPORAL
        if not temporal or self.analysis.modes[node.name] is not Form.STEP:
            return False
        site = self._counted(node.inputs[0].name)
        if site is None or node.op != INT8_CONV:
            return site is not None and runs_in_float(node)
        return self._counts(node, site)

    def _counted(self, tensor: str) -> NeuronSite | None:
        """Return the neurons whose counts a tensor can be, as they are or pooled."""
        site, node = self.neurons.get(tensor), self.made_by.get(tensor)
        if site is not None:
            return site if self._fits(site) else None
        if node is None or self._window(node) is None:
            return None
        return self._counted(node.inputs[0].name)

    def _counts(self, node: gs.Node, site: NeuronSite) -> bool:
        """Whether a convolution with 8-bit weights can run here, and they count the spikes of these neurons."""
        in_matrices = available() and runs_natively(node)
        if not in_matrices and not runs_in_float(node):
            return False
        conv, neurons = SpikeConv(node), self._coded(site)
        rounding = conv.rounding
        if rounding is None or conv.products > (MOST_INPUTS if in_matrices else MOST_IN_FLOATS):
            return False
        return np.array_equal(rounding.unit, neurons.theta) and rounding.offset == neurons.offset

    def _coded(self, site: NeuronSite) -> CodedNeurons:
        return CodedNeurons(NeuronParameters.of(self.nodes[site.node]), (site.dims or (0,))[0])

    def _fits(self, site: NeuronSite) -> bool:
        parameters = NeuronParameters.of(self.nodes[site.node])
        return site.dims is not None and CodedNeurons.fits(parameters, site.dims, site.channel_axis)

    def neuron(self, site: NeuronSite) -> None:
        """Let a neuron write counts if what runs here reads them, or gives it its current."""
        if site.dims is None or not self._fits(site):
            return
        driving = self.driving.get(site.node, [])
        terms, adder = self._terms(site, self._is_convolution if driving else self._is_layer)
        given = driving or any(self._is_layer(name) for name in terms)
        if not given and not self._feeds_layer(site.output):
            return
        neurons = self._coded(site)
        if driving or (self.driving and len(site.dims) == 3 and not any(map(self._is_layer, terms))):
            self.plan.driven[site.node] = ConvNeurons(neurons, [SpikeConv(node) for node in driving])
            made = {node.outputs[0].name for node in driving}
            terms = (*(node.inputs[0].name for node in driving), *(name for name in terms if name not in made))
        self.plan.neurons[site.node] = neurons
        self.plan.terms[site.node] = terms
        self.plan.inside |= {node.name for node in driving} | ({adder} if adder is not None else set())

    def _is_layer(self, tensor: str) -> bool:
        node = self.made_by.get(tensor)
        return node is not None and node.name in self.plan.layers

    def _terms(self, site: NeuronSite, is_wanted: Callable[[str], bool]) -> tuple[tuple[str, ...], str | None]:
        node = self.made_by.get(site.input)
        alone = (site.input,), None
        if node is None or node.op != "Add" or node.domain not in (None, "") or len(node.inputs) != 2:
            return alone
        if len(self.read_by[site.input]) != 1 or site.input in self.outputs:
            return alone
        names = tuple(t.name for t in node.inputs)
        shapes = {tuple(t.shape or ()) for t in node.inputs}
        temporal = all(self.analysis.tensors.get(n) is Domain.TEMPORAL for n in names)
        stepwise = all(self.analysis.forms.get(n) is Form.STEP for n in names)
        if len(shapes) != 1 or not temporal or not stepwise or not any(map(is_wanted, names)):
            return alone
        return names, str(node.name)

    def _feeds_layer(self, tensor: str) -> bool:
        return any(
            node.name in self.plan.layers
            or node.name in self.convolutions
            or (self._window(node) is not None and self._feeds_layer(node.outputs[0].name))
            for node in self.read_by.get(tensor, [])
        )

    def pool(self, node: gs.Node) -> None:
        """Let a MaxPool over time run on counts if what runs here reads them."""
        window = self._window(node)
        source = self.made_by.get(node.inputs[0].name) if node.inputs else None
        counted = source is not None and (source.name in self.plan.neurons or source.name in self.plan.pools)
        if window is not None and counted and self._feeds_layer(node.outputs[0].name):
            self.plan.pools[node.name] = window

    def _window(self, node: gs.Node) -> PoolOverTime | None:
        """Return a MaxPool over time that can run here."""
        return _window(node) if is_pool_over_time(node, self.analysis) else None


def _window(node: gs.Node) -> PoolOverTime | None:
    """Return a plain MaxPool in two dimensions."""
    kernel = tuple(node.attrs.get("kernel_shape", ()))
    plain = node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "") and not node.attrs.get("ceil_mode", 0)
    plain &= all(d == 1 for d in node.attrs.get("dilations", ()))
    if node.op != "MaxPool" or node.domain not in (None, "") or len(kernel) != 2 or not plain:
        return None
    return PoolOverTime(kernel, tuple(node.attrs.get("strides", (1, 1))), tuple(node.attrs.get("pads", (0, 0, 0, 0))))
