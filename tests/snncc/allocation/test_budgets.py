"""A budget is kept, or the nearest one that can be is named and taken when it is asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
from small_networks import NETWORKS, inputs_of, parse

import snncc
from snncc.allocation.candidates import Candidate
from snncc.allocation.result import Budget, Measurement, SearchResult, UnmetError
from snncc.allocation.run import search
from snncc.errors import UsageError
from snncc.presets import PRESETS

NAMES = ("plain", "residual", "flatten_gemm", "two_inputs", "neurons_are_outputs", "static_branch", "batch_of_one")
CONFIG = snncc.Config(timesteps=2, max_burst=3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))


def searched(name: str, budget: Budget, simulate: int = 2, **options: Any) -> SearchResult:
    model = NETWORKS[name].model()
    options = {"config": CONFIG, **options}
    return search(model, calibration=inputs_of(model, 16), budget=budget, simulate=simulate, **options)


def cost(result: SearchResult, budget: Budget) -> float:
    measured = result.measurement(result.assignment)
    if measured is None:
        return result.predicted(result.assignment, budget.counted)[0]
    return measured.cost(budget.counted)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["spikes", "operations", "energy"])
def test_a_budget_on_cost_is_kept_or_the_nearest_named(name: str, kind: str) -> None:
    whole = searched(name, Budget("relative", 1.0)).measured[0].cost(kind)
    for share in (1.0, 0.7, 0.3, 0.02):
        budget = Budget("relative", share, kind)
        if kind in ("spikes", "energy"):
            budget = Budget(kind, share * whole)
        try:
            result = searched(name, budget)
        except UnmetError as error:
            nearest = float(re.findall(r"nearest that can is ([\d.e+-]+)", str(error))[0])
            assert nearest > share * whole
            budget = Budget("relative", nearest / whole * (1 + 1e-6), kind)
            if kind in ("spikes", "energy"):
                budget = Budget(kind, nearest)
            assert cost(searched(name, budget), budget) <= nearest * (1 + 2e-6)
            of_uniform = re.findall(r"([\d.e+-]+) of the uniform", str(error))
            for text in of_uniform:
                relative = Budget("relative", float(text), kind)
                assert cost(searched(name, relative), relative) <= float(text) * whole * (1 + 1e-9)
        else:
            assert cost(result, budget) <= share * whole * (1 + 1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ratio", [1.0, 10.0])
@pytest.mark.parametrize("kind", ["spikes", "operations", "energy"])
def test_what_the_uniform_configuration_costs_is_never_too_little(name: str, ratio: float, kind: str) -> None:
    model = NETWORKS[name].model()
    config = snncc.Config(timesteps=2, threshold_ratio=ratio)
    result = search(
        model, calibration=inputs_of(model, 16), config=config, budget=Budget("relative", 1.0, kind), simulate=1
    )
    predicted = [layer.scores[layer.candidates.index(result.uniform[layer.name])].spikes for layer in result.layers]
    # A layer that is predicted to spike, and doesn't, costs what is predicted.
    if all(predicted) and all(result.measured[0].spikes):
        assert result.predicted(result.uniform, kind)[0] == pytest.approx(result.measured[0].cost(kind), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_on_loss_is_kept_or_the_nearest_named(name: str) -> None:
    for share in (1.0, 0.3, 1e-9):
        try:
            result = searched(name, Budget("loss", share))
        except UnmetError as error:
            nearest = float(re.findall(r"the nearest is ([\d.e+-]+) times", str(error))[0])
            assert nearest > share
            result, share = searched(name, Budget("loss", nearest)), nearest
        chosen = result.measurement(result.assignment)
        assert chosen is not None
        assert chosen.loss <= share * result.measured[0].loss * (1 + 1e-9)


def test_a_preset_takes_what_the_same_loss_allows_where_less_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    whole = snncc.presets.search

    def watched(*given: Any, budget: Budget, **options: Any) -> SearchResult:
        asked.append(budget.value)
        if budget.value < 1:
            raise UnmetError("no choice loses as little")
        return whole(*given, budget=budget, **options)

    monkeypatch.setattr(snncc.presets, "search", watched)
    model = NETWORKS["plain"].model()
    assignment = PRESETS["best"].assignment(model, inputs_of(model, 16), CONFIG)
    assert asked == [0.95, 1.0]
    assert assignment is not None
    assert set(assignment) == {"r1", "r2"}


def test_a_preset_that_saves_spikes_never_costs_more_than_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS["plain"].model()
    asked: list[float] = []

    def dear(*_: object, budget: Budget, **__: object) -> SearchResult:
        asked.append(budget.value)
        uniform = searched("plain", Budget("relative", 1.0), simulate=1)
        spikes = [s * 1.5 for s in uniform.measured[0].spikes]
        other = {name: Candidate(16, 1.0) for name in uniform.uniform}
        point = Measurement(other, 0.0, 1.0, tuple(spikes), 0.0, 0.0)
        chosen = other if budget.value < 1 else uniform.uniform
        return replace(uniform, measured=(uniform.measured[0], point), assignment=chosen)

    monkeypatch.setattr(snncc.presets, "search", dear)
    assignment = PRESETS["best"].assignment(model, inputs_of(model, 16), CONFIG)
    assert asked == [0.95, 1.0]
    assert assignment == {"r1": (3, 1.0), "r2": (3, 1.0)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("simulate", [0, 1, 2])
@pytest.mark.parametrize("timesteps", [1, 2])
def test_compression_after_reallocation_keeps_the_budget_or_names_the_nearest(
    name: str, simulate: int, timesteps: int
) -> None:
    options: dict[str, Any] = {"method": "bsr+ssc", "config": snncc.Config(timesteps=timesteps, max_burst=3)}
    for share in (1.0, 0.9, 0.6, 0.5, 0.1):
        budget = Budget("relative", share)
        try:
            result = searched(name, budget, simulate, **options)
        except UnmetError as error:
            nearest = float(re.findall(r"nearest that can is ([\d.e+-]+) spikes", str(error))[0])
            budget = Budget("spikes", nearest)
            result = searched(name, budget, simulate, **options)
            assert result.cost_of(Budget("relative", share)) < nearest
        if simulate:
            assert result.measurement(result.assignment) is not None
        assert cost(result, budget) <= result.cost_of(budget) * (1 + 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_compression_spends_no_more_than_reallocation(name: str) -> None:
    budget = Budget("relative", 0.9)
    first, both = (searched(name, budget, simulate=0, method=method) for method in ("bsr", "bsr+ssc"))
    assert both.predicted(both.assignment, "spikes")[0] <= first.predicted(first.assignment, "spikes")[0] * 1.001


def test_bisection_gets_away_from_a_front_that_begins_at_nothing() -> None:
    model = NETWORKS["flatten_gemm"].model()
    config = snncc.Config(timesteps=1, max_burst=1)
    result = search(model, calibration=inputs_of(model, 40), config=config, budget=Budget("max_drop", 0.0), simulate=8)
    assert result.front("spikes").cost[0] == 0
    assert len(result.measured) > 4


def test_the_agreement_named_is_taken() -> None:
    few = {"candidates": [(1, 1.0), (1, 2.0), (2, 6.0)]}
    with pytest.raises(UnmetError) as caught:
        searched("flatten_gemm", Budget("agreement", 100.0), config=snncc.Config(timesteps=1, max_burst=1), **few)
    nearest = float(re.findall(r"the nearest is ([\d.]+)%", str(caught.value))[0])
    assert nearest < 100
    found = searched("flatten_gemm", Budget("agreement", nearest), config=snncc.Config(timesteps=1, max_burst=1), **few)
    chosen = found.measurement(found.assignment)
    assert chosen is not None
    assert chosen.agreement is not None
    assert 100 * chosen.agreement >= nearest


@pytest.mark.parametrize(("shape", "value"), [("float[7]", "float[7] c = {1,2,3,4,5,6,7}"), ("float", "float c = {3}")])
def test_agreement_is_of_samples_whatever_the_first_output_is(shape: str, value: str) -> None:
    model = parse(
        f"""g (float[N,6] x, float[6,8] w_1, float[8] b_1, float[8,3] w_2) => ({shape} k, float[N,3] y) <{value}> {{
            k = Identity (c) h = Gemm (x, w_1, b_1) r = Relu (h) y = MatMul (r, w_2)
        }}"""
    )
    data = inputs_of(model, 21)
    result = search(model, calibration=data, config=snncc.Config(timesteps=2), budget=Budget("agreement", 50.0))
    assert all(m.agreement is not None and 0.5 < m.agreement <= 1 for m in result.measured[:1])
    network = snncc.compile(model, calibration=data, config=snncc.Config(timesteps=2))
    ann = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(["y"], data)[0]
    same = network.run(data)["y"].argmax(axis=1) == ann.argmax(axis=1)
    assert result.measured[0].agreement == pytest.approx(same.mean())


@pytest.mark.parametrize(
    "options",
    [{"budget": "0.8"}, {"budget": 0.8}, {"simulate": "3"}, {"simulate": 2.5}, {"simulate": True}, {"config": {}}],
)
def test_arguments_of_another_kind_are_refused(options: dict[str, Any]) -> None:
    model = NETWORKS["plain"].model()
    with pytest.raises(UsageError):
        search(model, calibration=inputs_of(model, 16), **{"config": CONFIG, **options})
