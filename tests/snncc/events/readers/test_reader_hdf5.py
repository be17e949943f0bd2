import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from event_files import EVENTS, as_tuples, columns, write

from snncc.errors import DataError, UsageError
from snncc.events import read


def save(path: Path, arrays: dict[str, Any], group: str = "events/", **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(f"{group}{name}", data=array, **options)
    return path


@pytest.mark.parametrize("group", ["events/", ""])
@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_events_come_back(tmp_path: Path, group: str, suffix: str) -> None:
    events = read(save(tmp_path / f"a{suffix}", columns(EVENTS), group, compression="gzip"))
    assert as_tuples(events) == list(EVENTS)
    assert (events.width, events.height, events.sensor_from, events.format) == (34, 34, "coordinates", "HDF5")


def test_dsec(tmp_path: Path) -> None:
    path = save(tmp_path / "events.h5", columns(EVENTS))
    with h5py.File(path, "a") as file:
        file["t_offset"] = np.int64(49_599_300_523)
        file["ms_to_idx"] = np.array([0, 3, 3, 3, 3, 5], np.uint64)
    assert read(path, sensor=(640, 480)).t.tolist() == [49_599_300_523 + t for t, *_ in EVENTS]


def test_the_size_as_attributes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.h5", columns(EVENTS))
    with h5py.File(path, "a") as file:
        file["events"].attrs.update({"width": 346, "height": 260})
    assert (read(path).width, read(path).height) == (346, 260)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": np.array([0, 1, 2, 0, 1, 0, 1])}, "p holds 0, 1, 2: polarity must be"),
        ({"t": np.linspace(0, 1, 7)}, r"t is 0\.16.* at event 1.*in seconds with"),
        ({"x": np.arange(6)}, "datasets differ in length"),
        ({"x": np.zeros((7, 1))}, "x must be a dataset of numbers, one per event"),
        ({"x": np.array([b"a"] * 7)}, "x must be a dataset of numbers"),
        ({"t": np.arange(7)[::-1]}, "runs backwards at event 1"),
    ],
)
def test_bad_columns(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.h5.*{message}"):
        read(save(tmp_path / "a.h5", {**columns(EVENTS), **change}))


def test_missing_columns_and_prophesees_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds p, t where x, y, t and p are wanted"):
        read(save(tmp_path / "a.h5", {name: columns(EVENTS)[name] for name in "tp"}))
    with pytest.raises(DataError, match="Prophesee's HDF5 must be converted"):
        read(save(tmp_path / "b.h5", columns(EVENTS), "CD/"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    content = save(tmp_path / "a.h5", columns(EVENTS)).read_bytes()
    with pytest.raises(DataError, match=r"b\.h5 can't be read as HDF5.*truncated"):
        read(write(tmp_path / "b.h5", content[: int(share * len(content))]))


def test_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.h5 can't be read as HDF5"):
        read(write(tmp_path / "a.h5", b"no HDF5" * 100))


def test_a_dataset_that_was_never_written_is_no_memory_hog(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in "xytp":
            file.create_dataset(f"events/{name}", (1 << 28,), "u8", chunks=(1 << 16,))
    with pytest.raises(DataError, match=r"declares 268,435,456 events in .* bytes, which no recording compresses to"):
        read(path)


def test_data_of_other_files_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "secret.h5", columns(EVENTS))
    for name, link in {"link": h5py.ExternalLink("secret.h5", "/events"), "column": None}.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            if link is not None:
                file["events"] = link
            else:
                for column in "xyt":
                    file[f"events/{column}"] = columns(EVENTS)[column]
                file["events/p"] = h5py.ExternalLink("secret.h5", "/events/p")
        with pytest.raises(DataError, match="is a link into another file, which is refused"):
            read(tmp_path / f"{name}.h5")


def test_raw_bytes_of_other_files_are_refused(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", bytes(7))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for column in "xyt":
            file[f"events/{column}"] = columns(EVENTS)[column]
        file.create_dataset("events/p", (7,), "u1", external=[(str(secret), 0, 7)])
    with pytest.raises(DataError, match="p is stored in another file, which is refused"):
        read(tmp_path / "a.h5")


def test_times_that_overflow(tmp_path: Path) -> None:
    path = save(tmp_path / "a.h5", columns(EVENTS))
    with h5py.File(path, "a") as file:
        file["t_offset"] = np.int64(2**63 - 1)
    with pytest.raises(DataError, match="t and t_offset overflow"):
        read(path)


@pytest.mark.parametrize("kind", ["group", "many", "text"])
def test_an_offset_that_is_no_number(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / "a.h5", columns(EVENTS))
    with h5py.File(path, "a") as file:
        if kind == "group":
            file.create_group("t_offset")
        elif kind == "many":
            file.create_dataset("t_offset", (1 << 40,), "i8", chunks=(1 << 10,))
        else:
            file["t_offset"] = np.bytes_(b"now")
    with pytest.raises(DataError, match=r"a\.h5: t_offset"):
        read(path)


def test_h5py_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.h5", columns(EVENTS))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"a\.h5.*needs h5py.*pip install 'snncc\[events\]'"):
        read(path)


def test_blosc_as_in_dsec(tmp_path: Path) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin", reason="hdf5plugin is in the extra events, not in test: 46 MB")
    path = save(tmp_path / "a.h5", columns(EVENTS), **hdf5plugin.Blosc(cname="zstd"))
    assert as_tuples(read(path)) == list(EVENTS)
