"""Numbers, names and tables, written one way everywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from snncc.data.spec import format_shape

_PREFIXES = (
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
    (1e-12, "p"),
)
_EIGHTHS = " ▏▎▍▌▋▊▉"
NONE = "–"


def si(value: float | None, unit: str = "", *, like: float | None = None) -> str:
    """Return a value with three significant digits or four and an SI prefix, e.g. `142.7 µJ`, `31.0 M`.

    Args:
        value: the value.
        unit: its unit.
        like: a value that it will be compared with, whose prefix it takes where that shows something of it.
    """
    if value is None:
        return NONE
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".rstrip()
    if not unit and abs(value) < 1000 and value == int(value):
        return f"{value:.0f}"
    scale, prefix = _prefix(like if like and value / _prefix(like)[0] >= 0.01 else value)
    scaled = value / scale
    return f"{scaled:,.{1 if abs(scaled) >= 9.995 else 2}f} {prefix}{unit}".rstrip()


def _prefix(value: float) -> tuple[float, str]:
    # What would be rounded up to 1000 belongs to the next prefix.
    return next((p for p in _PREFIXES if abs(value) >= p[0] * 0.99995), _PREFIXES[-1])


def percent(value: float | None, digits: int = 2) -> str:
    """Return a fraction as per cent, e.g. `93.42 %`."""
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def count(value: float | None) -> str:
    """Return a rounded number with thousands marked, e.g. `183,000`."""
    return NONE if value is None else f"{value:,.0f}"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with a few significant digits."""
    return NONE if value is None else f"{value:.{digits}g}"


def value_range(low: float, high: float) -> str:
    """Return `low – high`, or the one value where both are equal."""
    return number(low) if low == high else f"{number(low)} … {number(high)}"


def size(count_of_bytes: int) -> str:
    """Return the size of a file."""
    return si(float(count_of_bytes), "B")


def plural(n: int, one: str, many: str | None = None) -> str:
    """Return `1 layer`, `2 layers`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def bar(fraction: float, width: int = 24) -> str:
    """Return a bar of blocks for a fraction from 0 to 1, in steps of an eighth of a character."""
    eighths = round(max(0.0, min(1.0, fraction)) * width * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def shown_steps(timesteps: int, most: int = 16) -> list[int]:
    """Return the timesteps to list, from 1 to T: all, or about `most` of them, closer together at the beginning."""
    if timesteps <= most:
        return list(range(1, timesteps + 1))
    return sorted({max(1, round(timesteps ** (i / (most - 1)))) for i in range(most)} | {timesteps})


def clean(text: str) -> str:
    """Return text without control characters: names from a model must not reach the terminal as commands."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table; the columns named in `right` hold numbers."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold", show_edge=False)
    for name in columns:
        if name in right:
            made.add_column(name, justify="right", no_wrap=True)
        else:
            made.add_column(name, overflow="fold")
    return made


def facts(rows: Mapping[str, str | Text | None]) -> Table:
    """Return lines of a name and what is said about it; those without a value are left out."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            made.add_row(name, value if isinstance(value, Text) else clean(value))
    return made


def signature(specs: Sequence[Any]) -> str:
    """Return inputs or outputs as `image float32 [N, 1, 28, 28]`, separated by commas."""
    return ", ".join(f"{clean(s.name)} {s.dtype} {'[?]' if s.shape is None else format_shape(s.shape)}" for s in specs)


def to_json(value: Any) -> str:
    """Return plain values as JSON; what isn't finite becomes null, which every reader knows."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
