"""Which outputs hold class scores."""

from __future__ import annotations

from collections.abc import Mapping

from snncc.runtime.session import Array


def class_outputs(outputs: Mapping[str, Array], samples: int) -> list[str]:
    """Return the names of the outputs that hold class scores: floating-point numbers [N, K], K >= 2, in order."""
    return [
        name
        for name, value in outputs.items()
        if value.ndim == 2 and len(value) == samples and value.shape[1] > 1 and value.dtype.kind == "f"
    ]
