"""The dataset: batches, heads and the fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncc.data import InputSpec, convert, load
from snncc.errors import DataError, UsageError

SPEC = InputSpec("x", np.dtype("float32"), ("N", 3))
X = np.arange(21, dtype=np.uint8).reshape(7, 3)


@given(
    samples=st.integers(1, 40),
    size=st.integers(1, 50),
    dtype=st.sampled_from(["uint8", "int64", "float64", "float32", "bool"]),
    target=st.sampled_from(["float32", "float64"]),
)
def test_batches_of_any_size_make_up_the_whole(samples: int, size: int, dtype: str, target: str) -> None:
    array = np.random.default_rng(samples).integers(0, 200, (samples, 2, 3)).astype(dtype)
    data = load(array, [InputSpec("x", np.dtype(target), ("N", 2, 3))])
    batches = [batch["x"] for batch in data.batches(size)]
    assert all(batch.flags.c_contiguous and batch.dtype == np.dtype(target) for batch in batches)
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate(batches), array.astype(target))


@given(samples=st.integers(1, 40), n=st.integers(1, 50))
def test_a_head_is_the_beginning(samples: int, n: int) -> None:
    array = np.arange(samples * 3, dtype=np.float32).reshape(samples, 3)
    data = load({"x": array, "y": np.arange(samples)}, [SPEC]).head(n)
    assert len(data) == min(n, samples)
    np.testing.assert_array_equal(data.batch(0, samples)["x"], array[:n])
    assert data.labels is not None
    assert data.labels.tolist() == list(range(min(n, samples)))


def test_the_source_keeps_its_dtype() -> None:
    data = load(X, [SPEC])
    assert data.arrays["x"].dtype == np.uint8
    assert repr(data) == "Dataset(source='array', samples=7, labels=False)"


def test_a_batch_ends_with_the_data() -> None:
    data = load(X, [SPEC])
    np.testing.assert_array_equal(data.batch(5, 9)["x"], X[5:])


@pytest.mark.parametrize(("start", "stop"), [(7, 9), (-1, 2), (3, 3), (4, 2)])
def test_a_batch_outside_the_data_is_wrong_usage(start: int, stop: int) -> None:
    with pytest.raises(UsageError, match=f"batch {start}:{stop} of array is empty: it has 7 samples"):
        load(X, [SPEC]).batch(start, stop)


@pytest.mark.parametrize("n", [0, -3])
def test_sizes_below_one_are_wrong_usage(n: int) -> None:
    data = load(X, [SPEC])
    with pytest.raises(UsageError, match=f"batch size is {n}: it must be at least 1"):
        data.batches(n)
    with pytest.raises(UsageError, match=f"number of samples is {n}: it must be at least 1"):
        data.head(n)


def test_a_fixed_batch_must_divide_the_number_of_samples() -> None:
    spec = InputSpec("x", np.dtype("float32"), (2, 3))
    with pytest.raises(DataError, match=r"array gives 7 sample\(s\).*'x' takes 2 at a time.*multiple of 2.*--limit"):
        load(X, [spec])
    with pytest.raises(DataError, match=r"gives 5 sample\(s\).*multiple of 2"):
        load(X, [spec], limit=5)
    data = load(X, [spec], limit=6)
    assert len(data.head(4)) == 4
    with pytest.raises(DataError, match=r"gives 3 sample\(s\).*multiple of 2"):
        data.head(3)


def test_a_batch_axis_of_one_takes_any_number() -> None:
    assert len(load(X, [InputSpec("x", np.dtype("float32"), (1, 3))])) == 7


def test_the_fingerprint_is_what_it_says() -> None:
    """The reference is written out anew: a JSON line, then little-endian values in C order."""
    expected = hashlib.sha256(json.dumps(["x", "float32", [7, 3]]).encode() + b"\n" + X.astype("<f4").tobytes())
    assert load(X, [SPEC]).fingerprint() == expected.hexdigest()


def test_the_fingerprint_is_the_same_from_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X, y=np.arange(7))
    np.savez_compressed(tmp_path / "other.npz", images=np.asfortranarray(X.astype(">f8")))
    sources: list[Any] = [
        X,
        {"x": X.astype(np.int64)},
        tmp_path / "x.npy",
        tmp_path / "x.npz",
        tmp_path / "other.npz",
        (X[start : start + 2] for start in range(0, 7, 2)),
        [(X, np.arange(7))],
    ]
    prints = {load(source, [SPEC]).fingerprint() for source in sources}
    assert len(prints) == 1
    monkeypatch.setattr(convert, "CHUNK_BYTES", 5)
    assert load(X, [SPEC]).fingerprint() in prints


def test_the_fingerprint_tells_tensors_apart() -> None:
    changed = X.copy()
    changed[6, 2] += 1
    variants = [
        load(X, [SPEC]),
        load(X, [SPEC]).head(6),
        load(changed, [SPEC]),
        load(X[::-1], [SPEC]),
        load(X.reshape(7, 3, 1), [InputSpec("x", np.dtype("float32"), ("N", 3, 1))]),
        load(X, [InputSpec("z", np.dtype("float32"), ("N", 3))]),
        load(X, [InputSpec("x", np.dtype("float64"), ("N", 3))]),
        load({"x": X, "z": X}, [SPEC, InputSpec("z", np.dtype("float32"), ("N", 3))]),
    ]
    assert len({data.fingerprint() for data in variants}) == len(variants)


def test_the_order_of_the_inputs_does_not_count() -> None:
    first, second = SPEC, InputSpec("z", np.dtype("uint8"), ("N", 3))
    arrays = {"x": X, "z": X}
    assert load(arrays, [first, second]).fingerprint() == load(arrays, [second, first]).fingerprint()
