"""The options: their ranges, and that a wrong one is named."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from snncc.config import MAX_BURST, MAX_TIMESTEPS, Config
from snncc.errors import UsageError


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timesteps", 1),
        ("timesteps", MAX_TIMESTEPS),
        ("max_burst", 1),
        ("max_burst", MAX_BURST),
        ("batch_size", 1),
        ("v_init", 0.0),
        ("v_init", 0),
        ("v_init", 0.999),
        ("threshold_ratio", 1.0),
        ("threshold_ratio", 2),
        ("percentile", 100),
        ("percentile", 1.0),
        ("threshold_method", "max"),
    ],
)
def test_values_in_range(option: str, value: Any) -> None:
    assert getattr(Config(**{option: value}), option) == value


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timesteps", 0),
        ("timesteps", -1),
        ("timesteps", MAX_TIMESTEPS + 1),
        ("timesteps", 8.0),
        ("timesteps", "8"),
        ("timesteps", True),
        ("timesteps", None),
        ("max_burst", 0),
        ("max_burst", MAX_BURST + 1),
        ("batch_size", 0),
        ("v_init", -0.1),
        ("v_init", 1.0),
        ("v_init", 0.99999999),  # 1.0 once it is float32: the neuron would fire without a current
        ("v_init", float("nan")),
        ("v_init", "0.5"),
        ("v_init", False),
        ("threshold_ratio", 0.99),
        ("threshold_ratio", float("inf")),
        ("threshold_ratio", np.nan),
        ("percentile", 0.999),
        ("percentile", 100.1),
    ],
)
def test_values_out_of_range_are_named(option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{option} is .*it must be a (whole )?number") as caught:
        Config(**{option: value})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_options_are_plain_values() -> None:
    config = Config(timesteps=3, v_init=0.25, trace=True)
    values = config.to_dict()
    assert Config(**values) == config
    assert json.loads(json.dumps(values)) == values
    assert values.keys() == {f.name for f in dataclasses.fields(Config)} - {"input_coding", "reset_after"}
    assert Config(input_coding="frames").to_dict().keys() == {f.name for f in dataclasses.fields(Config)}


def test_options_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().timesteps = 3  # type: ignore[misc]


@pytest.mark.parametrize("value", ["best", "", None, 1])
def test_methods_are_named(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^threshold_method is .*: it must be one of mse, max, percentile$"):
        Config(threshold_method=value)
