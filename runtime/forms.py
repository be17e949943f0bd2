"""From what arrives at each timestep to the mean so far, and back, over all timesteps or block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snncc.runtime.carried import Carried


def running_mean(values: NDArray[np.float32], carried: Carried | None = None, done: int = 0) -> NDArray[np.float32]:
    """Return the means over the timesteps so far of what arrives at each of them.

    Args:
        values: what arrives, [T, N, ...].
        carried: the state from block to block: "sum", of all that arrived.
        done: timesteps before.

    Returns:
        The means, float32 [T, N, ...].
    """
    sums = np.array(values, np.float32)
    if carried:
        sums[0] += carried["sum"]
    for t in range(1, len(sums)):
        sums[t] += sums[t - 1]
    if carried is not None:
        carried["sum"] = sums[-1].copy()
    sums /= _numbers(sums, done)
    return sums


def gains(means: NDArray[np.float32], carried: Carried | None = None, done: int = 0) -> NDArray[np.float32]:
    """Undo `running_mean`: y[t] = t·m[t] - (t-1)·m[t-1]. What isn't finite counts as zero.

    Args:
        means: m, [T, N, ...].
        carried: the state from block to block: "sum", t·m[t].
        done: timesteps before.

    Returns:
        y, float32 [T, N, ...].
    """
    sums = np.where(np.isfinite(means), means, np.float32(0)) * _numbers(means, done)
    result = sums.copy()
    result[1:] -= sums[:-1]
    if carried:
        result[0] -= carried["sum"]
    if carried is not None:
        carried["sum"] = sums[-1].copy()
    return np.asarray(result)


def _numbers(values: NDArray[np.float32], done: int) -> NDArray[np.float32]:
    return np.arange(done + 1, done + len(values) + 1, dtype=np.float32).reshape(-1, *[1] * (values.ndim - 1))
