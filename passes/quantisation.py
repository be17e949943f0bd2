"""The arithmetic of linear quantisation, q = saturate(round(x / s) + z) and x ≈ s·(q - z); arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Scheme:
    """How a tensor is quantised.

    Attributes:
        scale: s, floating-point: a scalar, one per index of `axis`, or one per block along `axis`.
        zero: z, of the quantised type, of the scale's shape.
        axis: axis that scale and zero point belong to, where they are no scalars.
        block: elements of `axis` that share a scale; 0 if each has its own.
    """

    scale: Array
    zero: Array
    axis: int = 1
    block: int = 0

    @property
    def is_scalar(self) -> bool:
        """Whether one scale and one zero point hold for the whole tensor."""
        return self.scale.size == 1 and self.zero.size == 1

    def equals(self, other: Scheme) -> bool:
        """Whether both schemes give every quantised value the same meaning."""
        if self.scale.size != other.scale.size or self.zero.size != other.zero.size:
            return False
        same = bool((self.scale.reshape(-1) == other.scale.reshape(-1)).all())
        same &= bool((self.zero.reshape(-1) == other.zero.reshape(-1)).all()) and self.zero.dtype == other.zero.dtype
        return same and (self.is_scalar or (self.axis, self.block) == (other.axis, other.block))


def dequantised(values: Array, scheme: Scheme) -> Array:
    """Return s·(q - z) in the type of the scale.

    Args:
        values: quantised values, integers or 8-bit floats.
        scheme: how they are quantised.

    Raises:
        ValueError: the shapes don't fit each other.
    """
    wide = values.astype(np.float64)
    scale, zero = (_aligned(part.astype(np.float64), values.shape, scheme) for part in (scheme.scale, scheme.zero))
    with np.errstate(all="ignore"):  # a scale of NaN or infinity is the network's own
        result: Array = ((wide - zero) * scale).astype(scheme.scale.dtype)
    return result


def representable(scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the largest value that the scheme can express; both have the shape of the scale."""
    info = np.iinfo(scheme.zero.dtype)
    scale, zero = scheme.scale.astype(np.float64), scheme.zero.astype(np.float64)
    return scale * (info.min - zero), scale * (info.max - zero)


def _aligned(part: NDArray[np.float64], shape: tuple[int, ...], scheme: Scheme) -> NDArray[np.float64]:
    """Bring a scale or zero point into a shape that broadcasts against the values."""
    if part.size == 1:
        return part.reshape(())
    if not shape:
        raise ValueError(f"{part.size} scales for a single value")
    axis = scheme.axis % len(shape)
    if scheme.block:
        repeated = np.repeat(part, scheme.block, axis=axis)
        return repeated.take(range(shape[axis]), axis=axis)  # the last block may be shorter
    if part.size != shape[axis]:
        raise ValueError(f"{part.size} scales for {shape[axis]} channels")
    return part.reshape([-1 if i == axis else 1 for i in range(len(shape))])
