"""Calibrating the neurons of one layer: unsigned or signed, and what was found for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snncc.config import Config
from snncc.context import LayerCalibration
from snncc.neurons.response import Response
from snncc.passes.error_parts import LayerError, layer_error
from snncc.passes.layer import Layer
from snncc.passes.layer_fit import LayerFit
from snncc.passes.signed_fit import BETTER, SignedFit

Fitted = tuple[LayerCalibration, NDArray[np.float32], list[Response]]
"""What was found for a layer, its θe, float32 [C] or [1], and what it does with it, per chunk."""


def fit_without_spikes(layer: Layer, source: str) -> LayerCalibration:
    """Calibrate a layer by the ANN's activation alone.

    Args:
        layer: the layer.
        source: where its values come from: "data" or "generated".
    """
    config = layer.config
    signed = layer.site.activation.encodes or config.neuron == "signed"
    theta = SignedFit(layer).closed_form if signed else LayerFit(layer).thresholds
    return layer_calibration(config, theta, _origin(layer, source), config.v_init, signed=signed)


def fit_neurons(layer: Layer, source: str) -> Fitted:
    """Choose the neurons of a layer, calibrate them, and return that with what they do; see `fit_without_spikes`."""
    unsigned, signed = LayerFit(layer), SignedFit(layer)
    if _is_signed(layer, unsigned, signed):
        unsigned.forget()
        found = _fit_signed(signed, source)
    else:
        signed.forget()
        found = _fit_unsigned(unsigned, source)
    layer.done(found[2], counts=False)
    return found


def _is_signed(layer: Layer, unsigned: LayerFit, signed: SignedFit) -> bool:
    """Decide for a layer, by the squared error of its mean output with the ANN's mean current."""
    site, config = layer.site, layer.config
    if site.activation.encodes or config.neuron != "auto":
        return site.activation.encodes or config.neuron == "signed"
    if site.static_input and site.quantised is None:
        return False  # nothing arrives unevenly
    other = layer.squared_error([r.fired for r in unsigned.trial], unsigned.effective)
    return signed.squared_error() < BETTER * other


def _fit_unsigned(fit: LayerFit, source: str) -> Fitted:
    theta, effective, config = fit.thresholds, fit.effective, fit.layer.config
    shift, responses = fit.correct()
    # What stands for a part of the initial potential is no shift.
    moved = shift - effective * np.float32((config.v_init - fit.v_init) / config.timesteps)
    error = layer_error(fit.layer, responses, effective, moved, signed=False)
    found = layer_calibration(config, theta, _origin(fit.layer, source), fit.v_init, shift, error)
    return found, effective, responses


def _fit_signed(fit: SignedFit, source: str) -> Fitted:
    theta, effective, config, responses = fit.thresholds, fit.effective, fit.layer.config, fit.matched
    error = layer_error(fit.layer, responses, effective, fit.shift, signed=True)
    origin = _origin(fit.layer, source)
    found = layer_calibration(config, theta, origin, config.v_init, fit.shift, error, signed=True)
    return found, effective, responses


def _origin(layer: Layer, source: str) -> str:
    quantised = layer.site.quantised
    return "pattern" if quantised is not None and quantised.decides(layer.config) else source


def layer_calibration(
    config: Config,
    theta: NDArray[np.float32],
    source: str,
    v_init: float,
    shift: NDArray[np.float32] | None = None,
    error: LayerError | None = None,
    *,
    signed: bool = False,
) -> LayerCalibration:
    """Note what was found for a layer, with its own ψ and τ."""
    return LayerCalibration(
        theta,
        source,
        v_init,
        shift,
        mean_error=error.mean if error else None,
        error=error.squared if error else None,
        firing_rate=error.firing_rate if error else None,
        signed=signed,
        parts=error.parts if error else None,
        max_burst=config.max_burst,
        threshold_ratio=config.threshold_ratio,
    )
