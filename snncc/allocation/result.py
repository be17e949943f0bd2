"""The result of a search: what each candidate does, what was simulated, and which choice any budget gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.allocation.candidates import Candidate, uniform_of
from snncc.allocation.pareto import Front, pareto_front
from snncc.allocation.sensitivity import Score
from snncc.config import Config
from snncc.errors import UsageError
from snncc.runtime.meter import CMOS_45NM

Assignment = dict[str, Candidate]
"""ψ and τ by the name of the layer's node."""

COSTS = ("spikes", "operations", "energy")
"""What a budget may be counted in: spikes, synaptic operations, or joules in the 45 nm profile; per sample."""
ON_AGREEMENT = ("max_drop", "agreement")
"""Kinds of budget on the agreement with the ANN, which only simulated points can meet."""
NEAR = 0.98
"""A simulated point that spends at least this share of a budget is preferred to one that was only predicted."""
SLACK = 1 + 1e-9
"""A budget is kept up to this factor: sums of the same costs in another order differ by rounding."""
_UNITS = {"spikes": "spikes", "operations": "synaptic operations", "energy": "J"}


class UnmetError(UsageError):
    """No choice is within the budget, in simulation or, where there was none, as predicted."""


@dataclass(frozen=True)
class Budget:
    """How much may be spent, or lost.

    Attributes:
        kind: "relative" (to the uniform configuration), "spikes", "energy" (joules per sample), "max_drop" (points of
            agreement with the ANN below the uniform configuration's), "agreement" (per cent of agreement with the
            ANN), or "loss" (relative to the uniform configuration's: the r of SSC; in simulation, or the summed
            sensitivity where nothing is simulated).
        value: how much.
        cost: what is counted: see `COSTS`. "spikes" and "energy" settle it themselves.
    """

    kind: str = "relative"
    value: float = 1.0
    cost: str = "spikes"

    def __post_init__(self) -> None:
        if self.kind not in ("relative", "spikes", "energy", "loss", *ON_AGREEMENT):
            raise UsageError(
                f"budget is {self.kind!r}: it must be relative, spikes, energy, loss, {' or '.join(ON_AGREEMENT)}"
            )
        if self.cost not in COSTS:
            raise UsageError(f"cost is {self.cost!r}: it must be one of {', '.join(COSTS)}")
        value = _number(self.value)
        if not np.isfinite(value) or value < 0 or (value == 0 and self.kind != "max_drop"):
            raise UsageError(f"the budget is {self.value!r}: it must be a positive number")
        object.__setattr__(self, "value", value)  # one of NumPy's could not be written to a file
        if self.kind == "agreement" and self.value > 100:
            raise UsageError(f"the agreement wanted is {self.value!r}: it must be at most 100 per cent")

    @property
    def counted(self) -> str:
        """What is counted, one of `COSTS`."""
        return self.kind if self.kind in ("spikes", "energy") else self.cost


def _number(value: Any) -> float:
    """Return a number of any kind as a float; NaN for what is none."""
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else float("nan")
    except OverflowError:
        return float("inf")


@dataclass(frozen=True)
class LayerTable:
    """One layer of neurons.

    Attributes:
        name: its node.
        candidates: what it may get.
        scores: what each does, with the other layers as the search's kind of sensitivity has them.
    """

    name: str
    candidates: tuple[Candidate, ...]
    scores: tuple[Score, ...]

    @property
    def loss(self) -> NDArray[np.float64]:
        """Sensitivity per candidate, float64 [K]."""
        return np.array([score.loss for score in self.scores])


@dataclass(frozen=True)
class Measurement:
    """A network that was compiled and simulated on the calibration set; figures per sample.

    Attributes:
        assignment: its ψ and τ.
        loss: symmetric KL or relative squared error of its output against the ANN's.
        agreement: share of samples of which it says the ANN's class; None without classes.
        spikes: spikes of each layer, in the order of the layers.
        operations: synaptic operations.
        macs: multiply-accumulates that remain.
    """

    assignment: Assignment
    loss: float
    agreement: float | None
    spikes: tuple[float, ...]
    operations: float
    macs: float

    def agrees_like(self, other: Measurement) -> bool:
        """Return whether it says the ANN's class of no fewer samples; True without classes."""
        return self.agreement is None or other.agreement is None or self.agreement >= other.agreement - 1e-12

    def cost(self, kind: str) -> float:
        """Return what it costs; see `COSTS`."""
        spikes = sum(self.spikes)
        if kind == "energy":
            return self.operations * CMOS_45NM.ac + self.macs * CMOS_45NM.mac + spikes * CMOS_45NM.spike
        return spikes if kind == "spikes" else self.operations


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found. Figures are per sample.

    Attributes:
        source: name and SHA-256 of the ANN.
        calibration: number of samples and fingerprint of the data.
        config: options of the compile.
        options: method and sensitivity, as the search was told.
        metric: what a loss is: "symmetric_kl" or "relative_squared_error".
        layers: a table per layer of neurons, in topological order.
        measured: what was simulated; the uniform configuration comes first.
        budget: the budget that was asked for.
        assignment: the best choice within it.
    """

    source: dict[str, Any]
    calibration: dict[str, Any]
    config: Config
    options: dict[str, Any]
    metric: str
    layers: tuple[LayerTable, ...]
    measured: tuple[Measurement, ...] = ()
    budget: Budget = Budget()
    assignment: Assignment = field(default_factory=dict)

    @property
    def uniform(self) -> Assignment:
        """The configuration's own ψ and τ for every layer."""
        return {layer.name: uniform_of(self.config) for layer in self.layers}

    def measurement(self, assignment: Mapping[str, Candidate]) -> Measurement | None:
        """Return the simulation of a choice, None if it wasn't simulated."""
        return next((m for m in self.measured if m.assignment == dict(assignment)), None)

    @cached_property
    def factors(self) -> NDArray[np.float64]:
        """Spikes in the simulated uniform configuration over those predicted for it, by layer; 1 where not known.

        A prediction leaves the other layers as in the ANN, and lets currents arrive evenly. It knows nothing of the
        spikes that signed neurons take back either: the factor adds them as they were in the uniform configuration.
        """
        baseline = self.measurement(self.uniform)
        factors = np.ones(len(self.layers))
        for number, layer in enumerate(self.layers if baseline is not None else ()):
            predicted = self._score(layer, self.uniform).spikes
            if baseline is not None and predicted > 0 and baseline.spikes[number] > 0:
                factors[number] = baseline.spikes[number] / predicted
        return factors

    @cached_property
    def _operations_factor(self) -> float:
        """Operations of the simulated uniform configuration over those predicted for it with the spikes it had.

        Where the spikes of a layer are doesn't only depend on their number.
        """
        baseline = self.measurement(self.uniform)
        scores = [self._score(layer, self.uniform).operations for layer in self.layers]
        predicted = float(np.dot(scores, self.factors))
        if baseline is None or baseline.operations <= 0 or predicted <= 0:
            return 1.0
        return baseline.operations / predicted

    def candidate_costs(self, kind: str) -> list[NDArray[np.float64]]:
        """Return the predicted cost of each layer's candidates; what none of them changes is left out."""
        tables = []
        for layer, factor in zip(self.layers, self.factors, strict=True):
            spikes = np.array([s.spikes for s in layer.scores]) * factor
            operations = np.array([s.operations for s in layer.scores]) * factor * self._operations_factor
            energy = operations * CMOS_45NM.ac + spikes * CMOS_45NM.spike
            tables.append({"spikes": spikes, "operations": operations, "energy": energy}[kind])
        return tables

    def fixed_cost(self, kind: str) -> float:
        """Return the cost that no choice changes: energy of the multiply-accumulates that remain."""
        return self.measured[0].macs * CMOS_45NM.mac if kind == "energy" and self.measured else 0.0

    def predicted(self, assignment: Mapping[str, Candidate], kind: str) -> tuple[float, float]:
        """Return the predicted cost and loss of a choice.

        Raises:
            UsageError: a layer's choice is none of its candidates.
        """
        cost, loss = self.fixed_cost(kind), 0.0
        for layer, costs in zip(self.layers, self.candidate_costs(kind), strict=True):
            cost += float(costs[self._index(layer, assignment)])
            loss += self._score(layer, assignment).loss
        return cost, loss

    def front(self, kind: str) -> Front:
        """Return the Pareto front of predicted cost (the fixed one left out) against the sum of sensitivities."""
        if kind not in self._fronts:
            self._fronts[kind] = pareto_front(self.candidate_costs(kind), [layer.loss for layer in self.layers])
        return self._fronts[kind]

    @cached_property
    def _fronts(self) -> dict[str, Front]:
        return {}

    def at(self, point: int, kind: str) -> Assignment:
        """Return the choice at a point of a front."""
        chosen = self.front(kind).choice(point)
        return {layer.name: layer.candidates[k] for layer, k in zip(self.layers, chosen, strict=True)}

    def cost_of(self, budget: Budget) -> float:
        """Return a budget on cost in what it counts.

        Raises:
            UsageError: it is none on cost.
        """
        if budget.kind == "relative":
            baseline = self.measurement(self.uniform)
            kind = budget.counted
            whole = self.predicted(self.uniform, kind)[0] if baseline is None else baseline.cost(kind)
            return budget.value * whole
        if budget.kind in ("loss", *ON_AGREEMENT):
            raise UsageError("a budget on agreement or sensitivity says nothing of cost")
        if budget.kind == "energy" and not self.measured:
            raise UsageError("a budget of energy needs a simulation, which counts the operations: search with one")
        return budget.value

    def predict_best(self, cost: float, kind: str) -> Assignment:
        """Return the choice of least summed sensitivity whose predicted cost is within `cost`.

        Raises:
            UnmetError: there is none; the message names the least cost.
        """
        front, fixed = self.front(kind), self.fixed_cost(kind)
        least = float(front.cost[0]) + fixed
        if cost * SLACK < least:
            raise self.too_dear(cost, least, kind)
        return self.at(front.within_cost(max(cost * SLACK - fixed, float(front.cost[0]))), kind)

    def predict_cheapest(self, loss: float, kind: str) -> Assignment:
        """Return the cheapest choice, as predicted, whose summed sensitivity is at most `loss`.

        Raises:
            UnmetError: there is none; the message names the least loss.
        """
        front, least = self.front(kind), float(self.front(kind).loss[-1])
        if loss * SLACK < least:
            raise self._too_faithful(loss, least, self.predicted(self.uniform, kind)[1])
        return self.at(front.within_loss(max(loss * SLACK, least)), kind)

    def choose(self, budget: Budget) -> Assignment:
        """Return the best choice within a budget: of what was simulated close to it, else as it is predicted.

        A choice that simulation found beyond the budget is never the answer.

        Raises:
            UnmetError: no choice is within the budget; the message names the nearest one that is.
        """
        if budget.kind in ON_AGREEMENT:
            return self._most_agreeing(budget).assignment
        return self._least_loss(budget) if budget.kind != "loss" else self._least_cost(budget)

    def _least_loss(self, budget: Budget) -> Assignment:
        """Return the choice of least loss within a budget on cost."""
        kind, cost = budget.counted, self.cost_of(budget)
        if not self.measured:
            return self.predict_best(cost, kind)
        within = [m for m in self.measured if m.cost(kind) <= cost * SLACK]
        if not any(m.cost(kind) >= NEAR * cost for m in within):
            feasible = cost * SLACK >= self.front(kind).cost[0] + self.fixed_cost(kind)
            predicted = self.predict_best(cost, kind) if feasible else None
            if predicted is not None and self.measurement(predicted) is None:
                return predicted
        if not within:
            raise self.too_dear(cost, min(m.cost(kind) for m in self.measured), kind)
        # What is cheaper than the budget and better still is better.
        return min(within, key=lambda m: m.loss).assignment

    def _least_cost(self, budget: Budget) -> Assignment:
        """Return the cheapest choice within a budget on loss.

        Where that is no more than the uniform configuration loses, it also agrees with the ANN no less often than that
        does, if there is such a choice: a mean of divergences may hide what a few samples lose.
        """
        kind, target = budget.counted, budget.value * self.predicted(self.uniform, budget.counted)[1]
        if len(self.measured) < 2:
            return self.predict_cheapest(target, kind)
        uniform = self.measured[0].loss
        good = [m for m in self.measured if m.loss <= budget.value * uniform * SLACK]
        if budget.value <= 1:
            good = [m for m in good if m.agrees_like(self.measured[0])] or good
        if good:
            return min(good, key=lambda m: m.cost(kind)).assignment
        attainable = target * SLACK >= self.front(kind).loss[-1]
        predicted = self.predict_cheapest(target, kind) if attainable else None
        if predicted is not None and self.measurement(predicted) is None:
            return predicted
        raise self._too_faithful(budget.value * uniform, min(m.loss for m in self.measured), uniform)

    def too_dear(self, cost: float, least: float, kind: str) -> UnmetError:
        """Return the error of a budget on cost that can't be met.

        Args:
            cost: the budget.
            least: the nearest that can be.
            kind: one of `COSTS`.
        """
        baseline, unit = self.measurement(self.uniform), _UNITS[kind]
        uniform = self.predicted(self.uniform, kind)[0] if baseline is None else baseline.cost(kind)
        share = f", {_up(least / uniform)} of the uniform configuration's" if uniform > 0 else ""
        return UnmetError(
            f"the budget of {cost:.6g} {unit} per sample can't be met: the nearest that can is {_up(least)} {unit}"
            f"{share}; allow that, larger threshold ratios or fewer timesteps"
        )

    def _too_faithful(self, loss: float, least: float, uniform: float) -> UnmetError:
        uniform = max(uniform, 1e-300)
        return UnmetError(
            f"no choice loses {loss / uniform:.4g} times as much as the uniform configuration, or less: the nearest is "
            f"{_up(least / uniform)} times; allow that, larger bursts or more timesteps"
        )

    def least_agreement(self, budget: Budget) -> float:
        """Return the share of samples whose class must be the ANN's by a budget on agreement.

        Raises:
            UsageError: there are no classes, or nothing was simulated.
        """
        baseline = self.measurement(self.uniform)
        if baseline is None or baseline.agreement is None:
            raise UsageError(
                "a budget on agreement needs class scores and simulated points: give --budget, or search with "
                "--simulate above 0"
            )
        return budget.value / 100 if budget.kind == "agreement" else baseline.agreement - budget.value / 100

    def _most_agreeing(self, budget: Budget) -> Measurement:
        least = self.least_agreement(budget)
        good = [m for m in self.measured if (m.agreement or 0.0) >= least - 1e-12]
        if not good:
            nearest = math.floor(1e4 * max(m.agreement or 0.0 for m in self.measured) + 1e-6) / 1e4
            raise UnmetError(
                f"no choice that was simulated agrees with the ANN on {least:.2%} of the calibration data: the nearest "
                f"is {nearest:.2%}; ask for that, or allow more timesteps or a larger ψ"
            )
        return min(good, key=lambda m: m.cost(budget.counted))

    def _index(self, layer: LayerTable, assignment: Mapping[str, Candidate]) -> int:
        if assignment[layer.name] not in layer.candidates:
            raise UsageError(f"ψ and τ {tuple(assignment[layer.name])} of layer '{layer.name}' were not scored")
        return layer.candidates.index(assignment[layer.name])

    def _score(self, layer: LayerTable, assignment: Mapping[str, Candidate]) -> Score:
        return layer.scores[self._index(layer, assignment)]


def _up(value: float) -> str:
    """Write a number with six significant digits, rounded up: what is asked for must be there."""
    text = f"{value:.6g}"
    if float(text) < value:
        step = 10.0 ** (math.floor(math.log10(value)) - 5)
        text = f"{value + step / 2:.6g}"
    return text
