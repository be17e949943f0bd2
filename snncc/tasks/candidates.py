"""What decoders share: reading their parameters and outputs, and turning scores per class into candidates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.data.spec import format_shape
from snncc.errors import UsageError

Outputs = Mapping[str, NDArray[Any]]
Candidates = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]

_LEAST = 1e-3
"""Pairs of box and class below this score are nothing that any evaluation looks at; most pairs are."""


def pairs(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> Candidates:
    """Return a candidate for every class that a box may be: boxes [K, 4], scores [K, C]."""
    box, label = np.nonzero(scores > _LEAST)
    return boxes[box], scores[box, label], label.astype(np.int64)


def join(parts: Iterable[Candidates]) -> Candidates:
    """Return the candidates of several grids together."""
    boxes, scores, classes = zip(*parts, strict=True)
    return np.concatenate(boxes), np.concatenate(scores), np.concatenate(classes)


def output(outputs: Outputs, name: Any, rank: int) -> tuple[str, NDArray[Any]]:
    """Return an output by name; without a name, the only one of this rank (batch axis aside).

    Raises:
        UsageError: there is none of this name or rank, or several.
    """
    shapes = ", ".join(f"'{key}' {format_shape(('N', *value.shape))}" for key, value in outputs.items())
    if name is None:
        fitting = [key for key, value in outputs.items() if value.ndim == rank]
        if len(fitting) != 1:
            what = "several outputs" if fitting else "no output"
            raise UsageError(
                f"the network has {what} of {rank + 1} axes, batch included ({shapes}): say with 'output' which it is, "
                "or use another decoder"
            )
        name = fitting[0]
    if not isinstance(name, str) or name not in outputs:
        raise UsageError(f"the network has no output {name!r}, only {shapes}: correct 'output'")
    if outputs[name].ndim != rank:
        raise UsageError(
            f"output '{name}' is {format_shape(('N', *outputs[name].shape))}: {rank + 1} axes, batch included, can be "
            "decoded; name another output or decoder"
        )
    return name, outputs[name]


def numbers(settings: Mapping[str, Any], key: str, width: int) -> NDArray[np.float64]:
    """Return a list of rows of positive numbers, float64 [K, width].

    Raises:
        UsageError: it is missing or something else.
    """
    wanted = f"a list of rows of {width} positive numbers"
    if key not in settings:
        raise UsageError(f"'{key}' is missing, {wanted}: give it with --decoder-options FILE.json")
    try:
        value = np.array(settings[key], np.float64)
    except (TypeError, ValueError):
        value = np.zeros(0)
    if value.ndim != 2 or value.shape[1] != width or not len(value) or not (np.isfinite(value) & (value > 0)).all():
        raise UsageError(f"'{key}' is {str(settings[key])[:80]}: it must be {wanted}")
    return value


def number(settings: Mapping[str, Any], key: str, default: float | None) -> float | None:
    """Return a positive number, or the default where it isn't given.

    Raises:
        UsageError: it is something else.
    """
    value = settings.get(key, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise UsageError(f"'{key}' is {str(value)[:80]!r}: it must be a positive number")
    return float(value)


def flag(settings: Mapping[str, Any], key: str, default: bool) -> bool:
    """Return true or false, or the default where it isn't given.

    Raises:
        UsageError: it is something else.
    """
    value = settings.get(key, default)
    if not isinstance(value, bool):
        raise UsageError(f"'{key}' is {str(value)[:80]!r}: it must be true or false")
    return value


def objects(settings: Mapping[str, Any], key: str) -> list[Mapping[str, Any]] | None:
    """Return a list of one or more objects, or None where it isn't given.

    Raises:
        UsageError: it is something else.
    """
    value = settings.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(part, Mapping) for part in value):
        raise UsageError(f"'{key}' is {str(value)[:80]}: it must be a list of one or more objects")
    return value
