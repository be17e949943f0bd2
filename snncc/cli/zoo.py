"""`snncc zoo`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from PIL import Image

from snncc import models
from snncc.cli.files import OutputError
from snncc.cli.options import SETTINGS, common_options, json_option, limit_option, pass_terminal
from snncc.cli.terminal import Terminal
from snncc.errors import UsageError
from snncc.report.text import percent, si, table

DATA = ("calibration", "test", *models.EVENTS)
_FIGURE = {"detection": " mAP"}
"""What the accuracy of a task is, where it isn't the share of right answers."""

EPILOG = """\b
Examples:
  snncc zoo
  snncc zoo path fashion_resnet20
  snncc zoo scenes photos/
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

    zoo:NAME works wherever a command takes a MODEL, zoo:calibration and zoo:test wherever one takes DATA. For the event
    network these are zoo:events_calibration and zoo:events_test, recordings as 8 frames each; for the detector
    zoo:scenes_calibration and zoo:scenes, which are composed of the images when they are asked for.
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


@zoo_command.command("scenes", context_settings=SETTINGS, epilog="\b\nExample:\n  snncc zoo scenes scenes/ --limit 20")
@click.argument("folder", metavar="DIR")
@click.option("--calibration", is_flag=True, help="The scenes for calibration instead of those for tests.")
@limit_option
@json_option
@common_options
@pass_terminal
def scenes_command(terminal: Terminal, *, folder: str, calibration: bool, limit: int | None) -> None:
    """Write the scenes for object detection as pictures, and annotations.json beside their folder images/."""
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}: it must be at least 1")
    images, content = models.scene_set("scenes_calibration" if calibration else "scenes")
    known = content["images"][:limit]
    numbers = {image["id"] for image in known}
    kept = [annotation for annotation in content["annotations"] if annotation["image_id"] in numbers]
    target = Path(folder)
    try:
        (target / "images").mkdir(parents=True, exist_ok=True)
        for image, pixels in zip(known, images[:, 0], strict=False):
            Image.fromarray(pixels).save(target / "images" / image["file_name"])
        text = json.dumps({**content, "images": known, "annotations": kept})
        (target / "annotations.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"can't write to '{folder}': {error.strerror or error}; name another folder") from error
    if terminal.json:
        terminal.print_json({"images": len(known), "annotations": len(kept), "folder": folder})
    elif not terminal.quiet:
        terminal.print(
            f"{len(known)} scenes with {len(kept)} items: {target / 'images'}, {target / 'annotations.json'}"
        )


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
        cells = (percent(info.accuracy) + _FIGURE.get(info.task, ""), si(info.macs), si(info.parameters))
        made.add_row(f"zoo:{info.name}", *cells, f"{info.summary}; {info.dataset}")
    terminal.print(made)
    if not terminal.quiet:
        sizes = ", ".join(f"zoo:{name} ({si(Path(models.data_path(name)).stat().st_size, 'B')})" for name in DATA)
        terminal.print("", f"data: {sizes}; composed when asked for: {', '.join(f'zoo:{s}' for s in models.SCENES)}")
