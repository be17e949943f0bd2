"""`snncc stream`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snncc.cli.events import Duration, Sensor
from snncc.cli.files import open_network
from snncc.cli.options import SETTINGS, common_options, json_option, pass_terminal
from snncc.cli.terminal import Terminal
from snncc.errors import DataError, UsageError
from snncc.network import SpikingNetwork
from snncc.report.text import percent

if TYPE_CHECKING:
    from snncc.events import Events
    from snncc.streaming import Step

EPILOG = """\b
Examples:
  snncc stream digits.snn.onnx digit.bin --window 10ms --frame 100ms
  snncc stream digits.snn.onnx digit.bin --window 10ms --real-time
  camera | snncc stream digits.snn.onnx - --sensor 34x34 --window 20ms --restart 50 --json

A recording is any file that `snncc events` reads. - is standard input: a line "t x y p" per event, t in microseconds.
"""


@click.command("stream", context_settings=SETTINGS, epilog=EPILOG, short_help="Run an SNN as events arrive.")
@click.argument("snn")
@click.argument("source", metavar="EVENTS")
@click.option("--window", type=Duration(), default="10ms", show_default=True, help="Time of a timestep.")
@click.option("--frame", type=Duration(), metavar="TIME", help="Time that a frame shows; default: one window.")
@click.option("--restart", type=int, metavar="N", help="Begin a new decision after every N windows; default: never.")
@click.option("--real-time", is_flag=True, help="Play a recording as it was recorded, not as fast as possible.")
@click.option("--sensor", type=Sensor(), metavar="WxH", help="Size of the sensor, where the file doesn't say it.")
@click.option("--sort", is_flag=True, help="Bring events of a file whose times run backwards into order.")
@click.option("--threads", type=click.IntRange(0), default=0, help="Threads; default: one per core.")
@json_option
@common_options
@pass_terminal
def stream_command(
    terminal: Terminal,
    *,
    snn: str,
    source: str,
    window: int,
    frame: int | None,
    restart: int | None,
    real_time: bool,
    sensor: tuple[int, int] | None,
    sort: bool,
    threads: int,
) -> None:
    """Step a compiled network as events arrive, and say class, confidence and latency after each window.

    The class is that of the mean over all timesteps of the decision so far. Latency is the time from the end of a
    window until its class is known. A network that is too slow skips windows, and says so in the end; their events
    count in the frames that follow. --json prints a line per window, and a summary in the last one.
    """
    from snncc.streaming import stream

    network = open_network(snn)
    live = source == "-"
    if live and (sensor is None or real_time or sort):
        raise UsageError("standard input needs --sensor, and knows neither --real-time nor --sort")
    clock = "live" if live else "paced" if real_time else "free"
    events = _source(source, sensor, sort)
    summary = _Summary(window)
    for step in stream(network, events, window, frame=frame, restart=restart, clock=clock, threads=threads):
        summary.add(step)
        _tell(terminal, step)
    if not summary.windows:
        raise DataError(f"{source} is shorter than a window of {window:,} µs: take a shorter --window")
    _finish(terminal, summary, network, clock)


def _source(source: str, sensor: tuple[int, int] | None, sort: bool) -> Iterable[Events]:
    if source == "-":
        from snncc.events.live import read_lines

        return read_lines(sys.stdin.buffer, sensor or (1, 1))
    from snncc.events import read

    return [read(Path(source), sensor=sensor, sort=sort)]


class _Summary:
    """Sums over all windows; memory doesn't grow with their number."""

    def __init__(self, window: int) -> None:
        self.windows = self.skipped = 0
        self.latency = self.worst = self.seconds = 0.0
        self.last: Step | None = None
        self.since = 0.0
        self._window = window / 1e6

    def add(self, step: Step) -> None:
        self.windows += 1
        self.seconds = step.seconds
        if step.skipped:
            self.skipped += 1
            return
        if self.last is None or self.last.label != step.label:
            self.since = step.seconds
        self.last = step
        self.latency += step.latency
        self.worst = max(self.worst, step.latency)

    @property
    def mean_latency(self) -> float:
        return self.latency / max(self.windows - self.skipped, 1)

    @property
    def load(self) -> float:
        """Mean latency relative to the window: below 1, the network keeps up."""
        return self.mean_latency / self._window

    def to_dict(self) -> dict[str, Any]:
        last = self.last
        return {
            "windows": self.windows,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "label": None if last is None else last.label,
            "confidence": None if last is None else last.confidence,
            "label_since": self.since,
            "mean_latency": self.mean_latency,
            "worst_latency": self.worst,
        }


def _tell(terminal: Terminal, step: Step) -> None:
    if terminal.json:
        terminal.print_json_line(asdict(step))
    elif not terminal.quiet:
        said = "skipped" if step.skipped else f"class {step.label}  {percent(step.confidence, 1):>7}"
        terminal.print(f"{step.seconds:9.3f} s  {step.events:7,} events  {said}  {1e3 * step.latency:6.2f} ms")
    terminal.out.file.flush()  # somebody waits for it, perhaps behind a pipe


def _finish(terminal: Terminal, summary: _Summary, network: SpikingNetwork, clock: str) -> None:
    if summary.skipped or summary.load > 1:
        terminal.warn(
            [
                f"the network doesn't keep up: {summary.skipped} of {summary.windows} windows were skipped, mean "
                f"latency {1e3 * summary.mean_latency:.2f} ms; take longer windows or a smaller network"
            ]
        )
    if terminal.json:
        terminal.print_json_line({"summary": summary.to_dict()})
        return
    last = summary.last
    said = "no class" if last is None else f"class {last.label} since {summary.since:.3f} s"
    pace = f", {1 / summary.load:,.1f} times as fast as real time" if clock == "free" and summary.load else ""
    terminal.print(
        f"{said}; {summary.windows} windows in {summary.seconds:.3f} s, latency {1e3 * summary.mean_latency:.2f} ms "
        f"(worst {1e3 * summary.worst:.2f} ms){pace}"
    )
