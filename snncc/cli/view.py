"""`snncc view`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from snncc.cli.options import SETTINGS, common_options, pass_terminal
from snncc.cli.terminal import Terminal
from snncc.errors import ModelError, UsageError
from snncc.graph import first_line
from snncc.sources import resolve

EPILOG = """\b
Examples:
  snncc view model.snn.onnx
  snncc view zoo:fashion_resnet20 --port 8081 --no-browser
"""


@click.command("view", context_settings=SETTINGS, epilog=EPILOG, short_help="Show a network in Netron.")
@click.argument("model", metavar="MODEL_OR_SNN")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the server; default: one that is free.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@common_options
@pass_terminal
def view_command(terminal: Terminal, *, model: str, port: int | None, no_browser: bool) -> None:
    """Show a network in Netron, in the browser, until Ctrl-C.

    The server is reachable from this computer only.
    """
    import netron  # slow to import, and needed here alone

    path = Path(str(resolve(model)))
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "doesn't exist"
        raise ModelError(f"'{path}': {what}; give the path of an ONNX file")
    # Netron sets up the root logger and announces itself there: the address is printed below.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("netron").setLevel(logging.WARNING)
    try:
        host, served = netron.start(str(path), address=port, browse=not no_browser)
    except OSError as error:
        raise UsageError(
            f"port {port} can't be used ({error.strerror or first_line(error)}): give another --port"
        ) from error
    # At once, also into a pipe: somebody waits for the address.
    terminal.print(f"http://{host}:{served} shows {path.name}; Ctrl-C stops")
    terminal.out.file.flush()
    netron.wait()
