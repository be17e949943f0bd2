"""Points around a budget are simulated until one spends it, and no longer."""

from __future__ import annotations

from dataclasses import replace

import pytest

import snncc
from snncc.allocation.candidates import Candidate
from snncc.allocation.probe import approach, compress
from snncc.allocation.result import Assignment, Budget, LayerTable, Measurement, SearchResult
from snncc.allocation.sensitivity import Score

CANDIDATES = tuple(Candidate(burst, 1.0) for burst in range(1, 17))
BUDGET = Budget("relative", 0.8)


def table(name: str, first: float) -> LayerTable:
    """A layer whose candidates cost more, in small steps, the less they lose."""
    scores = tuple(Score(1.0 / (k + 1), first + 3.0 * k, first + 3.0 * k) for k in range(len(CANDIDATES)))
    return LayerTable(name, CANDIDATES, scores)


class Network:
    """Stands for the real one: it spends `factor` times what is predicted of whatever isn't uniform."""

    def __init__(self, factor: float, losses: list[float], max_burst: int = 12) -> None:
        self.factor, self.losses, self.costs = factor, losses, list[float]()
        layers = (table("a", 90.0), table("b", 100.0), table("c", 110.0))
        plain = SearchResult({}, {}, snncc.Config(timesteps=2, max_burst=max_burst), {}, "symmetric_kl", layers)
        spikes = tuple(layer.scores[max_burst - 1].spikes for layer in layers)
        self.result = SearchResult(
            plain.source,
            plain.calibration,
            plain.config,
            plain.options,
            plain.metric,
            layers,
            (Measurement(plain.uniform, 0.5, 1.0, spikes, sum(spikes), 0.0),),
        )
        self.limit = self.result.cost_of(BUDGET)

    def measure(self, assignment: Assignment) -> Measurement:
        spent = self.factor * self.result.predicted(assignment, "spikes")[0]
        self.costs.append(spent / self.limit)
        loss = self.losses[min(len(self.costs), len(self.losses)) - 1]
        return Measurement(assignment, loss, 1.0, (spent,), spent, 0.0)


@pytest.mark.parametrize("factor", [0.95, 1.0, 1.05])
def test_a_point_that_spends_the_budget_ends_it(factor: float) -> None:
    network = Network(factor, [0.4, 0.3])
    approach(network.result, BUDGET, 5, network.measure)
    assert len(network.costs) == (1 if factor == 1 else 2)
    assert 0.98 <= network.costs[-1] <= 1


def test_one_that_loses_more_than_a_cheaper_one_does_not() -> None:
    network = Network(0.95, [0.3, 0.4, 0.35, 0.2, 0.1])
    approach(network.result, BUDGET, 5, network.measure)
    assert len(network.costs) == 4
    assert network.costs[0] < 0.98
    assert all(0.98 <= cost <= 1 for cost in network.costs[1:])


def test_it_goes_on_until_one_is_within_the_budget() -> None:
    network = Network(1.0, [0.4])
    network.factor = 1.6  # below what any choice is predicted to cost
    approach(network.result, BUDGET, 2, network.measure)
    assert len(network.costs) == 5
    assert min(network.costs) > 1
    assert network.costs[-1] == pytest.approx(1.6 * 300 / network.limit)


def test_a_cost_that_no_choice_changes_is_not_spent() -> None:
    """Nearly all of this budget of energy goes to multiply-accumulates."""
    network = Network(0.6, [0.4, 0.3])
    uniform = network.result.measured[0]
    macs = 1000 * sum(uniform.spikes)
    network.result = replace(network.result, measured=(replace(uniform, macs=macs),))
    fixed = network.result.fixed_cost("energy")
    limit = fixed + 0.9 * (network.result.predicted(network.result.uniform, "energy")[0] - fixed)

    def measure(assignment: Assignment) -> Measurement:
        return replace(network.measure(assignment), macs=macs, loss=0.5 - 0.01 * len(network.costs))

    approach(network.result, Budget("energy", limit), 5, measure)
    assert len(network.costs) > 1


class Lossy(Network):
    """Loses `factor` times what is predicted of whatever isn't uniform, give or take, and agrees if it loses little."""

    def __init__(self, factor: float, scatter: float = 0.0, agrees_below: float = 1.0) -> None:
        super().__init__(1.0, [], max_burst=5)
        uniform = self.result.measured[0]
        self.factor, self.scatter, self.agrees_below = factor, scatter, agrees_below
        self.whole, self.real = self.result.predicted(uniform.assignment, "spikes")[1], uniform.loss
        self.tried: list[Measurement] = []

    def measure(self, assignment: Assignment) -> Measurement:
        cost, loss = self.result.predicted(assignment, "spikes")
        swing = 1 + self.scatter * (-1) ** len(self.tried)
        loss *= self.factor * swing * self.real / self.whole
        agreement = 1.0 if loss <= self.agrees_below * self.real else 0.9
        self.tried.append(Measurement(assignment, loss, agreement, (cost,), 0.0, 0.0))
        return self.tried[-1]


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.2, 1.8])
@pytest.mark.parametrize("scatter", [0.0, 0.05])
@pytest.mark.parametrize("share", [0.8, 0.95, 1.5])
def test_a_budget_on_loss_is_found_from_both_sides(factor: float, scatter: float, share: float) -> None:
    network = Lossy(factor, scatter)
    front = network.result.front("spikes")
    compress(network.result, Budget("loss", share), 6, network.measure)
    within = [m for m in network.tried if m.loss <= share * network.real]
    assert within
    cheapest = min(sum(m.spikes) for m in within)
    ideal = float(front.cost[front.within_loss(min(share / factor * network.whole, float(front.loss[0])))])
    assert cheapest <= ideal * (1.01 + 2 * scatter)


def test_a_choice_that_agrees_less_often_is_not_enough() -> None:
    network = Lossy(1.0, agrees_below=0.9)
    compress(network.result, Budget("loss", 0.95), 6, network.measure)
    assert any(m.loss <= 0.9 * network.real for m in network.tried)
    free = Lossy(1.0, agrees_below=0.9)
    compress(free.result, Budget("loss", 1.05), 6, free.measure)
    assert min(m.loss for m in free.tried) > min(m.loss for m in network.tried)


def test_where_nothing_is_within_a_budget_on_loss_the_least_is_tried() -> None:
    network = Lossy(50.0)
    compress(network.result, Budget("loss", 0.5), 3, network.measure)
    assert network.tried[-1].assignment == network.result.at(len(network.result.front("spikes")) - 1, "spikes")
