from __future__ import annotations

import json
from pathlib import Path

import pytest

from snncc import models


@pytest.mark.parametrize("args", [["zoo"], ["zoo", "list"]])
def test_zoo_lists_the_networks(invoke, args):
    result = invoke(*args)
    assert result.exit_code == 0
    for name in models.names(None):
        line = next(line for line in result.stdout.splitlines() if line.startswith(f"zoo:{name}"))
        assert f"{100 * models.info(name).accuracy:.2f} %" in line
    assert all(f"zoo:{name}" in result.stdout for name in ("calibration", "test", *models.EVENTS))


@pytest.mark.parametrize("args", [["zoo", "--json"], ["zoo", "list", "--json"]])
def test_zoo_as_json(invoke, args):
    told = json.loads(invoke(*args).stdout)
    assert [network["name"] for network in told["networks"]] == models.names(None)
    assert all(Path(entry["path"]).is_file() for entry in (*told["networks"], *told["data"]))


@pytest.mark.parametrize("name", ["fashion_vgg", "zoo:fashion_vgg"])
def test_zoo_path(invoke, name):
    assert invoke("zoo", "path", name).stdout == f"{models.path('fashion_vgg')}\n"


def test_zoo_path_of_data(invoke):
    for name in ("test", "events_test"):
        assert invoke("zoo", "path", name).stdout == f"{models.data_path(name)}\n"


def test_an_unknown_name(invoke):
    result = invoke("zoo", "path", "nope")
    assert result.exit_code == 2
    assert "no network 'nope' in the zoo: choose one of fashion_events_resnet" in result.stderr
