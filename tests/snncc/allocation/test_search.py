"""The whole search on a small network: what it chooses, and what it remembers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_network import SHAPE, small_model
from small_networks import NETWORKS, inputs_of, parse

import snncc
from snncc.allocation import run as run_module
from snncc.allocation import sensitivity as sensitivity_module
from snncc.allocation.candidates import RATIOS, Candidate
from snncc.allocation.result import Budget, Measurement, SearchResult
from snncc.allocation.run import search
from snncc.allocation.suffix import Neurons
from snncc.analysis import NeuronSite
from snncc.errors import UnsupportedModelError, UsageError
from snncc.evaluate import evaluate

MODEL = small_model()
IMAGES = 2 * np.random.default_rng(1).standard_normal((96, *SHAPE)).astype(np.float32)
CONFIG = snncc.Config(timesteps=4, max_burst=3)
GRID = [(b, r) for b in (1, 2, 3, 5, 8) for r in (1.0, 1.5, 3.0)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))


def searched(budget: Budget | None = None, **options: Any) -> SearchResult:
    values: dict[str, Any] = {"calibration": IMAGES, "config": CONFIG, "candidates": GRID, **options}
    return search(MODEL, budget=budget, **values)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNCC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return searched(Budget("relative", 0.8))


def test_choice_without_simulation_is_the_best_of_all_choices() -> None:
    result = searched(Budget("relative", 0.7), simulate=0)
    costs = result.candidate_costs("spikes")
    limit = 0.7 * result.predicted(result.uniform, "spikes")[0]
    best = min(
        sum(layer.scores[k].loss for layer, k in zip(result.layers, chosen, strict=True))
        for chosen in itertools.product(range(len(GRID)), repeat=len(result.layers))
        if sum(c[k] for c, k in zip(costs, chosen, strict=True)) <= limit
    )
    cost, loss = result.predicted(result.assignment, "spikes")
    assert loss == pytest.approx(best, rel=1e-12)
    assert cost <= limit * (1 + 1e-12)
    assert result.measured == ()


def test_simulated_figures_are_those_of_an_evaluation(result: SearchResult) -> None:
    measured = result.measured[-1]
    assignment = {name: (c.max_burst, c.threshold_ratio) for name, c in measured.assignment.items()}
    network = snncc.compile(MODEL, calibration=IMAGES, config=CONFIG, assignment=assignment)
    evaluation = evaluate(network, {"image": IMAGES}, ann=MODEL)
    assert measured.agreement == pytest.approx(evaluation.agreement)
    assert sum(measured.spikes) == pytest.approx(evaluation.reading.spikes)
    assert measured.operations == pytest.approx(evaluation.reading.synaptic_operations)
    assert measured.macs == evaluation.reading.snn_macs
    energy = evaluation.to_dict()["energy"]["45nm"]["snn"]
    assert measured.cost("energy") == pytest.approx(energy)


def test_the_uniform_configuration_is_predicted_as_it_was_simulated(result: SearchResult) -> None:
    baseline = result.measurement(result.uniform)
    assert baseline is result.measured[0]
    assert result.predicted(result.uniform, "spikes")[0] == pytest.approx(sum(baseline.spikes), rel=1e-9)


@pytest.mark.parametrize("kind", ["relative", "spikes", "energy"])
@pytest.mark.parametrize("share", [0.85, 0.95, 1.3])
def test_the_best_measured_choice_is_within_the_budget(result: SearchResult, kind: str, share: float) -> None:
    counted = "spikes" if kind == "relative" else kind
    whole = result.measured[0].cost(counted)
    found = searched(Budget(kind, share if kind == "relative" else share * whole), simulate=3)
    chosen = found.measurement(found.assignment)
    if chosen is None:  # the front has no point near the budget: then what is predicted counts
        assert found.predicted(found.assignment, counted)[0] <= share * whole * (1 + 1e-9)
        return
    assert chosen.cost(counted) <= share * whole * (1 + 1e-9)
    assert chosen.loss == min(m.loss for m in found.measured if m.cost(counted) <= share * whole * (1 + 1e-9))


def test_max_drop_is_the_cheapest_measured_that_agrees_enough() -> None:
    result = searched(Budget("max_drop", 4.0), simulate=6)
    chosen, baseline = result.measurement(result.assignment), result.measured[0]
    assert chosen is not None
    assert chosen.agreement is not None
    assert baseline.agreement is not None
    assert chosen.agreement >= baseline.agreement - 0.04
    assert chosen.cost("spikes") < baseline.cost("spikes")
    good = [m for m in result.measured if m.agreement is not None and m.agreement >= baseline.agreement - 0.04]
    assert chosen.cost("spikes") == min(m.cost("spikes") for m in good)


def test_a_budget_on_loss_is_the_cheapest_of_all_choices() -> None:
    result = searched(Budget("loss", 1.5), simulate=0)
    costs = result.candidate_costs("spikes")
    limit = 1.5 * result.predicted(result.uniform, "spikes")[1]
    best = min(
        sum(c[k] for c, k in zip(costs, chosen, strict=True))
        for chosen in itertools.product(range(len(GRID)), repeat=len(result.layers))
        if sum(layer.scores[k].loss for layer, k in zip(result.layers, chosen, strict=True)) <= limit
    )
    cost, loss = result.predicted(result.assignment, "spikes")
    assert cost == pytest.approx(best, rel=1e-12)
    assert loss <= limit * (1 + 1e-9)


@pytest.mark.parametrize("share", [1.0, 2.0])
def test_a_budget_on_loss_holds_in_simulation(share: float) -> None:
    result = searched(Budget("loss", share), simulate=6)
    chosen, baseline = result.measurement(result.assignment), result.measured[0]
    assert chosen is not None
    assert chosen.loss <= share * baseline.loss
    assert chosen.cost("spikes") <= (1.0 if share == 1 else 0.9) * baseline.cost("spikes")
    good = [m for m in result.measured if m.loss <= share * baseline.loss]
    if share <= 1:
        good = [m for m in good if (m.agreement or 0) >= (baseline.agreement or 0)]
    assert chosen.cost("spikes") == min(m.cost("spikes") for m in good)
    assert len(result.measured) > 3


def test_a_budget_on_loss_takes_no_choice_that_agrees_less_often(result: SearchResult) -> None:
    layers, uniform = result.layers, result.uniform

    def point(ratio: float, loss: float, agreement: float, spikes: float) -> Measurement:
        assignment = {layer.name: Candidate(3, ratio) for layer in layers}
        return Measurement(assignment, loss, agreement, (spikes / len(layers),) * len(layers), spikes, 0.0)

    best, cheap, dear = point(1.0, 1.0, 0.9, 100), point(3.0, 0.8, 0.85, 50), point(1.5, 0.9, 0.9, 70)
    found = replace(result, measured=(replace(best, assignment=uniform), cheap, dear))
    assert found.choose(Budget("loss", 0.95)) == dear.assignment
    found = replace(result, measured=(replace(best, assignment=uniform), cheap))
    assert found.choose(Budget("loss", 0.95)) == cheap.assignment  # less loss is what was asked for
    assert found.choose(Budget("loss", 1.0)) == uniform


def test_compression_follows_reallocation() -> None:
    first = searched(Budget("relative", 0.9), candidates=None, method="bsr", simulate=0)
    both = searched(Budget("relative", 0.9), candidates=None, method="bsr+ssc", simulate=0)
    for layer in both.layers:
        allowed = {(first.assignment[layer.name].max_burst, ratio) for ratio in RATIOS} | {(3, 1.0)}
        assert set(layer.candidates) == allowed
    before, after = (r.predicted(r.assignment, "spikes") for r in (first, both))
    assert after[0] <= before[0]
    # The ψ of nine tenths of the spikes may lose more than the uniform configuration: τ adds nothing to that.
    assert after[1] <= max(before[1], both.predicted(both.uniform, "spikes")[1]) * (1 + 1e-9)
    simulated = searched(Budget("relative", 0.9), candidates=None, method="bsr+ssc", simulate=1)
    assert simulated.measurement(simulated.assignment) is not None
    for kind in ("max_drop", "agreement", "loss"):
        with pytest.raises(UsageError, match="takes a budget on cost only"):
            searched(Budget(kind, 1.0), candidates=None, method="bsr+ssc", simulate=1)
    with pytest.raises(UsageError, match="has candidates of its own"):
        searched(Budget("relative", 0.9), method="bsr+ssc")


def test_what_cannot_be_is_said_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing should be measured")

    monkeypatch.setattr(run_module, "isolated", never)
    monkeypatch.setattr(run_module, "compile", never)
    for kind in ("max_drop", "agreement", "energy"):
        with pytest.raises(UsageError, match="needs simulated points"):
            searched(Budget(kind, 1.0), simulate=0)
    images = parse("g (float[N,2,6,6] x, float[3,2,3,3] w_1) => (float[N,3,4,4] y) { c = Conv (x, w_1) y = Relu (c) }")
    with pytest.raises(UsageError, match="needs an output of class scores"):
        search(images, calibration=inputs_of(images, 16), budget=Budget("max_drop", 1.0))


def test_infeasible_budgets_name_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"the nearest that can is [\d.]+ spikes") as caught:
        searched(Budget("spikes", 1.0), simulate=0)
    nearest = float(str(caught.value).split("nearest that can is ")[1].split(" ")[0])
    assert searched(Budget("spikes", nearest * 1.0001), simulate=0).assignment
    with pytest.raises(UsageError, match="nearest"):
        searched(Budget("spikes", nearest * 0.999), simulate=0)


def test_nothing_is_measured_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    first = searched(Budget("relative", 0.8), simulate=2)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("this was measured before")

    monkeypatch.setattr(run_module, "isolated", never)
    other = searched(Budget("relative", 0.6), simulate=0)
    assert other.layers == first.layers
    monkeypatch.setattr("snncc.allocation.simulate.compile", never)
    assert searched(Budget("relative", 0.8), simulate=2).measured == first.measured
    with pytest.raises(AssertionError, match="measured before"):
        searched(Budget("relative", 0.8), simulate=0, cache=False)
    with pytest.raises(AssertionError, match="measured before"):  # other data
        searched(Budget("relative", 0.8), simulate=0, calibration=IMAGES[:64])


def test_only_new_candidates_are_scored() -> None:
    searched(simulate=0, candidates=GRID[:5])
    seen: list[int] = []
    whole = run_module.isolated

    def watched(graph: Any, analysis: Any, data: Any, config: Any, wanted: Any, *rest: Any, **options: Any) -> None:
        seen.extend(len(candidates) for candidates in wanted.values())
        whole(graph, analysis, data, config, wanted, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "isolated", watched)
        searched(simulate=0)
    assert set(seen) == {len(GRID) - 6}  # five of them, and the uniform one


@pytest.mark.parametrize(("method", "count"), [("bsr", 16), ("ssc", 19), ("joint", 35)])
def test_methods(method: str, count: int) -> None:
    result = searched(candidates=None, method=method, simulate=0)
    assert {len(layer.candidates) for layer in result.layers} == {count}
    assert all(Candidate(3, 1.0) in layer.candidates for layer in result.layers)


NEURONS = ({}, {"neuron": "burst"}, {"neuron": "signed"}, {"threshold_ratio": 2.0}, {"per_channel": False})


@pytest.mark.parametrize("name", ["plain", "residual", "mobile", "static_branch", "concat", "odds_and_ends"])
@pytest.mark.parametrize("options", NEURONS, ids=str)
@pytest.mark.parametrize("samples", [16, 200])
def test_thresholds_are_those_of_the_compile(
    name: str, options: dict[str, Any], samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = NETWORKS[name].model()
    data, config = inputs_of(model, samples), snncc.Config(timesteps=3, **options)
    fitted: dict[str, Neurons] = {}
    fit = sensitivity_module.fit

    def watched(site: NeuronSite, *rest: Any, **given: Any) -> Neurons:
        fitted[site.node] = fit(site, *rest, **given)
        return fitted[site.node]

    monkeypatch.setattr(sensitivity_module, "fit", watched)
    search(model, calibration=data, config=config, simulate=0, candidates=[])
    for layer in snncc.compile(model, calibration=data, config=config).record.layers:
        theta = fitted[layer.name].theta[0] / np.float32(layer.threshold_ratio)
        assert (theta.min(), theta.max()) == pytest.approx((layer.theta_min, layer.theta_max), rel=1e-6), layer.name


@pytest.mark.parametrize("name", ["plain", "residual", "mobile", "odds_and_ends", "sequence"])
@pytest.mark.parametrize("options", [*NEURONS, {"v_init": 0.0}, {"weight_calibration": True}], ids=str)
def test_the_uniform_candidate_is_the_uniform_network_in_context(name: str, options: dict[str, Any]) -> None:
    model = NETWORKS[name].model()
    data, config = inputs_of(model, 16), snncc.Config(timesteps=3, **options)
    result = search(
        model, calibration=data, config=config, simulate=1, candidates=[], sensitivity="in-context", cache=False
    )
    (baseline,) = result.measured
    for layer, spikes in zip(result.layers, baseline.spikes, strict=True):
        assert layer.scores[0].loss == pytest.approx(baseline.loss, rel=1e-3, abs=1e-9)
        assert layer.scores[0].spikes == pytest.approx(spikes, rel=1e-6)


OTHERWISE_WITH_8_BITS = NETWORKS["maxpool_ceil"].model()
"""One of its layers is signed only with 8-bit weights."""


def of_8_bits(weights: str, **options: Any) -> SearchResult:
    config = snncc.Config(timesteps=3, weights=weights)
    return search(OTHERWISE_WITH_8_BITS, calibration=inputs_of(OTHERWISE_WITH_8_BITS, 32), config=config, **options)


def test_weights_of_8_bits_are_searched_in_context() -> None:
    """Layers are then scored in the network with the ANN's weights, as its neurons, and simulated with 8 bits."""
    result, exact = (
        of_8_bits(weights, sensitivity="in-context", simulate=1, cache=False) for weights in ("int8", "float32")
    )
    assert [layer.scores for layer in result.layers] == [layer.scores for layer in exact.layers]
    assert result.measured[0] != exact.measured[0]


def test_scores_with_8_bits_are_not_those_without() -> None:
    exact = of_8_bits("float32", simulate=0)
    kept, fresh = (of_8_bits("int8", simulate=0, cache=cache) for cache in (True, False))
    assert kept.layers == fresh.layers
    assert kept.layers != exact.layers


def test_what_changes_the_scores_is_not_remembered_for_others() -> None:
    model = parse(
        """g (float[N,6] x, float[6,8] w_1, float[8,8] w_2, float[8,3] w_3) => (float[N,3] y) {
            h = Gemm (x, w_1) r = Relu (h) s = Softmax (r) m = Gemm (s, w_2) q = Relu (m) y = MatMul (q, w_3)
        }"""
    )
    data = inputs_of(model, 16)
    for options in ({}, {"analog": True}, {"neuron": "burst"}, {"ratio_per_channel": False}):
        config = snncc.Config(timesteps=3, threshold_ratio=2.0, **options)
        kept, fresh = (search(model, calibration=data, config=config, simulate=0, cache=c) for c in (True, False))
        assert kept.layers == fresh.layers


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UsageError, match="method is 'magic'"):
        searched(candidates=None, method="magic")
    with pytest.raises(UsageError, match="max_burst is 0"):
        searched(candidates=[(0, 1.0)])
    with pytest.raises(UsageError, match="number of points to simulate is -1"):
        searched(simulate=-1)
    with pytest.raises(UsageError, match="needs calibration data"):
        searched(calibration=None)
    with pytest.raises(UsageError, match="simulated points"):
        searched(Budget("max_drop", 1.0), simulate=0)
    for options in ({"kind": "time"}, {"kind": ["loss"]}, {"cost": "money"}):
        with pytest.raises(UsageError):
            Budget(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("simulate", [0, 1])
def test_a_network_without_neurons_is_refused(simulate: int) -> None:
    model = parse("g (float[N,6] x, float[6,3] w_1) => (float[N,3] y) { y = MatMul (x, w_1) }")
    with pytest.raises((UsageError, UnsupportedModelError), match="nothing in it would spike"):
        search(model, calibration=inputs_of(model, 16), simulate=simulate)


@pytest.mark.parametrize("value", [0.0, -1, float("nan"), float("inf"), 10**400, "x", "0.5", None, [1], True])
def test_a_budget_is_a_positive_number(value: Any) -> None:
    with pytest.raises(UsageError, match="it must be a positive number"):
        Budget("relative", value)


def test_a_budget_of_numpy_is_a_plain_number() -> None:
    assert json.dumps(Budget("relative", np.float32(0.5)).value) == "0.5"  # type: ignore[arg-type]
    assert json.dumps(Budget("max_drop", np.int64(0)).value) == "0.0"  # type: ignore[arg-type]
