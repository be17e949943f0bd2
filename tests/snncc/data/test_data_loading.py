"""`load`: the choice among the kinds of source, and options that don't go with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncc.data import ImageOptions, InputSpec, load
from snncc.errors import DataError, UsageError

SPEC = InputSpec("x", np.dtype("float32"), ("N", 2))
X = np.arange(10, dtype=np.float32).reshape(5, 2)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_wrong_usage(limit: int) -> None:
    with pytest.raises(UsageError, match=f"limit is {limit}: it must be at least 1"):
        load(X, [SPEC], limit=limit)


@pytest.mark.parametrize("kind", ["array", "dict", "npy", "npz", "iterable"])
@pytest.mark.parametrize("limit", [1, 3, 99])
def test_a_limit_takes_the_first_samples(tmp_path: Path, kind: str, limit: int) -> None:
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X, y=np.arange(5))
    source: Any = {
        "array": X,
        "dict": {"x": X, "y": np.arange(5)},
        "npy": tmp_path / "x.npy",
        "npz": tmp_path / "x.npz",
        "iterable": [X[:4], X[4:]],
    }[kind]
    data = load(source, [SPEC], limit=limit)
    assert len(data) == min(limit, 5)
    np.testing.assert_array_equal(data.batch(0, limit)["x"], X[:limit])
    assert data.labels is None or data.labels.tolist() == list(range(min(limit, 5)))


def test_values_beyond_the_limit_are_not_looked_at() -> None:
    array = X.copy()
    array[4] = np.nan
    assert len(load(array, [SPEC], limit=4)) == 4
    with pytest.raises(DataError, match="NaN"):
        load(array, [SPEC])


@pytest.mark.parametrize("name", ["missing.npz", "missing", "a" * 3000, "nul\0.npy"])
def test_a_path_that_does_not_exist(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"(doesn't exist|can't be opened).*\.npz archive, a \.npy file or a folder"):
        load(str(tmp_path / name), [SPEC])


def test_an_empty_path_is_not_the_current_folder() -> None:
    with pytest.raises(DataError, match="'' doesn't exist"):
        load("", [SPEC])


@pytest.mark.parametrize("name", ["data.csv", "data.h5", "data", "data.png"])
def test_an_unknown_kind_of_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"1,2")
    with pytest.raises(
        DataError, match=rf"{name} is of an unknown kind.*\.npz archive, a \.npy file or a folder of images"
    ):
        load(tmp_path / name, [SPEC])


def test_suffixes_are_read_in_either_case(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "X.NPY")
    assert len(load(tmp_path / "X.NPY", [SPEC])) == 5


@pytest.mark.parametrize("shape", [(0, 2), (0,)])
def test_no_samples(tmp_path: Path, shape: tuple[int, ...]) -> None:
    spec = InputSpec("x", np.dtype("float32"), ("N", *shape[1:]))
    np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))
    np.savez(tmp_path / "x.npz", x=np.zeros(shape, np.float32))
    for source in (np.zeros(shape), tmp_path / "x.npy", tmp_path / "x.npz"):
        with pytest.raises(DataError, match=r"'x' is empty .*give at least one sample"):
            load(source, [spec])


def test_samples_without_values() -> None:
    with pytest.raises(DataError, match=r"'x' is empty \(shape \[3, 0\]\)"):
        load(np.zeros((3, 0)), [InputSpec("x", np.dtype("float32"), ("N", None))])


@pytest.mark.parametrize("source", [3, None, b"bytes", bytearray(b"bytes"), memoryview(b"bytes")])
def test_what_is_no_data_at_all(source: Any) -> None:
    with pytest.raises(UsageError) as caught:
        load(source, [SPEC])
    assert f"type {type(source).__name__} can't be used; pass" in str(caught.value)


def test_a_labels_key_needs_keys(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    for source, what in ((tmp_path / "x.npy", r"x\.npy .*into an \.npz"), (X, "an array"), (tmp_path, "the folder")):
        with pytest.raises(UsageError, match=f"labels key 'y' is given but there are no keys in .*{what}"):
            load(source, [SPEC], labels="y")


def test_image_options_need_images(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X)
    for source in (tmp_path / "x.npy", tmp_path / "x.npz", X, [X]):
        with pytest.raises(UsageError, match=r"image options are given but .* holds no image files.*leave them away"):
            load(source, [SPEC], image=ImageOptions(mean=(0.5,)))
        assert len(load(source, [SPEC], image=ImageOptions())) == 5


def test_errors_keep_their_cause(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(b"garbage")
    with pytest.raises(DataError) as caught:
        load(tmp_path / "x.npy", [SPEC])
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_unreadable_file_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", X)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError("denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError, match=r"x\.npy is no readable .npy file \(denied\)"):
        load(tmp_path / "x.npy", [SPEC])
