"""How far the outputs of a network with spiking layers are from those of the ANN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from scipy.special import log_softmax

from snncc.data import Dataset
from snncc.runtime.session import Array

_RANGE = 30.0
"""Further below the likeliest class, in nats, no class is told from another."""
_FLOOR = 1e-12  # least probability of a network that ends in a Softmax: its logarithm must be finite


def log_probabilities(scores: Array) -> NDArray[np.float64]:
    """Return the logarithm of class probabilities [N, K], of scores or of what a Softmax has made of them already."""
    values = scores.astype(np.float64)
    if values.min(initial=0.0) >= 0.0 and np.allclose(values.sum(axis=1), 1.0, atol=1e-3):
        return np.asarray(np.log(np.maximum(values, _FLOOR)))
    return np.asarray(log_softmax(values, axis=1))


def symmetric_kl(ann: NDArray[np.float64], snn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return KL(p‖q) + KL(q‖p) = Σ (p - q)(log p - log q) of log-probabilities [..., N, K], float64 [..., N]."""
    return np.asarray(((np.exp(ann) - np.exp(snn)) * (ann - snn)).sum(axis=-1))


def class_output(graph: gs.Graph, data: Dataset) -> str | None:
    """Return the first output [N, K] of floating-point numbers with K >= 2 that isn't shaped like an input."""
    shapes = {tuple(data.arrays[spec.name].shape[1:]) for spec in data.inputs}
    for tensor in graph.outputs:
        shape = tuple(tensor.shape or ())
        scores = len(shape) == 2 and np.dtype(tensor.dtype).kind == "f" and shape[1:] not in shapes
        if scores and isinstance(shape[1], int) and shape[1] >= 2:
            return str(tensor.name)
    return None


@dataclass(frozen=True)
class Metric:
    """How outputs are compared with the ANN's.

    The divergence of classes weighs samples by how far they are off: a hundredth of the samples has a third of it, and
    which layers these say to spend spikes on is a matter of chance. All samples have a say in the squared error.

    Attributes:
        class_output: name of the output with class scores [N, K]; None if there is none.
        kl: measure the symmetric KL divergence of the classes, if there are some, not the squared error.
    """

    class_output: str | None = None
    kl: bool = False

    @property
    def name(self) -> str:
        """The name in files."""
        return "symmetric_kl" if self.kl and self.class_output is not None else "relative_squared_error"


class Distance:
    """Adds up the distance to the ANN over chunks of samples.

    Squared errors are relative to the ANN's energy. Of class scores, the logarithms of probabilities included, only
    differences between classes count; without classes, the mean over all floating-point outputs is taken.
    """

    def __init__(self, metric: Metric, candidates: int) -> None:
        """Start at zero for a number of networks that are compared at once."""
        self.metric = metric
        self._samples = 0
        self._divergence = np.zeros(candidates)
        self._agree = np.zeros(candidates)
        self._squared: dict[str, NDArray[np.float64]] = {}
        self._energy: dict[str, float] = {}

    def add(self, ann: Mapping[str, Array], snn: Mapping[str, Array], which: slice = slice(None)) -> None:
        """Add one chunk.

        Args:
            ann: outputs of the ANN, [N, ...].
            snn: outputs of the candidates, [K, N, ...]; one that is missing is that of the ANN.
            which: the K candidates.
        """
        first = which.start in (None, 0)
        if first:
            self._samples += len(next(iter(ann.values())))
        classes = self.metric.class_output
        if classes is not None:
            self._add_classes(ann[classes], snn.get(classes), which, first)
            return
        for name, expected in ann.items():
            if expected.dtype.kind == "f":
                found = snn.get(name)
                self._add_squares(
                    name, expected.astype(np.float64), None if found is None else found.astype(np.float64), which, first
                )

    def _add_classes(self, ann: Array, snn: Array | None, which: slice, first: bool) -> None:
        expected = log_probabilities(ann)
        found = None if snn is None else np.stack([log_probabilities(scores) for scores in snn])
        self._agree[which] += len(ann) if snn is None else (snn.argmax(axis=-1) == ann.argmax(axis=-1)).sum(axis=-1)
        if not self.metric.kl:
            both = (_centred(expected), None if found is None else _centred(found))
            self._add_squares(str(self.metric.class_output), *both, which, first)
        elif found is not None:
            self._divergence[which] += symmetric_kl(expected, found).sum(axis=-1)

    def _add_squares(
        self, name: str, expected: NDArray[np.float64], found: NDArray[np.float64] | None, which: slice, first: bool
    ) -> None:
        if first:
            self._energy[name] = self._energy.get(name, 0.0) + float(np.square(expected).sum())
        total = self._squared.setdefault(name, np.zeros_like(self._divergence))
        if found is not None:
            total[which] += np.square(found - expected).sum(axis=tuple(range(1, found.ndim)))

    def loss(self) -> NDArray[np.float64]:
        """Return the distance per candidate, float64 [K]: mean over the samples, or relative squared error."""
        if self.metric.kl and self.metric.class_output is not None:
            return self._divergence / max(self._samples, 1)
        parts = [squared / (self._energy[name] or 1.0) for name, squared in self._squared.items()]
        return np.asarray(np.mean(parts, axis=0)) if parts else np.zeros_like(self._divergence)

    def agreement(self) -> NDArray[np.float64] | None:
        """Return the share of samples of which candidate and ANN say the same class, [K]; None without classes."""
        return None if self.metric.class_output is None else self._agree / max(self._samples, 1)


def _centred(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-probabilities [..., K] about their mean, the least likely classes all taken as equally unlikely."""
    likely = np.maximum(scores, scores.max(axis=-1, keepdims=True) - _RANGE)
    return np.asarray(likely - likely.mean(axis=-1, keepdims=True))
