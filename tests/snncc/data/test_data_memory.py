"""Arrays, dicts and iterables: how keys are matched, and what items may look like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncc.data import InputSpec, load
from snncc.errors import DataError, UsageError

RNG = np.random.default_rng(0)
A = RNG.random((5, 2)).astype(np.float32)
B = RNG.random((5, 3)).astype(np.float32)
SPEC_A = InputSpec("a", np.dtype("float32"), ("N", 2))
SPEC_B = InputSpec("b", np.dtype("float32"), ("N", 3))


def test_a_dict_feeds_several_inputs_by_name() -> None:
    data = load({"b": B, "extra": np.zeros(9), "a": A}, [SPEC_A, SPEC_B])
    assert set(data.arrays) == {"a", "b"}
    batch = data.batch(1, 3)
    np.testing.assert_array_equal(batch["a"], A[1:3])
    np.testing.assert_array_equal(batch["b"], B[1:3])


@pytest.mark.parametrize("key", ["images", "arr_0"])
def test_one_input_takes_the_only_array_that_is_no_label(tmp_path: Path, key: str) -> None:
    np.savez(tmp_path / "data.npz", **{key: A, "y": np.arange(5)})  # type: ignore[arg-type]
    data = load(tmp_path / "data.npz", [SPEC_A])
    assert set(data.arrays) == {"a"}
    assert data.labels is not None
    assert len(load({key: A, "digit": np.arange(5)}, [SPEC_A], labels="digit")) == 5


def test_two_candidates_are_never_guessed_between(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", train=A, test=A)
    with pytest.raises(DataError, match=r"data\.npz: .*input\(s\) 'a'; it has 'train', 'test' .*wants 'a': rename"):
        load(tmp_path / "data.npz", [SPEC_A])


def test_a_missing_key_lists_keys_and_inputs() -> None:
    with pytest.raises(DataError, match=r"input\(s\) 'b'; it has 'a' and the model wants 'a', 'b': rename"):
        load({"a": A}, [SPEC_A, SPEC_B])
    with pytest.raises(DataError, match="it has nothing and the model wants 'a'"):
        load({}, [SPEC_A])


def test_different_numbers_of_samples_are_refused() -> None:
    with pytest.raises(DataError, match=r"'a': 5, 'b': 4\); give the same number"):
        load({"a": A, "b": B[:4]}, [SPEC_A, SPEC_B])


def test_one_array_can_not_feed_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", A)
    for source in (A, tmp_path / "data.npy", [A]):
        with pytest.raises(
            DataError, match=r"single array but the model has 2 inputs \('a', 'b'\): give one array per"
        ):
            load(source, [SPEC_A, SPEC_B])


def test_anything_with_an_array_interface_is_an_array() -> None:
    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return A

        def __iter__(self) -> Iterator[Any]:
            raise AssertionError

    np.testing.assert_array_equal(load(Tensor(), [SPEC_A]).batch(0, 5)["a"], A)


@pytest.mark.parametrize("form", ["array", "tuple", "list", "dict", "dict and labels", "dict with labels"])
def test_iterables_of_each_form(form: str) -> None:
    labels = np.arange(5)

    def items() -> Iterator[Any]:
        for part in (slice(0, 2), slice(2, 3), slice(3, 5)):
            yield {
                "array": A[part],
                "tuple": (A[part], labels[part]),
                "list": [A[part], labels[part]],
                "dict": {"a": A[part], "names": np.array(["n" * (part.start + 1)])},
                "dict and labels": ({"a": A[part]}, labels[part]),
                "dict with labels": {"a": A[part], "y": labels[part]},
            }[form]

    data = load(items(), [SPEC_A])
    np.testing.assert_array_equal(data.batch(0, 5)["a"], A)
    assert (data.labels is not None) == (form not in ("array", "dict"))
    assert data.labels is None or data.labels.tolist() == labels.tolist()
    assert data.source == "iterable"


@pytest.mark.parametrize("limit", [3, 4])
def test_an_iterable_is_consumed_no_further_than_the_limit(limit: int) -> None:
    drawn = []

    def endless() -> Iterator[Any]:
        while True:
            drawn.append(1)
            yield A[:2], np.array([0, 1])

    data = load(endless(), [SPEC_A], limit=limit)
    assert len(data) == limit
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0, 1][:limit]
    assert len(drawn) == 2


def test_an_iterable_may_reuse_its_buffer() -> None:
    def items() -> Iterator[Any]:
        buffer = np.empty((1, 2), np.float32)
        for value in range(3):
            buffer[:] = value
            yield buffer

    assert load(items(), [SPEC_A]).batch(0, 3)["a"].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_labels_of_an_iterable_may_be_named() -> None:
    items = [{"a": A, "digit": np.arange(5)}]
    labels = load(items, [SPEC_A], labels="digit").labels
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match=r"iterable: there is no labels key 'nope'; it has 'a', 'digit'"):
        load(items, [SPEC_A], labels="nope")
    for keyless in ([A], [(A, np.arange(5))], [({"a": A, "digit": np.arange(5)}, np.arange(5))]):
        with pytest.raises(UsageError, match="labels key 'digit' is given but iterable yields no dicts"):
            load(keyless, [SPEC_A], labels="digit")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "iterable yields no samples.*make it anew"),
        ([A[:0]], "iterable yields no samples"),
        ([(A, A, A)], "item 0 is a tuple of 3: yield"),
        ([A, (A, np.arange(5))], "item 1 holds 'a' with labels, unlike item 0; yield the same form"),
        ([(A, np.arange(5)), A], "item 1 holds 'a' without labels, unlike item 0"),
        ([{"a": A, "y": np.arange(5)}, {"a": A}], "item 1 holds 'a' without labels, unlike item 0"),
        ([A, A.astype(np.float64)], r"item 1: array 'a' is float64 \[5, 2\] where item 0 is float32.*yield one dtype"),
        ([A, B], r"item 1: array 'a' is float32 \[5, 3\] where item 0 is float32 \[5, 2\].*one shape"),
        ([(A, np.arange(4))], r"item 0 has 5 sample\(s\) but 4 label\(s\); give one label per sample"),
        ([(A, np.full(5, 0.5))], "item 0: labels are float64.*integer class indices"),
        ([{"a": A, "y": np.arange(4)}], r"item 0 has \{'a': 5, 'y': 4\} samples by array: yield"),
        ([3.0], "item 0 has .* samples by array: yield"),
        ([{}], "item 0 has .* samples by array: yield"),
        ([np.array([[None]])], "item 0 holds Python objects"),
        ([A[0]], r"shape \[2\] but model input 'a' wants \[N, 2\].*array\[np.newaxis\]"),
    ],
)
def test_items_that_do_not_go_together(items: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(items, [SPEC_A])


def test_an_error_of_the_iterable_is_its_own() -> None:
    def items() -> Iterator[Any]:
        yield A
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load(items(), [SPEC_A])
