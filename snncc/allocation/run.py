"""The search: score every candidate of every layer, choose, simulate what was chosen, keep the best.

1. Sensitivity and cost of each candidate, from the closed form (`snncc.allocation.sensitivity`).
2. The uniform configuration is simulated: its spikes scale the predicted ones, and it is what budgets are relative to.
3. Dynamic programming gives the best choice for any cost (`snncc.allocation.pareto`).
4. Layers are not independent and currents do not arrive evenly, so points of the front around the budget are compiled
   and simulated, and the best one measured is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import cached_property
from typing import Any

from snncc.allocation.cache import Cache
from snncc.allocation.candidates import Candidate, bursts, checked, joined, pairs, ratios, uniform_of
from snncc.allocation.in_context import InContext
from snncc.allocation.metric import class_output
from snncc.allocation.probe import approach, bisect, compress, nearer
from snncc.allocation.result import ON_AGREEMENT, SLACK, Assignment, Budget, LayerTable, Measurement, SearchResult
from snncc.allocation.sensitivity import Score, isolated
from snncc.allocation.simulate import Simulations, quick
from snncc.artifact import VERSION
from snncc.compiling import analyse_network, compile
from snncc.config import Config, checked_config
from snncc.context import Context
from snncc.data import Dataset
from snncc.errors import UsageError
from snncc.loader import LoadedModel
from snncc.network import SpikingNetwork
from snncc.passes.analyse import analyse
from snncc.passes.base import Progress
from snncc.period import settled
from snncc.pipeline import Hook
from snncc.sources import Source, prepared, read_ann, sized_graph

METHODS = ("joint", "bsr", "ssc", "bsr+ssc")
"""Which candidates there are: every ψ at the configuration's τ (bsr), every τ at its ψ (ssc), or pairs of both (joint).

The paper's order is "bsr+ssc": ψ for the budget first, then every τ at the ψ that each layer got, as cheap as possible
without a larger sum of sensitivities than the uniform configuration's, or that of the ψ alone where that is larger."""
SENSITIVITIES = ("uneven", "isolated", "in-context")
"""The other layers are as in the ANN and currents arrive unevenly, or evenly; or the other layers spike."""
SIMULATE = 3
"""Points of the front that are simulated, besides the uniform configuration."""


def search(
    model: Source | LoadedModel,
    *,
    calibration: Any,
    config: Config | None = None,
    method: str = "joint",
    candidates: Sequence[tuple[int, float]] | None = None,
    budget: Budget | None = None,
    sensitivity: str = "uneven",
    simulate: int = SIMULATE,
    cache: bool = True,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search ψ and τ for every layer of neurons.

    Args:
        model: path of an ONNX file, `zoo:NAME`, a model in memory, or what `read_ann` returned.
        calibration: data as `snncc.compile` takes it.
        config: options of the compile; its ψ and τ are the uniform configuration that budgets are relative to.
        method: one of `METHODS`.
        candidates: pairs (ψ, τ) for every layer, instead of those of the method.
        budget: what may be spent; the default is what the uniform configuration spends.
        sensitivity: one of `SENSITIVITIES`; "in-context" costs about T times as much as the others.
        simulate: points of the front to simulate: fewer if one spends all of a budget on cost, up to twice as many and
            one if none is within the budget; 0 for the prediction alone.
        cache: remember what was measured in the user's cache folder.
        executor: what scores independent layers; None: one after the other, here.
        progress: told about finished and all steps.

    Returns:
        The result; `snncc.compile(..., config=result.config, assignment=result.assignment)` makes the network.

    Raises:
        ModelError: the model can't be read or is invalid.
        UnsupportedModelError: the model holds nodes that can't be converted.
        DataError: the calibration data doesn't fit the model.
        UsageError: an option is out of range, or no choice is within the budget (the nearest that is, is named).
    """
    config, budget = checked_config(config), Budget() if budget is None else budget
    if not isinstance(budget, Budget):
        raise UsageError(
            f"budget is {budget!r}: it must be a snncc.Budget, or None for what the same ψ everywhere costs"
        )
    if isinstance(simulate, bool) or not isinstance(simulate, int) or simulate < 0:
        raise UsageError(f"the number of points to simulate is {simulate!r}: it must be a whole number, 0 or more")
    if sensitivity not in SENSITIVITIES:
        raise UsageError(f"sensitivity is {sensitivity!r}: it must be one of {', '.join(SENSITIVITIES)}")
    if method == "bsr+ssc" and candidates is not None:
        raise UsageError("the method bsr+ssc has candidates of its own: leave yours away, or choose another --method")
    if method == "bsr+ssc" and budget.kind in ("loss", *ON_AGREEMENT):
        raise UsageError("the method bsr+ssc takes a budget on cost only: choose another --method")
    if budget.kind in (*ON_AGREEMENT, "energy") and not simulate:
        raise UsageError("a budget on agreement or energy needs simulated points: give --simulate, or another budget")
    loaded = read_ann(model)
    data = load_calibration(calibration, loaded, config)
    config, _ = settled(config, data, loaded)
    chosen = _candidates("bsr" if method == "bsr+ssc" else method, candidates, config)
    found = _Search(loaded, data, config, sensitivity, cache)
    if budget.kind in ON_AGREEMENT and found.class_output is None:
        raise UsageError("a budget on agreement needs an output of class scores [N, K]: give a budget on cost")
    result = found.scored(method, lambda _: chosen, executor, progress)
    if method == "bsr+ssc":
        return found.compressed(result, budget, simulate, executor, progress)
    if not simulate:
        return replace(result, budget=budget, assignment=result.choose(budget))
    return found.chosen(found.simulated(result, budget, simulate, progress), budget)


def load_calibration(calibration: Any, loaded: LoadedModel, config: Config) -> Dataset:
    """Return calibration data, read for what a compile of a model would make.

    Raises:
        UsageError: there is none.
        DataError: it doesn't fit the model.
    """
    if calibration is None:
        raise UsageError("a search needs calibration data: give some with --calib")
    return prepared(calibration, loaded, config)


def _candidates(method: str, given: Sequence[tuple[int, float]] | None, config: Config) -> tuple[Candidate, ...]:
    """Return the candidates; the uniform configuration is always among them."""
    if method not in METHODS:
        raise UsageError(f"method is {method!r}: it must be one of {', '.join(METHODS)}")
    uniform = uniform_of(config)
    if given is not None:
        return joined((uniform,), checked(given))
    of_method = {
        "bsr": bursts(uniform.threshold_ratio),
        "ssc": ratios(uniform.max_burst),
        "joint": pairs(uniform.max_burst),
    }
    return joined((uniform,), of_method[method])


class _Search:
    def __init__(
        self,
        loaded: LoadedModel,
        data: Dataset,
        config: Config,
        sensitivity: str,
        cache: bool,
    ) -> None:
        self._in_context = sensitivity == "in-context"
        self._sensitivity = sensitivity
        self._loaded, self._data, self._config = loaded, data, config
        self._network: SpikingNetwork | None = None
        self._calibration = {"samples": len(data), "fingerprint": data.fingerprint()}
        options = {k: v for k, v in config.to_dict().items() if k not in ("batch_size", "trace")}
        fixed = {"version": VERSION, "model": loaded.sha256, "data": self._calibration["fingerprint"]}
        # What a layer's neurons are, signed or not, depends on nearly all options.
        fit = {k: v for k, v in options.items() if k != "weight_calibration"}
        if self._in_context:
            fit["weights"] = "float32"  # see `_context`
        outputs = [output.name for output in loaded.outputs]
        self._scores = Cache(
            "sensitivity", {**fixed, **fit, "outputs": outputs, "kind": sensitivity} if cache else None
        )
        own = {k: v for k, v in options.items() if k not in ("max_burst", "threshold_ratio", "weight_calibration")}
        self._points = Cache("points", {**fixed, **own, "outputs": outputs} if cache else None)
        ctx = Context(config)
        self._graph = analyse_network(loaded, ctx, Hook())
        self._analysis = analyse(sized_graph(self._graph, data), ctx.quantised)
        self.class_output = class_output(self._graph, data)

    def network(self) -> SpikingNetwork:
        """Return the uniform configuration, compiled once."""
        if self._network is None:
            self._network = compile(self._loaded, calibration=self._data, config=quick(self._config))
        return self._network

    @cached_property
    def _context(self) -> SpikingNetwork:
        """The network that layers are scored as parts of.

        Where all of it spikes it has the ANN's weights, also if the search is for 8-bit ones: only those can be cut.
        """
        if not self._in_context or self._config.weights == "float32":
            return self.network()
        config = replace(quick(self._config), weights="float32")
        return compile(self._loaded, calibration=self._data, config=config)

    def simulations(self) -> Simulations:
        """Return what measures choices; the uniform configuration isn't compiled twice."""
        known = None
        if self._network is not None:
            names = [layer.name for layer in self._network.record.layers]
            known = dict.fromkeys(names, uniform_of(self._config)), self._network
        return Simulations(self._loaded, self._data, self._config, self.class_output, self._points, known)

    def scored(
        self,
        method: str,
        candidates: Callable[[str], tuple[Candidate, ...]],
        executor: Executor | None,
        progress: Progress | None,
    ) -> SearchResult:
        """Score what the cache doesn't know."""
        names = [site.node for site in self._analysis.neurons]
        missing = {name: [c for c in candidates(name) if _key(name, c) not in self._scores.rows] for name in names}
        # The further a layer is from the end, the longer its suffix.
        work = {name: (len(names) - i) * len(missing[name]) for i, name in enumerate(names)}
        finished = 0

        def done(name: str, scores: list[Score]) -> None:
            nonlocal finished
            self._scores.add(
                {_key(name, c): (s.loss, s.spikes, s.operations) for c, s in zip(missing[name], scores, strict=True)}
            )
            finished += work[name]
            if progress is not None:
                progress(finished, sum(work.values()))

        if any(missing.values()):
            context = self._context
            isolated(
                self._graph,
                self._analysis,
                self._data,
                self._config,
                missing,
                self.class_output,
                uniform={layer.name: layer for layer in context.record.layers},
                uneven=self._sensitivity == "uneven",
                score=InContext(context, self._data, self._config).scores if self._in_context else None,
                executor=executor,
                done=done,
            )
        rows = self._scores.rows
        layers = tuple(
            LayerTable(name, candidates(name), tuple(Score(*rows[_key(name, c)]) for c in candidates(name)))
            for name in names
        )
        return SearchResult(
            source={"name": self._loaded.name, "sha256": self._loaded.sha256},
            calibration=self._calibration,
            config=self._config,
            options={"method": method, "sensitivity": self._sensitivity},
            metric="relative_squared_error" if self.class_output is None else "symmetric_kl",
            layers=layers,
        )

    def compressed(
        self,
        result: SearchResult,
        budget: Budget,
        simulate: int,
        executor: Executor | None,
        progress: Progress | None,
    ) -> SearchResult:
        """Choose ψ for a budget on cost, then τ at that ψ: the paper's order.

        What is over the budget in simulation is tried again with a smaller one, `simulate` times in all; then the
        cheapest ψ.
        """
        kind, uniform = budget.counted, result.uniform
        simulations = self.simulations()
        names = [layer.name for layer in result.layers]
        measured = (simulations.measure(uniform, names),) if simulate else ()
        result = replace(result, measured=measured)
        target = limit = result.cost_of(budget)
        least = result.fixed_cost(kind) + float(result.front(kind).cost[0])

        def compressed_at(cost: float) -> tuple[SearchResult, float]:
            first = result.predict_best(max(cost, least), kind)  # τ may get below that
            of_layer = {name: joined((uniform[name], burst), ratios(burst.max_burst)) for name, burst in first.items()}
            second = replace(self.scored("bsr+ssc", of_layer.__getitem__, executor, progress), measured=measured)
            # What the ψ of a smaller budget lose can't be had back at its cost.
            loss = max(second.predicted(uniform, kind)[1], second.predicted(first, kind)[1])
            assignment = second.predict_cheapest(loss, kind)
            points = [simulations.measure(choice, names) for choice in (first, assignment) if simulate]
            found = replace(second, measured=(*measured, *points), budget=budget, assignment=assignment)
            return found, points[-1].cost(kind) if points else found.predicted(assignment, kind)[0]

        for _ in range(max(1, simulate)):
            found, spent = compressed_at(target)
            if spent <= limit * SLACK:
                return found
            target = nearer(result, kind, target, limit, spent)
        found, spent = compressed_at(least)
        if spent <= limit * SLACK:
            return found
        within = [m for m in found.measured if m.cost(kind) <= limit * SLACK]
        if not within:
            raise found.too_dear(limit, min([spent, *(m.cost(kind) for m in found.measured)]), kind)
        return replace(found, assignment=min(within, key=lambda m: m.loss).assignment)

    def chosen(self, result: SearchResult, budget: Budget) -> SearchResult:
        """Return a result with the best choice within a budget, simulated: what is over it is never the answer."""
        assignment = result.choose(budget)
        if result.measurement(assignment) is None:
            point = self.simulations().measure(assignment, [layer.name for layer in result.layers])
            result = replace(result, measured=(*result.measured, point))
            assignment = result.choose(budget)
        return replace(result, budget=budget, assignment=assignment)

    def simulated(self, result: SearchResult, budget: Budget, count: int, progress: Progress | None) -> SearchResult:
        """Simulate the uniform configuration and `count` points around the budget."""
        simulations = self.simulations()
        names = [layer.name for layer in result.layers]
        found: list[Measurement] = []

        def measure(assignment: Assignment) -> Measurement:
            known = next((m for m in found if m.assignment == assignment), None)
            if known is None:
                found.append(known := simulations.measure(assignment, names))
            if progress is not None:
                progress(min(len(found), count + 1), count + 1)
            return known

        measure(result.uniform)
        result = replace(result, measured=tuple(found))
        if budget.kind == "loss":
            compress(result, budget, count, measure)
        elif budget.kind in ON_AGREEMENT:
            bisect(result, budget, count, measure)
        else:
            approach(result, budget, count, measure)
        if progress is not None:
            progress(count + 1, count + 1)
        return replace(result, measured=tuple(found))


def _key(name: str, candidate: Candidate) -> str:
    return f"{candidate.max_burst} {candidate.threshold_ratio!r} {name}"
