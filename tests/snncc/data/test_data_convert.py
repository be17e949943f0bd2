"""Casts: what keeps the values is done, what would lose them is refused with the first index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from snncc.data import InputSpec, convert, load
from snncc.errors import DataError


def feed(array: Any, dtype: str) -> NDArray[Any]:
    array = np.asarray(array)
    data = load({"x": array}, [InputSpec("x", np.dtype(dtype), ("N", *array.shape[1:]))])
    return data.batch(0, len(data))["x"]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("uint8", "float32"),
        ("int64", "float32"),
        ("bool", "float32"),
        ("float64", "float32"),
        ("float16", "float32"),
        ("float32", "float64"),
        ("float32", "float16"),
        (">f4", "float32"),
        (">i2", "int32"),
        ("uint8", "float16"),
        ("int64", "uint8"),
        ("uint8", "int64"),
        ("uint64", "int64"),
        ("bool", "int8"),
        ("int32", "bool"),
    ],
)
def test_customary_casts_keep_the_values(source: str, target: str) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(source)
    fed = feed(array, target)
    assert fed.dtype == np.dtype(target)
    assert fed.dtype.isnative
    assert fed.flags.c_contiguous
    np.testing.assert_array_equal(fed, [[0, 1], [1, 0]])


def test_column_major_and_strided_data_become_contiguous() -> None:
    array = np.asfortranarray(np.arange(24, dtype=np.float32).reshape(4, 6))[:, ::2]
    fed = feed(array, "float32")
    assert fed.flags.c_contiguous
    np.testing.assert_array_equal(fed, array)


@pytest.mark.parametrize("target", ["int64", "uint8", "bool"])
def test_fractions_never_become_integers(target: str) -> None:
    with pytest.raises(DataError, match=rf"'x' is of dtype float32 but model input 'x' wants {target}.*astype"):
        feed(np.zeros((2, 2), np.float32), target)


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.complex64), np.array([["a"]]), np.zeros((1, 1), "M8[s]")])
def test_what_are_no_real_numbers_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(DataError, match=r"'x' is of dtype .*convert it to real numbers"):
        feed(array, "float32")


@pytest.mark.parametrize(
    ("value", "source", "target"),
    [
        (256, "int64", "uint8"),
        (-1, "int8", "uint8"),
        (2**63, "uint64", "int64"),
        (2, "int64", "bool"),
        (70000, "int32", "float16"),
        (1e300, "float64", "float32"),
        (-1e5, "float32", "float16"),
    ],
)
def test_values_outside_the_range_are_refused_with_their_index(value: float, source: str, target: str) -> None:
    array = np.zeros((4, 3), source)
    array[2, 1] = value
    with pytest.raises(DataError) as caught:
        feed(array, target)
    message = str(caught.value)
    for part in ["array for input 'x'", "[2, 1]", f"fit {target}", "rescale"]:
        assert part in message


@pytest.mark.parametrize("edge", [(0, "int64", "uint8"), (255, "int64", "uint8"), (2**63 - 1, "uint64", "int64")])
def test_the_ends_of_a_range_fit(edge: tuple[int, str, str]) -> None:
    value, source, target = edge
    assert int(feed(np.array([value], source), target)[0]) == value


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf")])
@pytest.mark.parametrize(("source", "target"), [("float32", "float32"), ("float64", "float32"), ("float16", "float64")])
def test_nan_and_inf_are_refused_with_the_first_index(value: float, kind: str, source: str, target: str) -> None:
    array = np.zeros((6, 2, 2), source)
    array[3, 1, 0] = value
    array[5] = np.nan
    with pytest.raises(DataError, match=rf"'x' holds {kind} at index \[3, 1, 0\].*remove it or replace"):
        feed(array, target)


def test_checks_stream_and_still_give_the_index_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "CHUNK_BYTES", 16)
    windows = list(convert.chunks((7, 2), 4))
    assert [(window.start, window.stop) for window in windows] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    array = np.zeros((7, 2), np.float32)
    array[6, 1] = np.nan
    with pytest.raises(DataError, match=r"\[6, 1\]"):
        feed(array, "float32")
    with pytest.raises(DataError, match=r"300 at index \[5, 0\]"):
        feed(np.where(np.arange(14).reshape(7, 2) == 10, 300, 0), "uint8")


def test_a_sample_larger_than_a_chunk_is_its_own_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "CHUNK_BYTES", 4)
    assert len(list(convert.chunks((3, 100), 4))) == 3


def test_python_objects_and_ragged_lists_are_refused() -> None:
    inputs = [InputSpec("x", np.dtype("float32"), ("N", None))]
    with pytest.raises(DataError, match=r"array 'x' holds Python objects: pickled data is refused.*save it as"):
        load({"x": np.array([[None, 1]], dtype=object)}, inputs)
    with pytest.raises(DataError, match=r"array 'x' is no array .*np\.asarray"):
        load({"x": [[1.0, 2.0], [3.0]]}, inputs)
