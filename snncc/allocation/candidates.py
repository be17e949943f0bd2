"""What the search chooses from: pairs of ψ and τ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Candidate(NamedTuple):
    """Burst ψ and threshold ratio τ of one layer."""

    max_burst: int
    threshold_ratio: float


BURSTS = tuple(range(1, 17))
"""ψ of burst-spike reallocation (BSR)."""
RATIOS = tuple(float(ratio) for ratio in np.arange(1.0, 10.25, 0.5))
"""τ of sensitivity spike compression (SSC)."""


def bursts(threshold_ratio: float = 1.0, values: Iterable[int] = BURSTS) -> tuple[Candidate, ...]:
    """Return the candidates of BSR: every ψ at one τ."""
    return tuple(Candidate(value, threshold_ratio) for value in values)


def ratios(max_burst: int, values: Iterable[float] = RATIOS) -> tuple[Candidate, ...]:
    """Return the candidates of SSC: every τ at one ψ."""
    return tuple(Candidate(max_burst, float(value)) for value in values)


def joined(*parts: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates of all parts, each once, in order."""
    return tuple(dict.fromkeys(candidate for part in parts for candidate in part))
