"""The public objects: compile a network, load one that was compiled, run it, look at what it says about itself."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc import models
from snncc.analysis import Analysis
from snncc.artifact import VERSION, Record, build, layer_records, read_record, save
from snncc.config import Config
from snncc.context import Context
from snncc.data import Dataset, InputSpec
from snncc.data import load as load_data
from snncc.errors import ArtifactError, UsageError
from snncc.graph import DOMAIN, FLOAT_OF, export_model, first_line, import_graph, infer_shapes, shape_of
from snncc.loader import LoadedModel, load_model
from snncc.neurons.functions import MIN_OPSET
from snncc.passes.analyse import analyse
from snncc.passes.base import Progress
from snncc.passes.sample_size import count_one_sample
from snncc.passes.upgrade_opset import upgrade_opset
from snncc.pipeline import ANALYSE, Hook, convert
from snncc.runtime import fused
from snncc.runtime.executor import InstrumentedExecutor, OrtExecutor
from snncc.runtime.fused import FusedExecutor
from snncc.runtime.reference import ReferenceSimulator
from snncc.runtime.unlower import unlower
from snncc.weight_guard import is_better

Source = str | os.PathLike[str] | onnx.ModelProto
"""A model: the path of an ONNX file, `zoo:NAME`, or a model in memory."""

BACKENDS = ("fused", "ort", "numpy")
_ROWS = 512
"""Most samples times timesteps that run together."""


class SpikingNetwork:
    """A compiled network.

    Attributes:
        model: the artifact, which stock ONNX Runtime runs.
        record: what it says about how it was made.
    """

    def __init__(self, model: onnx.ModelProto, record: Record) -> None:
        self.model, self.record = model, record
        self._executor: OrtExecutor | None = None
        self._fused: FusedExecutor | None = None
        self._fusible: bool | None = None
        self._network: gs.Graph | None = None

    @property
    def inputs(self) -> list[InputSpec]:
        """The inputs, which are those of the ANN."""
        return input_specs(self.model)

    @property
    def network(self) -> gs.Graph:
        """The network without time, each neuron a node; see `snncc.runtime.unlower`."""
        if self._network is None:
            self._network = unlower(self.model, self.record)
        return self._network

    def sized(self, data: Dataset) -> gs.Graph:
        """Return the network without time, with the sizes that the data gives to open axes."""
        return sized_graph(unlower(self.model, self.record), data)

    def run(
        self,
        inputs: Any,
        *,
        backend: str = "fused",
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Run the network.

        Args:
            inputs: an array for a network with one input, a mapping from input names to arrays, or a `Dataset`.
            backend: "fused" for the fast executor, "ort" for the artifact as it is in ONNX Runtime, "numpy" for the
                reference simulator. A network with a trace, or whose time can't be folded, runs in "ort" for "fused".
            batch_size: samples at a time, where the network's own batch is open; None for `run_size`.
            progress: told about finished batches.

        Returns:
            By output name, an array with the outputs of all samples.

        Raises:
            UsageError: there is no such backend.
            DataError: the inputs don't fit the network.
        """
        if backend not in BACKENDS:
            raise UsageError(f"backend is {backend!r}: it must be one of {', '.join(BACKENDS)}")
        data = inputs if isinstance(inputs, Dataset) else load_data(inputs, self.inputs)
        batch_size = run_size(self.record.timesteps) if batch_size is None else batch_size
        parts: list[dict[str, NDArray[Any]]] = []
        traces = {name for node in self.model.graph.node if node.op_type == "UnfoldTime" for name in node.output}
        if backend == "ort" or (backend == "fused" and (traces or not self._is_fusible())):
            self._executor = self._executor or OrtExecutor(self.model)
            parts += [self._executor.run(batch) for batch in in_batches(data, batch_size, progress)]
        else:
            simulator = self.simulator(backend)
            parts += [simulator.run(batch).outputs for batch in in_batches(data, batch_size, progress)]
        return {name: _join([p[name] for p in parts], traced=name in traces) for name in parts[0]}

    def _is_fusible(self) -> bool:
        if self._fusible is None:
            self._fusible = fused.runs(analyse(self.network))
        return self._fusible

    def simulator(self, backend: str = "fused") -> FusedExecutor | InstrumentedExecutor | ReferenceSimulator:
        """Return an executor that also reports spikes and outputs over time; for the backends see `run`.

        Raises:
            UsageError: there is no such backend.
        """
        if backend not in BACKENDS:
            raise UsageError(f"backend is {backend!r}: it must be one of {', '.join(BACKENDS)}")
        if backend == "numpy":
            return ReferenceSimulator(self.network, self.record.timesteps)
        if backend == "fused" and self._is_fusible():
            self._fused = self._fused or FusedExecutor(self.network, self.record.timesteps)
            return self._fused
        return InstrumentedExecutor(self.model, self.network, self.record.timesteps)

    def report(self) -> dict[str, Any]:
        """Return what the artifact says about itself as plain values: configuration, calibration, layers, warnings."""
        return self.record.to_dict()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artifact, whole or not at all.

        Raises:
            ArtifactError: the file can't be written.
        """
        save(self.model, path)


def _join(parts: list[NDArray[Any]], *, traced: bool) -> NDArray[Any]:
    if parts[0].ndim == 0:
        return np.stack(parts)
    return np.concatenate(parts, axis=1 if traced else 0)


def run_size(timesteps: int) -> int:
    """Return how many samples to run at a time: 32, or fewer for many timesteps, all of which are in memory at once."""
    return max(1, min(32, _ROWS // timesteps))


def in_batches(data: Dataset, size: int, progress: Progress | None = None) -> Any:
    """Yield the samples in batches: of the network's own size where that is fixed, else of `size`."""
    size = data.inputs[0].batch or size
    batches = data.batches(size)  # refuses a size below 1
    count = -(-len(data) // size)
    for number, batch in enumerate(batches, 1):
        yield batch
        if progress is not None:
            progress(number, count)


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """Return what a model declares about its inputs, initializers aside."""
    graph = gs.import_onnx(_signature(model))
    return [InputSpec(t.name, np.dtype(t.dtype), shape_of(t) or ()) for t in graph.inputs]


def _signature(model: onnx.ModelProto) -> onnx.ModelProto:
    defaults = {i.name for i in model.graph.initializer}
    graph = onnx.GraphProto(name=model.graph.name)
    graph.input.extend(i for i in model.graph.input if i.name not in defaults)
    return onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)


def resolve(source: Source) -> str | os.PathLike[str] | onnx.ModelProto:
    """Return where a model is: `zoo:NAME` becomes the path of the bundled network.

    Raises:
        UsageError: the zoo has no such network.
    """
    if isinstance(source, str) and source.startswith("zoo:"):
        return models.path(source.removeprefix("zoo:"))
    return source


def resolve_data(source: Any) -> Any:
    """Return where data is: `zoo:calibration` and `zoo:test` become the paths of the bundled sets.

    Raises:
        UsageError: the zoo has no such data.
    """
    if isinstance(source, str) and source.startswith("zoo:"):
        return models.data_path(source.removeprefix("zoo:"))
    return source


def read_ann(source: Source | LoadedModel) -> LoadedModel:
    """Read a network that is to be compiled or compared with; one that has been read is only checked.

    Raises:
        ModelError: it can't be read or is invalid.
        UsageError: it is an artifact already.
    """
    loaded = source if isinstance(source, LoadedModel) else load_model(resolve(source))
    if loaded.is_artifact:
        name = _shown(source, loaded)
        raise UsageError(f"'{name}' is already a spiking network: give the ANN that it was compiled from")
    return loaded


def _shown(source: Any, loaded: LoadedModel) -> str:
    return loaded.name if isinstance(source, onnx.ModelProto | LoadedModel) else str(source)


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
        calibration: data as the network's inputs take it: a path (.npz, .npy, folder of images), `zoo:calibration`,
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
    config, hook, loaded = config or Config(), hook or Hook(), read_ann(model)
    if config.weights == "int8" and calibration is None:
        raise UsageError("8-bit weights need the range of the currents: give calibration data (--calib)")
    data: Dataset | None = None
    if calibration is not None:
        specs = input_specs(loaded.model)
        data = calibration if isinstance(calibration, Dataset) else load_data(resolve_data(calibration), specs)

    def convert_with(fit_weights: bool) -> tuple[SpikingNetwork, gs.Graph, Context]:
        ctx = Context(config, data, dict(assignment or {}), fit_weights=fit_weights)
        if config.weight_calibration and not fit_weights:
            ctx.warn("weight calibration was left out: on the samples that are held back it made nothing better")
        return _converted(loaded, ctx, hook, progress)

    network, graph, ctx = convert_with(config.weight_calibration)
    if data is None or not config.weight_calibration or all(c.weight is None for c in ctx.corrections.values()):
        return network
    plain, _, _ = convert_with(False)
    better = is_better(network.model, plain.model, loaded.model, data, graph, config.batch_size)
    return network if better else plain


def _converted(
    loaded: LoadedModel, ctx: Context, hook: Hook, progress: Progress | None
) -> tuple[SpikingNetwork, gs.Graph, Context]:
    """Convert a network; return it, its graph, and what was found on the way."""
    graph = analyse_network(loaded, ctx, hook)
    _check_assignment(ctx)
    account = _account(graph, ctx)
    hook.run(convert(progress), graph, ctx)
    if ctx.config.weights != "float32":
        account["float_layers"] = dict(ctx.float_layers)
        nodes = [*graph.nodes, *(node for sub in graph.subgraphs(recursive=True) for node in sub.nodes)]
        account["int8_layers"] = sum(node.domain == DOMAIN and node.op in FLOAT_OF for node in nodes)
    record = _record(loaded, ctx, account)
    metadata = {p.key: p.value for p in loaded.model.metadata_props}
    return SpikingNetwork(build(graph, record, metadata), record), graph, ctx


def _check_assignment(ctx: Context) -> None:
    """Raise `UsageError` where the assignment of ψ and τ doesn't fit the network."""
    known = [site.node for site in ctx.analysis.neurons]
    for name in ctx.assignment:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f"; the nearest name is '{near[0]}'" if near else ""
            raise UsageError(f"the assignment names '{name}', which is no layer of neurons of this network{hint}")
        try:
            ctx.layer_config(name)
        except (UsageError, TypeError, ValueError) as error:
            raise UsageError(f"the assignment of layer '{name}': {first_line(error)}") from error


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


def sized_graph(graph: gs.Graph, data: Dataset) -> gs.Graph:
    """Give the open axes of a graph's inputs the sizes of the data, batch aside; infer all shapes anew, in place."""
    for tensor in graph.inputs:
        shape = data.arrays[tensor.name].shape
        tensor.shape = [tensor.shape[0], *shape[1:]] if tensor.shape else tensor.shape
    infer_shapes(graph)
    return graph


def _account(graph: gs.Graph, ctx: Context) -> dict[str, Any]:
    """Return the account of an analysed network, open sizes taken from the calibration data."""
    analysis = ctx.analysis
    if ctx.calibration is not None and any(layer.macs is None for layer in analysis.layers):
        sized = sized_graph(import_graph(export_model(graph)), ctx.calibration)
        analysis = analyse(sized)
        count_one_sample(sized, analysis)
    return network_summary(analysis)


def load(path: str | os.PathLike[str]) -> SpikingNetwork:
    """Load a compiled network.

    Raises:
        ModelError: the file can't be read or is invalid.
        ArtifactError: it was not compiled by snncc.
    """
    loaded = load_model(path)
    if not loaded.is_artifact:
        raise ArtifactError(f"'{path}' is not a network compiled by snncc: make one with `snncc compile {path}`")
    return SpikingNetwork(loaded.model, read_record(loaded.model, f"'{path}'"))


def default_output(source: Source) -> Path:
    """Return `<name>.snn.onnx` in the current directory for a model."""
    if isinstance(source, onnx.ModelProto):
        return Path(f"{source.graph.name or 'model'}.snn.onnx")
    return Path(f"{Path(resolve(source)).stem}.snn.onnx")
