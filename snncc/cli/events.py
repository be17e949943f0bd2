"""`snncc events`."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snncc.cli.files import check_output, replacing, save_npz
from snncc.cli.options import SETTINGS, common_options, json_option, pass_terminal
from snncc.cli.terminal import Terminal
from snncc.errors import DataError, UsageError

if TYPE_CHECKING:
    from snncc.events.folder import EventFolder
    from snncc.events.frames import FrameCollector, FrameOptions
    from snncc.events.representations import Slicing

EPILOG = """\b
Examples:
  snncc events recording.aedat4
  snncc events digit.bin --sensor 34x34 --plot digit.gif --window 10ms
  snncc events nmnist/Train --bins 3 --layout samples -o train.npz
  snncc compile model.onnx --calib train.npz
  snncc events nmnist/Train --bins 3 -o sequences.npz
  snncc compile model.onnx --calib sequences.npz --input-coding frames -T 12

Recordings are .bin (N-MNIST, N-Caltech101), .dat and .raw (Prophesee), .aedat and .aedat4, .h5 (DSEC; x, y, t, p), and
.npz (x, y, t, p). A folder has one subfolder per class. HDF5 and AEDAT 4 need `pip install 'snncc[events]'`.
"""

_UNITS = {"us": 1, "µs": 1, "ms": 1000, "s": 1_000_000}
_MOST_WARNINGS = 10


class Sensor(click.ParamType[tuple[int, int]]):
    """Width and height, in the order in which cameras are named."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read `346x260`."""
        found = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", value)
        if not found:
            self.fail(f"{value!r} is no size: give width and height as 346x260", param, ctx)
        return int(found[1]), int(found[2])


class Duration(click.ParamType[int]):
    """A time, in microseconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read `10ms`, `500us` or `0.3s`."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(us|µs|ms|s)", value)
        if not found:
            self.fail(f"{value!r} is no time: give it with its unit, as 10ms, 500us or 0.3s", param, ctx)
        microseconds = round(float(found[1]) * _UNITS[found[2]])
        if microseconds < 1:
            self.fail(f"{value!r} is less than a microsecond", param, ctx)
        return microseconds


@dataclass(frozen=True)
class _Task:
    """What is to be done with a recording or a folder."""

    source: Path
    sensor: tuple[int, int] | None
    sort: bool
    strict: bool
    limit: int | None
    slicing: Slicing | None
    frames: FrameOptions | None
    plot: Path | None
    output: Path | None


@click.command("events", context_settings=SETTINGS, epilog=EPILOG, short_help="Look into recordings; make frames.")
@click.argument("source", metavar="FILE_OR_FOLDER")
@click.option("--sensor", type=Sensor(), metavar="WxH", help="Size of the sensor, where the file doesn't say it.")
@click.option("--bins", type=int, metavar="N", help="Cut each recording into N slices of equal length.")
@click.option("--window", type=Duration(), metavar="TIME", help="Cut it into slices of this length, e.g. 10ms.")
@click.option("--count", type=int, metavar="N", help="Cut it into slices of N events.")
@click.option("--plot", metavar="FILE", help="Draw rate and frames (.png, .svg) or an animation (.gif) of a recording.")
@click.option("-o", "--output", metavar="OUT", help="Write frames, and the labels of a folder, to this .npz.")
@click.option(
    "--representation",
    type=click.Choice(["counts", "voxel", "voxel-signed", "surface"]),
    default="counts",
    show_default=True,
    help="Frames for -o: events per polarity; a voxel grid with linear weights in time, per polarity or signed; or a "
    "time surface with exponential decay.",
)
@click.option(
    "--layout",
    type=click.Choice(["sequence", "samples", "channels"]),
    default="sequence",
    show_default=True,
    help="Axes for -o: [N, slices, C, H, W]; each slice a sample of its own; or all slices as channels of one image.",
)
@click.option("--tau", type=Duration(), default="30ms", show_default=True, help="Time constant of time surfaces.")
@click.option("--sort", is_flag=True, help="Bring events whose times run backwards into order.")
@click.option("--strict", is_flag=True, help="Folders: stop at the first recording that can't be used.")
@click.option("--limit", type=int, metavar="N", help="Folders: use N recordings, the first of every class in turn.")
@json_option
@common_options
@pass_terminal
def events_command(
    terminal: Terminal,
    *,
    source: str,
    sensor: tuple[int, int] | None,
    bins: int | None,
    window: int | None,
    count: int | None,
    plot: str | None,
    output: str | None,
    representation: str,
    layout: str,
    tau: int,
    sort: bool,
    strict: bool,
    limit: int | None,
) -> None:
    """Say what is in a recording of an event camera, draw it, or make frames for a network of a folder of recordings.

    A recording of a folder that can't be read is named, counted and left out. Channel 0 of frames is OFF, channel 1 ON.
    """
    from snncc.events.frames import FrameOptions
    from snncc.events.representations import Slicing

    chosen = any(value is not None for value in (bins, window, count))
    slicing = Slicing(bins, window, count) if chosen else None
    target = None if output is None else Path(output)
    drawing = None if plot is None else Path(plot)
    frames = None
    if target is not None:
        if slicing is None:
            raise UsageError("--output needs --bins, --window or --count: how recordings are cut into frames")
        frames = FrameOptions(slicing, representation, layout, float(tau))
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}: it must be at least 1")
    task = _Task(Path(source), sensor, sort, strict, limit, slicing, frames, drawing, target)
    _check_outputs(task)
    if task.source.is_dir():
        _folder(terminal, task)
    else:
        _file(terminal, task)


def _check_outputs(task: _Task) -> None:
    if task.plot is not None:
        from snncc.events.plot import check_plot

        if task.source.is_dir():
            raise UsageError(f"--plot draws one recording, and {task.source} is a folder: give one of its files")
        check_plot(task.plot)
        check_output(task.plot, "--plot", {"recording": task.source})
    if task.output is not None:
        if task.output.suffix.lower() != ".npz":
            raise UsageError(f"--output is '{task.output}': its name must end in .npz, the only format there is")
        check_output(task.output, "--output", {"recording": task.source})


def _file(terminal: Terminal, task: _Task) -> None:
    from snncc.events.frames import FrameCollector
    from snncc.events.plot import plot
    from snncc.events.reading import read
    from snncc.events.summary import summarise
    from snncc.report import events as report

    recording = read(task.source, sensor=task.sensor, sort=task.sort)
    summary, written = summarise(recording), None
    with ExitStack() as drawn:  # both files, or neither where one of them fails
        if task.plot is not None:
            stream = drawn.enter_context(replacing(task.plot, "--plot"))
            plot(recording, stream, task.plot.suffix.lower(), task.slicing)
        if task.frames is not None:
            collector = FrameCollector(task.frames)
            collector.add(task.frames.tensor(recording), None, recording.source)
            written = _write(collector, task)
    if terminal.json:
        picture = None if task.plot is None else str(task.plot)
        terminal.print_json({**summary.to_dict(), "plot": picture, "output": written})
        return
    terminal.print(report.recording_facts(summary))
    _say_written(terminal, task, written)


def _folder(terminal: Terminal, task: _Task) -> None:
    from snncc.events.folder import EventFolder
    from snncc.events.frames import FrameCollector
    from snncc.report import events as report

    folder = EventFolder.open(task.source, sensor=task.sensor, sort=task.sort, strict=task.strict)
    if task.limit is not None:
        folder = folder.head(task.limit)
    collector = None if task.frames is None else FrameCollector(task.frames)
    names = folder.class_names or ("(no classes)",)
    tallies = [report.Tally(name) for name in names]
    try:
        _walk(terminal, folder, collector, tallies)
    finally:
        # Also where none could be used, as the reasons say why.
        terminal.warn(report.skipped_lines(folder, len(folder) if terminal.verbose else _MOST_WARNINGS))
    written = None if collector is None else _write(collector, task)
    if terminal.json:
        skipped = [{"path": str(s.path), "reason": s.reason} for s in folder.skipped]
        classes = [tally.to_dict() for tally in tallies]
        terminal.print_json({"source": str(task.source), "classes": classes, "left_out": skipped, "output": written})
        return
    if not terminal.quiet:
        terminal.print(report.folder_table(tallies))
    _say_written(terminal, task, written)


def _walk(terminal: Terminal, folder: EventFolder, collector: FrameCollector | None, tallies: list[Any]) -> None:
    from snncc.events.folder import Skipped
    from snncc.events.summary import summarise

    with terminal.progress("reading") as progress:
        for number, (recording, label) in enumerate(folder, 1):
            if collector is not None:
                try:
                    tensor = collector.options.tensor(recording)
                except DataError as error:
                    if folder.strict:
                        raise
                    folder.skipped.append(Skipped(Path(recording.source), str(error)))
                    continue
                collector.add(tensor, label, recording.source)
            tallies[label or 0].add(summarise(recording))
            if progress is not None:
                progress(number + len(folder.skipped), len(folder))


def _write(collector: FrameCollector, task: _Task) -> dict[str, Any]:
    arrays = collector.arrays()
    if task.output is not None:
        save_npz(task.output, arrays)
    return {"path": str(task.output), "shapes": {name: list(array.shape) for name, array in arrays.items()}}


def _say_written(terminal: Terminal, task: _Task, written: dict[str, Any] | None) -> None:
    if terminal.quiet:
        return
    if written is not None:
        shapes = ", ".join(f"{name} {shape}" for name, shape in written["shapes"].items())
        terminal.print("", f"wrote {written['path']}: {shapes}")
    if task.plot is not None:
        terminal.print("", f"drew {task.plot}")
