"""What `snncc events` says about recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from snncc.events.folder import EventFolder
from snncc.events.summary import HOT_DEVIATIONS, Summary
from snncc.report.text import clean, count, facts, percent, plural, si, table

_FROM = {
    "header": "as the file says",
    "given": "as given",
    "dataset": "assumed: the smallest sensor of its datasets that holds all events",
    "coordinates": "just large enough for all events: --sensor sets it",
}
_MOST_HOT = 5


def seconds(microseconds: float) -> str:
    """Return a time, e.g. `306.7 ms`."""
    return si(microseconds / 1e6, "s")


def recording_facts(summary: Summary) -> Table:
    """Return what is in a recording."""
    hottest = ", ".join(f"({x}, {y}) {events:,}" for x, y, events in summary.hot[:_MOST_HOT])
    more = ", …" if len(summary.hot) > _MOST_HOT else ""
    hot = f"{len(summary.hot)}: {hottest}{more} events" if summary.hot else "none"
    pixels = summary.width * summary.height
    return facts(
        {
            "recording": summary.source,
            "format": summary.format,
            "events": count(summary.events),
            "duration": f"{seconds(summary.duration)}, from {summary.start:,} µs on",
            "sensor": f"{summary.width}x{summary.height} pixels ({_FROM[summary.sensor_from]})",
            "rate": f"{si(summary.rate)} events/s, {si(summary.rate / pixels)} per pixel",
            "polarity": f"{percent(summary.on, 1)} ON, {percent(1 - summary.on, 1)} OFF",
            "active pixels": f"{summary.active:,} of {pixels:,} ({percent(summary.active / pixels, 1)})",
            "hot pixels": f"{hot} (mean of the active ones + {HOT_DEVIATIONS} standard deviations)",
        }
    )


@dataclass
class Tally:
    """Sums over the recordings of a class.

    Attributes:
        name: of the class.
        recordings: how many were read.
        events: in all.
        on: ON events in all.
        duration: microseconds in all.
        sensors: the sizes that occur, as (width, height).
        formats: how they were stored.
    """

    name: str
    recordings: int = 0
    events: int = 0
    on: int = 0
    duration: int = 0
    sensors: set[tuple[int, int]] = field(default_factory=set)
    formats: set[str] = field(default_factory=set)

    def add(self, summary: Summary) -> None:
        """Count a recording."""
        self.recordings += 1
        self.events += summary.events
        self.on += round(summary.on * summary.events)
        self.duration += summary.duration
        self.sensors.add((summary.width, summary.height))
        self.formats.add(summary.format)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "class": self.name,
            "recordings": self.recordings,
            "events": self.events,
            "on_share": self.on / self.events if self.events else None,
            "duration_us": self.duration,
            "sensors": [{"width": w, "height": h} for w, h in sorted(self.sensors)],
            "formats": sorted(self.formats),
        }


def folder_table(tallies: Sequence[Tally]) -> Table:
    """Return a row per class; means are per recording."""
    numbers = ("recordings", "events", "duration", "rate", "ON")
    made = table("class", *numbers, "sensor", "format", right=numbers)
    for tally in tallies:
        n = tally.recordings
        made.add_row(
            clean(tally.name),
            count(n),
            count(tally.events / n if n else None),
            seconds(tally.duration / n) if n else "–",
            f"{si(tally.events / tally.duration * 1e6)}/s" if n else "–",
            percent(tally.on / tally.events if n else None, 1),
            ", ".join(f"{w}x{h}" for w, h in sorted(tally.sensors)[:3]) + (", …" if len(tally.sensors) > 3 else ""),
            ", ".join(sorted(tally.formats)),
        )
    return made


def skipped_lines(folder: EventFolder, most: int) -> list[str]:
    """Return a warning per file that was left out, up to `most`, and how many there are in all."""
    lines = [f"left out: {skipped.reason}" for skipped in folder.skipped[:most]]
    if folder.skipped:
        left = len(folder.skipped)
        lines.append(f"{plural(left, 'recording')} of {len(folder):,} left out; --strict makes the first one an error")
    return lines
