"""The public objects: compile a network, load one that was compiled, run it, look at what it says about itself."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
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
from snncc.data.spec import check_shape
from snncc.errors import ArtifactError, UsageError
from snncc.exit_threshold import ExitThreshold, find_threshold
from snncc.graph import DOMAIN, FLOAT_OF, export_model, first_line, import_graph, infer_shapes, shape_of
from snncc.loader import LoadedModel, load_model
from snncc.neurons.functions import MIN_OPSET
from snncc.ops import is_frames
from snncc.passes.analyse import analyse
from snncc.passes.base import Progress
from snncc.passes.sample_size import count_one_sample
from snncc.passes.upgrade_opset import upgrade_opset
from snncc.period import settled
from snncc.pipeline import ANALYSE, Hook, convert
from snncc.runtime.early_exit import EarlyExit, run_early
from snncc.runtime.executor import InstrumentedExecutor, OrtExecutor
from snncc.runtime.fused import FusedExecutor
from snncc.runtime.reference import ReferenceSimulator
from snncc.runtime.stepper import Stepper
from snncc.runtime.unlower import unlower
from snncc.sequences import with_frames
from snncc.weight_guard import is_better

Source = str | os.PathLike[str] | onnx.ModelProto
"""A model: the path of an ONNX file, `zoo:NAME`, or a model in memory."""

BACKENDS = ("fused", "ort", "numpy")
EARLY_SIZE = 128
"""Samples that run at a time where they may leave early: those that stay go on together."""

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
        self._executors: dict[int, OrtExecutor] = {}
        self._fused: dict[int, FusedExecutor] = {}
        self._network: gs.Graph | None = None

    @property
    def inputs(self) -> list[InputSpec]:
        """The inputs, which are those of the ANN; where they present frames, with `timesteps`."""
        framed = self.record.frames
        return [
            InputSpec(spec.name, spec.dtype, spec.shape[1:], self.record.timesteps) if spec.name in framed else spec
            for spec in input_specs(self.model)
        ]

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
        threads: int = 0,
        progress: Progress | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Run the network.

        Args:
            inputs: an array for a network with one input, a mapping from input names to arrays, or a `Dataset`. The
                samples are on axis 0; frames, where the network takes some, on axis 1.
            backend: "fused" for the fast executor, "ort" for the artifact as it is in ONNX Runtime, "numpy" for the
                reference simulator. A network with a trace runs in "ort" for "fused".
            batch_size: samples at a time, where the network's own batch is open; None for `run_size`.
            threads: threads for everything, 0 for one per core.
            progress: told about finished batches.

        Returns:
            By output name, an array with the outputs of all samples.

        Raises:
            UsageError: there is no such backend, or a number is out of range.
            DataError: the inputs don't fit the network.
        """
        _check_run(backend, threads)
        data = inputs if isinstance(inputs, Dataset) else load_data(inputs, self.inputs)
        parts: list[dict[str, NDArray[Any]]] = []
        traces = {name for node in self.model.graph.node if node.op_type == "UnfoldTime" for name in node.output}
        if backend == "ort" or (backend == "fused" and traces):
            if threads not in self._executors:
                self._executors[threads] = OrtExecutor(self.model, threads)
            executor = self._executors[threads]
            batch_size = run_size(self.record.timesteps, "ort") if batch_size is None else batch_size
            parts += [executor.run(batch) for batch in in_batches(data, batch_size, progress)]
        else:
            simulator = self.simulator(backend, threads)
            batch_size = run_size(self.record.timesteps, backend) if batch_size is None else batch_size
            parts += [simulator.run(batch).outputs for batch in in_batches(data, batch_size, progress)]
        return {name: _join([p[name] for p in parts], traced=name in traces) for name in parts[0]}

    def run_early(
        self,
        inputs: Any,
        rule: EarlyExit,
        *,
        batch_size: int | None = None,
        threads: int = 0,
        progress: Progress | None = None,
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """Run the network; each sample leaves as soon as its running output is confident enough.

        Args:
            inputs: see `run`.
            rule: when a sample leaves.
            batch_size: see `run`.
            threads: see `run`.
            progress: told about finished batches.

        Returns:
            By output name, an array with the outputs of all samples; and the timesteps that each took, [N].

        Raises:
            UsageError: no output holds class scores, or a number is out of range.
            DataError: the inputs don't fit the network.
        """
        executor = self.fused(threads)
        data = inputs if isinstance(inputs, Dataset) else load_data(inputs, self.inputs)
        batch_size = EARLY_SIZE if batch_size is None else batch_size
        parts = [run_early(executor, batch, rule) for batch in in_batches(data, batch_size, progress)]
        outputs = {name: _join([p.outputs[name] for p in parts], traced=False) for name in parts[0].outputs}
        return outputs, np.concatenate([p.exits for p in parts if p.exits is not None])

    def exit_rule(
        self, data: Any, max_drop: float = 0.2, *, measure: str = "margin", output: str | None = None, threads: int = 0
    ) -> ExitThreshold:
        """Find how sure the network must be for a sample to leave early.

        Args:
            data: samples that aren't those which the result is judged by; see `run`.
            max_drop: percentage points of them of which another class may be said than after all timesteps.
            measure: what confidence is; see `EarlyExit`.
            output: name of the output with the class scores; None: the first of shape [N, K].
            threads: see `run`.

        Raises:
            UsageError: no output holds class scores, or a number is out of range.
            DataError: the data doesn't fit the network.
        """
        executor = self.fused(threads)
        samples = data if isinstance(data, Dataset) else load_data(resolve_data(data), self.inputs)
        return find_threshold(executor, in_batches(samples, EARLY_SIZE), max_drop / 100, measure, output)

    def simulator(
        self, backend: str = "fused", threads: int = 0
    ) -> FusedExecutor | InstrumentedExecutor | ReferenceSimulator:
        """Return an executor that also reports spikes and outputs over time; for the options see `run`.

        Raises:
            UsageError: there is no such backend, or a number is out of range.
        """
        _check_run(backend, threads)
        if backend == "numpy":
            return ReferenceSimulator(self.network, self.record.timesteps, threads)
        if backend == "fused":
            return self.fused(threads)
        return InstrumentedExecutor(self.model, self.network, self.record.timesteps, threads)

    def stepper(self, batch: int | None = None, *, threads: int = 0) -> Stepper:
        """Return the network before its first timestep, to run one at a time: for input that arrives over time.

        Args:
            batch: number of samples; None for the network's own, or 1 where that is open.
            threads: threads for everything, 0 for one per core.

        Raises:
            UsageError: the network takes another number of samples at a time, or a number is out of range.
        """
        return Stepper(self.fused(threads), self.inputs, batch)

    def fused(self, threads: int = 0) -> FusedExecutor:
        """Return the fast executor; see `run`."""
        _check_run("fused", threads)
        if threads not in self._fused:
            self._fused[threads] = FusedExecutor(self.network, self.record.timesteps, threads)
        return self._fused[threads]

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


def _check_run(backend: str, threads: int) -> None:
    if backend not in BACKENDS:
        raise UsageError(f"backend is {backend!r}: it must be one of {', '.join(BACKENDS)}")
    if threads < 0:
        raise UsageError(f"threads is {threads}: it must be at least 1, or 0 for one per core")


def run_size(timesteps: int, backend: str) -> int:
    """Return how many samples to run at a time: fewer for many timesteps, where all of them are in memory at once."""
    return 32 if backend == "fused" else max(1, min(32, _ROWS // timesteps))


def in_batches(data: Dataset, size: int, progress: Progress | None = None) -> Any:
    """Yield the samples in batches: of the network's own size where that is fixed, else of `size`."""
    size = data.inputs[0].batch or size
    batches = data.batches(size)  # refuses a size below 1
    count = -(-len(data) // size)
    for number, batch in enumerate(batches, 1):
        yield batch
        if progress is not None:
            progress(number, count)


def prepared(source: Any, loaded: LoadedModel, config: Config) -> Dataset:
    """Return data for the spiking network that a compile of an ANN would make.

    Args:
        source: data as `compile` takes it. A `Dataset` may have been made for other timesteps.
        loaded: the ANN.
        config: options of the compile.

    Raises:
        DataError: the data doesn't fit the network.
        UsageError: no input can present frames.
    """
    specs = with_frames(input_specs(loaded.model), config)
    if not isinstance(source, Dataset):
        return load_data(resolve_data(source), specs)
    if [spec.timesteps for spec in source.inputs] == [spec.timesteps for spec in specs]:
        return source
    for spec in specs:
        check_shape(spec, source.arrays[spec.name].shape, f"{source.source}: array for input '{spec.name}'")
    return replace(source, inputs=tuple(specs))


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
    """Return where data is: names of bundled sets become their paths, those of recordings and scenes their arrays.

    Raises:
        UsageError: the zoo has no such data.
    """
    if isinstance(source, str) and source.startswith("zoo:"):
        name = source.removeprefix("zoo:")
        if name in models.EVENTS:
            return models.event_frames(name)
        return {"image": models.scene_set(name)[0]} if name in models.SCENES else models.data_path(name)
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
    config, hook, loaded = config or Config(), hook or Hook(), read_ann(model)
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
    account = {**_account(graph, ctx), **_frames(graph)}
    hook.run(convert(progress), graph, ctx)
    if ctx.config.weights != "float32":
        account["float_layers"] = dict(ctx.float_layers)
        nodes = [*graph.nodes, *(node for sub in graph.subgraphs(recursive=True) for node in sub.nodes)]
        account["int8_layers"] = sum(node.domain == DOMAIN and node.op in FLOAT_OF for node in nodes)
    record = _record(loaded, ctx, account)
    metadata = {p.key: p.value for p in loaded.model.metadata_props}
    return SpikingNetwork(build(graph, record, metadata), record), graph, ctx


def _frames(graph: gs.Graph) -> dict[str, list[str]]:
    """Return what the record says about inputs that present frames; nothing where there are none."""
    names = [t.name for t in graph.inputs if any(is_frames(node) for node in t.outputs)]
    return {"frames": names} if names else {}


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
        if any(is_frames(node) for node in tensor.outputs):
            shape = (shape[0], *shape[2:])
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
