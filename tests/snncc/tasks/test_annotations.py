"""Annotations: what is read, and every way in which a file can be wrong."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from PIL import Image

from snncc.data import InputSpec, load
from snncc.errors import DataError
from snncc.tasks.annotations import match, read_annotations

GOOD = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 20, "height": 10},
        {"id": 3, "file_name": "sub/b.png", "width": 40, "height": 30},
        {"id": 5, "file_name": "c.png"},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 90, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 7, "category_id": 4, "bbox": [0, 0, 5.5, 6], "iscrowd": 1},
        {"id": 3, "image_id": 3, "category_id": 4, "bbox": [9, 8, 7, 6], "iscrowd": 0},
    ],
    "categories": [{"id": 90, "name": "dog"}, {"id": 4, "name": "cat"}],
}
SPECS = [InputSpec("x", np.dtype(np.float32), ("N", 1, 8, 8))]


def test_what_is_read(tmp_path):
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(GOOD))
    for source in (file, str(file), GOOD):
        read = read_annotations(source)
        assert [(i.id, i.file_name, i.size) for i in read.images] == [
            (7, "a.png", (10, 20)),
            (3, "sub/b.png", (30, 40)),
            (5, "c.png", None),
        ]
        assert read.class_names == ("cat", "dog")
        assert read.classes.tolist() == [1, 0, 0]
        assert read.image.tolist() == [1, 0, 1]
        assert read.crowd.tolist() == [False, True, False]
        assert read.boxes.tolist() == [[1, 2, 3, 4], [0, 0, 5.5, 6], [9, 8, 7, 6]]


def altered(*path, value):
    content = copy.deepcopy(GOOD)
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (altered("images", value=None), "'images' is missing: COCO's format has lists"),
        (altered("categories", value=None), "'categories' is missing"),
        (altered("annotations", value={}), "'annotations' is no list of objects"),
        (altered("annotations", value=[1]), "'annotations' is no list of objects"),
        (altered("images", value=[]), "'images' is empty"),
        (altered("images", 1, "id", value=7), r"images\[1\]: 'id' 7 is taken by an earlier entry"),
        (altered("images", 1, "id", value="x"), r"images\[1\]: 'id' is 'x': it must be a whole number"),
        (altered("images", 1, "id", value=None), r"images\[1\]: 'id' is missing"),
        (altered("images", 0, "width", value=0), "image 7: 'height' and 'width' are 10 and 0"),
        (altered("images", 0, "width", value="wide"), "'height' and 'width' are 10 and wide"),
        (altered("annotations", 1, "image_id", value=8), r"annotations\[1\]: 'image_id' 8 is no id in 'images'"),
        (
            altered("annotations", 2, "category_id", value=5),
            r"annotations\[2\]: 'category_id' 5 is no id in 'categories'",
        ),
        (altered("annotations", 2, "category_id", value=True), "'category_id' is 'True'"),
        (altered("annotations", 0, "bbox", value=None), r"annotations\[0\]: 'bbox' is missing: it must be \[left, top"),
        (altered("annotations", 0, "bbox", value=[1, 2, 3]), r"'bbox' is \[1, 2, 3\]"),
        (altered("annotations", 0, "bbox", value=[1, 2, -3, 4]), "'bbox' is"),
        (altered("annotations", 0, "bbox", value=[1, 2, float("nan"), 4]), "'bbox' is"),
        (altered("annotations", 0, "bbox", value=[1, float("inf"), 3, 4]), "'bbox' is"),
        (altered("annotations", 0, "bbox", value=["1", 2, 3, 4]), "'bbox' is"),
    ],
)
def test_wrong_entries_are_named(tmp_path, content, message):
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        read_annotations(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "are no JSON"),
        (b"[]", "hold a list, not an object"),
        (b"\xff\xfe\x00", "are no JSON"),
        (b"[" * 99999, "no JSON"),
    ],
)
def test_what_is_no_annotation_file(tmp_path, content, message):
    file = tmp_path / "coco.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_annotations(file)
    with pytest.raises(DataError, match=r"can't be read \(No such file"):
        read_annotations(tmp_path / "missing.json")


def folder(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 12)).save(path / name)
    return load(path, SPECS)


def test_images_of_a_folder_are_found_by_name(tmp_path):
    placed = match(read_annotations(GOOD), folder(tmp_path, "b.png", "c.png"), (8, 8), limited=False)
    assert [i.id for i in placed.images] == [3, 5]
    assert [i.size for i in placed.images] == [(30, 40), (12, 16)]  # what the file doesn't say, the image does
    assert placed.image.tolist() == [0, 0]
    assert placed.boxes.tolist() == [[1, 2, 3, 4], [9, 8, 7, 6]]
    assert placed.classes.tolist() == [1, 0]


def test_a_file_without_annotations_is_named(tmp_path):
    with pytest.raises(DataError, match=r"d\.png isn't in the annotations: its 'images' must hold one entry"):
        match(read_annotations(GOOD), folder(tmp_path, "a.png", "d.png"), (8, 8), limited=False)


def test_folders_tell_equal_names_apart(tmp_path):
    content = altered("images", 0, "file_name", value="one/b.png")
    data = folder(tmp_path, "one/b.png", "sub/b.png")
    assert [i.id for i in match(read_annotations(content), data, (8, 8), limited=False).images] == [7, 3]
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(DataError, match=r"b\.png stands several times in the annotations"):
        match(read_annotations(content), folder(elsewhere, "b.png"), (8, 8), limited=False)


def test_samples_of_an_array_are_the_images_in_order():
    read = read_annotations(GOOD)
    images = np.zeros((3, 1, 8, 8), np.float32)
    placed = match(read, load(images, SPECS), (8, 8), limited=False)
    assert placed.image.tolist() == [1, 0, 1]
    assert placed.images[2].size == (8, 8)
    cut = match(read, load(images[:1], SPECS), (8, 8), limited=True)
    assert ([i.id for i in cut.images], cut.image.tolist()) == ([7], [0])
    for count, limited in ((2, False), (4, False), (4, True)):
        with pytest.raises(DataError, match=f"describes 3 images, but array holds {count} samples"):
            match(read, load(np.zeros((count, 1, 8, 8), np.float32), SPECS), (8, 8), limited=limited)
