"""What a compile would do to an ANN: node by node, and in sum. The dry run of `snncc inspect`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import onnx_graphsurgeon as gs
from rich.table import Table
from rich.text import Text

from snncc.analysis import Analysis, Domain, Form, NeuronSite, Traffic
from snncc.compiling import network_summary
from snncc.errors import Obstacle
from snncc.loader import LoadedModel, TensorSpec
from snncc.ops import Role, spec_of
from snncc.passes.place_encoders import activation_nodes
from snncc.report.text import NONE, clean, facts, percent, plural, si, signature, table

NEURON, LINEAR, INCREMENTS, MEANS = "neuron", "linear", "increments", "means"
ONCE, SHAPE, READOUT, OBSTACLE = "once", "shape", "readout", "obstacle"

_STYLES = {NEURON: "green", OBSTACLE: "bold red", READOUT: "dim", ONCE: "dim", SHAPE: "dim"}
_DRIVEN = {
    Traffic.SPIKES: "spikes add weights",
    Traffic.GRADED: "new each step",
    Traffic.FRAMES: "a frame each step",
    Traffic.ANALOG: "same each step",
    Traffic.READOUT: "mean over time",
}


@dataclass(frozen=True)
class NodePlan:
    """What becomes of a node.

    Attributes:
        name: its name.
        op: its operator, with the domain where it isn't the standard one.
        domain: "static", "temporal" or "readout".
        becomes: "neuron", "linear", "increments", "means", "once", "shape", "readout" or "obstacle".
        note: why, in a few words.
        macs: multiply-accumulates of one sample; None where there are none or a size isn't known.
        driven_by: what drives them: "spikes", "graded", "frames", "analog" or "readout"; None where there are none.
    """

    name: str
    op: str
    domain: str
    becomes: str
    note: str
    macs: int | None
    driven_by: str | None


@dataclass(frozen=True)
class AnnReport:
    """The dry run of an ANN.

    Attributes:
        name: name of the network.
        sha256: digest of its file.
        inputs: its inputs.
        outputs: its outputs.
        nodes: a row per node, after normalisation.
        summary: multiply-accumulates by what drives them, neuron layers, and how time is lowered.
        neurons: neurons of one sample; None if a size isn't known.
        obstacles: what stands in the way.
        fold_blockers: why time can't be folded into the batch axis.
        readout_blockers: why there can be no trace.
        warnings: what the user should know.
    """

    name: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: tuple[NodePlan, ...]
    summary: dict[str, Any]
    neurons: int | None
    obstacles: tuple[Obstacle, ...]
    fold_blockers: tuple[str, ...]
    readout_blockers: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def compilable(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.obstacles

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "kind": "ann",
            "name": self.name,
            "sha256": self.sha256,
            "compilable": self.compilable,
            "inputs": [spec_dict(s) for s in self.inputs],
            "outputs": [spec_dict(s) for s in self.outputs],
            "summary": {**self.summary, "neurons": self.neurons},
            "nodes": [asdict(node) for node in self.nodes],
            "obstacles": [asdict(obstacle) for obstacle in self.obstacles],
            "fold_blockers": list(self.fold_blockers),
            "readout_blockers": list(self.readout_blockers),
            "warnings": list(self.warnings),
        }


def spec_dict(spec: TensorSpec) -> dict[str, Any]:
    """Return an input or output as plain values, for JSON."""
    return {"name": spec.name, "dtype": str(spec.dtype), "shape": None if spec.shape is None else list(spec.shape)}


def ann_report(loaded: LoadedModel, graph: gs.Graph, analysis: Analysis, warnings: list[str]) -> AnnReport:
    """Describe an analysed network (see `snncc.network.analyse_network`)."""
    sizes = [None if site.dims is None else _neurons(site) for site in analysis.neurons]
    known = [size for size in sizes if size is not None]
    return AnnReport(
        name=loaded.name,
        sha256=loaded.sha256,
        inputs=loaded.inputs,
        outputs=loaded.outputs,
        nodes=tuple(plan_nodes(graph, analysis)),
        summary=network_summary(analysis),
        neurons=sum(known) if len(known) == len(sizes) else None,
        obstacles=tuple(analysis.obstacles),
        fold_blockers=tuple(analysis.fold_blockers),
        readout_blockers=tuple(analysis.readout_blockers),
        warnings=tuple(warnings),
    )


def _neurons(site: NeuronSite) -> int:
    total = 1
    for size in site.dims or ():
        total *= size
    return total


def plan_nodes(graph: gs.Graph, analysis: Analysis) -> list[NodePlan]:
    """Say of every node of an analysed graph what becomes of it."""
    sites = {site.node: site for site in analysis.neurons}
    layers = {layer.node: layer for layer in analysis.layers}
    obstacles = {obstacle.node for obstacle in analysis.obstacles}
    functions = activation_nodes(graph, analysis)
    rows = []
    for node in graph.nodes:
        domain = analysis.domains[node.name]
        layer = layers.get(node.name)
        if node.name in sites:
            becomes, note = NEURON, _neuron_note(sites[node.name])
        elif node.name in functions:
            becomes, note = NEURON, f"its function; {functions[node.name]} spikes"
        elif node.name in obstacles:
            becomes, note = OBSTACLE, "see below"
        else:
            becomes, note = _plain(node, domain, analysis.modes.get(node.name))
        if layer is not None and becomes == LINEAR:
            note = _DRIVEN[layer.driven_by]
        op = node.op if node.domain in (None, "", "ai.onnx") else f"{node.domain}.{node.op}"
        macs, driven = (None, None) if layer is None else (layer.macs, layer.driven_by.value)
        rows.append(NodePlan(node.name, op, domain.value, becomes, note, macs, driven))
    return rows


def _neuron_note(site: NeuronSite) -> str:
    shape = "unknown size" if site.dims is None else "×".join(str(d) for d in site.dims)
    if site.activation.encodes:
        shape = f"encodes {site.activation.kind}, {shape}"
    return f"{shape}, static" if site.static_input else shape


def _plain(node: gs.Node, domain: Domain, mode: Form | None) -> tuple[str, str]:
    role = spec_of(node).role
    if domain is Domain.STATIC:
        return ONCE, "before any neuron"
    if role is Role.SHAPE:
        return SHAPE, "sizes only"
    if domain is Domain.READOUT:
        return READOUT, "mean over time"
    if mode is Form.MEAN:
        return MEANS, "of the timesteps so far"
    if role is Role.POOL:
        return INCREMENTS, "of running value"
    if role in (Role.LINEAR, Role.WEIGHTED):
        return LINEAR, "per timestep"
    return ONCE, "sizes only"


def node_table(report: AnnReport) -> Table:
    """Return the table of all nodes."""
    made = table("node", "op", "time", "becomes", "why", "MACs", "driven by", right=("MACs",))
    made.columns[4].no_wrap = True
    for node in report.nodes:
        style = _STYLES.get(node.becomes, "")
        made.add_row(
            clean(node.name),
            clean(node.op),
            node.domain,
            Text(node.becomes, style=style),
            node.note,
            "" if node.driven_by is None else si(node.macs),
            node.driven_by or "",
        )
    return made


def ann_facts(report: AnnReport) -> Table:
    """Return the summary in a few lines."""
    layers = int(report.summary["neuron_layers"])
    verdict = Text("can be compiled", style="green")
    if not report.compilable:
        verdict = Text(f"cannot be compiled: {plural(len(report.obstacles), 'obstacle')}", style="bold red")
    unsized = sum(1 for node in report.nodes if node.driven_by is not None and node.macs is None)
    missing = f" ({plural(unsized, 'layer')} of unknown size not counted)" if unsized else ""
    return facts(
        {
            "network": f"{report.name}, {plural(len(report.nodes), 'node')} after normalisation",
            "inputs": signature(report.inputs),
            "outputs": signature(report.outputs),
            "neurons": f"{_known_count(report.neurons)}{plural(layers, 'layer')}",
            "MACs": driven_by(report.summary["macs"]) + missing,
            "time": _lowering(report) if report.compilable else None,
            "trace": f"not possible: {report.readout_blockers[0]}"
            if report.readout_blockers and report.compilable
            else None,
            "verdict": verdict,
        }
    )


def _known_count(neurons: int | None) -> str:
    return "" if not neurons else f"{neurons:,} in "


def _lowering(report: AnnReport) -> str:
    if not report.fold_blockers:
        return "folded into the batch axis"
    more = len(report.fold_blockers) - 1
    rest = f" (and {plural(more, 'more node')})" if more else ""
    return f"a Scan over timesteps, which is slower: {report.fold_blockers[0]}{rest}"


def driven_by(macs: dict[str, int]) -> str:
    """Return `31.0 M: 98.3 % driven by spikes, 1.7 % analog`."""
    total = macs["total"]
    if not total:
        return f"{NONE} (sizes aren't known)"
    words = {"spikes": "driven by spikes", "graded": "by graded values", "analog": "by values that stay the same"}
    words["frames"] = "by the frames of the input"
    words["readout"] = "once, in the readout"
    shares = [f"{percent(macs[kind] / total, 1)} {word}" for kind, word in words.items() if macs.get(kind)]
    return f"{si(total)}: {', '.join(shares)}"


def obstacle_lines(report: AnnReport) -> list[Text]:
    """Return what stands in the way: reason, remedy and nodes, those with the same reason together."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for obstacle in report.obstacles:
        groups.setdefault((obstacle.op, obstacle.reason, obstacle.remedy), []).append(obstacle.node)
    lines = []
    for (op, reason, remedy), nodes in groups.items():
        line = Text()
        line.append("\n✗ ", style="red")
        line.append(clean(op), style="bold")
        line.append(clean(f": {reason}"))
        line.append(clean(f"\n  remedy: {remedy}"))
        line.append(
            clean(f"\n  {'node' if len(nodes) == 1 else f'{len(nodes)} nodes'}: {', '.join(nodes)}"), style="dim"
        )
        lines.append(line)
    return lines
