"""What a run gave, where the outputs themselves are not kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from snncc.data.spec import format_shape
from snncc.report.text import clean, number, table

SHOWN = 16
"""Classes listed per output."""


def describe_outputs(outputs: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Any]]:
    """Return shape, dtype and range of each output; of class scores [N, K] (K >= 2) also the first classes."""
    return {name: _describe(value) for name, value in outputs.items()}


def _describe(value: NDArray[Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"shape": list(value.shape), "dtype": str(value.dtype)}
    if value.size and value.dtype.kind in "fiub":
        facts |= {"min": value.min().item(), "max": value.max().item(), "mean": float(value.mean(dtype=np.float64))}
    if value.ndim == 2 and value.shape[1] >= 2 and value.dtype.kind == "f":
        facts["classes"] = [int(c) for c in value[:SHOWN].argmax(axis=-1)]
    return facts


def output_table(described: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a row per output."""
    made = table("output", "type", "shape", "min", "mean", "max", "first classes", right=("min", "mean", "max"))
    for name, facts in described.items():
        classes = facts.get("classes", [])
        more = " …" if classes and facts["shape"][0] > len(classes) else ""
        numbers = [number(facts.get(key)) for key in ("min", "mean", "max")]
        listed = " ".join(str(c) for c in classes) + more
        made.add_row(clean(name), facts["dtype"], format_shape(facts["shape"]), *numbers, listed)
    return made
