"""Calibrating one layer of signed burst neurons: thresholds on both sides of zero, spikes, errors.

A signed neuron takes back what it emitted too early, so at the last timestep its output is that of the closed form on
the mean of what arrived, unless ψ held it back: there is no unevenness to weigh in the threshold search, and no
potential to defer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.analysis import Form, NeuronSite
from snncc.config import Config
from snncc.neurons.signed_burst import simulate
from snncc.neurons.threshold import ChannelHistogram, signed_thresholds
from snncc.passes.frontier import Entry
from snncc.passes.layer_fit import by_channel
from snncc.runtime.session import Array

BETTER = 0.9
"""A signed neuron must lower the squared error of an unsigned one to this share of it: it costs negative spikes."""


class SignedFit:
    """One layer of signed neurons with what reaches it in ANN and SNN."""

    def __init__(self, site: NeuronSite, entry: Entry, config: Config, form: Form) -> None:
        """Prepare the fit of a layer.

        Args:
            site: the layer.
            entry: what it reads.
            config: the options.
            form: how the SNN's values of `entry` hold time.
        """
        self.site, self.entry, self.config, self.form = site, entry, config, form
        self.axis = site.channel_axis if site.channels is not None else None
        self.channels = 1 if self.axis is None else entry.ann[0].shape[self.axis]

    def target(self, value: Array) -> NDArray[np.float32]:
        """Return what the neuron's mean output should be for an ANN's value."""
        if self.site.activation.encodes:
            return np.asarray(value)
        return np.clip(value, np.float32(0), np.float32(self.site.activation.upper))

    def thresholds(self) -> NDArray[np.float32]:
        """Return θ of minimum squared error (not θe: τ is applied by the neuron), float32 [C] or [1]."""
        upper = np.float32(self.site.activation.upper)
        sides = [ChannelHistogram(self.channels), ChannelHistogram(self.channels)]
        for chunk in self.entry.ann:
            values = by_channel(np.minimum(chunk, upper), self.axis)
            sides[0].add(values)
            if self.site.activation.encodes:
                sides[1].add(-values)
        if not self.config.per_channel:
            sides = [side.pooled() for side in sides]
        c = self.config
        bound = self.site.activation.upper / c.threshold_ratio
        return signed_thresholds(sides[0], sides[1], c.timesteps, c.max_burst, c.v_init, upper=bound)

    def shift(self) -> NDArray[np.float32] | None:
        """Return what gives the current the ANN's mean, float32 [C]; None where there is no current to shift."""
        if self.site.activation.encodes or self.entry.snn is None:
            return None
        count, difference = 0, np.zeros(self.channels)
        for index, ann in enumerate(self.entry.ann):
            snn = self.entry.temporal(index)
            final = snn.mean(axis=0) if self.form is Form.STEP else snn[-1]
            gap = by_channel(ann - final, self.axis)
            difference += gap.sum(axis=(0, 2), dtype=np.float64)
            count += gap.shape[0] * gap.shape[2]
        return (difference / count).astype(np.float32)

    def spikes(
        self, chunk: int, theta: NDArray[np.float32], shift: NDArray[np.float32] | None
    ) -> NDArray[np.integer[Any]]:
        """Simulate the layer on one chunk and return the counts, [T, N, C, M]."""
        return simulate(self._aims(chunk, shift), theta, self.config.max_burst, self.config.v_init)

    def matched_spikes(self, theta: NDArray[np.float32]) -> list[NDArray[np.integer[Any]]]:
        """Simulate the layer with its mean current matched to the ANN's; return the counts per chunk."""
        shift = self.shift()
        return [self.spikes(chunk, theta, shift) for chunk in range(len(self.entry.ann))]

    def _aims(self, chunk: int, shift: NDArray[np.float32] | None) -> Iterator[NDArray[np.float32]]:
        steps = self.config.timesteps
        if self.entry.snn is None:
            value = by_channel(self.entry.ann[chunk], self.axis)
            for t in range(1, steps + 1):
                yield self.target(value) * np.float32(t)
            return
        snn = by_channel(self.entry.temporal(chunk), self.axis, lead=1)
        moved = np.float32(0) if shift is None else shift[:, None]
        total = np.zeros(snn.shape[1:], np.float32)
        for t in range(1, steps + 1):
            if self.form is Form.STEP:
                total += snn[t - 1]
                mean = total / np.float32(t)
            else:
                mean = snn[t - 1]
            value = self.target(mean + moved) * np.float32(t)
            yield np.where(np.isfinite(value), value, np.float32(0)) if self.site.activation.encodes else value

    def squared_error(self, chunk: int, counts: NDArray[np.integer[Any]], theta: NDArray[np.float32]) -> float:
        """Return the squared error of the mean output on one chunk."""
        target = by_channel(self.target(self.entry.ann[chunk]), self.axis)
        scale = theta.reshape(-1, 1) / np.float32(self.config.timesteps)
        return float(np.square(counts.sum(axis=0, dtype=np.int32) * scale - target).sum(dtype=np.float64))

    def errors(self, counts: list[NDArray[np.integer[Any]]], theta: NDArray[np.float32]) -> tuple[float, float, float]:
        """Return relative squared error, relative mean error, and spikes per neuron and timestep."""
        squared = energy = total = fired = emitted = 0.0
        elements = 0
        for chunk, count in enumerate(counts):
            target = by_channel(self.target(self.entry.ann[chunk]), self.axis)
            squared += self.squared_error(chunk, count, theta)
            energy += float(np.square(target).sum(dtype=np.float64))
            total += float(target.sum(dtype=np.float64))
            mean = count.sum(axis=(0, 1, 3), dtype=np.int64) / self.config.timesteps
            emitted += float((mean * theta).sum())
            fired += float(np.abs(count).sum(dtype=np.int64))
            elements += count.size
        return squared / (energy or 1.0), (emitted - total) / (abs(total) or 1.0), fired / elements
