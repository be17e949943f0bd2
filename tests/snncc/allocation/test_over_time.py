"""The search over T: the cheapest of the results for each T, and what happens when none is good enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_network import SHAPE, small_model

import snncc
from snncc.allocation.over_time import search_timesteps
from snncc.allocation.result import Budget, SearchResult, UnmetError
from snncc.allocation.run import search
from snncc.errors import UsageError

MODEL = small_model()
IMAGES = 2 * np.random.default_rng(1).standard_normal((96, *SHAPE)).astype(np.float32)
CONFIG = snncc.Config(max_burst=3)
GRID = [(b, r) for b in (1, 2, 3, 5, 8) for r in (1.0, 1.5, 3.0)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))


def test_the_cheapest_timesteps_that_agree_enough_are_chosen() -> None:
    """Against a search for each T on its own."""
    budget, told = Budget("agreement", 90.0), {}
    options = {"calibration": IMAGES, "candidates": GRID, "simulate": 4}
    result = search_timesteps(MODEL, [1, 2, 4, 6], budget=budget, config=CONFIG, tell=told.__setitem__, **options)
    costs = {}
    for steps in (1, 2, 4, 6):
        config = snncc.Config(max_burst=3, timesteps=steps)
        try:
            alone = search(MODEL, budget=budget, config=config, **options)
        except UnmetError:
            assert isinstance(told[steps], UnmetError)
            continue
        chosen = alone.measurement(alone.assignment)
        assert chosen is not None
        assert chosen.agreement is not None
        assert chosen.agreement >= 0.9
        assert isinstance(told[steps], SearchResult)
        assert told[steps].assignment == alone.assignment
        costs[steps] = chosen.cost("spikes")
    assert len(costs) > 1
    assert result.config.timesteps == min(costs, key=costs.__getitem__)


def test_a_choice_better_than_the_uniform_configuration_is_found() -> None:
    """The target lies above what the same ψ everywhere reaches, so the search has to spend more."""
    config = snncc.Config(max_burst=1, timesteps=2)
    options = {"calibration": IMAGES, "candidates": [(b, 1.0) for b in (1, 2, 4, 8)], "config": config}
    uniform = search(MODEL, budget=Budget("relative", 1.0), simulate=1, **options).measured[0]
    assert uniform.agreement is not None
    result = search(MODEL, budget=Budget("agreement", 100 * uniform.agreement + 3), simulate=5, **options)
    chosen = result.measurement(result.assignment)
    assert chosen is not None
    assert (chosen.agreement or 0.0) >= uniform.agreement + 0.03 - 1e-9
    assert chosen.cost("spikes") > uniform.cost("spikes")


def test_what_no_timesteps_reach_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"at none of the timesteps 1, 2: no choice .* the nearest is [0-9.]+%"):
        search_timesteps(
            MODEL, [1, 2], budget=Budget("agreement", 100.0), config=CONFIG, calibration=IMAGES, candidates=GRID
        )


def test_only_a_target_that_means_the_same_at_any_t() -> None:
    with pytest.raises(UsageError, match="one target for all: give --min-agreement"):
        search_timesteps(MODEL, [1, 2], budget=Budget("max_drop", 1.0), calibration=IMAGES)
    with pytest.raises(UsageError, match="at most 100 per cent"):
        Budget("agreement", 100.5)


@pytest.mark.parametrize(
    ("timesteps", "message"),
    [
        (5, "timesteps is 5: it must be a sequence"),
        ([], "needs some of them"),
        ([2, 0], "timesteps is 0"),
        ([2, [1]], r"timesteps is \[1\]"),
        (["a"], "timesteps is 'a'"),
    ],
)
def test_timesteps_are_checked_before_any_is_tried(timesteps: Any, message: str) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a search was made")

    with pytest.raises(UsageError, match=message):
        search_timesteps(MODEL, timesteps, budget=Budget("agreement", 1.0), calibration=IMAGES, tell=never)


def test_other_arguments_are_checked() -> None:
    with pytest.raises(UsageError, match="give --min-agreement"):
        search_timesteps(MODEL, [1], budget=0.9, calibration=IMAGES)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="config is 'x'"):
        search_timesteps(MODEL, [1], budget=Budget("agreement", 1.0), config="x", calibration=IMAGES)  # type: ignore[arg-type]
