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
    assert all(f"zoo:{name}" in result.stdout for name in ("calibration", "test", *models.EVENTS))


@pytest.mark.parametrize("args", [["zoo", "--json"], ["zoo", "list", "--json"]])
def test_zoo_as_json(invoke, args):
    told = json.loads(invoke(*args).stdout)
    assert [network["name"] for network in told["networks"]] == models.names(None)
    assert all(Path(entry["path"]).is_file() for entry in (*told["networks"], *told["data"]))


@pytest.mark.parametrize("name", ["fashion_vgg", "zoo:fashion_vgg"])
def test_zoo_path(invoke, name):
    assert invoke("zoo", "path", name).stdout == f"{models.path('fashion_vgg')}\n"


def test_zoo_path_of_data(invoke):
    for name in ("test", "events_test"):
        assert invoke("zoo", "path", name).stdout == f"{models.data_path(name)}\n"


def test_an_unknown_name(invoke):
    result = invoke("zoo", "path", "nope")
    assert result.exit_code == 2
    assert "no network 'nope' in the zoo: choose one of fashion_detector, fashion_events_resnet, " in result.stderr


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


def test_the_event_network_with_its_recordings(invoke, tmp_path, monkeypatch):
    """From the zoo to figures, as `snncc zoo --help` and the line after the compile say."""
    monkeypatch.chdir(tmp_path)
    frames = ("--input-coding", "frames", "-T", "8", "--max-burst", "8")
    made = invoke(
        "compile", "zoo:fashion_events_resnet", "--calib", "zoo:events_calibration", "--samples", "32", *frames
    )
    assert made.exit_code == 0, made.stderr
    following = next(line for line in made.stdout.splitlines() if "snncc eval" in line)
    words = following[following.index("snncc eval") :].split()
    assert words[3:5] == ["--data", "zoo:events_test"]
    told = json.loads(invoke(*words[1:], "--limit", "100", "--json").stdout)["evaluation"]
    # 100 recordings at 88 %: three standard errors are ten points.
    assert told["ann_accuracy"] == pytest.approx(0.88, abs=0.1)
    assert told["agreement"] > 0.85
    refused = invoke("compile", "zoo:fashion_events_resnet", "--calib", "zoo:events_calibration")
    assert "compile with --input-coding frames" in refused.stderr


def test_an_output_beside_bundled_recordings(invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    invoke("compile", "zoo:fashion_events_resnet", "-T", "8", "--input-coding", "frames", "-q")
    args = ("run", "fashion_events_resnet.snn.onnx", "--input", "zoo:events_test", "--limit", "4")
    assert invoke(*args, "--output", "out.npz").exit_code == 0
    with np.load("out.npz") as outputs:
        assert outputs["logits"].shape == (4, 10)
