"""Which points of the front are simulated: those around a budget, each where what was measured before says it lies.

Predicted costs and losses are off by factors that change little from one point to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from snncc.allocation.pareto import Front
from snncc.allocation.result import NEAR, SLACK, Assignment, Budget, Measurement, SearchResult

_STEP, _APART = 1.02, 1.015
"""Predicted losses of points that are simulated differ by this factor; they are looked for in such steps."""
_LEAST_SHARE = 1e-3
"""A front may begin at no cost at all, which no bisection gets away from: it begins here instead."""

Measure = Callable[[Assignment], Measurement]
"""Simulates a choice, unless it has been."""


def approach(result: SearchResult, budget: Budget, count: int, measure: Measure) -> None:
    """Simulate choices whose real cost comes as near to a budget as the front allows, from below.

    The first that spends nearly all of what the budget leaves to choices, and loses less than all others within it,
    ends that. If none of `count` is within the budget, it takes up to as many more; then the cheapest one.
    """
    kind, limit, fixed = budget.counted, result.cost_of(budget), result.fixed_cost(budget.counted)
    least = fixed + float(result.front(kind).cost[0])
    within = [m.loss for m in result.measured if m.cost(kind) <= limit * SLACK]
    target, met = limit, False
    for number in range(2 * count):
        if number >= count and met:
            return
        point = measure(result.predict_best(max(target, least), kind))
        spent = point.cost(kind)
        if spent <= limit * SLACK:
            if spent - fixed >= NEAR * (limit - fixed) and point.loss < min(within, default=float("inf")):
                return
            within.append(point.loss)
            met = True
        target = nearer(result, kind, target, limit, spent, 1.0 - 0.002 * (number + 1))
    if not met:
        measure(result.at(0, kind))


def nearer(result: SearchResult, kind: str, target: float, limit: float, spent: float, aim: float = 0.998) -> float:
    """Return the predicted cost to ask for next: the prediction is off by a factor that changes little.

    Args:
        result: the search, whose front gives the range.
        kind: what is counted, one of `COSTS`; all costs are with what no choice changes.
        target: the predicted cost that was asked for last.
        limit: the budget.
        spent: what the choice for `target` costs in simulation.
        aim: share of the budget to aim at.
    """
    fixed, cost = result.fixed_cost(kind), result.front(kind).cost
    share = (spent - fixed) / max(limit - fixed, 1e-30)
    return fixed + float(np.clip((target - fixed) * aim / max(share, 1e-3), cost[0], cost[-1]))


def compress(result: SearchResult, budget: Budget, count: int, measure: Measure) -> None:
    """Simulate choices whose real loss is about a budget on loss, by what all of them before lost.

    The real loss is the predicted one times a factor, and scatters around that by some ten per cent: so points are
    tried on both sides of where the budget should be, at a distance. If none of them is within it, and the uniform
    configuration isn't either, then the one of least loss.
    """
    kind, front = budget.counted, result.front(budget.counted)
    uniform = result.measured[0].loss
    limit = budget.value * uniform
    tried: dict[int, float] = {}
    met, target, step = budget.value >= 1, budget.value * result.predicted(result.uniform, kind)[1], 1 / _STEP
    for _ in range(count):
        number = _untried(front, target, step, tried)
        if number is None:
            break
        point = measure(result.at(number, kind))
        tried[number], within = point.loss, point.loss <= limit * SLACK
        met |= within
        agrees = budget.value > 1 or point.agrees_like(result.measured[0])
        step = _STEP if within and agrees else 1 / _STEP
        factors = [real / float(front.loss[n]) for n, real in tried.items() if real > 0 and front.loss[n] > 0]
        target = limit / float(np.exp(np.mean(np.log(factors)))) if factors else limit
    if not met:
        measure(result.at(len(front) - 1, kind))


def _untried(front: Front, target: float, step: float, tried: Iterable[int]) -> int | None:
    """Return the cheapest point within a loss that isn't near one that was tried, or the next such by steps."""
    known = [float(front.loss[n]) for n in tried]
    low, high = float(front.loss[-1]), float(front.loss[0])
    target = float(np.clip(target, low, high))
    while low <= target <= high:
        number = front.within_loss(target)
        loss = float(front.loss[number])
        if number not in tried and all(max(loss, k) >= min(loss, k) * _APART for k in known):
            return number
        target = step * target if target > 0 else -1.0
    return None


def bisect(result: SearchResult, budget: Budget, count: int, measure: Measure) -> None:
    """Look for the cheapest point of the front whose simulated agreement is still good enough."""
    kind = budget.counted
    front = result.front(kind)
    baseline, least = result.measured[0], result.least_agreement(budget)
    low, most = float(front.cost[0]), float(front.cost[-1])
    high = float(np.clip(baseline.cost(kind) - result.fixed_cost(kind), low, most))
    if (baseline.agreement or 0.0) < least:
        low, high = high, most
    for _ in range(count):
        middle = float(np.sqrt(max(low, _LEAST_SHARE * high) * max(high, low)))
        point = measure(result.at(front.within_cost(max(middle, float(front.cost[0]))), kind))
        if (point.agreement or 0.0) >= least - 1e-12:
            high = middle
        else:
            low = middle
