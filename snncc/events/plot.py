"""What is in a recording, drawn: rate over time and frames as `.png` or `.svg`, or an animation as `.gif`."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snncc.errors import UsageError
from snncc.events.container import Events
from snncc.events.representations import Slicing, count_frames
from snncc.events.summary import rate_over_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".gif")
MOST_FRAMES = 12
"""Most frames of a picture; of more, so many are chosen evenly."""
MOST_ANIMATED = 600
_RATE_BINS = 200
_GIF_SIDE = 320
_GIF_SECONDS = 3.0
_OFF, _ON = np.array([31, 90, 200]), np.array([214, 40, 40])


def check_plot(path: Path) -> None:
    """Check before the work starts that a plot can be drawn.

    Raises:
        UsageError: the file's format isn't known, or matplotlib is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"'{path}' must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}: choose another --plot")
    if suffix == ".gif":
        return
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"--plot with {suffix} needs matplotlib, which is not installed: install it with "
            "`pip install 'snncc[plot]'`, or choose .gif"
        ) from error


def plot(events: Events, stream: IO[bytes], suffix: str, slicing: Slicing | None) -> None:
    """Draw a recording into an open file.

    Args:
        events: the recording.
        stream: where the picture goes.
        suffix: `.png`, `.svg` or `.gif`.
        slicing: how it is cut into frames; None for 6 of equal length, 30 for an animation.

    Raises:
        DataError: the recording is shorter than a frame, or the frames would be too large.
        UsageError: an animation would have too many frames.
    """
    if suffix == ".gif":
        _animate(events, stream, slicing or Slicing(bins=30))
    else:
        _draw(events, stream, suffix[1:], slicing or Slicing(bins=6))


def render(frame: NDArray[np.float32], most: float) -> NDArray[np.uint8]:
    """Return a frame [2, height, width] as colours, uint8 [height, width, 3]: ON red, OFF blue, both purple on white.

    Args:
        frame: events per polarity.
        most: the number of events that gets the full colour.
    """
    share = np.clip(frame / max(most, 1.0), 0, 1) ** 0.5  # single events should be seen too
    ink = share[0][..., None] * (255 - _OFF) + share[1][..., None] * (255 - _ON)
    picture: NDArray[np.uint8] = np.clip(255 - ink, 0, 255).astype(np.uint8)
    return picture


def _full_colour(frames: NDArray[np.float32]) -> float:
    # A hot pixel shouldn't make all others pale.
    some = frames[frames > 0]
    return float(np.percentile(some, 99)) if some.size else 1.0


def _draw(events: Events, stream: IO[bytes], kind: str, slicing: Slicing) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    frames, times = count_frames(events, slicing), (slicing.times(events) - events.start) / 1e6
    shown = np.unique(np.linspace(0, len(frames) - 1, MOST_FRAMES).round().astype(int))
    shown = shown if len(frames) > MOST_FRAMES else np.arange(len(frames))
    columns = min(len(shown), 6)
    rows = -(-len(shown) // columns)
    most = _full_colour(frames)
    # Text stays text, and the same recording gives the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "snncc", "font.size": 9}):
        figure = Figure(figsize=(11, 2.6 + 2.1 * rows), layout="constrained")
        grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1.2, *[1] * rows])
        _rate(figure.add_subplot(grid[0, :]), events, times[shown[1:]] if len(shown) == len(frames) else [])
        for place, number in enumerate(shown):
            axes = figure.add_subplot(grid[1 + place // columns, place % columns])
            axes.imshow(render(frames[number], most), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{1e3 * times[number]:.4g} – {1e3 * times[number + 1]:.4g} ms", fontsize=8)
        size = f"{events.width}x{events.height}"
        figure.suptitle(f"{Path(events.source).name}: {len(events):,} events, {size} pixels, {events.format}")
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        figure.savefig(stream, format=kind, dpi=130, metadata=metadata)


def _rate(axes: Axes, events: Events, cuts: Any) -> None:
    edges, rate = rate_over_time(events, max(1, min(_RATE_BINS, events.duration)))
    for values, colour, label in ((rate[1], _ON, "ON"), (rate[0], _OFF, "OFF")):
        axes.stairs(values, edges, color=tuple(colour / 255), label=label)
    for cut in cuts:
        axes.axvline(cut, color="0.7", linewidth=0.8, linestyle=":")
    axes.set(xlabel="seconds since the first event", ylabel="events per second", xlim=(edges[0], edges[-1]))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")


def _animate(events: Events, stream: IO[bytes], slicing: Slicing) -> None:
    count = len(slicing.times(events)) - 1
    if count > MOST_ANIMATED:
        raise UsageError(f"an animation of {count:,} frames is too long (at most {MOST_ANIMATED}): take longer slices")
    frames = count_frames(events, slicing)
    most, zoom = _full_colour(frames), max(1, _GIF_SIDE // max(events.width, events.height))
    pictures = [Image.fromarray(render(frame, most).repeat(zoom, 0).repeat(zoom, 1)) for frame in frames]
    pause = max(20, round(1000 * _GIF_SECONDS / len(pictures)))
    pictures[0].save(stream, "GIF", save_all=True, append_images=pictures[1:], duration=pause, loop=0)
