"""Arrays that are used again: never by two at a time, and never what somebody else owns."""

from __future__ import annotations

import numpy as np
import pytest

from snncc.runtime.buffers import ALIGNMENT, BufferPool, aligned


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.bool_])
def test_aligned_arrays_are_the_same_at_another_address(dtype: type) -> None:
    room = np.arange(300).astype(dtype).reshape(20, 15)
    for array in (room, room[1:], room[3:, 2], room.T, room[:0], np.array(5, dtype)):
        found = aligned(array)
        assert found.ctypes.data % ALIGNMENT == 0 or not found.size
        assert found.flags.c_contiguous
        assert (found.shape, found.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(found, array)
        assert aligned(found) is found or not found.size


def test_arrays_of_a_pool_are_aligned() -> None:
    pool = BufferPool()
    for _ in range(3):
        arrays = [pool.take((n, 3)) for n in (1, 5, 1000)]
        assert all(a.ctypes.data % ALIGNMENT == 0 for a in arrays)
        for array in arrays:
            pool.give(array)
