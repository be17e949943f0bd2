"""The file of a search: it gives back what was written, and refuses what is damaged or something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_network import SHAPE, small_model

import snncc
from snncc.allocation.file import FrontError, read, to_dict, write
from snncc.allocation.result import Budget, SearchResult
from snncc.allocation.run import search


@pytest.fixture(scope="module")
def result() -> SearchResult:
    images = 2 * np.random.default_rng(1).standard_normal((96, *SHAPE)).astype(np.float32)
    return search(
        small_model(),
        calibration=images,
        config=snncc.Config(timesteps=4, max_burst=3),
        candidates=[(b, r) for b in (1, 2, 3, 5, 8) for r in (1.0, 1.5, 3.0)],
        budget=Budget("relative", 0.8),
        cache=False,
    )


def test_file_gives_back_the_search(result: SearchResult, tmp_path: Path) -> None:
    write(result, tmp_path / "front.json")
    again = read(tmp_path / "front.json")
    for name in ("source", "calibration", "config", "options", "metric", "layers", "measured", "budget", "assignment"):
        assert getattr(again, name) == getattr(result, name), name
    for share in (0.5, 0.75, 1.2):
        assert again.choose(Budget("relative", share)) == result.choose(Budget("relative", share))
    assert to_dict(again) == to_dict(result)


@pytest.mark.parametrize(
    "damage",
    [
        lambda v: v.update(format="other"),
        lambda v: v.pop("layers"),
        lambda v: v["layers"][0]["candidates"][0].update(loss=-1.0),
        lambda v: v["layers"][0]["candidates"][0].update(loss="0"),
        lambda v: v["layers"][0]["candidates"][0].update(max_burst=1e9),
        lambda v: v["layers"][0].update(candidates=[]),
        lambda v: v["layers"].append(v["layers"][0]),
        lambda v: v["assignment"].pop(),
        lambda v: v["measured"][0]["spikes"].pop(),
        lambda v: v["config"].update(timesteps=0),
        lambda v: v["config"].update(unknown=1),
        lambda v: v["budget"].update(kind="any"),
        lambda v: v["budget"].update(value=10**400),
        *(
            lambda v, key=key: v["layers"][0]["candidates"][0].update({key: 10**400})
            for key in ("loss", "spikes", "operations", "max_burst", "threshold_ratio")
        ),
        lambda v: v["measured"][0].update(macs=10**400),
        lambda v: v["config"].update(v_init=10**400),
        lambda v: v["config"].update(per_channel="no"),
        lambda v: v["config"].update(weight_calibration=None),
        lambda v: v["calibration"].update(samples=1e999),
        lambda v: v["calibration"].update(samples="5"),
        lambda v: v["layers"][0].update(candidates=1002 * v["layers"][0]["candidates"][:1]),
    ],
)
def test_damaged_files_are_refused(result: SearchResult, tmp_path: Path, damage: Any) -> None:
    values = json.loads(json.dumps(to_dict(result)))
    damage(values)
    (tmp_path / "front.json").write_text(json.dumps(values).replace("Infinity", "1e999"))
    with pytest.raises(FrontError, match=r"is no file of `snncc search` or is damaged \(.+\): make it"):
        read(tmp_path / "front.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"format": NaN}', "[" * 100_000, "\x00"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "front.json").write_text(text)
    with pytest.raises(FrontError, match="is no file of"):
        read(tmp_path / "front.json")


def test_files_that_cannot_be_used(result: SearchResult, tmp_path: Path) -> None:
    with pytest.raises(FrontError, match="can't read"):
        read(tmp_path / "nothing.json")
    with pytest.raises(FrontError, match="can't write"):
        write(result, tmp_path / "nowhere" / "front.json")
