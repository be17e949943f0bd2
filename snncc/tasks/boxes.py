"""Boxes on an image: overlap, suppression of doubles, and which boxes of two networks are the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]

MOST_CANDIDATES = 1000
"""Best candidates of an image that are looked at: bounds the time of an image full of noise."""


@dataclass(frozen=True)
class Detections:
    """What is found on one image, best first.

    Attributes:
        boxes: left, top, right, bottom in pixels of the network's input, float64 [K, 4].
        scores: confidence between 0 and 1, float64 [K].
        classes: int64 [K].
    """

    boxes: Floats
    scores: Floats
    classes: Classes

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """Return those of at least this score."""
        return self._pick(self.scores >= score)

    def _pick(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Detections:
        return Detections(self.boxes[chosen], self.scores[chosen], self.classes[chosen])


def overlap(left: Floats, right: Floats) -> Floats:
    """Return intersection over union of boxes [K, 4] and [M, 4], float64 [K, M]; boxes without area overlap nothing."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    shared = np.maximum(high - low, 0.0).prod(axis=-1)
    areas = [np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0).prod(axis=-1) for boxes in (left, right)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def suppress(found: Detections, least_score: float, most_overlap: float, most: int) -> Detections:
    """Keep the best of boxes that overlap: greedy non-maximum suppression, class by class.

    Args:
        found: candidates in any order; those whose score or box isn't finite are dropped.
        least_score: candidates below it are dropped.
        most_overlap: two boxes of one class that overlap by more are one object.
        most: most boxes that are kept.

    Returns:
        What is left, best first; of equal scores the earlier candidate.
    """
    usable = (found.scores >= least_score) & np.isfinite(found.scores) & np.isfinite(found.boxes).all(axis=1)
    candidates = found._pick(usable)
    order = np.argsort(-candidates.scores, kind="stable")[:MOST_CANDIDATES]
    candidates = candidates._pick(order)
    doubles = overlap(candidates.boxes, candidates.boxes) > most_overlap
    doubles &= candidates.classes[:, None] == candidates.classes[None, :]
    alive = np.ones(len(candidates), bool)
    kept: list[int] = []
    for index in range(len(candidates)):
        if alive[index]:
            kept.append(index)
            if len(kept) == most:
                break
            alive &= ~doubles[index]
    return candidates._pick(np.array(kept, np.int64))


def matched(wanted: Detections, found: Detections, least_overlap: float = 0.5) -> NDArray[np.bool_]:
    """Return which of the boxes wanted are found: same class, overlap above the limit; each found box serves once.

    Boxes wanted choose in their order, each the free one that overlaps most.
    """
    shared = overlap(wanted.boxes, found.boxes)
    shared[wanted.classes[:, None] != found.classes[None, :]] = 0.0
    result = np.zeros(len(wanted), bool)
    for row in range(len(wanted)):
        best = int(shared[row].argmax()) if len(found) else -1
        if best >= 0 and shared[row, best] > least_overlap:
            result[row] = True
            shared[:, best] = 0.0
    return result
