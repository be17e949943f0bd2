"""`snncc search`, and the options for a budget."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from snncc.allocation.file import to_dict, write
from snncc.allocation.over_time import search_timesteps
from snncc.allocation.plot import check_plot, plot
from snncc.allocation.result import COSTS, Budget, SearchResult, UnmetError
from snncc.allocation.run import METHODS, SENSITIVITIES, SIMULATE, search
from snncc.cli.files import check_output, open_data, replacing
from snncc.cli.options import (
    SETTINGS,
    batch_size_option,
    common_options,
    frame_options,
    image_options,
    json_option,
    pass_terminal,
)
from snncc.cli.terminal import Terminal
from snncc.config import WEIGHTS, Config
from snncc.data import ImageOptions
from snncc.errors import UsageError
from snncc.sequences import with_frames
from snncc.sources import input_specs, read_ann, resolve

EPILOG = """\b
Examples:
  snncc search zoo:fashion_resnet20 --calib zoo:calibration -T 4 --budget 0.8 -o front.json
  snncc compile zoo:fashion_resnet20 --calib zoo:calibration --front front.json --budget 0.7
  snncc search model.onnx --calib images.npz --max-drop 0.5 -o front.json --plot front.svg
  snncc search model.onnx --calib images.npz -T 1 -T 2 -T 4 --min-agreement 98 -o front.json
"""


_BUDGETS = {
    "budget": "relative",
    "spikes": "spikes",
    "energy": "energy",
    "max_loss": "loss",
    "max_drop": "max_drop",
    "min_agreement": "agreement",
}
"""Kinds of budgets, by the names of their options."""


def budget_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for a budget; the command gets `wanted`, None where none of them is given."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        cost, given = kwargs.pop("cost"), {kind: kwargs.pop(name) for name, kind in _BUDGETS.items()}
        return command(*args, wanted=read_budget(given, cost), **kwargs)

    result: Callable[..., Any] = wrapped
    for option in (
        click.option(
            "--cost", type=click.Choice(COSTS), help="What a budget counts where it does not say so; default: spikes."
        ),
        click.option(
            "--min-agreement",
            type=float,
            metavar="PERCENT",
            help="Cheapest choice that says the ANN's class on so many per cent of the calibration data.",
        ),
        click.option(
            "--max-drop",
            type=float,
            metavar="POINTS",
            help="Cheapest choice whose agreement with the ANN on the calibration data is at most so many points below "
            "the uniform configuration's.",
        ),
        click.option(
            "--max-loss",
            type=float,
            metavar="R",
            help="Cheapest choice that loses, in simulation, at most R times what the uniform configuration loses.",
        ),
        click.option("--energy", type=float, metavar="J", help="Budget of energy per sample, in the 45 nm profile."),
        click.option("--spikes", type=float, metavar="N", help="Budget of spikes per sample."),
        click.option(
            "--budget", type=float, metavar="SHARE", help="Budget relative to the uniform configuration's cost."
        ),
    ):
        result = option(result)
    return result


def read_budget(options: Mapping[str, float | None], cost: str | None) -> Budget | None:
    """Return the budget that options give, None for none.

    Args:
        options: values by kind of budget.
        cost: what it counts where it doesn't say so.

    Raises:
        UsageError: there are two, or a value makes no sense.
    """
    given = {kind: value for kind, value in options.items() if value is not None}
    if len(given) > 1:
        names = [f"--{name.replace('_', '-')}" for name in _BUDGETS]
        raise UsageError(f"give one budget only: {', '.join(names[:-1])} or {names[-1]}")
    if not given:
        if cost is not None:
            raise UsageError("--cost without a budget: add --budget, --max-loss, --max-drop or --min-agreement")
        return None
    kind, value = next(iter(given.items()))
    if cost is not None and kind in ("spikes", "energy"):
        raise UsageError(f"--cost with --{kind}, which says itself what is counted: leave --cost away")
    return Budget(kind, value, cost or "spikes")


@click.command("search", context_settings=SETTINGS, epilog=EPILOG, short_help="Search ψ and τ for each layer.")
@click.argument("model")
@click.option("--calib", metavar="DATA", required=True, help="Calibration data, as for `snncc compile`.")
@click.option("-o", "--output", metavar="FRONT.json", required=True, help="File to write.")
@click.option("--samples", type=int, metavar="N", help="Use the first N calibration samples only.")
@click.option(
    "-T",
    "--timesteps",
    type=int,
    multiple=True,
    default=(8,),
    show_default=True,
    metavar="T",
    help="Simulation length; several (-T 2 -T 4) with --min-agreement: the cheapest of them is taken.",
)
@click.option("--max-burst", type=int, default=4, show_default=True, metavar="ψ", help="ψ to compare with.")
@click.option("--threshold-ratio", type=float, default=1.0, show_default=True, metavar="τ", help="τ to compare with.")
@click.option("--per-layer", is_flag=True, help="One threshold per layer instead of one per channel.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="joint",
    show_default=True,
    help="Vary ψ (bsr), τ (ssc), both at once (joint), or first ψ and then τ (bsr+ssc).",
)
@click.option(
    "--sensitivity",
    type=click.Choice(SENSITIVITIES),
    default="uneven",
    show_default=True,
    help="One layer spikes, with currents that arrive unevenly or evenly (isolated); or all do (in-context, slow).",
)
@click.option(
    "--weights",
    type=click.Choice(WEIGHTS),
    default="float32",
    show_default=True,
    help="Simulate, and later compile, with 8-bit weights where spikes reach them.",
)
@budget_options
@click.option(
    "--simulate",
    type=int,
    default=SIMULATE,
    show_default=True,
    metavar="N",
    help="Points of the front to simulate: fewer if one spends all of the budget, more if none is within it; 0 for the "
    "prediction alone.",
)
@click.option("--plot", "plot_file", metavar="FILE.svg|png", help="Draw sensitivities and front; needs matplotlib.")
@frame_options
@click.option("--no-cache", is_flag=True, help="Neither read nor write what was measured before.")
@batch_size_option
@image_options
@json_option
@common_options
@pass_terminal
def search_command(
    terminal: Terminal,
    *,
    model: str,
    calib: str,
    output: str,
    samples: int | None,
    timesteps: tuple[int, ...],
    max_burst: int,
    threshold_ratio: float,
    per_layer: bool,
    method: str,
    sensitivity: str,
    weights: str,
    wanted: Budget | None,
    simulate: int,
    plot_file: str | None,
    input_coding: str,
    reset_after: int | None,
    no_cache: bool,
    batch_size: int,
    image: ImageOptions | None,
) -> None:
    """Search ψ and τ for each layer of a network, for a budget of spikes, operations, energy or accuracy.

    The result holds the measurements, so `snncc compile --front` answers any other budget without searching again.
    """
    config = Config(
        timesteps=timesteps[0],
        max_burst=max_burst,
        threshold_ratio=threshold_ratio,
        per_channel=not per_layer,
        weights=weights,
        batch_size=batch_size,
        input_coding=input_coding,
        reset_after=reset_after,
    )
    inputs = {"model": str(resolve(model)), "calibration data": calib}
    check_output(Path(output), "-o", inputs)
    drawing = None if plot_file is None else Path(plot_file)
    if drawing is not None:
        check_output(drawing, "--plot", {**inputs, "output of -o": output})
        check_plot(drawing)
    loaded = read_ann(model)
    data = open_data(calib, with_frames(input_specs(loaded.model), config), image=image, limit=samples)
    with terminal.progress("searching", remaining=True) as progress:
        options: dict[str, Any] = {
            "method": method,
            "sensitivity": sensitivity,
            "simulate": simulate,
            "cache": not no_cache,
        }
        options |= {"calibration": data, "config": config, "progress": progress}
        if len(timesteps) > 1:
            tried: list[tuple[int, SearchResult | UnmetError]] = []
            result = search_timesteps(
                loaded, timesteps, budget=wanted or Budget(), tell=lambda *found: tried.append(found), **options
            )
        else:
            tried = []
            result = search(loaded, budget=wanted, **options)
    _write(result, Path(output), drawing)
    if terminal.json:
        terminal.print_json({"output": output, **to_dict(result)})
    elif not terminal.quiet:
        if tried:
            terminal.print(timesteps_table(tried, result), "")
        terminal.print(points_table(result))
        if terminal.verbose:
            terminal.print("", layer_table(result))
        gap = result.front(result.budget.counted).gap
        if gap:
            terminal.print("", f"the front was thinned: for any budget it is within {gap:.2%} of the least sensitivity")
        again = f"snncc compile {shlex.quote(model)} --calib {shlex.quote(calib)} --front {shlex.quote(output)}"
        terminal.print("", f"wrote {output}; next: {again}")


def _write(result: SearchResult, output: Path, drawing: Path | None) -> None:
    """Write the result and its drawing: both, or neither where one of them fails."""
    if drawing is None:
        write(result, output)
        return
    with replacing(drawing, "--plot") as stream:
        plot(result, stream, drawing.suffix.lower())
        write(result, output)


def timesteps_table(tried: list[tuple[int, SearchResult | UnmetError]], chosen: SearchResult) -> Table:
    """Return what each T costs."""
    kind = chosen.budget.counted
    table = Table(box=None, pad_edge=False)
    for name in ("T", kind, "agreement", ""):
        table.add_column(name, justify="right")
    for steps, found in tried:
        best = None if isinstance(found, UnmetError) else found.measurement(found.assignment)
        cells = ["", "not met"] if best is None else [_amount(best.cost(kind), kind), f"{best.agreement or 0.0:.2%}"]
        table.add_row(str(steps), *cells, "chosen" if found is chosen else "")
    return table


def points_table(result: SearchResult) -> Table:
    """Return the simulated points, predicted against simulated."""
    kind = result.budget.counted
    table = Table(box=None, pad_edge=False, title=None)
    table.add_column("")
    for name in (f"{kind} predicted", "simulated", "loss predicted", "simulated", "agreement"):
        table.add_column(name, justify="right")
    shown = [(m.assignment, m) for m in result.measured]
    if result.measurement(result.assignment) is None:
        shown.append((result.assignment, None))  # type: ignore[arg-type]
    for assignment, measured in shown:
        cost, loss = result.predicted(assignment, kind)
        names = ["uniform"] if assignment == result.uniform else []
        names += ["chosen"] if assignment == result.assignment else []
        cells = ["", "", ""]
        if measured is not None:
            agreement = "" if measured.agreement is None else f"{measured.agreement:.2%}"
            cells = [_amount(measured.cost(kind), kind), f"{measured.loss:.4g}", agreement]
        table.add_row(", ".join(names), _amount(cost, kind), cells[0], f"{loss:.4g}", *cells[1:])
    return table


def layer_table(result: SearchResult) -> Table:
    """Return ψ and τ of every layer."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    table.add_column("ψ", justify="right")
    table.add_column("τ", justify="right")
    for name, candidate in result.assignment.items():
        table.add_row(name, str(candidate.max_burst), f"{candidate.threshold_ratio:g}")
    return table


def _amount(value: float, kind: str) -> str:
    return f"{1e6 * value:.2f} µJ" if kind == "energy" else f"{value:,.0f}"
