"""`snncc run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from snncc.cli.early_exit import ExitChoice, check_backend, exit_options
from snncc.cli.files import check_output, open_data, open_network, save_npz
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
from snncc.exit_threshold import ExitThreshold
from snncc.report.early_exit import exit_facts, exit_values, histogram, mean_timesteps
from snncc.report.outputs import describe_outputs, output_table
from snncc.report.text import plural
from snncc.runtime.early_exit import EarlyExit
from snncc.sources import resolve, resolve_data

EPILOG = """\b
Examples:
  snncc run model.snn.onnx --input images.npz --output logits.npz
  snncc run model.snn.onnx --input zoo:test --limit 100
  snncc run model.snn.onnx --input photos/ --size 224 --backend numpy
  snncc run model.snn.onnx --input images.npz --early-exit 0.9 --threads 1
"""


@dataclass(frozen=True)
class _Exits:
    """When samples left, how that was found, and how many left after each timestep."""

    rule: EarlyExit
    found: ExitThreshold | None
    histogram: list[int]


@click.command("run", context_settings=SETTINGS, epilog=EPILOG, short_help="Run an SNN on data.")
@click.argument("snn")
@click.option("--input", "data", metavar="DATA", required=True, help="What goes in: .npz, .npy or a folder of images.")
@click.option("--output", metavar="OUT", help="Write all outputs to this .npz, by name; default: print a summary.")
@limit_option
@backend_option
@run_size_option
@threads_option
@exit_options
@image_options
@json_option
@common_options
@pass_terminal
def run_command(
    terminal: Terminal,
    *,
    snn: str,
    data: str,
    output: str | None,
    limit: int | None,
    backend: str,
    batch_size: int | None,
    threads: int,
    early: ExitChoice | None,
    image: ImageOptions | None,
) -> None:
    """Run a compiled network on data and keep its outputs.

    SNN is a file that `snncc compile` made.
    """
    target = None if output is None else Path(output)
    if target is not None:
        if target.suffix.lower() != ".npz":
            raise UsageError(f"--output is '{target}': its name must end in .npz, the only format there is")
        files = {"network": resolve(snn), "input": resolve_data(data)}
        if early is not None and early.calib is not None:
            files["calibration data"] = resolve_data(early.calib)
        # Bundled recordings are no file that could be overwritten, but frames made of one.
        check_output(target, "--output", {what: str(f) for what, f in files.items() if isinstance(f, str | Path)})
    network = open_network(snn)
    samples = open_data(data, network.inputs, image=image, limit=limit)
    exits: _Exits | None = None
    if early is None:
        with terminal.progress("running") as progress:
            outputs = network.run(samples, backend=backend, batch_size=batch_size, threads=threads, progress=progress)
    else:
        check_backend(backend)
        rule, found = early.rule(network, image, threads)
        with terminal.progress("running") as progress:
            outputs, left = network.run_early(samples, rule, batch_size=batch_size, threads=threads, progress=progress)
        exits = _Exits(rule, found, np.bincount(left - 1, minlength=network.record.timesteps).tolist())
    if target is not None:
        save_npz(target, outputs)
    described = describe_outputs(outputs)
    if terminal.json:
        written = None if target is None else str(target)
        told = {"snn": snn, "samples": len(samples), "backend": backend, "output": written, "outputs": described}
        if exits is not None:
            told["early_exit"] = exit_values(exits.rule, exits.found, exits.histogram)
        terminal.print_json(told)
        return
    if exits is not None and not terminal.quiet:
        terminal.print(exit_facts(exits.rule, exits.found), "", histogram(exits.histogram), "")
        mean = f"{mean_timesteps(exits.histogram):.2f} of {network.record.timesteps}"
        terminal.print(f"mean timesteps: {mean}", "")
    if target is None:
        terminal.print(output_table(described))
    elif not terminal.quiet:
        names = ", ".join(f"{name} {facts['shape']}" for name, facts in described.items())
        terminal.print(f"wrote {target}: {names} from {plural(len(samples), 'sample')}")
