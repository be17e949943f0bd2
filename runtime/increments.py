"""Operators that are positively homogeneous, as MaxPool is, over time: exactly, by what the cumulative input gains."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.compiled import compiled
from snncc.neurons.response import flat
from snncc.runtime.carried import Carried


def increments(
    x: NDArray[np.float32],
    apply: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    carried: Carried | None = None,
) -> NDArray[np.float32]:
    """Apply a positively homogeneous op g to the cumulative input and return what it gains at each timestep.

    y[t] = g(Σ_{k<=t} x[k]) - g(Σ_{k<t} x[k]), so that the mean of y over time is g of the mean of x.

    Args:
        x: float32 [T, N, ...].
        apply: g, on [T, N, ...] at once; what it returns is changed.
        carried: the state from block to block: "sum", Σ x so far, and "applied", g of it, both [N, ...].
    """
    total = np.empty(x.shape, np.float32)
    total[0] = x[0]
    if carried:
        total[0] += carried["sum"]
    _add_up(flat(x, 1), flat(total, 1))
    result = np.ascontiguousarray(apply(total))
    applied = None if carried is None else result[-1].copy()
    _take_apart(flat(result, 1))
    if carried:
        result[0] -= carried["applied"]
    if carried is not None and applied is not None:
        carried.update(sum=total[-1].copy(), applied=applied)
    return result


def absolute_sum(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the sum of absolute values [T, N, ...] over time and samples, float64 [...]."""
    found = np.zeros(values.shape[2:])
    _add_absolute(flat(values, 2), found.reshape(-1))
    return found


@compiled
def _add_up(x: NDArray[np.float32], total: NDArray[np.float32]) -> None:
    for t in range(1, len(x)):
        before, now, gained = total[t - 1], total[t], x[t]
        for i in range(len(now)):
            now[i] = before[i] + gained[i]


@compiled
def _take_apart(total: NDArray[np.float32]) -> None:
    for t in range(len(total) - 1, 0, -1):
        before, now = total[t - 1], total[t]
        for i in range(len(now)):
            now[i] -= before[i]


@compiled
def _add_absolute(values: NDArray[np.float32], found: NDArray[np.float64]) -> None:
    for t in range(values.shape[0]):
        for n in range(values.shape[1]):
            x = values[t, n]
            for i in range(len(found)):
                found[i] += np.float64(abs(x[i]))
