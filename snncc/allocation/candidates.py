"""What the search chooses from: pairs of ψ and τ."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

from snncc.config import Config
from snncc.errors import UsageError


class Candidate(NamedTuple):
    """Burst ψ and threshold ratio τ of one layer."""

    max_burst: int
    threshold_ratio: float


def uniform_of(config: Config) -> Candidate:
    """Return the ψ and τ that a configuration gives to every layer."""
    return Candidate(config.max_burst, config.threshold_ratio)


MOST = 1000
"""Candidates that one layer may have; the search adds the uniform configuration's own."""
BURSTS = tuple(range(1, 17))
"""ψ of burst-spike reallocation (BSR)."""
RATIOS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.25, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0)
"""τ of sensitivity spike compression (SSC). The paper goes from 1 to 10 in steps of 0.5; there are as many here, closer
together near 1, as few layers can afford half as large a threshold again, and nearly all can afford some of it."""
_JOINT_BURSTS = (1, 2, 3, 4, 6, 8, 12, 16)
_JOINT_RATIOS = (1.0, 1.25, 1.5, 2.0)
_COARSE_RATIOS = (3.0, 5.0, 10.0)


def bursts(threshold_ratio: float = 1.0, values: Iterable[int] = BURSTS) -> tuple[Candidate, ...]:
    """Return the candidates of BSR: every ψ at one τ."""
    return tuple(Candidate(value, threshold_ratio) for value in values)


def ratios(max_burst: int, values: Iterable[float] = RATIOS) -> tuple[Candidate, ...]:
    """Return the candidates of SSC: every τ at one ψ."""
    return tuple(Candidate(max_burst, float(value)) for value in values)


def pairs(max_burst: int) -> tuple[Candidate, ...]:
    """Return the candidates of the joint search around one ψ: about as many as BSR and SSC have together."""
    each = (Candidate(burst, ratio) for burst in _JOINT_BURSTS for ratio in _JOINT_RATIOS)
    return joined(each, ratios(max_burst, (*_JOINT_RATIOS, *_COARSE_RATIOS)))


def joined(*parts: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates of all parts, each once, in order."""
    return tuple(dict.fromkeys(candidate for part in parts for candidate in part))


def checked(candidates: Any) -> tuple[Candidate, ...]:
    """Return pairs (ψ, τ) as a caller gave them; whole numbers and numbers may be NumPy's.

    Raises:
        UsageError: they are no pairs, out of range, or more than `MOST`.
    """
    try:
        given = list(islice(candidates, MOST + 1))
    except TypeError:
        raise UsageError(f"candidates is {candidates!r}: it must be a sequence of pairs (ψ, τ)") from None
    if len(given) > MOST:
        raise UsageError(f"there are more than {MOST:,} candidates: leave some away")
    return tuple(_checked(pair) for pair in given)


def _checked(pair: Any) -> Candidate:
    try:
        max_burst, ratio = pair
    except (TypeError, ValueError):
        raise UsageError(f"the candidate {pair!r} is no pair (ψ, τ)") from None
    try:
        return uniform_of(Config(max_burst=max_burst, threshold_ratio=ratio))
    except UsageError as error:
        raise UsageError(f"the candidate {pair!r}: {error}") from error
