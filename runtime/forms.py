"""From what arrives at each timestep to the mean so far, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def running_mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the means [T, ...] over the timesteps so far of what arrives at each of them."""
    return np.asarray(np.cumsum(values, axis=0, dtype=np.float32) / _numbers(values))


def gains(means: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo `running_mean`: y[t] = t·m[t] - (t-1)·m[t-1]. What isn't finite counts as zero."""
    sums = np.where(np.isfinite(means), means, np.float32(0)) * _numbers(means)
    result = sums.copy()
    result[1:] -= sums[:-1]
    return np.asarray(result)


def _numbers(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.arange(1, len(values) + 1, dtype=np.float32).reshape(-1, *[1] * (values.ndim - 1))
