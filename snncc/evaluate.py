"""Evaluation: what a spiking network gets right, how near it is to its ANN, and what it spends, on given data.

It goes batch by batch and keeps sums only, so memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.data import Dataset
from snncc.data import load as load_data
from snncc.data.spec import InputSpec, format_shape
from snncc.errors import DataError, UsageError
from snncc.loader import LoadedModel
from snncc.network import EARLY_SIZE, Source, SpikingNetwork, input_specs, read_ann, resolve_data, run_size
from snncc.passes.base import Progress
from snncc.runtime.early_exit import EarlyExit, class_output, run_early
from snncc.runtime.executor import InstrumentedExecutor
from snncc.runtime.fused import FusedExecutor
from snncc.runtime.meter import PROFILES, Meter, Reading
from snncc.runtime.reference import ReferenceSimulator, Simulation
from snncc.runtime.session import Array, Session
from snncc.sequences import counterpart, run_ann

Observer = Callable[[Simulation, dict[str, Array] | None, slice], None]
"""Told about each batch: what the SNN gave, what the ANN gave, and which samples they are."""


@dataclass(frozen=True)
class OutputError:
    """How far an output of the SNN is from the ANN's, over all samples.

    Attributes:
        name: the output.
        relative_error: ‖SNN - ANN‖ / ‖ANN‖ (L2).
        by_timestep: the same for the running mean after each timestep.
    """

    name: str
    relative_error: float
    by_timestep: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found. Fractions are between 0 and 1; None: not known from the data that were given.

    Attributes:
        samples: number of samples.
        timesteps: T.
        backend: what ran the spiking network.
        class_output: the output with the class scores: the first of shape [N, K], K >= 2; None if there is none.
        classes: K.
        ann_accuracy: share of samples that the ANN classifies right.
        snn_accuracy: the same for the SNN.
        agreement: share of samples of which both say the same class.
        accuracy_by_timestep: accuracy of the SNN's running mean after each timestep.
        agreement_by_timestep: its agreement with the ANN.
        outputs: the distance of each floating-point output from the ANN's; empty without an ANN.
        reading: spikes, operations and energy per sample.
        exits: number of samples that left after each timestep; None where all stay to the last.
        warnings: what the user should know.
        counterpart: what the ANN's figures are of, where each timestep has a frame of its own; else None.
    """

    samples: int
    timesteps: int
    backend: str
    class_output: str | None
    classes: int | None
    ann_accuracy: float | None
    snn_accuracy: float | None
    agreement: float | None
    accuracy_by_timestep: tuple[float, ...] | None
    agreement_by_timestep: tuple[float, ...] | None
    outputs: tuple[OutputError, ...]
    reading: Reading
    warnings: tuple[str, ...]
    exits: tuple[int, ...] | None = None
    counterpart: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; activity and energy are per sample, energy in joules."""
        values = {k: v for k, v in self.__dict__.items() if k not in ("outputs", "reading", "warnings")}
        reading = self.reading
        values["outputs"] = [asdict(output) for output in self.outputs]
        values["activity"] = {
            "neurons": reading.neuron_count,
            "spikes": reading.spikes,
            "firing_rate": reading.firing_rate,
            "mean_timesteps": reading.mean_timesteps,
            "synaptic_operations": reading.synaptic_operations,
            "ann_macs": reading.ann_macs,
            "snn_macs": reading.snn_macs,
            "neuron_layers": [asdict(layer) for layer in reading.neurons],
            "weighted_layers": [asdict(layer) for layer in reading.layers],
        }
        values["energy"] = {}
        for name, profile in PROFILES.items():
            ann, snn = reading.energy(profile)
            values["energy"][name] = {"ann": ann, "snn": snn, "profile": asdict(profile)}
        values["warnings"] = list(self.warnings)
        return values


def evaluate(
    network: SpikingNetwork,
    data: Any,
    *,
    ann: Source | LoadedModel | None = None,
    backend: str = "fused",
    batch_size: int | None = None,
    observer: Observer | None = None,
    threads: int = 0,
    early_exit: EarlyExit | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run a spiking network over data, and its ANN beside it.

    An output [N, K] whose samples are shaped like those of an input (an autoencoder's) holds class scores only if the
    labels reach K - 1.

    Args:
        network: the spiking network.
        data: a `Dataset`, or what `snncc.data.load` takes; with labels for the accuracy.
        ann: the network that it was compiled from, for its accuracy, the agreement and the error of the outputs.
        backend: see `SpikingNetwork.run`.
        batch_size: samples at a time, where the networks' own batches are open; None for `run_size`.
        observer: told about the outputs of each batch, for tasks that need more than sums.
        threads: see `SpikingNetwork.run`.
        early_exit: when a sample leaves before the last timestep; backend "fused" only.
        progress: told about finished batches.

    Raises:
        UsageError: an option is out of range, or the ANN has other inputs or outputs.
        DataError: the data doesn't fit, or a label is no class of the network.
        ModelError: the ANN can't be read or breaks.
    """
    samples = data if isinstance(data, Dataset) else load_data(resolve_data(data), network.inputs)
    other = None if ann is None else _Ann(read_ann(ann), network, threads)
    simulator = network.simulator(backend, threads)
    meter = Meter(network.sized(samples), network.record.timesteps)
    size = _batch_size(samples, other, _run_size(network, backend, early_exit) if batch_size is None else batch_size)
    if not meter.analysis.separable:  # activity is summed run by run, so all runs must have the same size
        size = next(n for n in range(min(size, len(samples)), 0, -1) if len(samples) % n == 0)
    period = network.record.period
    tally: _Tally | None = None
    rule: EarlyExit | None = None
    done = 0
    for number, batch in enumerate(samples.batches(size), 1):
        if early_exit is None:
            simulation = simulator.run(batch, trace=True)
        else:
            rule = rule or _rule_for(early_exit, samples, simulator, batch)
            simulation = run_early(_fused(simulator), batch, rule, trace=True)
        if tally is None:
            tally = _Tally(samples, simulation)
        meter.add(simulation)
        expected = None if other is None else other.run(batch, network.inputs, period)
        rows = slice(done, done + simulation.samples)
        tally.add(simulation, expected, rows)
        if observer is not None:
            observer(simulation, expected, rows)
        done += simulation.samples
        if progress is not None:
            progress(number, -(-len(samples) // size))
    if tally is None:
        raise DataError(f"{samples.source} holds no samples: give at least one")
    warnings = [*([] if other is None else other.warnings), *tally.warnings()]
    found = tally.evaluation(network.record.timesteps, backend, meter.reading(), warnings)
    return replace(found, counterpart=None if other is None else counterpart(network.record.config))


def _run_size(network: SpikingNetwork, backend: str, early_exit: EarlyExit | None) -> int:
    return run_size(network.record.timesteps, backend) if early_exit is None else EARLY_SIZE


def _fused(simulator: FusedExecutor | InstrumentedExecutor | ReferenceSimulator) -> FusedExecutor:
    if not isinstance(simulator, FusedExecutor):
        raise UsageError("samples can leave early with backend fused only: it runs timestep by timestep")
    return simulator


def _rule_for(
    rule: EarlyExit,
    data: Dataset,
    simulator: FusedExecutor | InstrumentedExecutor | ReferenceSimulator,
    batch: Mapping[str, Array],
) -> EarlyExit:
    """Return a rule that looks at the output with the class scores."""
    if rule.output is not None:
        return rule
    first = _fused(simulator).run(batch)
    return replace(rule, output=_class_output(data, first) or class_output(first.outputs, first.samples))


def _batch_size(data: Dataset, ann: _Ann | None, wanted: int) -> int:
    """Return the batch size that both networks take."""
    fixed = data.inputs[0].batch or (None if ann is None else ann.batch)
    if fixed is not None and len(data) % fixed:
        raise DataError(
            f"{data.source} gives {len(data)} samples, the ANN takes {fixed} at a time: give a multiple of {fixed}, "
            "e.g. with --limit"
        )
    return fixed or wanted


class _Ann:
    """The ANN as it is in its file: neither normalised nor optimised by snncc."""

    def __init__(self, loaded: LoadedModel, network: SpikingNetwork, threads: int) -> None:
        specs = input_specs(loaded.model)
        wanted = [t.name for t in network.network.outputs]
        _check_same_inputs(loaded, specs, network.inputs)
        missing = [name for name in wanted if name not in {t.name for t in loaded.outputs}]
        if missing:
            raise UsageError(
                f"the ANN '{loaded.name}' has no output '{missing[0]}', which the spiking network has: "
                "give the network that it was compiled from"
            )
        self.batch = specs[0].batch
        self.warnings: list[str] = []
        source = network.record.source
        if source.get("sha256") != loaded.sha256:
            self.warnings.append(
                f"the spiking network was compiled from '{source.get('name')}' (SHA-256 "
                f"{str(source.get('sha256'))[:12]}...), not from this '{loaded.name}' ({loaded.sha256[:12]}...): "
                "the comparison is between two different networks"
            )
        self._wanted = wanted
        self._session = Session(loaded.model, f"the ANN '{loaded.name}'", threads)

    def run(self, batch: Mapping[str, Array], inputs: list[InputSpec], period: int) -> dict[str, Array]:
        """Run it on a batch for the spiking network; see `snncc.sequences.run_ann`."""
        return run_ann(self._session, batch, inputs, period, self._wanted)


def _check_same_inputs(loaded: LoadedModel, ann: list[InputSpec], snn: list[InputSpec]) -> None:
    def described(specs: list[InputSpec]) -> str:
        return ", ".join(f"'{s.name}' {s.dtype} {format_shape(s.shape)}" for s in specs)

    def matches(left: InputSpec, right: InputSpec) -> bool:
        if left.dtype != right.dtype or len(left.shape) != len(right.shape):
            return False
        sizes = zip(left.shape[1:], right.shape[1:], strict=True)
        return all(a == b for a, b in sizes if isinstance(a, int) and isinstance(b, int))

    by_name = {spec.name: spec for spec in snn}
    if set(by_name) != {spec.name for spec in ann} or not all(matches(spec, by_name[spec.name]) for spec in ann):
        raise UsageError(
            f"the ANN '{loaded.name}' takes {described(ann)}, the spiking network {described(snn)}: "
            "give the network that it was compiled from"
        )


@dataclass
class _Distance:
    """Sums of squares of one output."""

    energy: float
    squared: float
    by_timestep: NDArray[np.float64]


@dataclass
class _Counts:
    """Numbers of samples."""

    ann_right: int = 0
    snn_right: int = 0
    agree: int = 0
    right_after: NDArray[np.int64] | None = None
    agree_after: NDArray[np.int64] | None = None


@dataclass
class _Tally:
    """Sums over the batches so far."""

    data: Dataset
    first: Simulation
    samples: int = 0
    compared: bool = False
    counts: _Counts = field(default_factory=_Counts)
    distances: dict[str, _Distance] = field(default_factory=dict)
    not_finite: set[str] = field(default_factory=set)
    exits: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        self.class_output = _class_output(self.data, self.first)
        self.classes = None if self.class_output is None else self.first.outputs[self.class_output].shape[1]
        self.labels = None if self.class_output is None else self.data.labels
        if self.labels is not None and self.classes is not None:
            _check_labels(self.labels, self.classes, self.data.source)

    def add(self, snn: Simulation, ann: dict[str, Array] | None, rows: slice) -> None:
        self.samples += snn.samples
        self.compared = ann is not None
        if snn.exits is not None:
            longest = len(next(iter(snn.trace.values())))
            self.exits = _plus(self.exits, np.bincount(snn.exits - 1, minlength=longest).astype(np.int64))
        for name, value in snn.outputs.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                self.not_finite.add(name)
        if self.class_output is not None:
            self._add_classes(snn, ann, self.class_output, rows)
        for name, expected in ({} if ann is None else ann).items():
            if expected.dtype.kind == "f":
                self._add_distance(name, expected, snn)

    def _add_classes(self, snn: Simulation, ann: dict[str, Array] | None, output: str, rows: slice) -> None:
        counts = self.counts
        said = snn.outputs[output].argmax(axis=-1)
        said_after = snn.trace[output].argmax(axis=-1)
        if self.labels is not None:
            truth = self.labels[rows]
            counts.snn_right += int((said == truth).sum())
            counts.right_after = _plus(counts.right_after, (said_after == truth).sum(axis=1))
        if ann is not None:
            wanted = ann[output].argmax(axis=-1)
            counts.agree += int((said == wanted).sum())
            counts.agree_after = _plus(counts.agree_after, (said_after == wanted).sum(axis=1))
            if self.labels is not None:
                counts.ann_right += int((wanted == self.labels[rows]).sum())

    def _add_distance(self, name: str, expected: Array, snn: Simulation) -> None:
        value, trace = snn.outputs[name], snn.trace[name]
        if value.shape != expected.shape:
            raise UsageError(
                f"output '{name}' of the ANN is {list(expected.shape)}, of the spiking network {list(value.shape)}: "
                "give the network that it was compiled from"
            )
        target = expected.astype(np.float64)
        after = np.array([np.square(step.astype(np.float64) - target).sum() for step in trace])
        energy, squared = float(np.square(target).sum()), float(np.square(value.astype(np.float64) - target).sum())
        total = self.distances.setdefault(name, _Distance(0.0, 0.0, np.zeros(len(trace))))
        total.energy += energy
        total.squared += squared
        total.by_timestep += after

    def warnings(self) -> list[str]:
        found = [f"output '{name}' of the spiking network holds NaN or Inf" for name in sorted(self.not_finite)]
        if self.data.labels is not None and self.class_output is None:
            found.append("the data has labels, but no output holds class scores [N, K]: the labels are not used")
        return found

    def evaluation(self, timesteps: int, backend: str, reading: Reading, warnings: list[str]) -> Evaluation:
        counts = self.counts
        labelled = self.labels is not None
        compared = self.compared and self.class_output is not None
        return Evaluation(
            samples=self.samples,
            timesteps=timesteps,
            backend=backend,
            class_output=self.class_output,
            classes=self.classes,
            ann_accuracy=counts.ann_right / self.samples if labelled and compared else None,
            snn_accuracy=counts.snn_right / self.samples if labelled else None,
            agreement=counts.agree / self.samples if compared else None,
            accuracy_by_timestep=_shares(counts.right_after, self.samples),
            agreement_by_timestep=_shares(counts.agree_after, self.samples),
            outputs=tuple(_output_error(name, distance) for name, distance in self.distances.items()),
            reading=reading,
            warnings=tuple(warnings),
            exits=None if self.exits is None else tuple(int(n) for n in self.exits),
        )


def _class_output(data: Dataset, first: Simulation) -> str | None:
    """Return the first output [N, K] of floating-point numbers with K >= 2, which isn't a copy of an input."""
    shapes = {data.arrays[spec.name].shape[1:] for spec in data.inputs}
    for name, value in first.outputs.items():
        if value.ndim != 2 or len(value) != first.samples or value.shape[1] < 2 or value.dtype.kind != "f":
            continue
        reaches_all = data.labels is not None and int(data.labels.max()) == value.shape[1] - 1
        if value.shape[1:] not in shapes or reaches_all:
            return name
    return None


def _check_labels(labels: NDArray[np.int64], classes: int, source: str) -> None:
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        index = int(wrong.argmax())
        raise DataError(
            f"{source}: label {labels[index]} of sample {index} is no class of the network, which has {classes} "
            f"(0 to {classes - 1}): check the labels, or name others with --labels"
        )


def _plus(total: NDArray[np.int64] | None, more: NDArray[np.int64]) -> NDArray[np.int64]:
    return more if total is None else total + more


def _shares(total: NDArray[np.int64] | None, samples: int) -> tuple[float, ...] | None:
    return None if total is None else tuple(float(n) / samples for n in total)


def _output_error(name: str, distance: _Distance) -> OutputError:
    def relative(squared: float) -> float:
        if distance.energy == 0.0:
            return 0.0 if squared == 0.0 else float("inf")
        return float(np.sqrt(squared / distance.energy))

    return OutputError(name, relative(distance.squared), tuple(relative(float(s)) for s in distance.by_timestep))
