from __future__ import annotations

import json

import pytest

from snncc.report.text import bar, clean, percent, shown_steps, si, to_json


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (142.7e-6, "J", "142.7 µJ"),
        (91.7e-6, "J", "91.7 µJ"),
        (9.996e-6, "J", "10.0 µJ"),
        (2.84e-6, "J", "2.84 µJ"),
        (999.99e-9, "J", "1.00 µJ"),
        (5e-15, "J", "0.01 pJ"),
        (31_021_952, "", "31.0 M"),
        (768, "", "768"),
        (768.5, "", "768.5"),
        (999_999, "", "1.00 M"),
        (0, "J", "0 J"),
        (None, "J", "–"),
    ],
)
def test_si(value, unit, text):
    assert si(value, unit) == text


def test_two_values_share_a_prefix_where_both_show():
    assert si(904.6e-9, "J", like=1.22e-6) == "0.90 µJ"
    assert si(1.5e-9, "J", like=1.22e-6) == "1.50 nJ"


def test_percent():
    assert percent(0.93418) == "93.42 %"
    assert percent(None) == "–"


@pytest.mark.parametrize(("fraction", "text"), [(0, ""), (1, "████"), (0.5, "██"), (0.53125, "██▏"), (7, "████")])
def test_bar(fraction, text):
    assert bar(fraction, width=4) == text


@pytest.mark.parametrize("timesteps", [1, 2, 16, 17, 64, 4096])
def test_shown_steps(timesteps):
    steps = shown_steps(timesteps)
    assert steps[0] == 1
    assert steps[-1] == timesteps
    assert steps == sorted(set(steps))
    assert len(steps) <= 16 or timesteps <= 16


def test_clean():
    assert clean("a\x1b[2Jb\rc\x9b\nd µψ") == "a�[2Jb�c�\nd µψ"


def test_json_is_standard():
    told = to_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": (1, "ψ")})
    assert json.loads(told, parse_constant=lambda _: pytest.fail("no standard JSON")) == {
        "a": None,
        "b": [None, 1.5],
        "c": [1, "ψ"],
    }
