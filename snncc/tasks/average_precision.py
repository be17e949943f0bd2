"""Mean average precision as COCO defines it, computed by faster-coco-eval.

Both libraries of the field were tried, faster-coco-eval 1.8.0 and pycocotools 2.0.11, and say the same to the last
digit (a test compares them where both are installed). The first was chosen: it has typed, tested code with wheels for
every Python that snncc supports, releases several times a year, reports bad input by exceptions and prints nothing;
the second is kept as it was, prints while it works, and is several times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from snncc.errors import DataError, UsageError
from snncc.tasks.annotations import Annotations
from snncc.tasks.boxes import Detections


@dataclass(frozen=True)
class Precision:
    """Average precision over all classes, between 0 and 1.

    Attributes:
        mean: mean over the overlaps 0.50, 0.55, ... 0.95: COCO's mAP.
        at_50: at an overlap of 0.5.
        at_75: at an overlap of 0.75.
        by_class: mean over the overlaps for each class, None for a class that isn't on the images.
    """

    mean: float
    at_50: float
    at_75: float
    by_class: tuple[float | None, ...]


class AveragePrecision:
    """Compares detections with annotations."""

    def __init__(self, annotations: Annotations, size: tuple[int, int]) -> None:
        """Prepare the annotations.

        Args:
            annotations: what is on the images, image i for sample i, each with a size.
            size: height and width of the network's input, which the detections refer to.

        Raises:
            UsageError: faster-coco-eval isn't installed.
            DataError: there is nothing to be found.
        """
        self._library = library()
        if not (~annotations.crowd).any():
            raise DataError(f"{annotations.source}: no object is annotated on these images: nothing can be evaluated")
        self.annotations = annotations
        self._truth = self._library.COCO(_coco(annotations))
        sizes = np.array([image.size for image in annotations.images], np.float64)
        scale = sizes[:, ::-1] / np.array(size[::-1])
        self._scale = np.concatenate([scale, scale], axis=1)  # from pixels of the input to pixels of the image

    def __call__(self, found: Sequence[Detections]) -> Precision:
        """Evaluate detections, one entry per image.

        Raises:
            UsageError: a class is none of the annotations'.
        """
        names = self.annotations.class_names
        highest = max((int(d.classes.max()) for d in found if len(d)), default=-1)
        if highest >= len(names):
            raise UsageError(
                f"the network finds objects of class {highest}, but {self.annotations.source} has {len(names)} "
                "categories: give the annotations that it was trained with, categories in the order of their ids"
            )
        rows = [_rows(i, d, self._scale[i]) for i, d in enumerate(found) if len(d)]
        if not rows:
            present = set(self.annotations.classes[~self.annotations.crowd].tolist())
            return Precision(0.0, 0.0, 0.0, tuple(0.0 if c in present else None for c in range(len(names))))
        evaluation = self._library.COCOeval_faster(self._truth, self._truth.loadRes(np.concatenate(rows)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [overlap, recall, class]: all sizes, most detections
        return Precision(
            _mean(precision) or 0.0,
            _mean(precision[0]) or 0.0,
            _mean(precision[5]) or 0.0,
            tuple(_mean(precision[:, :, c]) for c in range(len(names))),
        )


def library() -> ModuleType:
    """Return faster-coco-eval.

    Raises:
        UsageError: it isn't installed.
    """
    try:
        import faster_coco_eval
    except ImportError as error:
        raise UsageError(
            "average precision needs faster-coco-eval, which isn't installed: pip install 'snncc[detection]', or leave "
            "--annotations away to compare the SNN's boxes with the ANN's only"
        ) from error
    return faster_coco_eval  # type: ignore[no-any-return]


def _mean(precision: Any) -> float | None:
    """Return the mean of what is known: -1 stands for a class without objects."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _rows(image: int, found: Detections, scale: Any) -> Any:
    """Return image id, left, top, width, height, score and category id of each detection, [K, 7]."""
    boxes = found.boxes * scale
    ids, labels = np.full((len(found), 1), image + 1), found.classes[:, None] + 1
    return np.concatenate([ids, boxes[:, :2], boxes[:, 2:] - boxes[:, :2], found.scores[:, None], labels], axis=1)


def _coco(annotations: Annotations) -> dict[str, Any]:
    """Return the annotations with ids that count from 1, images as the samples, categories as the classes."""
    objects = zip(annotations.image, annotations.boxes, annotations.classes, annotations.crowd, strict=True)
    return {
        "images": [{"id": i, "height": 1, "width": 1} for i in range(1, len(annotations.images) + 1)],
        "annotations": [
            {
                "id": number,
                "image_id": int(image) + 1,
                "category_id": int(label) + 1,
                "bbox": box.tolist(),
                "area": float(box[2] * box[3]),
                "iscrowd": int(crowd),
            }
            for number, (image, box, label, crowd) in enumerate(objects, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(annotations.class_names, 1)],
    }
