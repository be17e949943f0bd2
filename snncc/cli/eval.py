"""`snncc eval`."""

from __future__ import annotations

from typing import Any

import click

from snncc.cli.detection import DetectionOptions, detection_options, evaluate_boxes
from snncc.cli.early_exit import ExitChoice, check_backend, exit_options
from snncc.cli.files import open_data, open_network
from snncc.cli.options import (
    SETTINGS,
    backend_option,
    common_options,
    image_options,
    json_option,
    limit_option,
    pass_terminal,
    run_size_option,
    threads_option,
)
from snncc.cli.terminal import Terminal
from snncc.data import ImageOptions
from snncc.errors import UsageError
from snncc.evaluate import evaluate
from snncc.network import SpikingNetwork
from snncc.report import evaluation as report
from snncc.report.early_exit import exit_facts, exit_values, histogram, saving_table
from snncc.runtime.early_exit import EarlyExit
from snncc.runtime.meter import PROFILES, EnergyProfile
from snncc.sources import read_ann
from snncc.tally import Evaluation

EPILOG = """\b
Examples:
  snncc eval model.snn.onnx --data test.npz --against model.onnx
  snncc eval fashion_resnet20.snn.onnx --data zoo:test --against zoo:fashion_resnet20 --limit 1000 -v
  snncc eval model.snn.onnx --data test.npz --labels y --json
  snncc eval fashion_detector.snn.onnx --task detection --data zoo:scenes --annotations zoo:scenes \
    --against zoo:fashion_detector --draw boxes/
  snncc eval yolo.snn.onnx --task detection --data val2017/ --annotations instances_val2017.json \
    --decoder yolov3 --decoder-options yolo.json --against yolo.onnx
  snncc eval fashion_resnet20.snn.onnx --data zoo:test --max-drop 0.2 --calib zoo:calibration

Operations and energy are per sample. Profile 45nm: 4.6 pJ per multiply-accumulate, 0.9 pJ per synaptic operation.
Profile spikes: 12.5 pJ per operation of the ANN, 77 fJ per spike.

Decoders: yolov2 and yolov3 (anchors), yolox, fcos, those of installed packages (entry points snncc.decoders), or
module:function. See docs/detection.md.
"""


@click.command("eval", context_settings=SETTINGS, epilog=EPILOG, short_help="Measure an SNN: accuracy, spikes, energy.")
@click.argument("snn")
@click.option("--data", metavar="DATA", required=True, help="Samples, and labels for the accuracy; or zoo:test.")
@click.option("--labels", metavar="KEY", help="Key of the labels in an .npz; default: label, labels, y, targets.")
@click.option("--against", metavar="MODEL", help="The ANN, to compare with.")
@click.option(
    "--task",
    type=click.Choice(("classification", "detection")),
    default="classification",
    show_default=True,
    help="Whether the outputs are scores of classes, or of boxes.",
)
@detection_options
@limit_option
@backend_option
@run_size_option
@threads_option
@exit_options
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default="45nm",
    show_default=True,
    help="What operations cost, in the result line.",
)
@image_options
@json_option
@common_options
@pass_terminal
def eval_command(
    terminal: Terminal,
    *,
    snn: str,
    data: str,
    labels: str | None,
    against: str | None,
    task: str,
    detection: DetectionOptions,
    limit: int | None,
    backend: str,
    batch_size: int | None,
    threads: int,
    early: ExitChoice | None,
    profile: str,
    image: ImageOptions | None,
) -> None:
    """Measure a compiled network on data: accuracy over time, agreement with its ANN, spikes and energy.

    SNN is a file that `snncc compile` made. The class is the largest value of the first output of shape [N, K]. Without
    class scores, the error of the outputs against the ANN's is measured instead. Folders of images have one subfolder
    per class.

    With --task detection it is boxes: mean average precision where --annotations are given, and which of the ANN's
    boxes the SNN finds.
    """
    network = open_network(snn)
    chosen = PROFILES[profile]
    if task == "detection":
        asked = {"snn": snn, "data": data, "against": against, "profile": profile}
        if labels is not None:
            raise UsageError("--labels with --task detection: what is on the images is given with --annotations")
        if early is not None:
            raise UsageError("early exit needs class scores, and a detector has none: leave its options away")
        evaluate_boxes(terminal, network, detection, asked, image, limit, backend, batch_size, threads)
        return
    detection.refuse()
    samples = open_data(data, network.inputs, labels=labels, image=image, limit=limit)
    ann = None if against is None else read_ann(against)
    if early is not None:
        check_backend(backend)

    def measured(what: str, rule: EarlyExit | None = None) -> Evaluation:
        with terminal.progress(what) as progress:
            return evaluate(
                network,
                samples,
                ann=ann,
                backend=backend,
                batch_size=batch_size,
                threads=threads,
                early_exit=rule,
                progress=progress,
            )

    full = result = measured("evaluating")
    told: dict[str, Any] = {"snn": snn, "data": data, "against": against, "profile": profile}
    if early is not None:
        rule, found = early.rule(network, image, threads, full.class_output)
        result = measured("with early exit", rule)
        exits = result.exits or ()
        told |= {"early_exit": exit_values(rule, found, exits), "all_timesteps": full.to_dict()}
    terminal.warn(result.warnings)
    if terminal.json:
        terminal.print_json({**told, "config": network.record.config, "evaluation": result.to_dict()})
        return
    if not terminal.quiet and early is not None:
        terminal.print(exit_facts(rule, found), "", histogram(exits), "", saving_table(result, full, chosen), "")
    if not terminal.quiet:
        terminal.print(report.evaluation_facts(result, network.record, snn, data, against), "")
        _print_tables(terminal, network, result, chosen)
    terminal.print(report.result_line(result, network.record, chosen))


def _print_tables(terminal: Terminal, network: SpikingNetwork, result: Evaluation, chosen: EnergyProfile) -> None:
    terminal.print(report.comparison_table(result, chosen), "")
    over_time = report.time_table(result)
    if over_time is not None:
        terminal.print(over_time, "")
    if terminal.verbose:
        terminal.print(report.layer_table(result.reading), "", report.operation_table(result.reading), "")
