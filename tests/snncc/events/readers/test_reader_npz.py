from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_files import EVENTS, as_tuples, columns, write

from snncc.errors import DataError
from snncc.events import read
from snncc.events.readers import npz


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_events_come_back(tmp_path: Path) -> None:
    events = read(save(tmp_path / "a.npz", **columns(EVENTS), width=346, height=260, label=3))
    assert as_tuples(events) == list(EVENTS)
    assert (events.width, events.height, events.sensor_from, events.format) == (346, 260, "header", "npz")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_polarity_as_0_and_1(tmp_path: Path, dtype: Any) -> None:
    arrays = columns(EVENTS)
    arrays["p"] = arrays["p"].astype(dtype)
    assert as_tuples(read(save(tmp_path / "a.npz", **arrays))) == list(EVENTS)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float64])
def test_polarity_as_minus_1_and_1(tmp_path: Path, dtype: Any) -> None:
    arrays = columns(EVENTS)
    arrays["p"] = arrays["p"].astype(dtype) * 2 - 1
    assert as_tuples(read(save(tmp_path / "a.npz", **arrays))) == list(EVENTS)


def test_whole_numbers_as_floats(tmp_path: Path) -> None:
    arrays = {name: column.astype(np.float64) for name, column in columns(EVENTS).items()}
    assert as_tuples(read(save(tmp_path / "a.npz", **arrays))) == list(EVENTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": np.array([-1, 0, 1, 0, 1, 0, 1])}, "p holds -1, 0, 1: polarity must be 0 and 1, or -1 and 1"),
        ({"p": np.full(7, 255)}, "p holds 255"),
        ({"p": np.full(7, np.nan)}, "p holds nan"),
        ({"p": np.array(["ON"] * 7)}, "p holds dtype <U2"),
        ({"t": np.arange(7) * 0.5}, r"t is 0\.5 at event 1"),
        ({"t": np.full(7, np.nan)}, "t is nan at event 0"),
        ({"t": np.full(7, np.inf)}, "t is inf at event 0"),
        ({"t": np.full(7, 2**63, np.uint64)}, "t is 9223372036854775808 at event 0, which overflows"),
        ({"t": np.array([-(2**62)] * 3 + [2**62] * 4)}, "its times reach from .* which overflows"),
        ({"t": np.array(["a"] * 7)}, "t is of dtype <U1"),
        ({"x": np.full(7, -1)}, "x is -1 at event 0: pixels count from 0"),
        ({"y": np.full(7, 70_000)}, "y is 70000 at event 0"),
        ({"x": np.zeros((7, 1))}, r"x has the shape \[7, 1\]"),
        ({"x": np.zeros(6)}, r"columns differ in shape \(x \[6\]"),
        ({"width": 20, "height": 34}, "x=33, outside the sensor of 20x34"),
        ({"width": -20, "height": 34}, "declares a sensor of -20x34"),
        ({"x": np.array([None] * 7)}, "holds Python objects: pickled data is refused"),
    ],
)
def test_bad_columns(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.npz.*{message}"):
        read(save(tmp_path / "a.npz", **{**columns(EVENTS), **change}))


def test_missing_arrays(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds x, t where x, y, t and p are wanted.*rename"):
        read(save(tmp_path / "a.npz", x=np.zeros(3), t=np.zeros(3)))


def test_no_events(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no events"):
        read(save(tmp_path / "a.npz", **{name: column[:0] for name, column in columns(EVENTS).items()}))


def test_a_truncated_archive(tmp_path: Path) -> None:
    content = save(tmp_path / "a.npz", **columns(EVENTS)).read_bytes()
    with pytest.raises(DataError, match=r"b\.npz is no readable \.npz archive"):
        read(write(tmp_path / "b.npz", content[:-40]))


def test_a_zip_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "HARMLESS_BYTES", 1 << 20)
    path, n = tmp_path / "a.npz", 200_000
    np.savez_compressed(path, **dict.fromkeys("xyt", np.zeros(n, np.int64)), p=np.zeros(n, bool))
    with pytest.raises(DataError, match=r"unpacks to [\d,]+ bytes, which no recording compresses to"):
        read(path)
