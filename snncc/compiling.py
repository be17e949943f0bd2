"""From a trained network to a spiking one: `compile`, and the account that the record keeps of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import onnx_graphsurgeon as gs

from snncc.analysis import Analysis
from snncc.artifact import VERSION, Record, build, check_size, layer_records
from snncc.config import Config, checked_config
from snncc.context import Context
from snncc.data import Dataset
from snncc.errors import ModelError, PassError, UsageError
from snncc.graph import DOMAIN, FLOAT_OF, export_model, import_graph
from snncc.loader import LoadedModel
from snncc.network import SpikingNetwork
from snncc.neurons.functions import MIN_OPSET
from snncc.ops import is_frames
from snncc.passes.analyse import analyse
from snncc.passes.base import Progress
from snncc.passes.sample_size import count_one_sample
from snncc.passes.upgrade_opset import upgrade_opset
from snncc.period import settled
from snncc.pipeline import ANALYSE, Hook, convert
from snncc.runtime.session import check_loads
from snncc.sources import Source, prepared, read_ann, sized_graph
from snncc.weight_guard import is_better


def analyse_network(loaded: LoadedModel, ctx: Context, hook: Hook) -> gs.Graph:
    """Bring a network into normal form and analyse it; the result is in `ctx.analysis`."""
    model, _ = upgrade_opset(loaded.model, MIN_OPSET)
    graph = import_graph(model)
    hook.run(ANALYSE, graph, ctx)
    return graph


def compile(
    model: Source | LoadedModel,
    *,
    calibration: Any = None,
    config: Config | None = None,
    assignment: Mapping[str, tuple[int, float]] | None = None,
    hook: Hook | None = None,
    progress: Progress | None = None,
) -> SpikingNetwork:
    """Turn a trained network into a spiking one.

    Args:
        model: path of an ONNX file, `zoo:NAME`, a model in memory, or what `read_ann` returned.
        calibration: data as the network's inputs take it, with the frames of a sample on axis 1 if the input coding is
            "frames": a path (.npz, .npy, folder of images), `zoo:calibration`,
            an array, a mapping from input names to arrays, an iterable of batches, or a `Dataset`. A few hundred
            samples are enough. None: thresholds are guessed, with a warning in `record.warnings`.
        config: options; the default is T=8, ψ=4.
        assignment: ψ and τ of single layers of neurons, by the name of the activation's node (see
            `report()["layers"]`); the others have the configuration's.
        hook: what happens between passes.
        progress: told about finished steps of the calibration.

    Returns:
        The spiking network. The same model, data and options give the same bytes.

    Raises:
        ModelError: the model can't be read or is invalid.
        UnsupportedModelError: the model holds nodes that can't be converted; all of them are listed.
        DataError: the calibration data doesn't fit the model.
        UsageError: the assignment names a layer that isn't there, or is out of range.
    """
    config, hook = checked_config(config), hook or Hook()
    if assignment is not None and not isinstance(assignment, Mapping):
        raise UsageError(f"assignment is {assignment!r}: it must map names of layers to pairs (ψ, τ)")
    loaded = read_ann(model)
    if config.weights == "int8" and calibration is None:
        raise UsageError("8-bit weights need the range of the currents: give calibration data (--calib)")
    data: Dataset | None = None
    if calibration is not None:
        data = prepared(calibration, loaded, config)
    config, note = settled(config, data, loaded)

    walks = 2 if config.weight_calibration and data is not None else 1

    def convert_with(fit_weights: bool, walk: int = 0) -> tuple[SpikingNetwork, gs.Graph, Context]:
        ctx = Context(config, data, dict(assignment or {}), fit_weights=fit_weights)
        if note is not None:
            ctx.warn(note)
        if config.weight_calibration and not fit_weights:
            ctx.warn("weight calibration was left out: on the samples that are held back it made nothing better")
        return _converted(loaded, ctx, hook, _part_of(progress, walk, walks))

    network, graph, ctx = convert_with(config.weight_calibration)
    if data is None or not config.weight_calibration or all(c.weight is None for c in ctx.corrections.values()):
        if progress is not None and walks > 1:
            progress(1, 1)  # there is nothing to compare, so no second walk
        return network
    plain, _, _ = convert_with(False, 1)
    better = is_better(network.model, plain.model, loaded.model, data, graph, config)
    return network if better else plain


def _part_of(progress: Progress | None, walk: int, walks: int) -> Progress | None:
    """Return what one of several walks of the same length tells about its steps."""
    if progress is None or walks == 1:
        return progress
    return lambda done, total: progress(walk * total + done, walks * total)


def _converted(
    loaded: LoadedModel, ctx: Context, hook: Hook, progress: Progress | None
) -> tuple[SpikingNetwork, gs.Graph, Context]:
    """Convert a network; return it, its graph, and what was found on the way."""
    graph = analyse_network(loaded, ctx, hook)
    _check_assignment(ctx)
    check_size(graph, limited=ctx.config.weights == "float32")  # before the calibration, which may take long
    account = {**_account(graph, ctx), **_frames(graph)}
    hook.run(convert(progress), graph, ctx)
    if ctx.config.weights != "float32":
        account["float_layers"] = dict(ctx.float_layers)
        nodes = [*graph.nodes, *(node for sub in graph.subgraphs(recursive=True) for node in sub.nodes)]
        account["int8_layers"] = sum(node.domain == DOMAIN and node.op in FLOAT_OF for node in nodes)
    record = _record(loaded, ctx, account)
    metadata = {p.key: p.value for p in loaded.model.metadata_props}
    network = SpikingNetwork(build(graph, record, metadata), record)
    _check_loads(network, loaded)
    return network, graph, ctx


def _check_loads(network: SpikingNetwork, loaded: LoadedModel) -> None:
    """Check that ONNX Runtime takes what came out, and if not, whether it would have taken what went in."""
    try:
        check_loads(network.model, "the spiking network")
    except ModelError as error:
        try:
            check_loads(loaded.model, f"'{loaded.name}'")
        except ModelError as original:
            raise ModelError(f"{original}; export it again") from original
        raise PassError(f"{error}; this is an error of snncc, please report it with the model") from error


def _frames(graph: gs.Graph) -> dict[str, list[str]]:
    """Return what the record says about inputs that present frames; nothing where there are none."""
    names = [t.name for t in graph.inputs if any(is_frames(node) for node in t.outputs)]
    return {"frames": names} if names else {}


def _check_assignment(ctx: Context) -> None:
    """Raise `UsageError` where the assignment of ψ and τ doesn't fit the network."""
    known = [site.node for site in ctx.analysis.neurons]
    for name, choice in ctx.assignment.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
            hint = f"; the nearest name is '{near[0]}'" if near else ""
            raise UsageError(f"the assignment names '{name}', which is no layer of neurons of this network{hint}")
        try:
            ctx.layer_config(name)
        except UsageError as error:
            raise UsageError(f"the assignment of layer '{name}': {error}") from error
        except (TypeError, ValueError) as error:
            raise UsageError(f"the assignment of layer '{name}' is no pair (ψ, τ), but {choice!r}") from error


def _record(loaded: LoadedModel, ctx: Context, account: dict[str, Any]) -> Record:
    data = ctx.calibration
    calibration = None
    if data is not None:
        calibration = {"samples": len(data), "fingerprint": data.fingerprint()}
    return Record(
        version=VERSION,
        source={"name": loaded.name, "sha256": loaded.sha256},
        config={name: value for name, value in ctx.config.to_dict().items() if name != "batch_size"},
        calibration=calibration,
        network=account,
        layers=layer_records(ctx),
        warnings=list(ctx.warnings),
    )


def network_summary(analysis: Analysis) -> dict[str, Any]:
    """Return the account of a network: its multiply-accumulates by what drives them, and how time is lowered.

    Where a layer's size isn't known, `macs_known` is False, the layer is missing from `macs`, and there is no share.
    """
    macs = analysis.macs()
    total = macs["total"]
    known = all(layer.macs is not None for layer in analysis.layers)
    return {
        "macs": macs,
        "macs_known": known,
        "spiking_share": (macs["spikes"] / total if total else 0.0) if known else None,
        "neuron_layers": len(analysis.neurons),
        "lowering": "batch" if analysis.foldable else "scan",
    }


def _account(graph: gs.Graph, ctx: Context) -> dict[str, Any]:
    """Return the account of an analysed network, open sizes taken from the calibration data."""
    analysis = ctx.analysis
    if ctx.calibration is not None and any(layer.macs is None for layer in analysis.layers):
        sized = sized_graph(import_graph(export_model(graph)), ctx.calibration)
        analysis = analyse(sized)
        count_one_sample(sized, analysis)
    return network_summary(analysis)
