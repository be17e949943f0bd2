"""`.npz` and `.npy` files: what is read, and that damaged or hostile files end in a message."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy_format

from snncc.data import InputSpec, archive, load
from snncc.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.random((6, 4)).astype(np.float32)
SPEC = InputSpec("x", np.dtype("float32"), ("N", 4))


def header(shape: tuple[int, ...]) -> bytes:
    """Return a `.npy` header alone."""
    stream = io.BytesIO()
    npy_format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_gives_its_arrays(tmp_path: Path, save: object) -> None:
    path = tmp_path / "calib.npz"
    save(path, x=X, y=np.arange(6), unrelated=np.array(["a"]))  # type: ignore[operator]
    data = load(str(path), [SPEC])
    assert data.source == str(path)
    assert data.labels is not None
    assert data.labels.tolist() == list(range(6))
    np.testing.assert_array_equal(data.batch(0, 6)["x"], X)


def test_only_the_arrays_that_are_used_are_read(tmp_path: Path) -> None:
    path = tmp_path / "calib.npz"
    np.savez(path, x=X)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("broken.npy", b"no array")
        file.writestr("notes.txt", b"no array either")
    assert len(load(path, [SPEC])) == 6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"'shape': (6, 4)", b"'shape': (6, 4("),  # tokenize.TokenError
        (b"'descr': '<f4'", b"'descr': '2f('"),
        (b"'descr': '<f4'", b"'descr': 3 <4 "),
        (b"(6, 4), }", b"(9**9), }"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_header_that_makes_no_sense(tmp_path: Path, old: bytes, new: bytes, suffix: str) -> None:
    stream = io.BytesIO()
    np.save(stream, X)
    content = stream.getvalue()
    assert content.count(old) == 1
    path = tmp_path / f"calib{suffix}"
    if suffix == ".npy":
        path.write_bytes(content.replace(old, new))
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x.npy", content.replace(old, new))
    with pytest.raises(DataError, match=r"is damaged|is no readable"):
        load(path, [SPEC])


def test_a_memory_map_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "calib.npy"
    np.save(path, (X * 255).astype(np.uint8))
    data = load(path, [SPEC], limit=3)
    array = data.arrays["x"]
    assert isinstance(array, np.ndarray)
    base: object = array
    while not isinstance(base, np.memmap) and base is not None:
        base = getattr(base, "base", None)
    assert isinstance(base, np.memmap)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(data.batch(0, 3)["x"], (X * 255).astype(np.uint8)[:3].astype(np.float32))


def test_column_major_files(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.asfortranarray(X))
    np.savez(tmp_path / "f.npz", x=np.asfortranarray(X))
    for name in ("f.npy", "f.npz"):
        np.testing.assert_array_equal(load(tmp_path / name, [SPEC]).batch(0, 6)["x"], X)


@pytest.mark.parametrize("keep", [10, 120, -30])
def test_a_truncated_npy_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "calib.npy"
    np.save(path, X)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"calib\.npy is no readable .npy file .*truncated.*np\.save"):
        load(path, [SPEC])


@pytest.mark.parametrize("keep", [0, 10, 120, -30])
def test_a_truncated_npz_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "calib.npz"
    np.savez(path, x=X)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"calib\.npz is no readable .npz archive .*truncated.*np\.savez"):
        load(path, [SPEC])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bytes_in_an_archive_are_found(tmp_path: Path, save: object) -> None:
    path = tmp_path / "calib.npz"
    big = RNG.random((64, 4)).astype(np.float32)
    save(path, x=big)  # type: ignore[operator]
    content = bytearray(path.read_bytes())
    for position in range(300, 330):
        content[position] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"calib\.npz: array 'x' is damaged .*np\.savez"):
        load(path, [SPEC])


def test_a_member_shorter_than_its_header_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calib.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", header((6, 4)) + bytes(40))
    with pytest.raises(DataError, match=r"array 'x' is damaged \(its header declares 96 bytes, 40 are there\)"):
        load(path, [SPEC])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2**40, 4), r"array 'x' declares 16384\.0 GiB.*zip bomb.*save large data as \.npy"),
        ((-6, 4), r"array 'x' is damaged \(the header declares the shape \[-6, 4\]"),
    ],
)
def test_a_header_with_an_absurd_shape_allocates_nothing(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    path = tmp_path / "calib.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", header(shape) + bytes(40))
    with pytest.raises(DataError, match=message):
        load(path, [SPEC])
    (tmp_path / "calib.npy").write_bytes(header(shape) + bytes(40))
    with pytest.raises(DataError, match=r"calib\.npy is no readable .npy file \(.*header declares"):
        load(tmp_path / "calib.npy", [SPEC])


def test_a_member_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "calib.npz"
    np.savez_compressed(path, x=np.zeros((2**14, 4), np.float32))
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 2**18 - 1)
    with pytest.raises(DataError, match=r"calib\.npz: array 'x' declares .* GiB.*zip bomb.*save large data as \.npy"):
        load(path, [SPEC])


def test_object_arrays_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    np.savez(tmp_path / "objects.npz", x=objects)
    np.save(tmp_path / "objects.npy", objects)
    for name in ("objects.npz", "objects.npy"):
        with pytest.raises(DataError, match=rf"{name}.* holds Python objects: pickled data is refused.*save it as"):
            load(tmp_path / name, [SPEC])


@pytest.mark.parametrize("name", ["data.npy", "data.npz"])
def test_a_pickle_under_another_name_is_never_unpickled(tmp_path: Path, name: str) -> None:
    witness = tmp_path / "witness"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (witness,))

    (tmp_path / name).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataError, match=rf"{name} is no readable"):
        load(tmp_path / name, [SPEC])
    with zipfile.ZipFile(tmp_path / "inner.npz", "w") as file:
        file.writestr("x.npy", pickle.dumps(Payload()))
    with pytest.raises(DataError, match="array 'x' is damaged"):
        load(tmp_path / "inner.npz", [SPEC])
    assert not witness.exists()


def test_an_encrypted_or_unknown_member_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "calib.npz"
    np.savez(path, x=X)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag for encryption in the central directory
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"array 'x' is damaged \(.*encrypted"):
        load(path, [SPEC])


def test_an_archive_is_a_mapping_that_reads_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "calib.npz"
    np.savez(path, x=X, y=np.arange(6))
    found = archive.NpzArchive(path)
    assert list(found) == ["x", "y"]
    assert len(found) == 2
    assert "z" not in found
    with pytest.raises(KeyError):
        found["z"]
