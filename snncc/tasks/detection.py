"""Object detection: an ANN and its spiking network side by side, over timesteps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from snncc.data import Dataset
from snncc.data import load as load_data
from snncc.data.spec import format_shape
from snncc.errors import DataError, UsageError
from snncc.evaluate import evaluate
from snncc.loader import LoadedModel
from snncc.network import SpikingNetwork
from snncc.passes.base import Progress
from snncc.runtime.reference import Simulation
from snncc.runtime.session import Array
from snncc.sources import Source, resolve_data
from snncc.tally import Evaluation
from snncc.tasks.annotations import Annotations, match
from snncc.tasks.average_precision import AveragePrecision, Precision
from snncc.tasks.boxes import Detections, matched
from snncc.tasks.decoders import Decoder

CONFIDENT = 0.5
"""Score from which a box counts as said, in the agreement and in drawings."""

Drawn = Callable[[int, Detections | None, Detections], None]
"""Told about each sample: its number, the ANN's boxes and the SNN's."""


@dataclass(frozen=True)
class Agreement:
    """How well the boxes of two networks match: same class, overlap above 0.5, each box once.

    A box near the threshold of confidence would count as lost where its score moves by a hair; so a confident box of
    one network is looked for among the other's boxes of at least half that score. `strict` does without this.

    Attributes:
        confident: number of confident boxes of the ANN.
        found: share of them that the SNN has too; None where there is none.
        strict: share that the SNN is as confident of.
        invented: share of the SNN's confident boxes that the ANN doesn't have; None where there is none.
    """

    confident: int
    found: float | None
    strict: float | None
    invented: float | None


@dataclass(frozen=True)
class DetectionEvaluation:
    """What an evaluation of a detector found.

    Attributes:
        evaluation: error of the outputs, spikes and energy.
        classes: names of the classes; None without annotations.
        confidence: score from which a box counts as said.
        steps: the timesteps that were looked at, the last one T.
        ann: the ANN's average precision; None without ANN or annotations.
        snn: the SNN's, after each of `steps`; None without annotations.
        agreement: after each of `steps`; None without an ANN.
    """

    evaluation: Evaluation
    classes: tuple[str, ...] | None
    confidence: float
    steps: tuple[int, ...]
    ann: Precision | None
    snn: tuple[Precision, ...] | None
    agreement: tuple[Agreement, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; see `Evaluation.to_dict`."""
        detection = {
            "classes": self.classes,
            "confidence": self.confidence,
            "steps": self.steps,
            "ann": None if self.ann is None else asdict(self.ann),
            "snn": None if self.snn is None else [asdict(precision) for precision in self.snn],
            "agreement": None if self.agreement is None else [asdict(agreement) for agreement in self.agreement],
        }
        return {**self.evaluation.to_dict(), "detection": detection}


@dataclass
class _Agreeing:
    """Numbers of boxes."""

    ann: int = 0
    found: int = 0
    strict: int = 0
    snn: int = 0
    known: int = 0

    def add(self, ann: Detections, snn: Detections, confidence: float) -> None:
        wanted, said = ann.above(confidence), snn.above(confidence)
        self.ann += len(wanted)
        self.found += int(matched(wanted, snn.above(confidence / 2)).sum())
        self.strict += int(matched(wanted, said).sum())
        self.snn += len(said)
        self.known += int(matched(said, ann.above(confidence / 2)).sum())

    def agreement(self) -> Agreement:
        found, strict = (n / self.ann if self.ann else None for n in (self.found, self.strict))
        return Agreement(self.ann, found, strict, 1.0 - self.known / self.snn if self.snn else None)


@dataclass
class _Collector:
    """Decodes each batch."""

    decoder: Decoder
    size: tuple[int, int]
    steps: tuple[int, ...]
    confidence: float
    drawn: Drawn | None
    ann: list[Detections] = field(default_factory=list)
    snn: list[list[Detections]] = field(default_factory=list)  # by step
    counts: list[_Agreeing] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.snn = [[] for _ in self.steps]
        self.counts = [_Agreeing() for _ in self.steps]

    def add(self, snn: Simulation, ann: dict[str, Array] | None, rows: slice) -> None:
        for row in range(snn.samples):
            expected = None if ann is None else self._decode(ann, row)
            if expected is not None:
                self.ann.append(expected)
            for step, kept, count in zip(self.steps, self.snn, self.counts, strict=True):
                # The last running mean is the output, save for rounding.
                last = step == self.steps[-1]
                found = self._decode(snn.outputs if last else {n: v[step - 1] for n, v in snn.trace.items()}, row)
                kept.append(found)
                if expected is not None:
                    count.add(expected, found, self.confidence)
            if self.drawn is not None:
                self.drawn(rows.start + row, expected, self.snn[-1][-1])

    def _decode(self, outputs: Mapping[str, Array], row: int) -> Detections:
        return self.decoder({n: v[row] for n, v in outputs.items() if v.dtype.kind == "f" and v.ndim > 1}, self.size)


def evaluate_detection(
    network: SpikingNetwork,
    data: Any,
    decoder: Decoder,
    *,
    annotations: Annotations | None = None,
    ann: Source | LoadedModel | None = None,
    steps: Iterable[int] | None = None,
    limited: bool = False,
    confidence: float = CONFIDENT,
    backend: str = "fused",
    batch_size: int | None = None,
    threads: int = 0,
    drawn: Drawn | None = None,
    progress: Progress | None = None,
) -> DetectionEvaluation:
    """Run a spiking detector over images, and its ANN beside it.

    Args:
        network: the spiking network, with one input of images.
        data: a `Dataset`, or what `snncc.data.load` takes.
        decoder: turns outputs into boxes; see `snncc.tasks.decoders.make_decoder`.
        annotations: what is on the images, for the average precision; see `snncc.tasks.annotations.match`.
        ann: the network that it was compiled from, for its average precision and the agreement.
        steps: timesteps to look at beside T; None for all of them.
        limited: the data was cut to its first samples: annotations may describe more images.
        confidence: score from which a box counts as said, for the agreement.
        backend: see `SpikingNetwork.run`.
        batch_size: see `evaluate`.
        threads: see `evaluate`.
        drawn: told about the boxes of each sample after T timesteps.
        progress: told about finished batches.

    Raises:
        UsageError: an option is out of range, neither annotations nor ANN are given, or the decoder doesn't fit.
        DataError: data or annotations don't fit.
    """
    if annotations is None and ann is None:
        raise UsageError("nothing to compare the boxes with: give --annotations, or --against for the ANN's boxes")
    if not 0.0 < confidence <= 1.0:
        raise UsageError(f"score from which boxes count is {confidence}: it must be above 0 and at most 1")
    samples = data if isinstance(data, Dataset) else load_data(resolve_data(data), network.inputs)
    size = input_size(samples)
    placed = None if annotations is None else match(annotations, samples, size, limited=limited)
    measure = None if placed is None else AveragePrecision(placed, size)
    timesteps = network.record.timesteps
    looked = tuple(sorted({t for t in steps or range(1, timesteps) if 1 <= t < timesteps} | {timesteps}))
    collector = _Collector(decoder, size, looked, confidence, drawn)
    result = evaluate(
        network,
        samples,
        ann=ann,
        backend=backend,
        batch_size=batch_size,
        threads=threads,
        observer=collector.add,
        progress=progress,
    )
    return DetectionEvaluation(
        evaluation=result,
        classes=None if placed is None else placed.class_names,
        confidence=confidence,
        steps=looked,
        ann=None if measure is None or ann is None else measure(collector.ann),
        snn=None if measure is None else tuple(measure(found) for found in collector.snn),
        agreement=None if ann is None else tuple(count.agreement() for count in collector.counts),
    )


def input_size(data: Dataset) -> tuple[int, int]:
    """Return height and width of the images that a network takes.

    Raises:
        DataError: it takes something else than images.
    """
    shape = data.arrays[data.inputs[0].name].shape
    if len(data.inputs) != 1 or len(shape) != 4:
        names = ", ".join(f"'{s.name}' {format_shape(s.shape)}" for s in data.inputs)
        raise DataError(f"the network takes {names}: detection needs one input of images, [N, C, H, W] or [N, H, W, C]")
    return (shape[1], shape[2]) if is_channels_last(shape) else (shape[2], shape[3])


def is_channels_last(shape: tuple[int, ...]) -> bool:
    """Return whether the last axis of images [N, ?, ?, ?] holds the channels."""
    return shape[1] not in (1, 3, 4) and shape[3] in (1, 3, 4)
