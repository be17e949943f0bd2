"""Candidates as a caller gives them: what comes out as pairs, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from snncc.allocation.candidates import MOST, Candidate, checked
from snncc.errors import UsageError


@pytest.mark.parametrize(
    "given",
    [
        [(4, 1), (2, 1.5)],
        ((4, 1.0), [2, 1.5]),
        iter([(4, 1.0), (2, 1.5)]),
        [(np.int64(4), np.float64(1.0)), (np.uint8(2), np.float32(1.5))],
        [Candidate(4, 1.0), Candidate(2, 1.5)],
    ],
)
def test_pairs_of_plain_numbers_come_out(given: Any) -> None:
    found = checked(given)
    assert found == (Candidate(4, 1.0), Candidate(2, 1.5))
    assert [[type(value) for value in pair] for pair in found] == [[int, float], [int, float]]


@pytest.mark.parametrize("given", [5, None, True])
def test_what_is_no_sequence(given: Any) -> None:
    with pytest.raises(UsageError, match=r"it must be a sequence of pairs \(ψ, τ\)"):
        checked(given)


@pytest.mark.parametrize("pair", [(4,), (4, 1.0, 2), 4, None, "a"])
def test_what_is_no_pair(pair: Any) -> None:
    with pytest.raises(UsageError, match=r"is no pair \(ψ, τ\)"):
        checked([(4, 1.0), pair])


@pytest.mark.parametrize("burst", [0, 256, 4.7, 4.0, float("inf"), "a", None, True, 10**400])
def test_bursts_out_of_range(burst: Any) -> None:
    with pytest.raises(UsageError, match="max_burst is"):
        checked([(burst, 1.0)])


@pytest.mark.parametrize("ratio", [0.5, float("nan"), float("inf"), 1e7, 10**400, "1", None, True, 1j])
def test_ratios_out_of_range(ratio: Any) -> None:
    with pytest.raises(UsageError, match="threshold_ratio is"):
        checked([(4, ratio)])


def test_there_may_be_so_many() -> None:
    assert len(checked(itertools.repeat((4, 1.0), MOST))) == MOST
    with pytest.raises(UsageError, match="more than 1,000 candidates"):
        checked(itertools.repeat((4, 1.0)))
