"""What an evaluation found, and the sums over batches that it is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.data import Dataset
from snncc.errors import DataError, UsageError
from snncc.runtime.meter import PROFILES, Reading
from snncc.runtime.reference import Simulation
from snncc.runtime.scores import class_outputs
from snncc.runtime.session import Array


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
class Tally:
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
        self.class_output = class_scores(self.data, self.first)
        self.classes = None if self.class_output is None else self.first.outputs[self.class_output].shape[1]
        self.labels = None if self.class_output is None else self.data.labels
        if self.labels is not None and self.classes is not None:
            _check_labels(self.labels, self.classes, self.data.source)

    def add(self, snn: Simulation, ann: dict[str, Array] | None, rows: slice) -> None:
        """Add a batch: what the SNN gave, what the ANN gave, and which samples they are."""
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
        """Return what the user should know."""
        found = [f"output '{name}' of the spiking network holds NaN or Inf" for name in sorted(self.not_finite)]
        if self.data.labels is not None and self.class_output is None:
            found.append("the data has labels, but no output holds class scores [N, K]: the labels are not used")
        return found

    def evaluation(self, timesteps: int, backend: str, reading: Reading, warnings: list[str]) -> Evaluation:
        """Return what was found."""
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


def class_scores(data: Dataset, first: Simulation) -> str | None:
    """Return the first output [N, K] of floating-point numbers with K >= 2, which isn't a copy of an input."""
    shapes = {data.arrays[spec.name].shape[1:] for spec in data.inputs}
    for name in class_outputs(first.outputs, first.samples):
        classes = first.outputs[name].shape[1]
        reaches_all = data.labels is not None and int(data.labels.max()) == classes - 1
        if (classes,) not in shapes or reaches_all:
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
