"""What a layer of neurons did on some samples, and how its parameters are laid out for the loops that simulate it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 2048
"""Elements that are simulated together over all timesteps: their state stays in the processor's first cache."""


@dataclass(frozen=True)
class Response:
    """The spikes of a layer of neurons over all timesteps.

    Attributes:
        counts: n[t], [T, N, ...]: uint8, or int8 or int16 where spikes can be negative; [0, N, ...] if nobody wants it.
        fired: sum of n over time, int32 [N, ...].
        arrived: mean over time of what arrived, without the shift, float32 [N, ...].
        spikes: number of all spikes, those that were taken back counted too.
    """

    counts: NDArray[np.integer[Any]]
    fired: NDArray[np.int32]
    arrived: NDArray[np.float32]
    spikes: int


Correction = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Gain and offset, float32 [E] each: what arrives is gain·x + offset."""


Empty = Callable[[tuple[int, ...], type[np.generic]], NDArray[Any]]
"""Makes an array of a shape and a dtype with anything in it, as `numpy.empty` does."""


def spread(values: NDArray[np.floating[Any]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return parameters that broadcast to one sample, one for each of its elements: float32 [E], contiguous."""
    if values.ndim > len(shape):
        values = values.reshape(values.shape[values.ndim - len(shape) :])  # leading axes of size 1
    return np.ascontiguousarray(np.broadcast_to(values, shape).reshape(-1), np.float32)


def correction_of(correction: Correction | None, elements: int) -> Correction:
    """Return a correction, or one that changes nothing."""
    return correction or (np.ones(elements, np.float32), np.zeros(elements, np.float32))


def flat(values: NDArray[Any], lead: int) -> NDArray[Any]:
    """Return values with everything behind the leading axes as one axis, contiguous."""
    head = values.shape[:lead]
    return np.ascontiguousarray(values).reshape(*head, math.prod(values.shape[lead:]))
