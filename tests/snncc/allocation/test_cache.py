"""The cache: what comes back, and that nothing that happens to its files makes anybody fail."""

from __future__ import annotations

import itertools
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from snncc.allocation import cache
from snncc.allocation.cache import Cache, folder

ROWS = {"4 1.0 /stage1/relu": (0.1, 2.0, 3e9), "4 1.5 ψ": (0.25, 1.0, 0.0)}
POINTS = {"a": (0.1, float("nan"), 3e9, 1.0, 2.0, 4.0), "b": (0.2, 0.5, 2e9, 1.0, 1.0, 3.0)}
"""Loss, agreement, operations, MACs, and spikes of two layers."""


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
    Cache("points", {"model": "a"}).add(POINTS)
    np.testing.assert_array_equal(list(Cache("points", {"model": "a"}).rows.values()), list(POINTS.values()))


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


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"'shape': (2,)", b"'shape': (2,["),  # tokenize.TokenError
        (b"'shape': (2,)", b"'shape': \t2,)"),
        (b"'descr': '<f8'", b"'descr': '<f4'"),
        (b"'descr': '<f8'", b"'descr': '8,('"),
        (b"'shape': (2, 3)", b"'shape': (2, 2)"),
        (b"'shape': (2, 3)", b"'shape': (9, 3)"),
    ],
)
def test_a_header_that_makes_no_sense_counts_as_empty(old: bytes, new: bytes) -> None:
    """Behind a checksum that is right."""
    store = Cache("sensitivity", {"model": "a"})
    store.add(ROWS)
    assert store.path is not None
    with zipfile.ZipFile(store.path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert sum(old in content for content in members.values()) == 1
    with zipfile.ZipFile(store.path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(old, new))
    assert Cache("sensitivity", {"model": "a"}).rows == {}


def test_a_flipped_bit_counts_as_empty_or_changes_nothing() -> None:
    """In the headers of both arrays, which are parsed before the whole is read, and in zip's directory."""
    rows = {f"4 1.0 {number}": (float(number), 2.0, 3.0) for number in range(200)}
    store = Cache("sensitivity", {"model": "a"})
    store.add(rows)
    assert store.path is not None
    whole, empty = store.path.read_bytes(), 0
    second = whole.index(b"values.npy")
    places = [*range(170), *range(second - 30, second + 170), *range(len(whole) - 150, len(whole))]
    for place, bit in itertools.product(places, range(0, 8, 2)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (bit + place % 2)
        store.path.write_bytes(damaged)
        found = Cache("sensitivity", {"model": "a"}).rows
        assert found in ({}, rows), (place, bit)
        empty += not found
    assert empty > 1000


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("sensitivity", (1.0, 2.0)),
        ("sensitivity", (1.0, 2.0, 3.0, 4.0)),
        ("sensitivity", (1.0, 2.0, float("nan"))),
        ("sensitivity", (float("inf"), 2.0, 3.0)),
        ("sensitivity", (1.0, -2.0, 3.0)),
        ("points", (1.0, 0.5, 3.0, 4.0)),
        ("points", (float("nan"), 0.5, 3.0, 4.0, 5.0)),
        ("points", (1.0, -0.5, 3.0, 4.0, 5.0)),
        ("points", (1.0, 0.5, 3.0, 4.0, float("inf"))),
    ],
)
def test_rows_that_nobody_measured_count_as_empty(kind: str, row: tuple[float, ...]) -> None:
    store = Cache(kind, {"model": "a"})
    store.add({"r": row})
    fresh = Cache(kind, {"model": "a"})
    assert fresh.rows == {}
    good = {"sensitivity": ROWS, "points": POINTS}[kind]
    fresh.add(good)
    assert Cache(kind, {"model": "a"}).rows.keys() == good.keys()


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


def test_files_of_others_are_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir()
    others = [place / name for name in ("images.npz", "points-of-mine.npz", f"other-{32 * '0'}.npz")]
    for path in others:
        path.write_bytes(b"mine")
        os.utime(path, (0, 0))
    old = Cache("sensitivity", {"model": "old"})
    old.add(ROWS)
    monkeypatch.setattr(cache, "MOST_BYTES", 1)
    Cache("sensitivity", {"model": "new"}).add(ROWS)
    assert old.path is not None
    assert not old.path.exists()
    assert all(path.exists() for path in others)


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder().name == "cache"
    monkeypatch.delenv("SNNCC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert folder() == Path("/somewhere/snncc")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folder() == Path.home() / ".cache" / "snncc"
