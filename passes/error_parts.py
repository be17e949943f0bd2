"""Where the error of a layer's mean output enters.

With a the ANN's activation of its current x, m the SNN's mean current, c the closed form of the neuron and s its real
mean output, the squared error of s telescopes into four parts:

    clipping      Σ (min(a, ψ·θe) - a)²                           what lies beyond the neuron's largest output
    quantisation  Σ (c(x) - a)²  less the clipping                what falls between its steps
    inherited     Σ (c(m) - a)²  less Σ (c(x) - a)²               what is wrong with the current that arrives
    unevenness    Σ (s - a)²     less Σ (c(m) - a)²               what spikes that come unevenly or all at once cost
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snncc.analysis import Form, NeuronSite
from snncc.config import Config
from snncc.context import ErrorParts
from snncc.neurons import burst_if, signed_burst
from snncc.passes.chunk_pool import ChunkPool
from snncc.passes.frontier import Entry
from snncc.passes.layer_fit import by_channel
from snncc.runtime.session import Array


def error_parts(
    site: NeuronSite,
    entry: Entry,
    target: list[NDArray[np.float32]],
    theta: NDArray[np.float32],
    shift: NDArray[np.float32] | None,
    error: float,
    config: Config,
    pool: ChunkPool,
    *,
    signed: bool,
) -> ErrorParts:
    """Take the error of one layer apart.

    Args:
        site: the layer.
        entry: what it reads in ANN and SNN; the SNN's values in the form that the site works on.
        target: the ANN's activation per chunk, [N, ...].
        theta: effective threshold θe, float32 [C] or [1].
        shift: what the bias correction adds to the SNN's current, float32 [C]; None for nothing.
        error: squared error of the mean output, relative to the activation's energy.
        config: the layer's options.
        pool: what works on the chunks.
        signed: the layer's neurons are signed.

    Returns:
        The parts, relative to the activation's energy; their sum is `error`.
    """
    axis = site.channel_axis if site.channels is not None else None
    column = theta[:, None]
    top = column * np.float32(config.max_burst)
    moved = np.float32(0) if shift is None else shift[:, None]

    def closed(current: Array) -> Array:
        if not signed:
            return burst_if.closed_form(current, column, config.timesteps, config.max_burst, config.v_init)
        value = current if site.activation.encodes else np.clip(current, 0, np.float32(site.activation.upper))
        return signed_burst.closed_form(value, column, config.timesteps, config.max_burst, config.v_init)

    def of_chunk(chunk: int) -> tuple[float, ...]:
        wanted = by_channel(target[chunk], axis)
        ann = by_channel(entry.ann[chunk], axis)
        arrived = ann
        if entry.snn is not None:
            values = entry.temporal(chunk)
            arrived = by_channel(values[-1] if site.form is Form.MEAN else values.mean(axis=0), axis) + moved
        reached = [np.clip(wanted, -top, top), closed(ann), closed(arrived)]
        return (*(_squared(value - wanted) for value in reached), _squared(wanted))

    clipped, steps, with_current, energy = np.sum(pool.each(of_chunk), axis=0).tolist()
    scale = 1.0 / (energy or 1.0)
    return ErrorParts(
        clipping=clipped * scale,
        quantisation=(steps - clipped) * scale,
        inherited=(with_current - steps) * scale,
        unevenness=error - with_current * scale,
    )


def _squared(values: Array) -> float:
    return float(np.square(values).sum(dtype=np.float64))
