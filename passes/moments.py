"""Currents known without data: normal distributions that BatchNormalization statistics promise.

A BatchNormalization makes its output have mean β and standard deviation |γ| per channel over the training data. Taking
the distribution to be normal, ReLU, sums and pooling carry the moments on to the neurons that no BatchNormalization
feeds directly (the sums of residual networks).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from scipy.special import ndtr

from snncc.activations import activation_of
from snncc.context import Moments
from snncc.graph import node_inputs
from snncc.neurons.threshold import ChannelHistogram
from snncc.ops import Role, spec_of


def propagate_moments(graph: gs.Graph, known: Mapping[str, Moments]) -> dict[str, Moments]:
    """Return the moments of every tensor for which they follow from `known`, by name."""
    moments = dict(known)
    for node in graph.nodes:
        if not node.outputs or node.outputs[0].name in moments:
            continue
        inputs = [moments.get(t.name) for t in node_inputs(node)]
        result = _through(node, inputs)
        if result is not None:
            moments[node.outputs[0].name] = result
    return moments


def _through(node: gs.Node, inputs: list[Moments | None]) -> Moments | None:
    first = inputs[0] if inputs else None
    if first is None:
        return None
    if activation_of(node) is not None:
        return rectified(first)
    if node.op in ("Add", "Sum"):
        terms = [m for m in inputs if m is not None]
        if len(terms) < len(inputs) or len({len(m.mean) for m in terms}) > 1:
            return None
        mean = np.sum([m.mean for m in terms], axis=0)
        return Moments(mean, np.sqrt(np.sum([np.square(m.std) for m in terms], axis=0)))
    if spec_of(node).role is Role.POOL or node.op in ("AveragePool", "Identity"):
        return first  # pooling narrows or shifts the distribution somewhat: the wider one errs on the safe side
    return None


def rectified(moments: Moments) -> Moments:
    """Return mean and standard deviation of max(0, X) for normal X."""
    mean, std = moments.mean.astype(np.float64), np.maximum(moments.std.astype(np.float64), 1e-12)
    ratio = mean / std
    density = np.exp(-np.square(ratio) / 2) / np.sqrt(2 * np.pi)
    first = mean * ndtr(ratio) + std * density
    second = (np.square(mean) + np.square(std)) * ndtr(ratio) + mean * std * density
    variance = np.maximum(second - np.square(first), 0.0)
    return Moments(first.astype(np.float32), np.sqrt(variance).astype(np.float32))


_DRAWN = 100_000
"""Values that the histogram of a distribution stands for: so many that the largest of them is no surprise."""


def gaussian_histogram(moments: Moments, upper: float, bins: int = 2048, reach: float = 4.0) -> ChannelHistogram:
    """Return the histogram of the activation of normal currents.

    Args:
        moments: of the current, per channel.
        upper: bound of the activation; what lies above is counted in the last bin below it.
        bins: resolution.
        reach: how many standard deviations above the mean still count.
    """
    mean, std = moments.mean.astype(np.float64), np.maximum(moments.std.astype(np.float64), 1e-12)
    top = np.minimum(np.maximum(mean + reach * std, 0.0), upper)
    histogram = ChannelHistogram(len(mean), bins)
    histogram.width = np.where(top > 0, top / bins, 0.0)
    edges = np.linspace(0.0, 1.0, bins + 1) * top[:, None]
    mass: NDArray[np.float64] = np.diff(ndtr((edges - mean[:, None]) / std[:, None]), axis=1)
    if np.isfinite(upper):
        mass[:, -1] += 1.0 - ndtr((top - mean) / std)
    histogram.counts = np.where(top[:, None] > 0, mass * _DRAWN, 0.0)
    histogram.seen = _DRAWN
    return histogram
