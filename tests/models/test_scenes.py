"""Scenes: what is promised about them, and that they are the same everywhere."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from snncc import models
from snncc.errors import UsageError
from snncc.models import scenes
from snncc.tasks.annotations import read_annotations

# Of the first 20 test scenes, images and annotations. A change here changes every figure about detection.
PIXELS = "1c7c1817e68370538c1f878592c12e90767502edcc22cd123c509b6a72a8dc37"
CONTENT = "8ec8a50d8544bf9ede5c7d1096a1cef65d123110b443d368f7a4b16153a6a932"


@pytest.fixture(scope="module")
def made() -> list[scenes.Scene]:
    images, labels = models.test_set()
    return scenes.compose_all(images[:, 0], labels, 60, 20171)


def test_the_same_scenes_on_every_machine(made):
    digest = hashlib.sha256(np.stack([scene.image for scene in made[:20]]).tobytes()).hexdigest()
    assert digest == PIXELS
    content = json.dumps(scenes.coco(made[:20]), sort_keys=True)
    assert hashlib.sha256(content.encode()).hexdigest() == CONTENT


def test_the_bundled_set_begins_with_them_and_reads_as_annotations(made):
    images, content = models.scene_set("scenes")
    assert (images.shape, images.dtype) == ((500, 1, 128, 128), np.uint8)
    np.testing.assert_array_equal(images[:60, 0], [scene.image for scene in made])
    read = read_annotations(content)
    assert read.class_names == scenes.CLASSES
    assert len(read.images) == 500
    assert set(read.classes.tolist()) == set(range(10))
    first = read.image < 60
    np.testing.assert_array_equal(read.boxes[first], np.concatenate([scene.boxes for scene in made]))
    np.testing.assert_array_equal(read.classes[first], np.concatenate([scene.classes for scene in made]))
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_calibration_scenes_are_others():
    images, content = models.scene_set("scenes_calibration")
    assert images.shape == (256, 1, 128, 128)
    assert len(content["images"]) == 256
    with pytest.raises(
        UsageError, match="no set of scenes 'photos' in the zoo: choose one of scenes, scenes_calibration"
    ):
        models.scene_set("photos")


def test_items_lie_within_the_image_and_vary(made):
    boxes = np.concatenate([scene.boxes for scene in made])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= scenes.SIDE).all()
    longer = boxes[:, 2:].max(axis=1)
    assert longer.min() < 25
    assert longer.max() > 55
    counts = [len(scene.boxes) for scene in made]
    assert min(counts) >= 1
    assert max(counts) == scenes.ITEMS[1]
    assert np.mean(counts) > 4


def test_items_overlap_but_stay_visible():
    """Solid items show who is in front: at least 60 % of each is left, and some lose a part."""
    values = np.array([60, 90, 120, 150, 180, 210, 240], np.uint8)
    items = np.broadcast_to(values[:, None, None], (7, 28, 28))
    shares = []
    for seed in range(40):
        scene = scenes.compose(items, np.arange(7), np.random.RandomState(seed))
        in_front = np.full((scenes.SIDE, scenes.SIDE), -1)
        for number, (left, top, width, height) in enumerate(scene.boxes.astype(int)):
            in_front[top : top + height, left : left + width] = number
        areas = scene.boxes[:, 2] * scene.boxes[:, 3]
        shares += [(in_front == number).sum() / area for number, area in enumerate(areas)]
    assert min(shares) >= scenes.LEAST_VISIBLE
    assert sum(share < 1 for share in shares) > 20


def test_the_item_is_where_its_box_says(made):
    """Without noise and clutter in the way, an item of white pixels is brighter than all around it."""
    white = np.full((1, 28, 28), 255, np.uint8)
    for seed in range(20):
        scene = scenes.compose(white, np.zeros(1, int), np.random.RandomState(seed))
        for left, top, width, height in scene.boxes.astype(int):
            assert np.median(scene.image[top : top + height, left : left + width]) > 120


def test_resizing_is_pillows():
    from PIL import Image

    image = np.random.default_rng(0).uniform(0, 255, (9, 13)).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize((40, 30), Image.Resampling.BILINEAR))
    # Pillow computes in float32 with weights that are rounded a little differently.
    np.testing.assert_allclose(scenes._resize(image.astype(float), 30, 40), expected, atol=1e-3)
