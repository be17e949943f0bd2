"""`snncc zoo`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from snncc import models
from snncc.cli.options import SETTINGS, common_options, json_option, pass_terminal
from snncc.cli.terminal import Terminal
from snncc.report.text import percent, si, table

DATA = ("calibration", "test", *models.EVENTS)

EPILOG = """\b
Examples:
  snncc zoo
  snncc zoo path fashion_resnet20
  snncc compile zoo:fashion_resnet20 --calib zoo:calibration
  snncc compile zoo:fashion_events_resnet --calib zoo:events_calibration --input-coding frames -T 8 --max-burst 8
"""


@click.group(
    "zoo", context_settings=SETTINGS, epilog=EPILOG, invoke_without_command=True, short_help="Bundled networks."
)
@json_option
@common_options
@click.pass_context
def zoo_command(ctx: click.Context) -> None:
    """List the bundled networks and data, or say where one is.

    zoo:NAME works wherever a command takes a MODEL, zoo:calibration, zoo:test, zoo:events_calibration and
    zoo:events_test wherever one takes DATA: images, or recordings of an event camera as 8 frames each.
    """
    if ctx.invoked_subcommand is None:
        _list(ctx.ensure_object(Terminal))


@zoo_command.command("list", context_settings=SETTINGS, epilog="\b\nExample:\n  snncc zoo list --json")
@json_option
@common_options
@pass_terminal
def list_command(terminal: Terminal) -> None:
    """List the bundled networks and data."""
    _list(terminal)


@zoo_command.command("path", context_settings=SETTINGS, epilog="\b\nExample:\n  snncc zoo path fashion_vgg")
@click.argument("name")
@json_option
@common_options
@pass_terminal
def path_command(terminal: Terminal, *, name: str) -> None:
    """Print the path of a bundled network, or of a data set."""
    name = name.removeprefix("zoo:")
    path = models.data_path(name) if name in DATA else models.path(name)
    if terminal.json:
        terminal.print_json({"name": name, "path": str(path)})
    else:
        terminal.print(str(path))


def _list(terminal: Terminal) -> None:
    networks = [models.info(name) for name in models.names(None)]
    if terminal.json:
        terminal.print_json(
            {
                "networks": [{**asdict(info), "path": str(models.path(info.name))} for info in networks],
                "data": [{"name": name, "path": str(models.data_path(name))} for name in DATA],
            }
        )
        return
    made = table("network", "accuracy", "MACs", "parameters", "what", right=("accuracy", "MACs", "parameters"))
    for info in networks:
        cells = (percent(info.accuracy), si(info.macs), si(info.parameters))
        made.add_row(f"zoo:{info.name}", *cells, f"{info.summary}; {info.dataset}")
    terminal.print(made)
    if not terminal.quiet:
        sizes = ", ".join(f"zoo:{name} ({si(Path(models.data_path(name)).stat().st_size, 'B')})" for name in DATA)
        terminal.print("", f"data: {sizes}")
