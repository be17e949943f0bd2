"""What the harness concludes from what was measured."""

from __future__ import annotations

import math

import pytest
from conformance.row import COMPILED, REFUSED, Row, Step, cells, convergence, header, percent, total

T = (4, 16, 64, 256)


def judge(*errors: float | None) -> str:
    return convergence(list(zip(T, errors, strict=False)))


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ((0.2, 0.05, 0.01, 0.003), "converges"),
        ((0.3, 0.2, 0.1, 0.0199), "converges"),
        ((0.3, 0.2, 0.1, 0.02), "off by 2 %"),
        ((0.5, 0.4, 0.3, 0.2), "off by 20 %"),
        ((0.010, 0.004, 0.006, 0.001), "rises at T=64"),
        ((0.004, 0.004, 0.003, 0.001), "rises at T=16"),
        ((1e-7, 2e-7, 1e-7, 9e-6), "converges"),
        ((1e-7, 2e-7, 1e-7, 2e-5), "rises at T=256"),
        ((0.2, math.nan, 0.01, 0.003), "not finite"),
        ((0.2, 0.1, 0.01, math.inf), "not finite"),
        ((None, None, None, None), "nothing to judge"),
        ((0.1, 0.01), "converges"),
    ],
)
def test_errors_must_fall_below_the_limit(errors: tuple[float | None, ...], verdict: str) -> None:
    assert judge(*errors) == verdict


def row(*errors: float, seen: tuple[float, ...] | None = None, **fields: object) -> Row:
    steps = [
        Step(t, {"y": e, "z": 1e-7}, {"y": s, "z": 1e-7}, loads=True)
        for t, e, s in zip(T, errors, seen or errors, strict=False)
    ]
    return Row("net", status=COMPILED, steps=steps, **fields)


def test_worst_output_decides() -> None:
    assert Step(4, {"a": 0.1, "b": 0.3}).worst == 0.3
    assert math.isnan(Step(4, {"a": math.nan, "b": 0.3}).worst)
    assert Step(4).worst is None


def test_network_that_converges_only_on_calibration_inputs_is_told_apart() -> None:
    found = row(0.2, 0.1, 0.05, 0.04, seen=(0.2, 0.1, 0.01, 0.002))
    assert (found.verdict, found.good) == ("only if seen", False)
    assert found.remarks() == ["output 'y': 4 % at T=256, 0.2 % on calibration inputs"]
    assert row(0.2, 0.1, 0.05, 0.04).verdict == "off by 4 %"


def test_every_step_must_load_and_keep_the_signature() -> None:
    fine = row(0.2, 0.1, 0.01, 0.001)
    assert (fine.loads, fine.keeps_signature, fine.verdict, fine.good) == (True, True, "converges", True)
    fine.steps.insert(2, Step(32, loads=False))
    assert (fine.loads, fine.verdict) == (False, "doesn't load")
    changed = row(0.2, 0.1, 0.01, 0.001)
    changed.steps[-1] = Step(256, {"y": 0.001}, loads=True, changes=("output 'y' is gone",))
    assert (changed.keeps_signature, changed.verdict) == (False, "signature")
    assert "signature: output 'y' is gone" in changed.remarks()


def test_row_takes_in_records_in_their_order() -> None:
    found = Row("net")
    for record in (
        {"exporter": "torch", "opset": 17, "nodes": 1234},
        {"stage": "compile T=4"},
        {"step": {"timesteps": 4, "errors": {"y": 0.25}, "loads": True, "changes": [], "seconds": 1.5}},
        {"status": COMPILED, "spiking_share": 0.987, "neuron_layers": 7, "calibration": 32, "samples": 8},
    ):
        found.add(record)
    found.seconds = 3.4
    assert found.steps == [Step(4, {"y": 0.25}, loads=True, seconds=1.5)]
    assert dict(zip(header((4, 16)), cells(found, (4, 16)), strict=True)) == {
        "network": "net",
        "exporter": "torch",
        "opset": "17",
        "nodes": "1,234",
        "neurons": "7",
        "spiking": "99 %",
        "inputs": "32 + 8",
        "result": "off by 25 %",
        "ORT": "yes",
        "signature": "yes",
        "T=4": "25 %",
        "T=16": "–",
        "time": "3 s",
    }


def test_remarks_name_what_is_not_judged_and_what_says_little() -> None:
    found = row(0.1, 0.01, 0.001, 0.0001, variation={"y": 1e-5, "z": 0.4})
    found.steps[-1] = Step(256, {"y": 1e-4}, differing={"label": 0.125, "same": 0.0}, loads=True)
    assert found.remarks() == [
        "output 'label' holds no real numbers and isn't judged: 12 % differ",
        "output 'y' hardly depends on the input: its error says little",
    ]


def test_total_counts_verdicts_without_their_figures() -> None:
    rows = [row(0.2, 0.1, 0.01, 0.001), row(0.5, 0.4, 0.3, 0.2), row(0.9, 0.8, 0.7, 0.6), Row("x", status=REFUSED)]
    assert total(rows) == "4 networks: 2 off, 1 converges, 1 refused; 0 s"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0 %"), (1e-6, "<0.001 %"), (0.0123, "1.2 %"), (0.996, "100 %"), (math.inf, "inf")],
)
def test_percent(value: float | None, text: str) -> None:
    assert percent(value) == text
