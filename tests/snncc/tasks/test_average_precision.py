"""Average precision against values by hand and against pycocotools."""

from __future__ import annotations

import contextlib
import io
import sys

import numpy as np
import pytest

from snncc.errors import DataError, UsageError
from snncc.tasks import average_precision
from snncc.tasks.annotations import read_annotations
from snncc.tasks.average_precision import AveragePrecision
from snncc.tasks.boxes import Detections

SIZE = (100, 200)


def truth(boxes, images: int = 2, width: int = 200, height: int = 100):
    """Annotations of (image, category, box) rows; categories 1 and 2."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": width, "height": height} for i in range(1, images + 1)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for n, (image, label, box, crowd) in enumerate(boxes, 1)
        ],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
    }


def found(*rows) -> Detections:
    values = np.array([row[:4] for row in rows], float).reshape(-1, 4)
    return Detections(values, np.array([row[4] for row in rows], float), np.array([row[5] for row in rows], int))


def measured(content, *detections: Detections):
    return AveragePrecision(read_annotations(content), SIZE)(detections)


@pytest.fixture(autouse=True)
def _library():
    pytest.importorskip("faster_coco_eval")


def test_all_found_is_one():
    content = truth([(1, 1, [10, 20, 30, 40], 0), (2, 1, [0, 0, 50, 50], 0)])
    result = measured(content, found((10, 20, 40, 60, 0.9, 0)), found((0, 0, 50, 50, 0.8, 0)))
    assert (result.mean, result.at_50, result.at_75) == pytest.approx((1, 1, 1))
    assert result.by_class == (pytest.approx(1), None)


def test_an_overlap_of_0_72_counts_at_the_first_five_limits():
    """IoU 0.72: found at 0.5, 0.55, 0.6, 0.65 and 0.7, missed at the other five."""
    content = truth([(1, 1, [0, 0, 100, 50], 0)])
    result = measured(content, found((0, 0, 72, 50, 0.9, 0)), found())
    assert result.mean == pytest.approx(0.5, abs=1e-9)
    assert (result.at_50, result.at_75) == pytest.approx((1, 0))


def test_a_false_alarm_above_a_hit_halves_the_precision():
    content = truth([(1, 2, [0, 0, 10, 10], 0)])
    result = measured(content, found((50, 50, 60, 60, 0.9, 1), (0, 0, 10, 10, 0.5, 1)), found())
    assert result.mean == pytest.approx(0.5)


def test_boxes_are_scaled_to_the_image():
    """The images are twice as wide and three times as high as the network's input."""
    content = truth([(1, 1, [20, 60, 40, 90], 0)], width=400, height=300)
    assert measured(content, found((10, 20, 30, 50, 0.9, 0)), found()).mean == pytest.approx(1)


def test_nothing_found_is_zero():
    content = truth([(1, 2, [0, 0, 10, 10], 0)])
    result = measured(content, found(), found())
    assert (result.mean, result.by_class) == (0.0, (None, 0.0))


def test_the_same_as_pycocotools():
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(4)
    boxes, detections, rows = [], [], []
    for image in range(1, 31):
        mine = []
        for _ in range(6):
            left, top, width, height = rng.uniform(0, 100), rng.uniform(0, 50), *rng.uniform(5, 50, 2)
            label = int(rng.integers(1, 3))
            boxes.append((image, label, [left, top, width, height], int(rng.random() < 0.1)))
            for _ in range(int(rng.integers(0, 3))):
                x, y, w, h = np.array([left, top, width, height]) + rng.normal(0, 4, 4)
                w, h, score = max(w, 1.0), max(h, 1.0), float(rng.random())
                mine.append((x, y, x + w, y + h, score, label - 1))
                rows.append({"image_id": image, "category_id": label, "bbox": [x, y, w, h], "score": score})
        detections.append(found(*sorted(mine, key=lambda row: -row[4])))
    content = truth(boxes, images=30)
    with contextlib.redirect_stdout(io.StringIO()):
        ground = coco.COCO()
        ground.dataset = truth(boxes, images=30)
        ground.createIndex()
        evaluation = COCOeval(ground, ground.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    result = measured(content, *detections)
    assert 0.05 < result.mean < 0.95
    # The same definition; corners are turned into sizes once more here, which rounds.
    assert (result.mean, result.at_50, result.at_75) == pytest.approx(evaluation.stats[:3], abs=1e-9)


def test_a_class_without_a_category():
    with pytest.raises(UsageError, match="finds objects of class 2, but the annotations has 2 categories"):
        measured(truth([(1, 1, [0, 0, 9, 9], 0)]), found((0, 0, 9, 9, 0.5, 2)), found())


def test_nothing_to_find():
    with pytest.raises(DataError, match="no object is annotated on these images"):
        measured(truth([(1, 1, [0, 0, 9, 9], 1)]), found(), found())


def test_without_the_library_its_name_and_remedy_are_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(
        UsageError, match=r"needs faster-coco-eval, which isn't installed: pip install 'snncc\[detection\]'"
    ):
        average_precision.library()
