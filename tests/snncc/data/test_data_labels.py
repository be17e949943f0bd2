"""Labels: which key is taken, which forms are understood, and what is said about the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from snncc.data import Dataset, InputSpec, load
from snncc.data.labels import LABEL_KEYS
from snncc.errors import DataError, UsageError

X = np.zeros((3, 2), np.float32)
SPEC = InputSpec("x", np.dtype("float32"), ("N", 2))


def with_labels(named: str | None = None, /, **arrays: Any) -> Dataset:
    return load({"x": X, **arrays}, [SPEC], labels=named)


@pytest.mark.parametrize("key", LABEL_KEYS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64", ">i4"])
def test_customary_keys_are_found(key: str, dtype: str) -> None:
    labels = with_labels(**{key: np.array([2, 0, 1], dtype)}).labels
    assert labels is not None
    assert labels.dtype == np.int64
    assert labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_one_hot_rows_become_indices(dtype: str) -> None:
    labels = with_labels(y=np.eye(4, dtype=dtype)[[3, 0, 1]]).labels
    assert labels is not None
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 0, 1]


@pytest.mark.parametrize(
    "unfit",
    [
        np.array([0.0, 1.0, 2.0]),
        np.full((3, 4), 0.25),
        np.ones((3, 4)),
        np.ones((3, 1), int),
        np.array(["a", "b", "c"]),
    ],
)
def test_what_is_no_class_label_is_passed_over_unless_asked_for(unfit: Any) -> None:
    assert with_labels(y=unfit).labels is None
    with pytest.raises(DataError, match=r"labels 'y' are .*integer class indices \[N\] or one-hot.*array\."):
        with_labels("y", y=unfit)


def test_the_search_goes_on_behind_an_unfit_key() -> None:
    labels = with_labels(label=np.array([0.5, 0.5, 0.5]), target=np.array([1, 1, 0])).labels
    assert labels is not None
    assert labels.tolist() == [1, 1, 0]


def test_a_named_key_wins_over_the_customary_ones() -> None:
    labels = with_labels("digit", digit=np.array([7, 8, 9]), y=np.array([0, 0, 0])).labels
    assert labels is not None
    assert labels.tolist() == [7, 8, 9]


def test_a_missing_key_lists_those_that_are_there() -> None:
    with pytest.raises(DataError, match=r"no labels key 'digit'; it has 'x', 'y': name one"):
        with_labels("digit", y=np.array([0, 0, 0]))


@pytest.mark.parametrize("key", [None, "y"])
def test_another_number_of_labels_is_an_error(key: str | None) -> None:
    with pytest.raises(DataError, match=r"'x': 3, 'labels': 2\); give the same number"):
        with_labels(key, y=np.array([0, 1]))


def test_labels_beyond_int64_are_refused() -> None:
    with pytest.raises(DataError, match="labels 'y' are uint64"):
        with_labels("y", y=np.array([0, 1, 2**63], np.uint64))


def test_an_input_is_never_taken_for_labels() -> None:
    inputs = [SPEC, InputSpec("y", np.dtype("int64"), ("N",))]
    arrays = {"x": X, "y": np.array([0, 1, 2])}
    assert load(arrays, inputs).labels is None
    with pytest.raises(UsageError, match="labels key 'y' is an input of the model"):
        load(arrays, inputs, labels="y")


def test_labels_that_are_python_objects_are_refused() -> None:
    with pytest.raises(DataError, match="'y' holds Python objects: pickled data is refused"):
        with_labels(y=np.array([None, 1, 2]))
