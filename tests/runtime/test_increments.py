"""Increments of a pool over time, and the sums that are counted of them."""

from __future__ import annotations

import numpy as np

from snncc.runtime.increments import absolute_sum, increments


def test_increments_sum_to_the_function_of_the_sum() -> None:
    x = np.random.default_rng(0).integers(-5, 6, (4, 2, 3)).astype(np.float32)
    y = increments(x, lambda v: v.max(axis=-1))
    np.testing.assert_array_equal(np.cumsum(y, axis=0), np.cumsum(x, axis=0).max(axis=-1))


def test_the_input_stays_as_it_is() -> None:
    x = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    before = x.copy()
    increments(x, lambda v: v)
    np.testing.assert_array_equal(x, before)


def test_absolute_sum() -> None:
    values = np.random.default_rng(1).normal(size=(3, 4, 2, 5)).astype(np.float32)
    np.testing.assert_allclose(absolute_sum(values), np.abs(values.astype(np.float64)).sum(axis=(0, 1)), rtol=1e-12)
