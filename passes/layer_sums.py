"""Sums over samples, positions and time that calibration rests on, per channel and in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.neurons.compiled import compiled
from snncc.neurons.response import BLOCK, flat, spread
from snncc.runtime.session import Array


def by_channel(values: Array, axis: int | None) -> Array:
    """Return values [N, ...] as [N, C, M]; axis None: all values are one channel."""
    if axis is None:
        return values.reshape(len(values), 1, math.prod(values.shape[1:]))
    moved = np.moveaxis(values, axis, 1)
    return moved.reshape(len(values), values.shape[axis], math.prod(moved.shape[2:]))


def along(vector: NDArray[Any], axis: int | None, rank: int) -> NDArray[Any]:
    """Return a value per channel in a shape that broadcasts to a tensor of the given rank."""
    shape = [1] * rank
    if axis is not None:
        shape[axis] = len(vector)
    return vector.reshape(shape)


def per_channel(values: NDArray[Any], axis: int | None, shape: tuple[int, ...]) -> NDArray[Any]:
    """Add up values for each element of a sample, [..., E], per channel: [..., C].

    Args:
        values: the values.
        axis: axis of the channels in a batch of samples; None: all values are one channel.
        shape: of one sample, with E elements.
    """
    if axis is None:
        return np.asarray(values.sum(axis=-1, keepdims=True))
    lead = values.ndim - 1
    unfolded = values.reshape(*values.shape[:-1], *shape)
    others = tuple(lead + i for i in range(len(shape)) if i != axis - 1)
    return np.asarray(unfolded.sum(axis=others))


@dataclass(frozen=True)
class Sums:
    """Count, sum and sum of squares per channel, of values in ANN and SNN, and the sum of their products."""

    count: int
    ann: NDArray[np.float64]
    ann_squared: NDArray[np.float64]
    snn: NDArray[np.float64]
    snn_squared: NDArray[np.float64]
    product: NDArray[np.float64]


def sums(ann: Array, snn: NDArray[np.float32], axis: int | None, *, last: bool = False) -> Sums:
    """Add up one chunk.

    Args:
        ann: values in the ANN, float32 [N, ...].
        snn: values in the SNN, float32 [T, N, ...], of which the mean over time counts.
        axis: axis of the channels in `ann`; None: all values are one channel.
        last: the last of them counts instead: they are means already.
    """
    if ann.ndim == 0:  # one value of all samples
        ann, snn = ann.reshape(1), snn.reshape(len(snn), 1)
    shape = ann.shape[1:]
    found = np.zeros((5, math.prod(shape)))
    _add(flat(ann, 1), flat(snn, 2), last, found)
    channels = per_channel(found, axis, shape)
    return Sums(ann.size // channels.shape[1], *channels)


def total(parts: Sequence[Sums]) -> Sums:
    """Add up the sums of all chunks, of which there is at least one."""
    first, *others = parts
    for part in others:
        first = Sums(
            first.count + part.count,
            first.ann + part.ann,
            first.ann_squared + part.ann_squared,
            first.snn + part.snn,
            first.snn_squared + part.snn_squared,
            first.product + part.product,
        )
    return first


@compiled
def _add(ann: NDArray[np.float32], snn: NDArray[np.float32], last: bool, found: NDArray[np.float64]) -> None:
    """Add ann [N, E], the mean or the last of snn [T, N, E], squares and products over samples to found [5, E]."""
    mean = np.empty(BLOCK, np.float32)
    timesteps, samples, elements = snn.shape
    for start in range(0, elements, BLOCK):
        size = min(BLOCK, elements - start)
        one, one_squared = found[0, start : start + size], found[1, start : start + size]
        two, two_squared = found[2, start : start + size], found[3, start : start + size]
        product = found[4, start : start + size]
        for n in range(samples):
            for i in range(size):
                mean[i] = np.float32(0)
            for t in range(timesteps - 1 if last else 0, timesteps):
                x = snn[t, n, start : start + size]
                for i in range(size):
                    mean[i] += x[i]
            number = np.float32(1 if last else timesteps)
            a = ann[n, start : start + size]
            for i in range(size):
                value, of_snn = np.float64(a[i]), np.float64(mean[i] / number)
                one[i] += value
                one_squared[i] += value * value
                two[i] += of_snn
                two_squared[i] += of_snn * of_snn
                product[i] += value * of_snn


def squared_error(fired: NDArray[np.int32], target: NDArray[np.float32], unit: NDArray[np.float32]) -> float:
    """Return Σ (unit·fired - target)² over a chunk [N, ...]; unit broadcasts to a sample."""
    shape = target.shape[1:]
    return float(_squared_error(flat(fired, 1), flat(target, 1), spread(unit, shape)))


@compiled
def _squared_error(fired: NDArray[np.int32], target: NDArray[np.float32], unit: NDArray[np.float32]) -> float:
    found = np.zeros(BLOCK)
    for start in range(0, len(unit), BLOCK):
        size = min(BLOCK, len(unit) - start)
        theta = unit[start : start + size]
        for n in range(len(fired)):
            f, x = fired[n, start : start + size], target[n, start : start + size]
            for i in range(size):
                difference = np.float64(np.float32(f[i]) * theta[i] - x[i])
                found[i] += difference * difference
    return float(np.sum(found))
