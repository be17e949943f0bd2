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
        self._candidates = candidates
        self._agree = np.zeros(candidates)
        self._samples = np.zeros(candidates)
        # By output and candidate, the distance of each sample; and the ANN's energy on the candidate's samples.
        self._distances: dict[str, list[list[NDArray[np.float64]]]] = {}
        self._energy: dict[str, NDArray[np.float64]] = {}

    def add(self, ann: Mapping[str, Array], snn: Mapping[str, Array], which: slice = slice(None)) -> None:
        """Add one chunk.

        Args:
            ann: outputs of the ANN, [N, ...].
            snn: outputs of the candidates, [K, N, ...]; one that is missing is that of the ANN.
            which: the K candidates.
        """
        numbers, size = range(self._candidates)[which], len(next(iter(ann.values())))
        self._samples[which] += size
        for name, expected in ann.items():
            if expected.dtype.kind != "f" or self.class_output not in (None, name):
                continue
            found = snn.get(name)
            each = np.zeros((len(numbers), size))
            if self.class_output is None:
                target = expected.astype(np.float64)
                self._energy.setdefault(name, np.zeros(self._candidates))[which] += np.square(target).sum()
                if found is not None:
                    each = _squared_errors(target, found)
            elif found is None:
                self._agree[which] += size
            else:
                self._agree[which] += (found.argmax(axis=-1) == expected.argmax(axis=-1)).sum(axis=-1)
                own = np.stack([log_probabilities(scores) for scores in found])
                each = symmetric_kl(log_probabilities(expected), own)
            rows = self._distances.setdefault(name, [[] for _ in range(self._candidates)])
            for number, row in zip(numbers, each, strict=True):
                rows[number].append(row)

    def loss(self) -> NDArray[np.float64]:
        """Return the distance per candidate, float64 [K]: mean over its samples, or relative squared error."""
        each = [self.each(candidate) for candidate in range(self._candidates)]
        return np.array([distances.mean() if distances.size else 0.0 for distances in each])

    def each(self, candidate: int) -> NDArray[np.float64]:
        """Return what the samples of a candidate have for its loss, which is their mean, float64 [N]."""
        parts = []
        for name, rows in self._distances.items():
            row = np.concatenate([np.zeros(0), *rows[candidate]])
            if self.class_output is None:
                row *= len(row) / (self._energy[name][candidate] or 1.0)
            parts.append(row)
        return np.mean(parts, axis=0) if parts else np.zeros(0)

    def agreement(self) -> NDArray[np.float64] | None:
        """Return the share of samples of which candidate and ANN say the same class, [K]; None without classes."""
        return None if self.class_output is None else self._agree / np.maximum(self._samples, 1)


def _squared_errors(ann: NDArray[np.float64], snn: Array) -> NDArray[np.float64]:
    """Return the squared error of each sample, [K, N], of outputs [K, N, ...] against float64 [N, ...]."""
    return np.asarray(np.square(snn.astype(np.float64) - ann).sum(axis=tuple(range(2, snn.ndim))))
