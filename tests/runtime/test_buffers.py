"""Arrays that are used again: never by two at a time, and never what somebody else owns."""

from __future__ import annotations

import numpy as np
import pytest

from snncc.runtime.buffers import BufferPool


def test_an_array_comes_back_only_after_it_was_given() -> None:
    pool = BufferPool()
    first, second = pool.take((2, 3)), pool.take((2, 3))
    assert not np.shares_memory(first, second)
    pool.give(first)
    assert np.shares_memory(pool.take((3, 2)), first)
    assert not np.shares_memory(pool.take((3, 2)), first)


@pytest.mark.parametrize("shape", [(2, 3), (6,), (1, 1, 4), (0, 3), ()])
def test_arrays_have_the_shape_that_was_asked_for(shape: tuple[int, ...]) -> None:
    pool = BufferPool()
    pool.give(pool.take((7,)))
    for _ in range(2):
        array = pool.take(shape)
        assert (array.shape, array.dtype, array.flags.c_contiguous) == (shape, np.float32, True)


def test_the_smallest_that_fits_is_taken_and_keeps_its_size() -> None:
    pool = BufferPool()
    large, small = pool.take((100,)), pool.take((10,))
    pool.give(large)
    pool.give(small)
    taken = pool.take((9,))
    assert np.shares_memory(taken, small)
    pool.give(taken.reshape(3, 3))
    assert np.shares_memory(pool.take((10,)), small)
    assert np.shares_memory(pool.take((11,)), large)


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 8), np.float32), np.zeros(16), np.frombuffer(bytes(64), np.float32), np.zeros(16, np.uint8)],
    ids=["other", "float64", "read-only", "bytes"],
)
def test_foreign_arrays_are_left_alone(array: np.ndarray) -> None:
    pool = BufferPool()
    pool.give(array)
    assert not np.shares_memory(pool.take((4,)), array)
