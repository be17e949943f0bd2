from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snncc import models
from snncc.tasks.annotations import read_annotations


@pytest.mark.parametrize("args", [["zoo"], ["zoo", "list"]])
def test_zoo_lists_the_networks(invoke, args):
    result = invoke(*args)
    assert result.exit_code == 0
    for name in models.names(None):
        line = next(line for line in result.stdout.splitlines() if line.startswith(f"zoo:{name}"))
        assert f"{100 * models.info(name).accuracy:.2f} %" in line
    assert "zoo:calibration" in result.stdout


@pytest.mark.parametrize("args", [["zoo", "--json"], ["zoo", "list", "--json"]])
def test_zoo_as_json(invoke, args):
    told = json.loads(invoke(*args).stdout)
    assert [network["name"] for network in told["networks"]] == models.names(None)
    assert all(Path(entry["path"]).is_file() for entry in (*told["networks"], *told["data"]))


@pytest.mark.parametrize("name", ["fashion_vgg", "zoo:fashion_vgg"])
def test_zoo_path(invoke, name):
    assert invoke("zoo", "path", name).stdout == f"{models.path('fashion_vgg')}\n"


def test_zoo_path_of_data(invoke):
    assert invoke("zoo", "path", "test").stdout == f"{models.data_path('test')}\n"


def test_an_unknown_name(invoke):
    result = invoke("zoo", "path", "nope")
    assert result.exit_code == 2
    assert "no network 'nope' in the zoo: choose one of fashion_detector, fashion_mobilenet" in result.stderr


def test_scenes_become_pictures_and_annotations(invoke, tmp_path):
    result = invoke("zoo", "scenes", tmp_path / "out", "--limit", 3, "--json")
    assert result.exit_code == 0, result.stderr
    images, content = models.scene_set("scenes")
    written = read_annotations(tmp_path / "out" / "annotations.json")
    assert json.loads(result.stdout)["annotations"] == len(written.boxes)
    assert [image.file_name for image in written.images] == [image["file_name"] for image in content["images"][:3]]
    assert written.boxes.tolist() == [box["bbox"] for box in content["annotations"] if box["image_id"] <= 3]
    for image, pixels in zip(written.images, images[:3, 0], strict=True):
        with Image.open(tmp_path / "out" / "images" / image.file_name) as opened:
            np.testing.assert_array_equal(np.asarray(opened), pixels)


def test_scenes_that_can_not_be_written(invoke, tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke("zoo", "scenes", tmp_path / "file")
    assert result.exit_code == 1
    assert "can't write to" in result.stderr
    assert invoke("zoo", "scenes", tmp_path / "x", "--limit", 0).exit_code == 2
