"""`snncc inspect`."""

from __future__ import annotations

import click

from snncc.artifact import read_record
from snncc.cli.options import SETTINGS, common_options, json_option, pass_terminal
from snncc.cli.terminal import Terminal
from snncc.compiling import analyse_network
from snncc.config import INPUT_CODINGS, Config
from snncc.context import Context
from snncc.loader import LoadedModel, load_model
from snncc.pipeline import Hook
from snncc.report import ann as ann_report
from snncc.report import snn as snn_report
from snncc.report.ann import spec_dict
from snncc.sources import resolve

EPILOG = """\b
Examples:
  snncc inspect model.onnx
  snncc inspect zoo:fashion_vgg --json
  snncc inspect gestures.onnx --input-coding frames
  snncc inspect model.snn.onnx
"""


@click.command("inspect", context_settings=SETTINGS, epilog=EPILOG, short_help="Look into an ANN or an SNN.")
@click.argument("model", metavar="MODEL_OR_SNN")
@click.option(
    "--input-coding",
    type=click.Choice(INPUT_CODINGS),
    default="constant",
    show_default=True,
    help="For an ANN: what its input would present.",
)
@json_option
@common_options
@pass_terminal
def inspect_command(terminal: Terminal, *, model: str, input_coding: str) -> None:
    """Say what a compile would do to an ANN, or what an SNN is made of.

    For an ANN, a dry run: what each node becomes and why, how many multiply-accumulates (MACs) spikes will drive, how
    time will be lowered, and what stands in the way. For an SNN, its layers of neurons, its options and how it was
    calibrated.
    """
    loaded = load_model(resolve(model))
    if loaded.is_artifact:
        _inspect_snn(terminal, loaded, model)
    else:
        _inspect_ann(terminal, loaded, model, Config(input_coding=input_coding))


def _inspect_ann(terminal: Terminal, loaded: LoadedModel, model: str, config: Config) -> None:
    ctx = Context(config)
    graph = analyse_network(loaded, ctx, Hook())
    report = ann_report.ann_report(loaded, graph, ctx.analysis, ctx.warnings)
    terminal.warn(report.warnings)
    if terminal.json:
        terminal.print_json({"path": model, **report.to_dict()})
        return
    if not terminal.quiet:
        terminal.print(ann_report.node_table(report), "")
    terminal.print(ann_report.ann_facts(report), *ann_report.obstacle_lines(report))


def _inspect_snn(terminal: Terminal, loaded: LoadedModel, model: str) -> None:
    record = read_record(loaded.model, f"'{model}'")
    terminal.warn(record.warnings)
    if terminal.json:
        ends = {"inputs": [spec_dict(s) for s in loaded.inputs], "outputs": [spec_dict(s) for s in loaded.outputs]}
        terminal.print_json({"path": model, "kind": "snn", **ends, "record": record.to_dict()})
        return
    if not terminal.quiet:
        terminal.print(snn_report.layer_table(record.layers), snn_report.LAYER_LEGEND, "")
    terminal.print(snn_report.snn_facts(record, loaded.inputs, loaded.outputs))
