"""The algebra of per-channel affine maps and the layers they are folded into; arrays only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """y = scale · x + shift, per channel.

    Attributes:
        scale: float64 [C].
        shift: float64 [C].
    """

    scale: Float
    shift: Float

    def then(self, other: Affine) -> Affine:
        """Return the map that applies this one first and `other` to its result."""
        return Affine(self.scale * other.scale, self.shift * other.scale + other.shift)


def identity(channels: int) -> Affine:
    """Return the map that changes nothing."""
    return Affine(np.ones(channels), np.zeros(channels))


def batch_norm(gamma: Float, beta: Float, mean: Float, variance: Float, epsilon: float) -> Affine:
    """Return a BatchNormalization at inference: y = γ · (x - μ) / sqrt(σ² + ε) + β.

    Args:
        gamma: γ, [C].
        beta: β, [C].
        mean: μ, [C].
        variance: σ², [C].
        epsilon: ε.

    Returns:
        The map; not finite where σ² + ε isn't positive.
    """
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + epsilon)
        return Affine(scale, beta - mean * scale)


def channel_vector(values: NDArray[np.generic], channels: int, rank: int | None, axis: int) -> Float | None:
    """Return a constant operand as a vector over the channels, if that is all it varies with.

    Args:
        values: the operand, broadcast against a tensor with `channels` channels.
        channels: C.
        rank: rank of that tensor, None if it isn't known.
        axis: axis of its channels, from the end (-1 is the last).

    Returns:
        float64 [C]; None if the operand varies along another axis or would enlarge the tensor.
    """
    if values.ndim > (1 if rank is None else rank):
        return None
    flat = values.astype(np.float64).reshape(-1)
    if flat.size == 1:
        return np.full(channels, flat[0])
    along = values.ndim + axis
    if along < 0 or flat.size != channels or values.shape[along] != channels:
        return None
    return flat


@dataclass(frozen=True)
class Layout:
    """How the weights of a layer are stored; the algebra works on [group, out, in, kernel].

    Attributes:
        op: "Conv" ([M, C/group, ...]), "ConvTranspose" ([C, M/group, ...]), "Gemm" ([K, N], or [N, K] with trans_b)
            or "MatMul" ([K, N]).
        group: number of groups.
        trans_b: Gemm's transB.
    """

    op: str
    group: int = 1
    trans_b: bool = False

    @property
    def _inputs_first(self) -> bool:
        return self.op in ("ConvTranspose", "MatMul") or (self.op == "Gemm" and not self.trans_b)

    def canonical(self, weight: NDArray[np.generic]) -> Float:
        """Return the weights as float64 [group, out, in, kernel]."""
        rows, columns = weight.shape[:2]
        stored = weight.astype(np.float64).reshape(self.group, rows // self.group, columns, -1)
        return stored.transpose(0, 2, 1, 3) if self._inputs_first else stored

    def stored(self, canonical: Float, shape: tuple[int, ...]) -> Float:
        """Undo `canonical`."""
        array = canonical.transpose(0, 2, 1, 3) if self._inputs_first else canonical
        return array.reshape(shape)


def scale_outputs(weight: Float, scale: Float) -> Float:
    """Multiply each output channel: s · (W x) = (s · W) x, on [group, out, in, kernel] and [group · out]."""
    group, out = weight.shape[:2]
    return weight * scale.reshape(group, out, 1, 1)


def scale_inputs(weight: Float, scale: Float) -> Float:
    """Multiply each input channel: W (s · x) = (W · s) x, on [group, out, in, kernel] and [group · in]."""
    group, inputs = weight.shape[0], weight.shape[2]
    return weight * scale.reshape(group, 1, inputs, 1)


def response(weight: Float, shift: Float) -> Float:
    """Return what a layer without padding makes of a constant input, W b: [group · in] to [group · out]."""
    group, inputs = weight.shape[0], weight.shape[2]
    total: Float = np.einsum("goik,gi->go", weight, shift.reshape(group, inputs)).reshape(-1)
    return total
