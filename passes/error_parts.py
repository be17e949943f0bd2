"""How far a layer's mean output is from the ANN's activation, and where that error enters.

With a the ANN's activation of its current x, m the SNN's mean current, c the closed form of the neuron and s its real
mean output, the squared error of s telescopes into four parts:

    clipping      Σ (min(a, ψ·θe) - a)²                           what lies beyond the neuron's largest output
    quantisation  Σ (c(x) - a)²  less the clipping                what falls between its steps
    inherited     Σ (c(m) - a)²  less Σ (c(x) - a)²               what is wrong with the current that arrives
    unevenness    Σ (s - a)²     less Σ (c(m) - a)²               what spikes that come unevenly or all at once cost
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snncc.context import ErrorParts
from snncc.neurons.compiled import compiled
from snncc.neurons.response import BLOCK, Response, flat, spread
from snncc.passes.layer import Layer


@dataclass(frozen=True)
class LayerError:
    """The error of a layer.

    Attributes:
        squared: squared error of the mean output, relative to the activation's energy.
        mean: sum of the differences, relative to the activation's sum.
        firing_rate: spikes per neuron and timestep.
        parts: what `squared` is the sum of.
    """

    squared: float
    mean: float
    firing_rate: float
    parts: ErrorParts


def layer_error(
    layer: Layer,
    responses: list[Response],
    theta: NDArray[np.float32],
    shift: NDArray[np.float32] | None,
    *,
    signed: bool,
) -> LayerError:
    """Take the error of one layer apart.

    Args:
        layer: the layer.
        responses: what its neurons did, per chunk.
        theta: effective threshold θe, float32 [C] or [1].
        shift: what the bias correction adds to the SNN's current, float32 [C]; None for nothing.
        signed: the layer's neurons are signed.
    """
    config, shape, activation = layer.config, layer.target[0].shape[1:], layer.site.activation
    unit = spread(layer.along(theta), shape)
    moved = np.zeros_like(unit) if shift is None else spread(layer.along(shift), shape)
    # A signed neuron encodes f(x), an unsigned one is itself the function; what it can't say is cut at ±ψ·θe.
    lower = -math.inf if activation.encodes else 0.0
    bounds = np.float32(lower), np.float32(activation.upper if signed else math.inf)
    constant = layer.entry.snn is None

    def of_chunk(chunk: int) -> NDArray[np.float64]:
        response, found = responses[chunk], np.zeros((7, BLOCK))
        ann, target = flat(layer.entry.ann[chunk], 1), flat(layer.target[chunk], 1)
        arrived = ann if constant else flat(response.arrived, 1)
        none = np.zeros_like(moved) if constant else moved
        fired = flat(response.fired, 1)
        _add(ann, target, arrived, fired, unit, none, bounds, config.timesteps, config.max_burst, config.v_init, found)
        return np.asarray(found.sum(axis=1))

    sums = np.sum(layer.pool.each(of_chunk), axis=0).tolist()
    squared, with_current, steps, clipped, energy, difference, mean = sums
    scale = 1.0 / (energy or 1.0)
    elements = config.timesteps * sum(r.fired.size for r in responses)
    parts = ErrorParts(
        clipping=clipped * scale,
        quantisation=(steps - clipped) * scale,
        inherited=(with_current - steps) * scale,
        unevenness=(squared - with_current) * scale,
    )
    rate = sum(r.spikes for r in responses) / (elements or 1)
    return LayerError(squared * scale, difference / (abs(mean) or 1.0), rate, parts)


@compiled
def _add(
    ann: NDArray[np.float32],
    target: NDArray[np.float32],
    arrived: NDArray[np.float32],
    fired: NDArray[np.int32],
    theta: NDArray[np.float32],
    shift: NDArray[np.float32],
    bounds: tuple[np.float32, np.float32],
    timesteps: int,
    max_burst: int,
    v_init: float,
    found: NDArray[np.float64],
) -> None:
    """Add to found [7, any], over [N, E]: the squared errors of s, c(m), c(x) and of clipping, a², s - a and a."""
    lower, upper = bounds
    most, number, offset, none = (
        np.float32(timesteps * max_burst),
        np.float32(timesteps),
        np.float32(v_init),
        np.float32(0),
    )
    least = -most if lower < 0 else none
    value, error = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for start in range(0, len(theta), BLOCK):
        size = min(BLOCK, len(theta) - start)
        unit, moved = theta[start : start + size] / number, shift[start : start + size]
        for n in range(len(ann)):
            a = target[n, start : start + size]
            x, m, f = ann[n, start : start + size], arrived[n, start : start + size], fired[n, start : start + size]
            # One kind of error after the other: loops this simple are vectorised.
            for kind in range(4):
                if kind == 0:
                    for i in range(size):
                        error[i] = np.float32(f[i]) * unit[i] - a[i]
                        found[5, i] += np.float64(error[i])
                elif kind == 3:
                    for i in range(size):
                        error[i] = min(max(a[i], -unit[i] * most), unit[i] * most) - a[i]
                else:
                    for i in range(size):
                        value[i] = m[i] + moved[i] if kind == 1 else x[i]
                    for i in range(size):
                        current = min(max(value[i], lower), upper)
                        level = min(max(np.floor(current / unit[i] + offset), least), most)
                        error[i] = unit[i] * level - a[i]
                for i in range(size):
                    found[kind, i] += np.float64(error[i]) * np.float64(error[i])
            for i in range(size):
                found[4, i] += np.float64(a[i]) * np.float64(a[i])
                found[6, i] += np.float64(a[i])
