"""The file of a search, JSON: everything that any later budget needs.

What is read may come from anybody: its size is bounded and every value is checked before it is used.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from snncc.allocation.candidates import MOST, Candidate, uniform_of
from snncc.allocation.result import COSTS, Assignment, Budget, LayerTable, Measurement, SearchResult
from snncc.allocation.sensitivity import Score
from snncc.atomic import replacing
from snncc.config import Config
from snncc.errors import SnnccError, UsageError
from snncc.graph import first_line

FORMAT = "snncc.search/1"
SHOWN = 200
"""Points of each front that are written, for other programs: the tables give them all."""
_MOST_BYTES = 64 << 20


class FrontError(SnnccError):
    """The file of a search can't be read or written, or is damaged."""


def to_dict(result: SearchResult) -> dict[str, Any]:
    """Return a search as plain values."""
    kind = result.budget.counted
    return {
        "format": FORMAT,
        "source": result.source,
        "calibration": result.calibration,
        "config": result.config.to_dict(),
        "options": result.options,
        "metric": result.metric,
        "layers": [
            {
                "name": layer.name,
                "candidates": [
                    {
                        "max_burst": c.max_burst,
                        "threshold_ratio": c.threshold_ratio,
                        "loss": s.loss,
                        "spikes": s.spikes,
                        "operations": s.operations,
                    }
                    for c, s in zip(layer.candidates, layer.scores, strict=True)
                ],
            }
            for layer in result.layers
        ],
        "measured": [_measured(result, m) for m in result.measured],
        "budget": {"kind": result.budget.kind, "value": result.budget.value, "cost": result.budget.cost},
        "assignment": _listed(result.assignment),
        "front": front_points(result, kind, SHOWN),
    }


def front_points(result: SearchResult, kind: str, most: int) -> dict[str, Any]:
    """Return points of a front, evenly over its length where there are more than `most`."""
    front = result.front(kind)
    points = np.unique(np.linspace(0, len(front) - 1, min(most, len(front))).round().astype(int))
    fixed = result.fixed_cost(kind)
    return {
        "counted": kind,
        "points": len(front),
        "gap": front.gap,
        "cost": [float(front.cost[p]) + fixed for p in points],
        "loss": [float(front.loss[p]) for p in points],
    }


def _measured(result: SearchResult, point: Measurement) -> dict[str, Any]:
    return {
        "assignment": _listed(point.assignment),
        "predicted": {kind: result.predicted(point.assignment, kind)[0] for kind in COSTS}
        | {"loss": result.predicted(point.assignment, "spikes")[1]},
        "loss": point.loss,
        "agreement": point.agreement,
        "spikes": list(point.spikes),
        "operations": point.operations,
        "macs": point.macs,
        "energy": point.cost("energy"),
    }


def _listed(assignment: Assignment) -> list[list[Any]]:
    return [[name, c.max_burst, c.threshold_ratio] for name, c in assignment.items()]


def write(result: SearchResult, path: str | os.PathLike[str]) -> None:
    """Write the file, whole or not at all.

    Raises:
        FrontError: it can't be written.
    """
    target = Path(path)
    try:
        text = json.dumps(to_dict(result), indent=1, allow_nan=False) + "\n"
        with replacing(target) as stream:
            stream.write(text.encode())
    except (OSError, ValueError) as error:
        raise FrontError(f"can't write '{target}': {first_line(error)}; choose another place with -o") from error


def read(path: str | os.PathLike[str]) -> SearchResult:
    """Read the file of a search.

    Raises:
        FrontError: it can't be read, is none, or is damaged.
    """
    where = Path(path)
    try:
        if where.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MB")
        return _result(json.loads(where.read_text(encoding="utf-8"), parse_constant=_no_constant))
    except OSError as error:
        raise FrontError(f"can't read '{where}': {error.strerror or first_line(error)}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UsageError) as error:
        raise FrontError(
            f"'{where}' is no file of `snncc search` or is damaged ({first_line(error)}): make it with `snncc search`"
        ) from error


def _result(values: dict[str, Any]) -> SearchResult:
    if values["format"] != FORMAT:
        raise ValueError(f"its format is {str(values['format'])[:40]!r}, not {FORMAT!r}")
    layers = tuple(_layer(layer) for layer in values["layers"])
    names = [layer.name for layer in layers]
    if not names or len(set(names)) != len(names):
        raise ValueError("it has no layers, or two of one name")
    result = SearchResult(
        source={"name": _text(values["source"]["name"]), "sha256": _text(values["source"]["sha256"])},
        calibration={
            "samples": _count(values["calibration"]["samples"]),
            "fingerprint": _text(values["calibration"]["fingerprint"]),
        },
        config=Config(**values["config"]),
        options={str(k): _text(v) for k, v in values["options"].items()},
        metric=_text(values["metric"]),
        layers=layers,
        measured=tuple(_measurement(m, names) for m in values["measured"]),
        budget=Budget(**values["budget"]),
        assignment=_assignment(values["assignment"], names),
    )
    result.predicted(result.uniform, "spikes")  # raises where the uniform configuration was not scored
    return result


def _layer(values: dict[str, Any]) -> LayerTable:
    rows = values["candidates"]
    if len(rows) > MOST + 1:  # with the uniform configuration's own
        raise ValueError(f"a layer has {len(rows):,} candidates, more than {MOST:,}")
    candidates = tuple(_candidate(row["max_burst"], row["threshold_ratio"]) for row in rows)
    scores = tuple(Score(*(_number(row[k]) for k in ("loss", "spikes", "operations"))) for row in rows)
    return LayerTable(_text(values["name"]), candidates, scores)


def _measurement(values: dict[str, Any], names: list[str]) -> Measurement:
    agreement = values["agreement"]
    spikes = tuple(_number(value) for value in values["spikes"])
    if len(spikes) != len(names):
        raise ValueError("a simulation has not one count of spikes per layer")
    return Measurement(
        _assignment(values["assignment"], names),
        _number(values["loss"]),
        None if agreement is None else _number(agreement),
        spikes,
        _number(values["operations"]),
        _number(values["macs"]),
    )


def _assignment(rows: list[list[Any]], names: list[str]) -> Assignment:
    assignment = {_text(name): _candidate(max_burst, ratio) for name, max_burst, ratio in rows}
    if list(assignment) != names:
        raise ValueError("an assignment doesn't name every layer once")
    return assignment


def _candidate(max_burst: Any, ratio: Any) -> Candidate:
    return uniform_of(Config(max_burst=max_burst, threshold_ratio=ratio))  # checks types and ranges


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise TypeError(f"{str(value)[:40]!r} is no number that is positive or 0")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{str(value)[:40]!r} is no count")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")
