"""How far the outputs of a network with spiking layers are from those of the ANN."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from scipy.special import log_softmax

from snncc.data import Dataset
from snncc.runtime.session import Array

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


class Distance:
    """Adds up the distance to the ANN over chunks of samples: symmetric KL of the class scores, or squared error."""

    def __init__(self, class_output: str | None, candidates: int) -> None:
        """Start at zero.

        Args:
            class_output: name of the output with class scores [N, K]; None: every floating-point output counts, by
                its squared error relative to the ANN's energy, and the mean over the outputs is taken.
            candidates: number of networks that are compared at once.
        """
        self.class_output = class_output
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
        if self.class_output is not None:
            if which.start in (None, 0):
                self._samples += len(ann[self.class_output])
            if self.class_output in snn:
                self._add_classes(ann[self.class_output], snn[self.class_output], which)
            else:
                self._agree[which] += len(ann[self.class_output])
            return
        for name, expected in ann.items():
            if expected.dtype.kind != "f":
                continue
            target = expected.astype(np.float64)
            if which.start in (None, 0):
                self._energy[name] = self._energy.get(name, 0.0) + float(np.square(target).sum())
            total = self._squared.setdefault(name, np.zeros_like(self._divergence))
            if name in snn:
                axes = tuple(range(1, snn[name].ndim))
                total[which] += np.square(snn[name].astype(np.float64) - target).sum(axis=axes)

    def _add_classes(self, ann: Array, snn: Array, which: slice) -> None:
        expected = log_probabilities(ann)
        found = np.stack([log_probabilities(scores) for scores in snn])
        self._divergence[which] += symmetric_kl(expected, found).sum(axis=-1)
        self._agree[which] += (snn.argmax(axis=-1) == ann.argmax(axis=-1)).sum(axis=-1)

    def loss(self) -> NDArray[np.float64]:
        """Return the distance per candidate, float64 [K]: mean over the samples, or relative squared error."""
        if self.class_output is not None:
            return self._divergence / max(self._samples, 1)
        parts = [squared / (self._energy[name] or 1.0) for name, squared in self._squared.items()]
        return np.asarray(np.mean(parts, axis=0)) if parts else np.zeros_like(self._divergence)

    def agreement(self) -> NDArray[np.float64] | None:
        """Return the share of samples of which candidate and ANN say the same class, [K]; None without classes."""
        return None if self.class_output is None else self._agree / max(self._samples, 1)
