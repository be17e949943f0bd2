from pathlib import Path

import pytest
from event_files import EVENTS, as_tuples, atis_bin, dat, write

from snncc.errors import DataError, UsageError
from snncc.events import EventFolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Classes cat (2), dog (1 and a truncated one) and owl (none); hidden and other files."""
    for name in ("dog", "cat", "owl", ".hidden"):
        (tmp_path / name).mkdir()
    write(tmp_path / "cat/b.bin", atis_bin(EVENTS[:2]))
    write(tmp_path / "cat/a.dat", dat(EVENTS))
    write(tmp_path / "dog/1.bin", atis_bin(EVENTS)[:-1])
    write(tmp_path / "dog/2.BIN", atis_bin(EVENTS[3:]))
    write(tmp_path / "dog/notes.txt", b"no recording")
    write(tmp_path / ".hidden/c.bin", atis_bin(EVENTS))
    write(tmp_path / "cat/.c.bin", atis_bin(EVENTS))
    return tmp_path


def test_classes_are_sorted_and_broken_files_named_and_counted(root: Path) -> None:
    folder = EventFolder.open(root)
    assert (folder.class_names, len(folder), folder.labels) == (("cat", "dog", "owl"), 4, (0, 0, 1, 1))
    found = [(Path(events.source).name, label, as_tuples(events)) for events, label in folder]
    assert found == [
        ("a.dat", 0, list(EVENTS)),
        ("b.bin", 0, list(EVENTS[:2])),
        ("2.BIN", 1, list(EVENTS[3:])),
    ]
    assert [skipped.path for skipped in folder.skipped] == [root / "dog/1.bin"]
    assert "1.bin is truncated" in folder.skipped[0].reason
    list(folder)
    assert len(folder.skipped) == 1, "a second iteration counts anew"


def test_recordings_are_read_one_at_a_time(root: Path) -> None:
    walk = iter(EventFolder.open(root))
    next(walk)
    (root / "cat/b.bin").write_bytes(atis_bin(EVENTS[:3]))
    assert len(next(walk)[0]) == 3


def test_strict(root: Path) -> None:
    with pytest.raises(DataError, match=r"1\.bin is truncated"):
        list(EventFolder.open(root, strict=True))


def test_a_flat_folder_has_no_labels(root: Path) -> None:
    folder = EventFolder.open(root / "cat")
    assert (folder.class_names, folder.labels) == (None, None)
    assert [label for _, label in folder] == [None, None]


def test_the_first_of_every_class(root: Path) -> None:
    folder = EventFolder.open(root)
    assert [path.name for path in folder.head(2).files] == ["a.dat", "1.bin"]
    assert folder.head(3).labels == (0, 0, 1)
    assert folder.head(99).files == folder.files
    assert [path.name for path in EventFolder.open(root / "cat").head(1).files] == ["a.dat"]


def test_the_size_is_passed_on(root: Path) -> None:
    assert {(events.width, events.height) for events, _ in EventFolder.open(root, sensor=(50, 60))} == {(50, 60)}
    with pytest.raises(UsageError, match="sensor size"):
        list(EventFolder.open(root, sensor=(0, 60)))


def test_only_broken_files(root: Path) -> None:
    (root / "dog/2.BIN").unlink()
    with pytest.raises(DataError, match=r"none of its 1 recordings can be read, the first since .*truncated"):
        list(EventFolder.open(root / "dog"))


def test_folders_that_are_no_dataset(root: Path, tmp_path: Path) -> None:
    write(root / "loose.bin", atis_bin(EVENTS))
    with pytest.raises(DataError, match=r"'loose\.bin'\) beside subfolders of recordings \('cat'\)"):
        EventFolder.open(root)
    with pytest.raises(DataError, match=r"holds no recordings; accepted are \.bin, "):
        EventFolder.open(root / "owl")
    with pytest.raises(DataError, match="can't be read"):
        EventFolder.open(root / "none")
