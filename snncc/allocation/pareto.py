"""One candidate per layer: the exact Pareto front of summed cost against summed loss, by dynamic programming.

This is the multiple-choice knapsack problem. A partial choice for the first l layers that costs no less and loses no
less than another can't be part of a better whole, whatever the other layers choose. So the front of l + 1 layers lies
among the sums of the points of the front of l layers with the candidates of layer l + 1: merged in the order of their
cost, and pruned. Costs are real numbers throughout; nothing is rounded to a grid.

A front of many layers may hold more points than anybody wants to keep. Above a limit it is thinned: of points whose
losses differ by less than a factor 1 + ε the cheapest is kept. Then for every budget the loss that is found is at most
(1 + gap) times the least possible one, with 1 + gap the product of the factors; `gap` is 0 where the front is exact.

Memory is bounded whatever the numbers of candidates and layers are, as both may come from a file of somebody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.errors import UsageError

LIMIT = 1 << 17
"""Points of a front that are kept, unless the caller says otherwise: some 20 MB for 20 layers."""
_MOST_SUMS = 1 << 23
"""Sums that are held at once, some 400 MB: of 64 candidates with a front of `LIMIT` points."""
_MOST_KEPT = 1 << 27
"""Points that the fronts of all layers hold together, 1 GB: `LIMIT` for each of a thousand layers."""
_TIGHTER = 1.5  # a thinning that still leaves too many points is repeated with ε this much larger

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Front:
    """Every choice of one candidate per layer that is not beaten in both cost and loss.

    Attributes:
        cost: summed cost, float64 [P], ascending.
        loss: summed loss, float64 [P], descending.
        gap: 0 where the front is exact; else for any budget the loss found is at most (1 + gap) times the least.
    """

    cost: NDArray[np.float64]
    loss: NDArray[np.float64]
    gap: float
    _origins: tuple[tuple[NDArray[np.int32], NDArray[np.int32]], ...]

    def __len__(self) -> int:
        return len(self.cost)

    def choice(self, point: int) -> tuple[int, ...]:
        """Return the candidate of each layer at a point of the front."""
        chosen: list[int] = []
        for before, candidate in reversed(self._origins):
            chosen.append(int(candidate[point]))
            point = int(before[point])
        return tuple(reversed(chosen))

    def within_cost(self, budget: float) -> int:
        """Return the point of least loss whose cost is within a budget.

        Raises:
            UsageError: there is none; the message names the least cost.
        """
        point = int(np.searchsorted(self.cost, budget, side="right")) - 1
        if point < 0:
            raise UsageError(
                f"no choice costs {budget:.6g} or less: the cheapest one costs {self.cost[0]:.6g}; raise the budget to "
                "that, or allow larger threshold ratios or fewer timesteps"
            )
        return point

    def within_loss(self, budget: float) -> int:
        """Return the cheapest point whose loss is within a budget.

        Raises:
            UsageError: there is none; the message names the least loss.
        """
        point = int(np.searchsorted(-self.loss, -budget, side="left"))
        if not point < len(self.loss):
            raise UsageError(
                f"no choice loses {budget:.6g} or less: the best one loses {self.loss[-1]:.6g}; raise the budget to "
                "that, or allow larger bursts or more timesteps"
            )
        return point


def pareto_front(costs: Sequence[Floats], losses: Sequence[Floats], limit: int = LIMIT) -> Front:
    """Return the Pareto front of choosing one candidate per layer.

    Args:
        costs: per layer, the cost of each candidate, [K], finite and not negative.
        losses: per layer, the loss of each candidate, [K], finite and not negative.
        limit: most points to keep, at least 2; fewer are kept where there are more than a thousand layers.

    Raises:
        UsageError: a layer has no candidates, or a value is negative or not finite.
    """
    _check(costs, losses, limit)
    limit = max(2, min(limit, _MOST_KEPT // len(costs)))
    cost, loss, factor = np.zeros(1), np.zeros(1), 1.0
    origins: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    for layer_cost, layer_loss in zip(costs, losses, strict=True):
        # Candidates that are beaten within their layer are beaten in every choice.
        own = undominated(np.asarray(layer_cost, np.float64), np.asarray(layer_loss, np.float64))
        points, own_cost, own_loss = len(cost), np.asarray(layer_cost, np.float64), np.asarray(layer_loss, np.float64)
        merged, number = (np.empty(0), np.empty(0)), np.empty(0, np.intp)
        at_once = max(1, _MOST_SUMS // points)
        for start in range(0, len(own), at_once):
            part = own[start : start + at_once]
            all_cost = np.concatenate((merged[0], np.add.outer(own_cost[part], cost).ravel()))
            all_loss = np.concatenate((merged[1], np.add.outer(own_loss[part], loss).ravel()))
            kept = undominated(all_cost, all_loss)
            if len(kept) > limit:
                thin, more = _thin(all_loss[kept], limit)
                kept, factor = kept[thin], factor * more
            merged = all_cost[kept], all_loss[kept]
            number = np.concatenate((number, start * points + np.arange(len(part) * points)))[kept]
        candidate, before = np.divmod(number, points)
        origins.append((before.astype(np.int32), own[candidate].astype(np.int32)))
        cost, loss = merged
    return Front(cost, loss, factor - 1.0, tuple(origins))


def undominated(cost: NDArray[np.float64], loss: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices of the points that no other point beats, by ascending cost; of equal points, the first."""
    order = np.argsort(cost, kind="stable")
    lowest = np.minimum.accumulate(loss[order])
    better = np.ones(len(order), bool)
    better[1:] = lowest[1:] < lowest[:-1]
    order = order[better]
    # Of points of the same cost the last one that was better is the best.
    last = np.ones(len(order), bool)
    last[:-1] = cost[order[1:]] > cost[order[:-1]]
    return order[last]


def _thin(loss: NDArray[np.float64], limit: int) -> tuple[NDArray[np.intp], float]:
    """Return which points of a front (losses descending) to keep, and the factor that this may cost."""
    positive = loss[loss > 0]
    span = float(np.log(positive[0] / positive[-1]))
    epsilon = span / limit
    while True:
        # A bucket holds losses within a factor 1 + ε; its first point, the cheapest, stands for the others.
        bucket = np.full(len(loss), -1.0)
        bucket[: len(positive)] = np.floor(np.log(positive / positive[-1]) / epsilon)
        first = np.ones(len(loss), bool)
        first[1:] = bucket[1:] < bucket[:-1]
        kept = np.flatnonzero(first)
        if len(kept) <= limit:
            return kept, float(np.exp(epsilon))
        epsilon *= _TIGHTER


def _check(costs: Sequence[Floats], losses: Sequence[Floats], limit: int) -> None:
    if limit < 2:
        raise UsageError(f"the limit of a front is {limit}: it must be at least 2")
    if not costs and not losses:
        raise UsageError(
            "the network has no neurons to choose ψ and τ for: nothing in it would spike, so run it as it is"
        )
    if len(costs) != len(losses):
        raise UsageError(f"{len(costs)} layers have costs and {len(losses)} have losses: give both for each layer")
    for layer, (cost, loss) in enumerate(zip(costs, losses, strict=True)):
        if len(cost) != len(loss) or len(cost) == 0:
            raise UsageError(f"layer {layer} has {len(cost)} costs and {len(loss)} losses: give one per candidate")
        for what, values in (("cost", np.asarray(cost)), ("loss", np.asarray(loss))):
            if not np.isfinite(values).all() or (values < 0).any():
                raise UsageError(f"layer {layer} has a {what} that is negative or not finite: check what measured it")
