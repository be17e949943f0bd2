"""The options: their ranges, and that a wrong one is named."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from snncc.config import MAX_BURST, MAX_TIMESTEPS, Config, checked_config
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
        ("threshold_ratio", 10**400),  # no float can hold it
        ("v_init", 10**400),
        ("percentile", 0.999),
        ("percentile", 100.1),
    ],
)
def test_values_out_of_range_are_named(option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{option} is .*it must be a (whole )?number") as caught:
        Config(**{option: value})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_numbers_of_numpy_are_kept_as_plain_ones() -> None:
    given = {"timesteps": np.int64(4), "max_burst": np.uint8(3), "v_init": np.float32(0.25), "threshold_ratio": 2}
    config = Config(**given, input_coding="frames", reset_after=np.int32(2))
    assert config == Config(
        timesteps=4, max_burst=3, v_init=0.25, threshold_ratio=2.0, input_coding="frames", reset_after=2
    )
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
    assert [type(v) for v in (config.timesteps, config.max_burst, config.v_init, config.reset_after)] == [
        int,
        int,
        float,
        int,
    ]
    assert type(config.threshold_ratio) is float


SWITCHES = [field.name for field in dataclasses.fields(Config) if field.type == "bool"]


@pytest.mark.parametrize("option", SWITCHES)
@pytest.mark.parametrize("value", ["no", None, [], 0, 1, np.True_])
def test_switches_are_true_or_false(option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{option} is .*: it must be True or False$"):
        Config(**{option: value})


def test_options_are_a_config_or_none() -> None:
    config = Config(timesteps=3)
    assert checked_config(config) is config
    assert checked_config(None) == Config()
    for other in ({"timesteps": 3}, {}, "x", 0):
        with pytest.raises(UsageError, match=r"^config is .*: it must be a snncc\.Config"):
            checked_config(other)  # type: ignore[arg-type]


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
