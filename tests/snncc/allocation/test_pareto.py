"""The Pareto front against enumeration of all choices and against scipy's mixed-integer solver."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import csr_matrix

from snncc.allocation import pareto
from snncc.allocation.pareto import Front, pareto_front, undominated
from snncc.errors import UsageError

Instance = tuple[list[np.ndarray], list[np.ndarray]]


def random_instance(seed: int) -> Instance:
    """1 to 8 layers of 1 to 8 candidates; every third instance has small whole numbers, so many ties."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, size=rng.integers(1, 9))
    if seed % 3 == 0:
        return [rng.integers(0, 6, k).astype(float) for k in sizes], [
            rng.integers(0, 6, k).astype(float) for k in sizes
        ]
    return [rng.lognormal(0, 1.5, k) for k in sizes], [rng.lognormal(0, 1.5, k) for k in sizes]


def least(minimised: list[np.ndarray], bounded: list[np.ndarray], budget: float) -> float | None:
    """The least sum of one list whose sum of the other is within the budget, by scipy; None if there is no choice."""
    count = sum(len(values) for values in minimised)
    one_each = np.zeros((len(minimised), count))
    start = 0
    for layer, values in enumerate(minimised):
        one_each[layer, start : start + len(values)] = 1
        start += len(values)
    result = milp(
        np.concatenate(minimised),
        integrality=np.ones(count),
        bounds=(0, 1),
        constraints=[
            LinearConstraint(csr_matrix(one_each), 1, 1),
            LinearConstraint(np.concatenate(bounded)[None], -np.inf, budget),
        ],
        options={"mip_rel_gap": 0.0},
    )
    return None if result.x is None else float(np.concatenate(minimised) @ np.round(result.x))


def check_choice(front: Front, point: int, costs: list[np.ndarray], losses: list[np.ndarray]) -> None:
    chosen = front.choice(point)
    assert sum(c[k] for c, k in zip(costs, chosen, strict=True)) == pytest.approx(front.cost[point], rel=1e-12)
    assert sum(s[k] for s, k in zip(losses, chosen, strict=True)) == pytest.approx(front.loss[point], rel=1e-12)


@pytest.mark.parametrize("block", range(25))
def test_equal_to_the_mixed_integer_solver(block: int) -> None:
    """1,000 problems in all: 20 tables, each with a budget on cost and one on loss.

    Budgets lie between points, where rounding is moot.
    """
    for seed in range(20 * block, 20 * (block + 1)):
        costs, losses = random_instance(seed)
        front = pareto_front(costs, losses)
        assert front.gap == 0.0
        rng = np.random.default_rng(seed + 10_000)
        low, high = sum(c.min() for c in costs), sum(c.max() for c in costs)
        budget = rng.uniform(low, high) + 1e-6 * high
        point = front.within_cost(budget)
        # The solver takes constraints as met within 1e-6 and whole numbers within 1e-6.
        assert front.loss[point] == pytest.approx(least(losses, costs, budget), rel=1e-6, abs=1e-9)
        check_choice(front, point, costs, losses)
        low, high = sum(s.min() for s in losses), sum(s.max() for s in losses)
        budget = rng.uniform(low, high) + 1e-6 * high
        point = front.within_loss(budget)
        assert front.cost[point] == pytest.approx(least(costs, losses, budget), rel=1e-6, abs=1e-9)
        check_choice(front, point, costs, losses)


@pytest.mark.parametrize("seed", range(30))
def test_front_is_what_enumeration_leaves(seed: int) -> None:
    costs, losses = random_instance(seed)
    costs, losses = costs[:4], losses[:4]
    front = pareto_front(costs, losses)
    assert (np.diff(front.cost) > 0).all()
    assert (np.diff(front.loss) < 0).all()
    every = {
        (round(sum(c), 9), round(sum(s), 9))
        for c, s in zip(itertools.product(*costs), itertools.product(*losses), strict=True)
    }
    best = {p for p in every if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in every)}
    assert {(round(c, 9), round(s, 9)) for c, s in zip(front.cost, front.loss, strict=True)} == best
    for point in range(len(front)):
        check_choice(front, point, costs, losses)


def test_undominated_keeps_one_of_equal_points() -> None:
    cost = np.array([2.0, 1.0, 1.0, 2.0, 3.0, 3.0, 0.5])
    loss = np.array([1.0, 2.0, 2.0, 1.0, 0.5, 0.0, 9.0])
    assert undominated(cost, loss).tolist() == [6, 1, 0, 5]


@pytest.mark.parametrize("limit", [2, 50, 400])
def test_a_thinned_front_keeps_its_promise(limit: int) -> None:
    rng = np.random.default_rng(3)
    costs = [rng.lognormal(0, 1, 12) for _ in range(16)]
    losses = [rng.lognormal(0, 0.3, 12) / c**2 for c in costs]
    losses[3][costs[3].argmax()] = 0.0
    exact, thin = pareto_front(costs, losses), pareto_front(costs, losses, limit=limit)
    assert exact.gap == 0.0
    assert len(thin) <= limit < len(exact)
    assert thin.gap > 0
    for budget in np.linspace(thin.cost[0], exact.cost[-1], 50):
        found, possible = thin.loss[thin.within_cost(budget)], exact.loss[exact.within_cost(budget)]
        assert possible <= found * (1 + 1e-12)
        assert found <= (1 + thin.gap) * possible * (1 + 1e-12)
    assert (np.diff(thin.cost) > 0).all()
    assert (np.diff(thin.loss) < 0).all()


@pytest.mark.parametrize("sums", [1, 7, 100])
def test_a_front_merged_in_parts_is_the_same(sums: int, monkeypatch: pytest.MonkeyPatch) -> None:
    instances = [random_instance(seed) for seed in range(60)]
    whole = [pareto_front(*instance) for instance in instances]
    monkeypatch.setattr(pareto, "_MOST_SUMS", sums)
    for instance, expected in zip(instances, whole, strict=True):
        front = pareto_front(*instance)
        assert front.gap == 0.0
        np.testing.assert_array_equal(front.cost, expected.cost)
        np.testing.assert_array_equal(front.loss, expected.loss)
        assert [front.choice(p) for p in range(len(front))] == [expected.choice(p) for p in range(len(front))]


def test_a_front_thinned_in_parts_keeps_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    costs = [rng.lognormal(0, 1, 40) for _ in range(8)]
    losses = [rng.lognormal(0, 0.1, 40) / c for c in costs]
    exact = pareto_front(costs, losses)
    monkeypatch.setattr(pareto, "_MOST_SUMS", 1000)
    thin = pareto_front(costs, losses, limit=300)
    assert exact.gap == 0.0
    assert len(thin) <= 300 < len(exact)
    for budget in np.linspace(thin.cost[0], exact.cost[-1], 50):
        found, possible = thin.loss[thin.within_cost(budget)], exact.loss[exact.within_cost(budget)]
        assert possible * (1 - 1e-12) <= found <= (1 + thin.gap) * possible * (1 + 1e-12)
    for point in range(len(thin)):
        check_choice(thin, point, costs, losses)


def test_memory_is_bounded_for_many_candidates_and_for_many_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is beaten here: the sums of the second layer alone would be 9 million numbers, 72 MB each."""
    monkeypatch.setattr(pareto, "_MOST_SUMS", 1 << 16)
    monkeypatch.setattr(pareto, "_MOST_KEPT", 6000)
    cost = np.sort(np.random.default_rng(5).uniform(size=3000))
    tracemalloc.start()
    try:
        front = pareto_front([cost, cost + 1], [1 - cost, 1 / (1 + cost)])
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert len(front) <= 3000
    few = pareto_front([np.arange(1.0, 20.0)] * 600, [1 / np.arange(1.0, 20.0)] * 600)
    assert len(few) <= 10


def test_budgets_on_a_point_and_out_of_reach() -> None:
    front = pareto_front([np.array([1.0, 2.0]), np.array([1.0, 4.0])], [np.array([3.0, 1.0]), np.array([5.0, 0.0])])
    assert list(zip(front.cost, front.loss, strict=True)) == [(2.0, 8.0), (3.0, 6.0), (5.0, 3.0), (6.0, 1.0)]
    assert [front.within_cost(b) for b in (2.0, 2.9, 3.0, 5.5, 6.0, 99.0)] == [0, 0, 1, 2, 3, 3]
    assert [front.within_loss(b) for b in (1.0, 2.9, 3.0, 6.5, 8.0, 99.0)] == [3, 3, 2, 1, 0, 0]
    with pytest.raises(UsageError, match=r"no choice costs 1\.5 or less: the cheapest one costs 2;"):
        front.within_cost(1.5)
    with pytest.raises(UsageError, match=r"no choice loses 0\.5 or less: the best one loses 1;"):
        front.within_loss(0.5)


@pytest.mark.parametrize(
    ("costs", "losses", "message"),
    [
        ([], [], "the network has no neurons to choose ψ and τ for"),
        ([], [[1.0]], "0 layers have costs and 1 have losses"),
        ([[1.0]], [[1.0], [2.0]], "1 layers have costs and 2 have losses"),
        ([[1.0, 2.0]], [[1.0]], "layer 0 has 2 costs and 1 losses"),
        ([[]], [[]], "layer 0 has 0 costs"),
        ([[1.0]], [[float("nan")]], "layer 0 has a loss that is negative or not finite"),
        ([[1.0], [-1.0]], [[1.0], [1.0]], "layer 1 has a cost that is negative or not finite"),
    ],
)
def test_values_that_make_no_sense_are_refused(
    costs: list[list[float]], losses: list[list[float]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pareto_front([np.array(c) for c in costs], [np.array(s) for s in losses])
