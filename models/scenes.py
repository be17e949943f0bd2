"""Scenes for object detection, composed from images of Fashion-MNIST: the same seed gives the same scenes everywhere.

A scene is a grey-scale image of 128x128 pixels. Several items of clothing, 22 to 60 pixels long, stand on an uneven,
noisy background among clutter (bars, and pieces of other items, which are nothing to be found); they overlap, but at
least 60 % of each stay visible. Composing takes milliseconds and the files would take megabytes, so scenes are made
when they are asked for: the annotations come from the same draw.

`numpy.random.RandomState` is used on purpose: NumPy guarantees that its streams never change, unlike a Generator's.
All arithmetic on pixels is elementwise in float64, so that no sum depends on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

SIDE = 128
CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
ITEMS = (3, 7)  # least and most items that are tried
LENGTHS = (22.0, 60.0)  # pixels of an item's longer side
LEAST_VISIBLE = 0.6  # share of an item's pixels that the items in front of it leave
ATTEMPTS = 12  # places that are tried for an item
_FOREGROUND = 20  # least value of a pixel that belongs to an item, of 255
_OPAQUE = 40.0  # value from which a pixel hides what is behind it


@dataclass(frozen=True)
class Scene:
    """An image and what is on it.

    Attributes:
        image: uint8 ``[128, 128]``.
        boxes: x, y, width, height of each item in pixels, float32 ``[K, 4]``; whole items, as if nothing hid them.
        classes: int64 ``[K]``, index into `CLASSES`.
    """

    image: Pixels
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


def compose(items: Pixels, labels: npt.NDArray[Any], random: np.random.RandomState) -> Scene:
    """Compose one scene.

    Args:
        items: images to draw from, uint8 ``[N, 28, 28]``.
        labels: their classes ``[N]``.
        random: source of randomness.
    """
    canvas = _background(random)
    _add_clutter(canvas, items, random)
    owner = np.zeros((SIDE, SIDE), np.uint8)  # number of the item that is in front at each pixel, 0 for none
    areas = np.zeros(1)
    visible = np.zeros(1)
    boxes: list[tuple[int, int, int, int]] = []
    classes: list[int] = []
    for _ in range(random.randint(ITEMS[0], ITEMS[1] + 1)):
        index = int(random.randint(len(items)))
        item = _sized(items[index], random)
        height, width = item.shape
        solid = item >= _OPAQUE / 2
        place = _place(owner, visible - LEAST_VISIBLE * areas, solid, random)
        if place is None:
            continue
        (top, left), hidden = place
        window = (slice(top, top + height), slice(left, left + width))
        _blend(canvas[window], item, random.uniform(0.6, 1.0))
        owner[window][solid] = len(areas)
        areas = np.append(areas, solid.sum())
        visible = np.append(visible - hidden, areas[-1])
        boxes.append((left, top, width, height))
        classes.append(int(labels[index]))
    canvas += random.uniform(0.0, 7.0) * random.standard_normal((SIDE, SIDE))
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64))


def compose_all(items: Pixels, labels: npt.NDArray[Any], count: int, seed: int) -> list[Scene]:
    """Compose scenes, each from a stream of its own, so that scene i is the same however many are asked for."""
    return [compose(items, labels, np.random.RandomState([seed, i])) for i in range(count)]


def coco(scenes: list[Scene]) -> dict[str, Any]:
    """Return the annotations of scenes in COCO's format, with category ids from 1 in the order of `CLASSES`."""
    images = [
        {"id": i, "file_name": f"scene_{i:04d}.png", "width": SIDE, "height": SIDE} for i in range(1, len(scenes) + 1)
    ]
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes, 1):
        for box, label in zip(scene.boxes.tolist(), scene.classes.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _background(random: np.random.RandomState) -> Floats:
    """Uneven grey: a level, large spots and a slope, float64 ``[128, 128]``."""
    spots = random.uniform(-25.0, 25.0, (5, 5))
    slope = random.uniform(-30.0, 30.0, 2)
    position = np.linspace(-0.5, 0.5, SIDE)
    level = random.uniform(10.0, 90.0)
    made: Floats = level + _resize(spots, SIDE, SIDE) + slope[0] * position[:, None] + slope[1] * position[None, :]
    return made


def _add_clutter(canvas: Floats, items: Pixels, random: np.random.RandomState) -> None:
    """Draw bars, and small pieces of items that are turned by a quarter or half."""
    for _ in range(random.randint(2, 6)):
        height, width = random.randint(2, 40, 2).tolist()
        top, left = random.randint(0, SIDE - height), random.randint(0, SIDE - width)
        bar = canvas[top : top + height, left : left + width]
        bar += random.uniform(0.2, 0.7) * (random.uniform(0.0, 160.0) - bar)
    for _ in range(random.randint(3, 9)):
        row, column = random.randint(4, 16, 2)
        piece = items[int(random.randint(len(items)))][row : row + 8, column : column + 8]
        size = int(random.randint(8, 20))
        turned = np.rot90(_resize(piece.astype(np.float64), size, size), int(random.randint(1, 4)))
        top, left = random.randint(0, SIDE - size, 2)
        _blend(canvas[top : top + size, left : left + size], turned, random.uniform(0.5, 1.0))


def _sized(item: Pixels, random: np.random.RandomState) -> Floats:
    """Cut an item out, mirror every second one, and resize it, float64 ``[height, width]``."""
    rows, columns = (np.flatnonzero((item >= _FOREGROUND).any(axis)) for axis in (1, 0))
    cut = item[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else item
    if random.randint(2):
        cut = cut[:, ::-1]
    length = np.exp(random.uniform(np.log(LENGTHS[0]), np.log(LENGTHS[1])))
    height, width = (max(4, int(np.rint(length * size / max(cut.shape)))) for size in cut.shape)
    return _resize(cut.astype(np.float64), height, width)


def _place(
    owner: Pixels, spare: Floats, solid: npt.NDArray[np.bool_], random: np.random.RandomState
) -> tuple[tuple[int, int], npt.NDArray[np.int_]] | None:
    """Find a place where enough of the items behind stays visible.

    Args:
        owner: number of the item in front at each pixel.
        spare: pixels of each item that may still be hidden; entry 0 stands for the background.
        solid: which pixels of the new item hide what is behind.
        random: source of randomness.

    Returns:
        Top and left, and how many pixels of each item are hidden there; None if no attempt succeeds.
    """
    height, width = solid.shape
    for _ in range(ATTEMPTS):
        top, left = int(random.randint(0, SIDE - height + 1)), int(random.randint(0, SIDE - width + 1))
        hidden = np.bincount(owner[top : top + height, left : left + width][solid], minlength=len(spare))
        if (hidden <= spare)[1:].all():
            return (top, left), hidden
    return None


def _blend(canvas: Floats, item: Floats, gain: float) -> None:
    """Draw an item over a part of the canvas, in place; its dark pixels are transparent."""
    cover = np.minimum(item / _OPAQUE, 1.0)
    canvas += cover * (gain * item - canvas)


def _resize(image: Floats, height: int, width: int) -> Floats:
    """Bilinear interpolation with pixel centres aligned as in Pillow and ONNX (half_pixel), edges repeated."""
    rows, row_share = _grid(image.shape[0], height)
    columns, column_share = _grid(image.shape[1], width)
    upper, lower = image[rows], image[np.minimum(rows + 1, image.shape[0] - 1)]
    mixed = upper + row_share[:, None] * (lower - upper)
    left, right = mixed[:, columns], mixed[:, np.minimum(columns + 1, image.shape[1] - 1)]
    return np.asarray(left + column_share * (right - left))


def _grid(old: int, new: int) -> tuple[npt.NDArray[np.int_], Floats]:
    position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    below = np.floor(position).astype(np.int_)
    return below, position - below
