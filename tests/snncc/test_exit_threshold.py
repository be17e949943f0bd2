"""The threshold of early exit, against every threshold tried by hand."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import NETWORKS, compiled, inputs_of

from snncc.errors import UsageError
from snncc.evaluate import evaluate
from snncc.exit_threshold import choose, outcome
from snncc.runtime.early_exit import EarlyExit


def by_hand(sure: np.ndarray, said: np.ndarray, threshold: float) -> tuple[float, float]:
    steps, other = 0, 0
    for i in range(sure.shape[1]):
        t = next((t for t in range(len(sure) - 1) if sure[t, i] >= threshold), len(sure) - 1)
        steps += t + 1
        other += int(said[t, i] != said[-1, i])
    return steps / sure.shape[1], other / sure.shape[1]


@pytest.mark.parametrize("max_drop", [0.0, 0.02, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_is_the_lowest_that_keeps_the_agreement(seed: int, max_drop: float) -> None:
    rng = np.random.default_rng(seed)
    sure = np.clip(rng.uniform(0, 1, (5, 60)) + np.linspace(-0.3, 0.3, 5)[:, None], 0, 1)
    said = np.where(rng.uniform(0, 1, sure.shape) < sure, 1, 0)
    threshold, steps, other = choose(sure, said, max_drop)
    assert (steps, other) == pytest.approx(by_hand(sure, said, threshold))
    assert other <= max_drop
    tried = sorted({*sure[:-1].flat} - {0.0}, reverse=True)
    allowed = []
    for candidate in tried:
        if by_hand(sure, said, candidate)[1] > max_drop:
            break
        allowed.append(candidate)
    assert threshold == (allowed[-1] if allowed else pytest.approx(1.0))
    if not allowed:
        assert threshold > 1


def test_one_timestep_leaves_nothing_to_save() -> None:
    threshold, steps, other = choose(np.full((1, 3), 0.5), np.zeros((1, 3), np.int64), 1.0)
    assert threshold > 1
    assert (steps, other) == (1.0, 0.0)


def test_outcome_counts_from_one() -> None:
    sure = np.array([[0.9, 0.1, 0.1], [0.9, 0.8, 0.2], [0.9, 0.9, 0.3]])
    said = np.array([[0, 1, 1], [1, 1, 1], [1, 1, 1]])
    assert outcome(sure, said, 0.5) == (pytest.approx(2.0), pytest.approx(1 / 3))


@pytest.mark.parametrize("measure", ["margin", "max", "entropy"])
def test_holds_what_it_promises_on_its_own_data(measure: str) -> None:
    model = NETWORKS["plain"].model()
    network = compiled(model, timesteps=6, max_burst=2)
    feeds = inputs_of(model, 300, seed=4)
    found = network.exit_rule(feeds, 5.0, measure=measure)
    assert found.samples == 300
    assert (found.rule.measure, found.rule.output) == (measure, "y")
    assert 0 < found.disagreement <= 0.05
    outputs, exits = network.run_early(feeds, found.rule)
    assert exits.mean() == pytest.approx(found.mean_timesteps, rel=1e-12)
    assert found.mean_timesteps < 6
    assert (outputs["y"].argmax(1) != network.run(feeds)["y"].argmax(1)).mean() == found.disagreement


def test_an_evaluation_says_when_samples_left() -> None:
    model = NETWORKS["plain"].model()
    network = compiled(model, timesteps=6, max_burst=2)
    feeds = inputs_of(model, 200, seed=4)
    rule = network.exit_rule(feeds, 2.0).rule
    full, early = evaluate(network, feeds, ann=model), evaluate(network, feeds, ann=model, early_exit=rule)
    outputs, exits = network.run_early(feeds, EarlyExit(rule.confidence))
    assert early.exits == tuple(np.bincount(exits - 1, minlength=6).tolist())
    assert full.exits is None
    assert early.reading.mean_timesteps == exits.mean()
    assert full.reading.mean_timesteps == 6
    assert early.reading.spikes < full.reading.spikes
    assert early.agreement_by_timestep is not None
    assert early.agreement == early.agreement_by_timestep[-1]
    with pytest.raises(UsageError, match="backend fused only"):
        evaluate(network, feeds, backend="ort", early_exit=rule)
    with pytest.raises(UsageError, match="max_drop is 200 points"):
        network.exit_rule(feeds, 200)
    del outputs
