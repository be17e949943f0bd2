"""`snncc eval --task detection`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from snncc import models
from snncc.cli.files import open_data, same_file
from snncc.cli.terminal import Terminal
from snncc.data import ImageOptions
from snncc.errors import UsageError
from snncc.network import SpikingNetwork
from snncc.report import detection as report
from snncc.report.evaluation import evaluation_facts, layer_table, operation_table
from snncc.report.text import shown_steps
from snncc.runtime.meter import PROFILES
from snncc.sources import read_ann
from snncc.tasks.annotations import Annotations, read_annotations
from snncc.tasks.average_precision import library
from snncc.tasks.decoders import make_decoder
from snncc.tasks.detection import CONFIDENT, evaluate_detection
from snncc.tasks.draw import Drawing


@dataclass(frozen=True)
class DetectionOptions:
    """What the command line says about detection; None where it says nothing."""

    annotations: str | None = None
    decoder: str | None = None
    decoder_options: str | None = None
    score: float | None = None
    draw: str | None = None

    def refuse(self) -> None:
        """Refuse options of detection for another task.

        Raises:
            UsageError: one is given.
        """
        for name, value in self.__dict__.items():
            if value is not None:
                raise UsageError(f"--{name.replace('_', '-')} is for detection: add --task detection")


def detection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for detection; the command gets `detection`."""
    names = tuple(DetectionOptions.__dataclass_fields__)

    @click.option("--annotations", metavar="FILE", help="Detection: annotations in COCO's format; or zoo:scenes.")
    @click.option("--decoder", metavar="NAME", help="Detection: what makes boxes; default: as the network's file says.")
    @click.option("--decoder-options", metavar="FILE", help="Detection: JSON with the decoder's parameters (anchors).")
    @click.option(
        "--score",
        type=float,
        metavar="SCORE",
        help=f"Detection: score from which a box counts as found or is drawn.  [default: {CONFIDENT:g}]",
    )
    @click.option("--draw", metavar="DIR", help="Detection: write pictures with the boxes of ANN and SNN side by side.")
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, detection=DetectionOptions(**{name: kwargs.pop(name) for name in names}), **kwargs)

    return wrapped


def open_annotations(source: str) -> Annotations:
    """Read the annotations that an option names.

    Raises:
        SnnccError: they can't be read.
    """
    name = source.removeprefix("zoo:")
    return read_annotations(models.scene_set(name)[1] if name != source else Path(source))


def evaluate_boxes(
    terminal: Terminal,
    network: SpikingNetwork,
    options: DetectionOptions,
    asked: Mapping[str, str | None],
    image: ImageOptions | None,
    limit: int | None,
    backend: str,
    batch_size: int | None,
    threads: int,
) -> None:
    """Measure a detector and print what comes of it; `asked` says what was asked for: snn, data, against, profile."""
    decoder = make_decoder(options.decoder, options.decoder_options, network.model)
    annotations = None
    if options.annotations is not None:
        library()  # what is missing is said before the work starts
        annotations = open_annotations(options.annotations)
    data, against = str(asked["data"]), asked["against"]
    samples = open_data(data, network.inputs, image=image, limit=limit)
    confidence = CONFIDENT if options.score is None else options.score
    drawn = None
    if options.draw is not None:
        if same_file(Path(options.draw), Path(data)):
            raise UsageError(f"'{options.draw}' is the data itself: choose another --draw")
        names = None if annotations is None else annotations.class_names
        drawn = Drawing(Path(options.draw), samples, confidence, names)
    shown = shown_steps(network.record.timesteps)
    with terminal.progress("evaluating") as progress:
        result = evaluate_detection(
            network,
            samples,
            decoder,
            annotations=annotations,
            ann=None if against is None else read_ann(against),
            steps=shown,
            limited=limit is not None,
            confidence=confidence,
            backend=backend,
            batch_size=batch_size,
            threads=threads,
            drawn=drawn,
            progress=progress,
        )
    terminal.warn(result.evaluation.warnings)
    if terminal.json:
        asked = {**asked, "task": "detection", "annotations": options.annotations, "decoder": decoder.name}
        terminal.print_json({**asked, "config": network.record.config, "evaluation": result.to_dict()})
        return
    chosen = PROFILES[str(asked["profile"])]
    if not terminal.quiet:
        facts = evaluation_facts(result.evaluation, network.record, str(asked["snn"]), data, against)
        terminal.print(facts, "", report.comparison_table(result, chosen), "", report.time_table(result, shown), "")
        if terminal.verbose:
            by_class = report.class_table(result)
            if by_class is not None:
                terminal.print(by_class, "")
            terminal.print(layer_table(result.evaluation.reading), "", operation_table(result.evaluation.reading), "")
    terminal.print(report.result_line(result, network.record, chosen))
