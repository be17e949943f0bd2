"""Annotations of object detection in COCO's format: reading and checking them, and finding the sample of each image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.data import Dataset
from snncc.data.folder import ImageArray
from snncc.data.images import image_size
from snncc.errors import DataError
from snncc.graph import first_line

MOST_BYTES = 1 << 30
"""Largest file that is read; COCO's own training annotations have 0.5 GB."""


@dataclass(frozen=True)
class AnnotatedImage:
    """An image as the annotations describe it.

    Attributes:
        id: its id.
        file_name: its file, possibly with folders; empty where it isn't given.
        size: height and width in pixels that the boxes refer to; None where it isn't given.
    """

    id: int
    file_name: str
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Annotations:
    """What is on a set of images.

    Attributes:
        source: where they come from, for messages.
        images: in the order of the file.
        image: index into `images` of each object, int64 [K].
        boxes: left, top, width, height in pixels of the image, float64 [K, 4].
        classes: class of each object, int64 [K]: the rank of its category's id.
        crowd: objects that stand for many and are not to be found one by one, bool [K].
        class_names: names of the categories in the order of their ids.
    """

    source: str
    images: tuple[AnnotatedImage, ...]
    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    class_names: tuple[str, ...]


def read_annotations(source: str | Path | Mapping[str, Any]) -> Annotations:
    """Read annotations.

    Args:
        source: a file of JSON, or what it holds.

    Raises:
        DataError: it can't be read, or isn't in COCO's format for boxes; the message names the entry.
    """
    if isinstance(source, Mapping):
        return _parse(dict(source), "the annotations")
    where = str(source)
    advice = "give a JSON file in COCO's format with 'images', 'annotations' and 'categories'"
    try:
        path = Path(source)
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{where} has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}: split it")
        content = json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise DataError(f"annotations '{where}' can't be read ({reason}): {advice}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"annotations '{where}' are no JSON ({first_line(error)}): {advice}") from error
    if not isinstance(content, dict):
        raise DataError(f"annotations '{where}' hold a {type(content).__name__}, not an object: {advice}")
    return _parse(content, where)


def _parse(content: dict[str, Any], where: str) -> Annotations:
    images = _by_id(content, "images", where)
    categories = _by_id(content, "categories", where)
    rank = {key: index for index, key in enumerate(sorted(categories))}
    index = {key: number for number, key in enumerate(images)}
    rows: list[tuple[int, list[float], int, bool]] = []
    for number, entry in enumerate(_entries(content, "annotations", where)):
        place = f"{where}: annotations[{number}]"
        image, category = _id(entry, "image_id", place), _id(entry, "category_id", place)
        if image not in index:
            raise DataError(f"{place}: 'image_id' {image} is no id in 'images': correct one of them")
        if category not in rank:
            raise DataError(f"{place}: 'category_id' {category} is no id in 'categories': correct one of them")
        rows.append((index[image], _box(entry, place), rank[category], bool(entry.get("iscrowd", 0))))
    return Annotations(
        source=where,
        images=tuple(_image(key, entry, where) for key, entry in images.items()),
        image=np.array([row[0] for row in rows], np.int64),
        boxes=np.array([row[1] for row in rows], np.float64).reshape(-1, 4),
        classes=np.array([row[2] for row in rows], np.int64),
        crowd=np.array([row[3] for row in rows], np.bool_),
        class_names=tuple(str(categories[key].get("name", key)) for key in sorted(categories)),
    )


def _entries(content: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        what = "is missing" if value is None else "is no list of objects"
        raise DataError(f"{where}: '{key}' {what}: COCO's format has lists 'images', 'annotations' and 'categories'")
    return value


def _by_id(content: dict[str, Any], key: str, where: str) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for number, entry in enumerate(_entries(content, key, where)):
        place = f"{where}: {key}[{number}]"
        identity = _id(entry, "id", place)
        if identity in found:
            raise DataError(f"{place}: 'id' {identity} is taken by an earlier entry: ids must differ")
        found[identity] = entry
    if not found:
        raise DataError(f"{where}: '{key}' is empty: give at least one")
    return found


def _id(entry: dict[str, Any], key: str, place: str) -> int:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        what = "is missing" if key not in entry else f"is {str(value)[:60]!r}"
        raise DataError(f"{place}: '{key}' {what}: it must be a whole number")
    return value


def _box(entry: dict[str, Any], place: str) -> list[float]:
    value = entry.get("bbox")
    if isinstance(value, list) and len(value) == 4:
        usable = all(isinstance(v, int | float) and abs(v) < 1e9 for v in value)  # NaN isn't below anything
        if usable and value[2] >= 0 and value[3] >= 0:
            return [float(v) for v in value]
    what = "is missing" if "bbox" not in entry else f"is {str(value)[:60]}"
    raise DataError(f"{place}: 'bbox' {what}: it must be [left, top, width, height] in pixels, no size below 0")


def _image(identity: int, entry: dict[str, Any], where: str) -> AnnotatedImage:
    height, width = entry.get("height"), entry.get("width")
    if any(size is not None and (type(size) is not int or not 0 < size < 1 << 20) for size in (height, width)):
        found = f"'height' and 'width' are {str(height)[:20]} and {str(width)[:20]}"
        raise DataError(f"{where}: image {identity}: {found}: they must be whole pixels above 0")
    name = entry.get("file_name", "")
    size = None if height is None or width is None else (height, width)
    return AnnotatedImage(identity, name if isinstance(name, str) else "", size)


def match(annotations: Annotations, data: Dataset, size: tuple[int, int], *, limited: bool) -> Annotations:
    """Bring the images of the annotations into the order of the samples.

    Images of a folder are found by their path, or where that is nowhere, by their name. Samples of an array are the
    images in the order of the file.

    Args:
        annotations: the annotations.
        data: the samples.
        size: height and width of the network's input.
        limited: the data was cut to its first samples, so there may be more images than samples.

    Returns:
        Annotations whose image i is sample i, each with a size.

    Raises:
        DataError: a sample isn't annotated, or the numbers differ.
    """
    column = data.arrays[data.inputs[0].name]
    if isinstance(column, ImageArray):
        order = _by_name(annotations, column.files)
        sizes = [image_size(path) for path in column.files]
    else:
        many = len(annotations.images)
        if many < len(data) or (many > len(data) and not limited):
            raise DataError(
                f"{annotations.source} describes {many} images, but {data.source} holds {len(data)} samples: those of "
                "an array are the images in the order of the file, so give as many, or a folder of images, which are "
                "found by 'file_name'"
            )
        order, sizes = list(range(len(data))), [size] * len(data)
    images = [annotations.images[i] for i in order]
    place = np.full(len(annotations.images), -1)
    place[order] = np.arange(len(order))
    kept = place[annotations.image] >= 0
    return replace(
        annotations,
        images=tuple(replace(i, size=i.size or known) for i, known in zip(images, sizes, strict=True)),
        image=place[annotations.image][kept],
        boxes=annotations.boxes[kept],
        classes=annotations.classes[kept],
        crowd=annotations.crowd[kept],
    )


def _by_name(annotations: Annotations, files: Iterable[Path]) -> list[int]:
    whole: dict[str, int] = {}
    last: dict[str, list[int]] = {}
    for number, image in enumerate(annotations.images):
        path = PurePosixPath(image.file_name.replace("\\", "/"))
        whole[str(path)] = number
        last.setdefault(path.name, []).append(number)
    order = []
    for file in files:
        tails = ["/".join(file.parts[-depth:]) for depth in range(len(file.parts), 1, -1)]
        found = next(([whole[tail]] for tail in tails if tail in whole), last.get(file.name, []))
        if len(found) != 1:
            what = "isn't in" if not found else "stands several times in"
            raise DataError(
                f"image {file} {what} {annotations.source}: its 'images' must hold one entry whose 'file_name' is its "
                "path or name; add it, or take the file out of the folder"
            )
        order.append(found[0])
    if len(set(order)) != len(order):
        raise DataError(
            f"{annotations.source}: several files of the folder have the name of one annotated image: give 'file_name' "
            "with its folders"
        )
    return order
