"""The cache: what comes back, and that nothing that happens to its files makes anybody fail."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from snncc.allocation import cache
from snncc.allocation.cache import Cache, folder

ROWS = {"4 1.0 /stage1/relu": (0.1, 2.0, 3e9), "4 1.5 ψ": (0.25, 1.0, float("nan"))}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_rows_come_back_for_the_same_conditions_only() -> None:
    Cache("sensitivity", {"model": "a"}).add(ROWS)
    again = Cache("sensitivity", {"model": "a"})
    assert again.rows.keys() == ROWS.keys()
    np.testing.assert_array_equal([again.rows[k] for k in ROWS], list(ROWS.values()))
    again.add({"new": (1.0, 2.0, 3.0)})
    assert len(Cache("sensitivity", {"model": "a"}).rows) == 3
    assert Cache("sensitivity", {"model": "b"}).rows == {}
    assert Cache("points", {"model": "a"}).rows == {}


def test_without_conditions_nothing_is_written(place: Path) -> None:
    store = Cache("sensitivity", None)
    store.add(ROWS)
    assert store.rows.keys() == ROWS.keys()
    assert not place.exists()


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"PK\x03\x04 cut off"])
def test_damaged_files_count_as_empty(damage: bytes) -> None:
    store = Cache("sensitivity", {"model": "a"})
    store.add(ROWS)
    assert store.path is not None
    store.path.write_bytes(damage)
    fresh = Cache("sensitivity", {"model": "a"})
    assert fresh.rows == {}
    fresh.add(ROWS)
    assert Cache("sensitivity", {"model": "a"}).rows.keys() == ROWS.keys()


def test_pickles_are_not_loaded(place: Path) -> None:
    store = Cache("sensitivity", {"model": "a"})
    store.add(ROWS)
    assert store.path is not None
    np.savez(store.path, keys=np.array([object()], object), values=np.zeros((1, 3)))
    assert Cache("sensitivity", {"model": "a"}).rows == {}


def test_a_folder_that_cannot_be_written_is_done_without(place: Path) -> None:
    place.write_text("a file stands where the folder should be")
    store = Cache("sensitivity", {"model": "a"})
    store.add(ROWS)
    assert store.rows.keys() == ROWS.keys()


def test_the_folder_is_bounded_by_last_use(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        store = Cache("sensitivity", {"model": number})
        store.add(ROWS)
        assert store.path is not None
        os.utime(store.path, (1000 + number, 1000 + number))
        size = store.path.stat().st_size
    assert Cache("sensitivity", {"model": 0}).rows  # used: now the newest
    monkeypatch.setattr(cache, "MOST_BYTES", 3 * size)
    Cache("sensitivity", {"model": 9}).add(ROWS)
    left = [n for n in (0, 1, 2, 3, 9) if Cache("sensitivity", {"model": n}).rows]
    assert left == [0, 3, 9]
    assert not list(place.glob(".*.tmp"))


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder().name == "cache"
    monkeypatch.delenv("SNNCC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert folder() == Path("/somewhere/snncc")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folder() == Path.home() / ".cache" / "snncc"
