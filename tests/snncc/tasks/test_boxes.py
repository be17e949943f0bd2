"""Overlap, suppression and matching against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from snncc.tasks.boxes import Detections, matched, overlap, suppress


def found(boxes, scores, classes) -> Detections:
    return Detections(np.array(boxes, float).reshape(-1, 4), np.array(scores, float), np.array(classes, int))


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], axis=1)


def iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = width * height if width > 0 and height > 0 else 0.0
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_overlap_is_intersection_over_union():
    rng = np.random.default_rng(0)
    left, right = random_boxes(rng, 20), random_boxes(rng, 30)
    expected = [[iou(a, b) for b in right] for a in left]
    assert 0 < np.count_nonzero(expected) < 600
    np.testing.assert_allclose(overlap(left, right), expected, rtol=1e-12)  # the same sums in another order


def test_boxes_without_area_overlap_nothing():
    empty, turned, whole = [5, 5, 5, 9], [9, 9, 1, 1], [0, 0, 10, 10]
    boxes = np.array([empty, turned, whole], float)
    assert overlap(boxes, boxes).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_suppression_is_the_greedy_one():
    rng = np.random.default_rng(1)
    given = found(random_boxes(rng, 120), rng.uniform(0, 1, 120), rng.integers(0, 3, 120))
    kept: list[int] = []
    for i in sorted(range(120), key=lambda i: -given.scores[i]):
        doubles = [
            j for j in kept if given.classes[i] == given.classes[j] and iou(given.boxes[i], given.boxes[j]) > 0.3
        ]
        if given.scores[i] >= 0.2 and not doubles:
            kept.append(i)
    result = suppress(given, 0.2, 0.3, 1000)
    assert 10 < len(kept) < 90
    np.testing.assert_array_equal(result.boxes, given.boxes[kept])
    np.testing.assert_array_equal(result.scores, given.scores[kept])
    np.testing.assert_array_equal(result.classes, given.classes[kept])
    assert suppress(given, 0.2, 0.3, 7).scores.tolist() == result.scores[:7].tolist()


def test_what_is_not_finite_is_dropped():
    given = found([[0, 0, 9, 9], [0, 0, 9, np.nan], [20, 0, 29, np.inf]], [np.nan, 0.9, 0.8], [0, 0, 0])
    assert len(suppress(given, 0.0, 0.5, 10)) == 0


def test_nothing_in_nothing_out():
    assert len(suppress(found([], [], []), 0.1, 0.5, 10)) == 0
    assert matched(found([], [], []), found([[0, 0, 1, 1]], [1], [0])).tolist() == []
    assert matched(found([[0, 0, 1, 1]], [1], [0]), found([], [], [])).tolist() == [False]


@pytest.mark.parametrize(
    ("box", "label", "expected"),
    [([0, 0, 10, 10], 1, True), ([0, 0, 10, 10], 0, False), ([0, 0, 10, 5], 1, False), ([0, 0, 10, 5.1], 1, True)],
)
def test_a_box_is_found_if_class_and_place_agree(box, label, expected):
    assert matched(found([[0, 0, 10, 10]], [0.9], [1]), found([box], [0.2], [label])).tolist() == [expected]


def test_a_found_box_serves_once():
    wanted = found([[0, 0, 10, 10], [0, 0, 10, 9]], [0.9, 0.8], [0, 0])
    assert matched(wanted, found([[0, 0, 10, 9.5]], [0.5], [0])).tolist() == [True, False]
    assert matched(wanted, found([[0, 0, 10, 9], [0, 0, 10, 10]], [0.5, 0.4], [0, 0])).tolist() == [True, True]
