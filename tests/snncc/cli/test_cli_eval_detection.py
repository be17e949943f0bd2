from __future__ import annotations

import json
import re
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SETTINGS = {"name": "yolov2", "anchors": [[8, 8], [14, 6]], "least_score": 0.05}
DATA = ("--data", "images.npy", "--task", "detection")


@pytest.fixture
def detector(tmp_path, monkeypatch, invoke):
    """A directory with a small detector, compiled; images; annotations; it carries its decoder's settings."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    weights = {"w1": (6, 1, 8, 8), "w2": (14, 6, 1, 1), "b2": (14,)}
    scale = {"w1": 1 / 8, "w2": 1.5, "b2": 1.0}  # outputs of a trained network's size: boxes are exponential in them
    initializers = [
        numpy_helper.from_array((scale[name] * rng.standard_normal(shape)).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], "conv1", strides=[8, 8]),
        helper.make_node("Relu", ["c"], ["a"], "relu"),
        helper.make_node("Conv", ["a", "w2", "b2"], ["grid"], "conv2"),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, ["N", 1, 24, 24])]
    graph = helper.make_graph(nodes, "net", inputs, [value("grid", TensorProto.FLOAT, ["N", 14, 3, 3])], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, "bare.onnx")
    helper.set_model_props(model, {"decoder": json.dumps(SETTINGS)})
    onnx.save(model, "net.onnx")
    np.save("images.npy", rng.standard_normal((12, 1, 24, 24)).astype(np.float32))
    images = [{"id": i, "file_name": f"{i}.png", "width": 24, "height": 24} for i in range(12)]
    boxes = [{"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [4, 4, 9, 9]} for i in range(12)]
    categories = [{"id": 1, "name": "hat"}, {"id": 2, "name": "coat"}]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    result = invoke("compile", "net.onnx", "--calib", "images.npy", "-T", 4, "-q")
    assert result.exit_code == 0, result.stderr
    return tmp_path


def test_boxes_are_compared_without_annotations(detector, invoke):
    result = invoke("eval", "net.snn.onnx", *DATA, "--against", "net.onnx", "--draw", "out")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"boxes found +\d+ +[\d.]+ %", result.stdout)
    line = result.stdout.strip().splitlines()[-1]
    assert re.fullmatch(
        r"SNN \(T=4, ψ=4\)  boxes found [\d.]+ %  spikes/sample \d+  energy ANN .* SNN .* \(45nm\)", line
    )
    assert sorted(file.name for file in (detector / "out").iterdir()) == [f"{i:05d}.png" for i in range(12)]


def test_pictures_do_not_go_among_those_that_are_read(detector, invoke):
    (detector / "photos").mkdir()
    Image.new("L", (24, 24)).save(detector / "photos/a.png")
    options = (
        "--data",
        "photos",
        "--task",
        "detection",
        "--against",
        "net.onnx",
        "--draw",
        "../" + detector.name + "/photos",
    )
    result = invoke("eval", "net.snn.onnx", *options)
    assert result.exit_code == 2
    assert "is the data itself: choose another --draw" in result.stderr
    assert [file.name for file in (detector / "photos").iterdir()] == ["a.png"]


def test_average_precision_and_everything_as_json(detector, invoke):
    pytest.importorskip("faster_coco_eval")
    command = ("eval", "net.snn.onnx", *DATA, "--annotations", "coco.json", "--against", "net.onnx")
    told = json.loads(invoke(*command, "--json").stdout)
    detection = told["evaluation"]["detection"]
    assert (told["task"], told["decoder"], detection["steps"]) == ("detection", "yolov2", [1, 2, 3, 4])
    assert len(detection["snn"]) == len(detection["agreement"]) == 4
    result = invoke(*command, "-v")
    assert result.exit_code == 0, result.stderr
    for text in ("mAP@[.5:.95]", "mAP@.5", "coat", "ANN mAP"):
        assert text in result.stdout
    assert f"{100 * detection['snn'][-1]['mean']:.2f} %" in result.stdout.splitlines()[-1]
    cut = invoke(*command, "--limit", 5, "-q")
    assert cut.exit_code == 0, cut.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing to compare the boxes with: give --annotations, or --against"),
        (("--decoder", "yolo9"), "there is no decoder 'yolo9': choose one of yolov2, yolov3, yolox, fcos"),
        (("--decoder", "yolov3"), "decoder 'yolov3': 'anchors' is missing"),
        (("--decoder-options", "none.json"), "'none.json' can't be read"),
        (("--score", 0), "score from which boxes count is 0.0: it must be above 0"),
        (("--early-exit", 0.9), "early exit needs class scores"),
        (("--labels", "y"), "--labels with --task detection"),
        (("--draw", "coco.json"), "coco.json"),
    ],
)
def test_what_is_refused(detector, invoke, options, message):
    against = () if not options else ("--against", "net.onnx")
    result = invoke("eval", "net.snn.onnx", *DATA, *against, *options)
    assert result.exit_code != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].pop(), "is no id in 'images'"),
        (lambda c: (c["images"].pop(), c["annotations"].pop()), "describes 11 images, but images.npy holds 12 samples"),
        (lambda c: c["categories"].pop(), "'category_id' 2 is no id in 'categories'"),
        (lambda c: c.pop("images"), "coco.json: 'images' is missing"),
    ],
)
def test_annotations_that_do_not_match(detector, invoke, change, message):
    pytest.importorskip("faster_coco_eval")
    content = json.loads((detector / "coco.json").read_text())
    change(content)
    (detector / "coco.json").write_text(json.dumps(content))
    result = invoke("eval", "net.snn.onnx", *DATA, "--annotations", "coco.json")
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_network_that_says_nothing_about_its_boxes(detector, invoke):
    assert invoke("compile", "bare.onnx", "--calib", "images.npy", "-T", 2, "-q").exit_code == 0
    result = invoke("eval", "bare.snn.onnx", *DATA, "--against", "bare.onnx")
    assert result.exit_code == 2
    assert "name a decoder with --decoder (yolov2, yolov3, yolox, fcos, or module:function)" in result.stderr


def test_without_the_library_the_remedy_is_said_before_the_work(detector, invoke, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    result = invoke("eval", "net.snn.onnx", *DATA, "--annotations", "coco.json")
    assert result.exit_code == 2
    assert "pip install 'snncc[detection]'" in result.stderr


@pytest.mark.parametrize("option", ["--annotations", "--decoder", "--decoder-options", "--draw"])
def test_options_of_detection_want_the_task(detector, invoke, option):
    result = invoke("eval", "net.snn.onnx", "--data", "images.npy", option, "x")
    assert result.exit_code == 2
    assert f"{option} is for detection: add --task detection" in result.stderr


def test_a_search_weighs_layers_by_the_error_of_the_outputs(detector, invoke, monkeypatch):
    """No class scores: the loss is the squared error relative to the ANN's energy, and nothing is said of agreement."""
    monkeypatch.setenv("SNNCC_CACHE", str(detector / "cache"))
    result = invoke("search", "net.onnx", "--calib", "images.npy", "-T", 4, "--budget", 0.7, "-o", "front.json", "-q")
    assert result.exit_code == 0, result.stderr
    compiled = invoke("compile", "net.onnx", "--calib", "images.npy", "--front", "front.json", "-o", "found.snn.onnx")
    assert compiled.exit_code == 0, compiled.stderr
    refused = invoke("search", "net.onnx", "--calib", "images.npy", "-T", 4, "--min-agreement", 99, "-o", "f.json")
    assert refused.exit_code != 0
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("preset", ["calibration", "bs", "bs+bsr", "best"])
def test_presets_compile_detectors(detector, invoke, monkeypatch, preset):
    monkeypatch.setenv("SNNCC_CACHE", str(detector / "cache"))
    result = invoke(
        "compile", "net.onnx", "--calib", "images.npy", "-T", 16, "--preset", preset, "-o", "p.snn.onnx", "-q"
    )
    assert result.exit_code == 0, result.stderr
    told = invoke("eval", "p.snn.onnx", *DATA, "--against", "net.onnx", "--json")
    agreement = json.loads(told.stdout)["evaluation"]["detection"]["agreement"][-1]
    assert agreement["confident"] > 20
    assert agreement["found"] > 0.8, agreement
