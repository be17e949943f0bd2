"""`snncc compile`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from snncc import models
from snncc.allocation.result import Budget
from snncc.cli.files import check_output, open_data
from snncc.cli.front import check_layers, from_front
from snncc.cli.options import (
    SETTINGS,
    batch_size_option,
    common_options,
    frame_options,
    image_options,
    json_option,
    pass_terminal,
)
from snncc.cli.search import budget_options
from snncc.cli.terminal import Terminal
from snncc.compiling import compile
from snncc.config import NEURONS, THRESHOLD_METHODS, WEIGHTS, Config
from snncc.data import Dataset, ImageOptions
from snncc.errors import UsageError
from snncc.loader import LoadedModel
from snncc.network import SpikingNetwork
from snncc.pipeline import Hook
from snncc.presets import PRESETS
from snncc.report import snn as report
from snncc.report.text import size as file_size
from snncc.sequences import with_frames
from snncc.sources import default_output, input_specs, read_ann, resolve

EPILOG = """\b
Examples:
  snncc compile zoo:fashion_resnet20 --calib zoo:calibration
  snncc compile model.onnx --calib images.npz -T 4 --max-burst 2 -o small.snn.onnx
  snncc compile model.onnx --calib images.npz --weights int8
  snncc compile model.onnx --calib photos/ --size 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
  snncc compile model.onnx --calib calib.npz --samples 256 --verify --time-passes -v
  snncc compile gestures.onnx --calib frames.npz --input-coding frames -T 12 --max-burst 8
"""


@click.command("compile", context_settings=SETTINGS, epilog=EPILOG, short_help="Turn a trained network into an SNN.")
@click.argument("model")
@click.option("-o", "--output", metavar="OUT", help="File to write; default: the model's name with .snn.onnx, here.")
@click.option("--calib", metavar="DATA", help="Calibration data: .npz, .npy, folder of images, or zoo:calibration.")
@click.option("--samples", type=int, metavar="N", help="Use the first N calibration samples only.")
@click.option("-T", "--timesteps", type=int, default=8, show_default=True, metavar="T", help="Simulation length.")
@click.option("--max-burst", type=int, default=4, show_default=True, metavar="ψ", help="Most spikes per timestep.")
@click.option(
    "--v-init",
    type=float,
    default=0.5,
    show_default=True,
    metavar="V0",
    help="Initial membrane potential as a fraction of the threshold.",
)
@click.option(
    "--threshold-ratio",
    type=float,
    default=1.0,
    show_default=True,
    metavar="τ",
    help="Multiplier of every threshold: fewer spikes, more error.",
)
@click.option(
    "--threshold-method",
    type=click.Choice(THRESHOLD_METHODS),
    default="mse",
    show_default=True,
    help="Thresholds of least squared error, or ψ spikes reach the maximum or a percentile of the activation.",
)
@click.option("--percentile", type=float, default=99.9, show_default=True, metavar="P", help="That percentile.")
@click.option("--per-layer", is_flag=True, help="One threshold per layer instead of one per channel.")
@click.option("--no-bias-correction", is_flag=True, help="Leave weights and biases as they are.")
@click.option("--no-gain-correction", is_flag=True, help="Correct biases only, not the gain of the weights.")
@click.option(
    "--weight-calibration/--no-weight-calibration",
    default=False,
    show_default=True,
    help="Fit the weights to what reaches them in the SNN, where that helps on held-back calibration samples; slower.",
)
@click.option(
    "--weights",
    type=click.Choice(WEIGHTS),
    default="float32",
    show_default=True,
    help="Keep the weights that spikes reach in 8 bits: a quarter of the size, and faster. Needs --calib.",
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="A method by name; options that are given win over its own. Some search ψ and τ per layer first.",
)
@click.option("--front", metavar="FRONT.json", help="ψ and τ per layer, and all options, from `snncc search`.")
@budget_options
@click.option(
    "--neuron",
    type=click.Choice(NEURONS),
    default="auto",
    show_default=True,
    help="What a ReLU becomes: a burst neuron, a signed one that can take spikes back, or whichever errs less.",
)
@click.option("--analog", is_flag=True, help="Let values that no activation makes reach weights as they are.")
@click.option("--strict", is_flag=True, help="Refuse a network in which anything but spikes drives weights.")
@click.option("--trace", is_flag=True, help="Add an output with the running mean after each timestep.")
@frame_options
@batch_size_option
@click.option("--verify", is_flag=True, help="Check after each pass that the outputs stay equal where they should.")
@click.option("--time-passes", is_flag=True, help="Print how long each pass took.")
@click.option("--dump-passes", metavar="DIR", help="Write the graph after each pass to a folder.")
@image_options
@json_option
@common_options
@pass_terminal
def compile_command(
    terminal: Terminal,
    *,
    model: str,
    output: str | None,
    calib: str | None,
    samples: int | None,
    timesteps: int,
    max_burst: int,
    v_init: float,
    threshold_ratio: float,
    threshold_method: str,
    percentile: float,
    per_layer: bool,
    no_bias_correction: bool,
    no_gain_correction: bool,
    weight_calibration: bool,
    weights: str,
    preset: str | None,
    front: str | None,
    wanted: Budget | None,
    neuron: str,
    analog: bool,
    strict: bool,
    trace: bool,
    input_coding: str,
    reset_after: int | None,
    batch_size: int,
    verify: bool,
    time_passes: bool,
    dump_passes: str | None,
    image: ImageOptions | None,
) -> None:
    """Turn a trained ONNX network into a spiking one.

    MODEL is the path of an ONNX file, or zoo:NAME. The result has the same inputs and outputs and runs in ONNX Runtime
    like any other model. A few hundred calibration samples, fed as the network takes them, are enough; labels aren't
    needed.
    """
    options: dict[str, Any] = {
        "timesteps": timesteps,
        "max_burst": max_burst,
        "v_init": v_init,
        "threshold_ratio": threshold_ratio,
        "threshold_method": threshold_method,
        "percentile": percentile,
        "per_channel": not per_layer,
        "bias_correction": not no_bias_correction,
        "gain_correction": not no_gain_correction,
        "weight_calibration": weight_calibration,
        "weights": weights,
        "neuron": neuron,
        "analog": analog,
        "strict": strict,
        "trace": trace,
        "batch_size": batch_size,
        "input_coding": input_coding,
        "reset_after": reset_after,
    }
    config = Config(**options) if preset is None else PRESETS[preset].config(**_given(options))
    target = default_output(model) if output is None else Path(output)
    read = {"model": str(resolve(model)), "calibration data": calib, "front": front}
    check_output(target, "-o", {what: path for what, path in read.items() if path is not None})
    hook = Hook(verify=verify, dump=None if dump_passes is None else Path(dump_passes))
    loaded = read_ann(model)
    assignment = None
    if preset is not None and (front is not None or wanted is not None):
        raise UsageError("--preset chooses ψ and τ itself: leave --front and the budget away, or the preset")
    if front is not None:
        _check_alone(front)
        searched, assignment = from_front(front, wanted, loaded.sha256, model)
        # The search has settled the period, too.
        config = replace(searched, strict=strict, trace=trace, batch_size=batch_size)
    elif wanted is not None:
        raise UsageError("a budget needs the result of a search: give --front, which `snncc search` writes")
    data = _calibration(loaded, config, calib, image, samples)
    if preset is not None and PRESETS[preset].method is not None:
        with terminal.progress("searching", remaining=True) as progress:
            assignment = PRESETS[preset].assignment(loaded, data, config, progress=progress)
    with terminal.progress("calibrating") as progress:
        network = compile(loaded, calibration=data, config=config, assignment=assignment, hook=hook, progress=progress)
    if front is not None and assignment is not None:
        check_layers(front, assignment, network)
    files = network.save(target)
    terminal.warn(network.record.warnings)
    if terminal.json:
        timings = [{"pass": name, "seconds": seconds} for name, seconds in hook.timings]
        terminal.print_json(
            {
                "output": str(target),
                "files": [str(file) for file in files],
                "record": network.report(),
                "timings": timings,
            }
        )
        return
    if not terminal.quiet:
        _print_summary(terminal, network, files, model, verified=verify)
    if time_passes:
        terminal.print("", report.timing_table(hook.timings))


_OPTIONS = {
    "per_channel": "per_layer",
    "bias_correction": "no_bias_correction",
    "gain_correction": "no_gain_correction",
}
"""Options of the compile whose flag has another name."""


def _on_the_command_line(parameter: str) -> bool:
    source = click.get_current_context().get_parameter_source(parameter)
    return source is click.core.ParameterSource.COMMANDLINE


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that the user gave."""
    return {name: value for name, value in options.items() if _on_the_command_line(_OPTIONS.get(name, name))}


def _check_alone(front: str) -> None:
    """Refuse options that the file of a search settles."""
    settled = ["timesteps", "max_burst", "v_init", "threshold_ratio", "threshold_method", "percentile", "per_layer"]
    settled += ["no_bias_correction", "no_gain_correction", "weight_calibration", "weights", "neuron", "analog"]
    settled += ["input_coding", "reset_after"]
    for name in settled:
        if _on_the_command_line(name):
            option = "-T" if name == "timesteps" else "--" + name.replace("_", "-")
            raise UsageError(f"{option} with --front: '{front}' settles it; search again for another value")


def _calibration(
    loaded: LoadedModel, config: Config, calib: str | None, image: ImageOptions | None, samples: int | None
) -> Dataset | None:
    if calib is not None:
        return open_data(calib, with_frames(input_specs(loaded.model), config), image=image, limit=samples)
    if samples is not None or image is not None:
        what = "--samples" if samples is not None else "the options for images"
        raise UsageError(f"{what} without --calib: say with --calib where the calibration data is")
    return None


def _test_data(model: str) -> str:
    """Return what to evaluate a network on, as options."""
    if not model.startswith("zoo:"):
        return "DATA"
    data = f"zoo:{models.test_data(model.removeprefix('zoo:'))}"
    return f"{data} --task detection --annotations {data}" if data == "zoo:scenes" else data


def _print_summary(
    terminal: Terminal, network: SpikingNetwork, files: list[Path], model: str, *, verified: bool
) -> None:
    if terminal.verbose:
        terminal.print(report.layer_table(network.record.layers), report.LAYER_LEGEND, "")
    data = _test_data(model)
    following = f"snncc eval {shlex.quote(str(files[0]))} --data {data} --against {shlex.quote(model)}"
    written = ", ".join(f"{file} ({file_size(file.stat().st_size)})" for file in files)
    terminal.print(report.compile_facts(network.record, written, following, verified=verified))
