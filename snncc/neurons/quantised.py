"""Activations that were trained in steps, and the neurons that say exactly these steps.

The activation (QCFS, Bu et al. 2022, eq. 9) and what a neuron emits on average for a constant current x are

    h(x) = λ/L · clip(floor(L·x/λ + φ), 0, L)
    s(x) = θe/T · clip(floor(T·x/θe + v0), 0, T·ψ)                   burst neuron
    s(x) = θe/T · floor(T·clip(x, 0, λ)/θe + v0),   at most ψ·θe     signed neuron of Clip(0, λ)

so with v0 = φ they are the same function

- for a burst neuron where θe = λ/ψ and T·ψ = L: it saturates at ψ·θe, which has to be λ. At larger T·ψ its steps are
  finer than those of the training, up to the same λ;
- for a signed neuron where θe = λ·T/L and T·ψ >= L: the bound λ is the activation's own, not the neuron's.

At T·ψ < L the neuron can't say all steps, and which of them to leave out is for the data to tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snncc.config import Config


@dataclass(frozen=True)
class QuantisedActivation:
    """What an activation was in training: λ/L · clip(floor(L·x/λ + v0), 0, L).

    Attributes:
        upper: λ, the largest value, in units of the activation.
        levels: L, the number of steps above zero.
        v_init: the shift that makes the floor a rounding, in [0, 1): v0 of the neuron that it was trained for.
    """

    upper: float
    levels: int
    v_init: float

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the activation of x, in its shape; the arithmetic is that of float32."""
        step = np.float32(self.upper / self.levels)
        level = np.floor(x / step + np.float32(self.v_init))
        return np.asarray(step * np.clip(level, np.float32(0), np.float32(self.levels)))

    def decides(self, config: Config) -> bool:
        """Whether θ and v0 follow from the activation.

        Not where the neuron has fewer levels, nor where other thresholds are asked for (by a method or a ratio τ).
        """
        enough = config.timesteps * config.max_burst >= self.levels
        return enough and config.threshold_method == "mse" and config.threshold_ratio == 1.0

    def v_threshold(self, config: Config, *, signed: bool) -> float:
        """Return θe where it follows from the activation: see the module's docstring."""
        share = config.timesteps / self.levels if signed else 1 / config.max_burst
        return self.upper * share
