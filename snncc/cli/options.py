"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from snncc.cli.terminal import Terminal
from snncc.config import INPUT_CODINGS
from snncc.data import ImageOptions
from snncc.network import BACKENDS

F = TypeVar("F", bound=Callable[..., Any])

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

pass_terminal = click.make_pass_decorator(Terminal, ensure=True)


def _flag(name: str, *declarations: str, text: str) -> Callable[[F], F]:
    """Return an option that sets a field of the terminal, before or after the name of the subcommand."""

    def note(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            setattr(ctx.ensure_object(Terminal), name, True)

    return click.option(*declarations, is_flag=True, expose_value=False, callback=note, help=text)


def common_options(command: F) -> F:
    """Add -q and -v."""
    command = _flag("verbose", "-v", "--verbose", text="Print more: every layer, and tracebacks of errors in snncc.")(
        command
    )
    return _flag("quiet", "-q", "--quiet", text="Print no progress and no summary.")(command)


def json_option(command: F) -> F:
    """Add --json."""
    return _flag("json", "--json", text="Print the result as JSON.")(command)


def frame_options(command: F) -> F:
    """Add --input-coding and --reset-after."""
    reset = click.option(
        "--reset-after",
        type=int,
        metavar="R",
        help="With frames: all neurons start anew after every R timesteps, T for never. The SNN stands for the mean of "
        "the ANN's outputs on the mean frames of these periods. Default: with each frame or never, as the ANN is right "
        "more often on the calibration data.",
    )
    coding = click.option(
        "--input-coding",
        type=click.Choice(INPUT_CODINGS),
        default="constant",
        show_default=True,
        help="The same input at every timestep, or a frame of its own at each: data is then [N, frames, ...].",
    )
    return coding(reset(command))


class Floats(click.ParamType[tuple[float, ...]]):
    """Numbers separated by commas: one for all channels, or one per channel."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Read `0.5` or `0.485,0.456,0.406`."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no number and no list such as 0.485,0.456,0.406", param, ctx)


class Size(click.ParamType[tuple[int, int]]):
    """Height and width."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read `224` or `224x160`."""
        if isinstance(value, tuple):
            return value
        parts = value.lower().split("x")
        try:
            numbers = [int(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2):
            self.fail(f"{value!r} is no size: give height and width as 224x160, or one number for both", param, ctx)
        return numbers[0], numbers[-1]


def image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for folders of images; the command gets `image`, None where none of them is given."""
    names = ("mean", "std", "layout", "size", "pixel_max")

    @click.option("--mean", type=Floats(), help="Images: subtracted from pixels, one value or one per channel.")
    @click.option("--std", type=Floats(), help="Images: pixels are divided by it after --mean.")
    @click.option(
        "--layout",
        type=click.Choice(["NCHW", "NHWC"], case_sensitive=False),
        metavar="NCHW|NHWC",
        help="Images: order of the axes, where it can't be inferred.",
    )
    @click.option("--size", type=Size(), metavar="HxW", help="Images: resize to height and width, e.g. 224 or 224x160.")
    @click.option(
        "--pixel-max",
        type=float,
        metavar="NUMBER",
        help="Images: what white becomes before --mean and --std: 1 (the default) or 255.",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {name: value for name in names if (value := kwargs.pop(name)) is not None}
        return command(*args, image=ImageOptions(**given) if given else None, **kwargs)

    return wrapped


def backend_option(command: F) -> F:
    """Add --backend."""
    return click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="fused",
        show_default=True,
        help="The fast executor, the artifact as it is in ONNX Runtime, or the slow reference simulator in NumPy.",
    )(command)


def batch_size_option(command: F) -> F:
    """Add --batch-size."""
    return click.option(
        "--batch-size",
        type=int,
        default=32,
        show_default=True,
        metavar="N",
        help="Samples at a time: a matter of memory and speed, not of results.",
    )(command)


def run_size_option(command: F) -> F:
    """Add --batch-size of a spiking network, which holds T times as many values as its ANN."""
    return click.option(
        "--batch-size",
        type=int,
        metavar="N",
        help="Samples at a time: a matter of memory and speed, not of results.  [default: 32; 128 with early exit; "
        "fewer with backends ort and numpy where T > 16]",
    )(command)


def threads_option(command: F) -> F:
    """Add --threads."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads for everything.  [default: one per core]",
        callback=lambda ctx, param, value: value or 0,
    )(command)


def limit_option(command: F) -> F:
    """Add --limit."""
    return click.option("--limit", type=int, metavar="N", help="Use the first N samples only.")(command)
