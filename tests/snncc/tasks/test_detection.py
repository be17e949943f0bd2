"""The evaluation of a small detector against ONNX Runtime and the decoder alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import snncc
from snncc.errors import DataError, UsageError
from snncc.tasks.annotations import read_annotations
from snncc.tasks.boxes import Detections
from snncc.tasks.decoders import make_decoder
from snncc.tasks.detection import evaluate_detection

T, SIDE, CELL = 4, 24, 8
SETTINGS = {"name": "yolov2", "anchors": [[8, 8], [14, 6]], "least_score": 0.05}


def detector() -> onnx.ModelProto:
    """Conv 1→6 with stride 8, Relu, Conv 6→2·(5+2): a grid of 3x3 cells with two anchors and two classes."""
    rng = np.random.default_rng(3)
    shapes = {"w1": (6, 1, 8, 8), "b1": (6,), "w2": (14, 6, 1, 1), "b2": (14,)}
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) / (3 if name == "w1" else 1)).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], "conv1", strides=[8, 8]),
        helper.make_node("Relu", ["c"], ["a"], "relu"),
        helper.make_node("Conv", ["a", "w2", "b2"], ["grid"], "conv2"),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])]
    outputs = [value("grid", TensorProto.FLOAT, ["N", 14, 3, 3])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((20, 1, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def network(images) -> snncc.SpikingNetwork:
    # One spike per timestep: the SNN is so much worse that its boxes can't be taken for the ANN's.
    config = snncc.Config(timesteps=T, max_burst=1, neuron="burst", trace=True)
    return snncc.compile(detector(), calibration=images, config=config)


@pytest.fixture(scope="module")
def decoder():
    return make_decoder(None, SETTINGS, detector())


def outputs(model: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"x": images}), strict=True))


def annotations(found: list[Detections]) -> dict:
    """The confident boxes of a network, as if they were the truth."""
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    for image, detections in enumerate(found, 1):
        content["images"].append({"id": image, "file_name": f"{image}.png", "width": SIDE, "height": SIDE})
        said = detections.above(0.5)
        for box, label in zip(said.boxes.tolist(), said.classes.tolist(), strict=True):
            size = [box[2] - box[0], box[3] - box[1]]
            number = len(content["annotations"]) + 1
            content["annotations"].append(
                {"id": number, "image_id": image, "category_id": label + 1, "bbox": [*box[:2], *size]}
            )
    return content


def pairs(wanted: Detections, found: Detections) -> int:
    """Boxes of `wanted` that have a partner of their own, by hand: each in turn takes the best that is left."""
    count, left = 0, list(range(len(found)))
    for k in np.argsort(-wanted.scores, kind="stable"):
        overlaps = {}
        for other in left:
            low, high = (f(wanted.boxes[k], found.boxes[other]) for f in (np.maximum, np.minimum))
            shared = np.prod(np.maximum(high[2:] - low[:2], 0))
            sizes = [np.prod(box[2:] - box[:2]) for box in (wanted.boxes[k], found.boxes[other])]
            overlaps[other] = shared / (sum(sizes) - shared) if wanted.classes[k] == found.classes[other] else 0.0
        best = max(overlaps, key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] > 0.5:
            left.remove(best)
            count += 1
    return count


def test_boxes_agree_as_often_as_counted_by_hand(network, images, decoder):
    result = evaluate_detection(network, images, decoder, ann=detector(), batch_size=8)
    ann = [decoder({"grid": grid}, (SIDE, SIDE)) for grid in outputs(detector(), images)["grid"]]
    traces = next(v for name, v in outputs(network.model, images).items() if v.ndim == 5)
    assert result.steps == tuple(range(1, T + 1))
    strict = []
    for step, agreement in zip(result.steps, result.agreement, strict=True):
        snn = [decoder({"grid": grid}, (SIDE, SIDE)) for grid in traces[step - 1]]
        wanted = sum(len(d.above(0.5)) for d in ann)
        said = sum(len(d.above(0.5)) for d in snn)
        assert agreement.confident == wanted > 20
        both = list(zip(ann, snn, strict=True))
        assert agreement.found == sum(pairs(a.above(0.5), s.above(0.25)) for a, s in both) / wanted
        assert agreement.strict == sum(pairs(a.above(0.5), s.above(0.5)) for a, s in both) / wanted
        known = sum(pairs(s.above(0.5), a.above(0.25)) for a, s in both)
        assert agreement.invented == pytest.approx(1 - known / said, abs=1e-12)
        strict.append(agreement.strict)
    assert min(strict) < 1.0
    assert (result.ann, result.snn, result.classes) == (None, None, None)


def test_average_precision_over_time(network, images, decoder):
    """The truth is what the ANN says with confidence, so the ANN has all of it and the SNN loses some."""
    pytest.importorskip("faster_coco_eval")
    ann = [decoder({"grid": grid}, (SIDE, SIDE)) for grid in outputs(detector(), images)["grid"]]
    truth = read_annotations(annotations(ann))
    result = evaluate_detection(network, images, decoder, annotations=truth, ann=detector(), steps=[2, 3])
    assert result.steps == (2, 3, T)
    # A box that is below 0.5 can rank above no confident one, as scores order them: nothing lowers the precision.
    assert result.ann.at_50 == pytest.approx(1.0)
    assert result.classes == ("a", "b")
    assert all(0.0 < p.mean < result.ann.mean for p in result.snn)
    told = result.to_dict()["detection"]
    assert told["snn"][-1]["mean"] == result.snn[-1].mean
    assert evaluate_detection(network, images, decoder, annotations=truth).ann is None


def test_each_sample_is_told_once_in_order(network, images, decoder):
    told: list[tuple[int, bool]] = []
    evaluate_detection(
        network,
        images,
        decoder,
        ann=detector(),
        batch_size=8,
        drawn=lambda sample, ann, snn: told.append((sample, len(snn) > 0)),
    )
    assert [sample for sample, _ in told] == list(range(20))
    assert any(found for _, found in told)


def test_what_is_refused(network, images, decoder):
    with pytest.raises(UsageError, match="nothing to compare the boxes with: give --annotations, or --against"):
        evaluate_detection(network, images, decoder)
    with pytest.raises(UsageError, match="boxes count is 0: it must be above 0"):
        evaluate_detection(network, images, decoder, ann=detector(), confidence=0)
    other = make_decoder("yolov2", {"anchors": [[1, 1]] * 3}, detector())
    with pytest.raises(UsageError, match=r"decoder 'yolov2': output 'grid' is \[N, 14, 3, 3\]: with 3 anchors"):
        evaluate_detection(network, images, other, ann=detector())


def test_a_network_without_images_is_refused(decoder):
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        mlp (float[N,4] x) => (float[N,5] y) { h = Relu (x)
            y = MatMul (h, w) }
    """)
    weight = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    data = np.ones((6, 4), np.float32)
    mlp = snncc.compile(model, calibration=data, config=snncc.Config(timesteps=2))
    with pytest.raises(DataError, match=r"takes 'x' float32 \[N, 4\]|takes 'x' \[N, 4\]: detection needs one input"):
        evaluate_detection(mlp, data, decoder, ann=model)
