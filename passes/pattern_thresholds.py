"""Thresholds and initial potentials of activations that were trained in steps: see `snncc.neurons.quantised`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snncc.analysis import NeuronSite
from snncc.config import Config


def pattern_thresholds(site: NeuronSite, config: Config, channels: int, *, signed: bool) -> NDArray[np.float32] | None:
    """Return the thresholds θ of a layer that follow from its training, float32 [C]; None where they don't.

    Args:
        site: the layer.
        config: its options.
        channels: C.
        signed: its neurons are signed.
    """
    if site.quantised is None or not site.quantised.decides(config):
        return None
    return np.full(channels, site.quantised.v_threshold(config, signed=signed), np.float32)


def initial_potential(site: NeuronSite, config: Config) -> float:
    """Return v0 of a layer: that of its training, or else the configuration's."""
    quantised = site.quantised
    return config.v_init if quantised is None or not quantised.decides(config) else quantised.v_init
