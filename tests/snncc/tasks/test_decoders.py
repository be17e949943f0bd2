"""Decoders against loops over the equations, and how they are found and refused."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest
from onnx import helper

from snncc.errors import UsageError
from snncc.tasks.anchor_free import fcos, yolox
from snncc.tasks.decoders import BUILT_IN, Decoder, find, make_decoder, read_parameters
from snncc.tasks.yolo import yolov2, yolov3

ANCHORS = [[10, 20], [30, 15]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def rows(result) -> list[tuple[float, ...]]:
    """Candidates as sorted rows of box, score and class."""
    boxes, scores, classes = result
    assert boxes.shape == (len(scores), 4)
    return sorted((*map(float, box), float(s), int(c)) for box, s, c in zip(boxes, scores, classes, strict=True))


def grid_rows(grid, anchors, stride, softmax) -> list[tuple[float, ...]]:
    """The equations of YOLOv2 and v3, cell by cell."""
    per = len(grid) // len(anchors)
    made = []
    for a, (pw, ph) in enumerate(anchors):
        for i in range(grid.shape[1]):
            for j in range(grid.shape[2]):
                tx, ty, tw, th, objectness, *scores = (float(v) for v in grid[a * per : (a + 1) * per, i, j])
                x, y = stride * (j + sigmoid(tx)), stride * (i + sigmoid(ty))
                w, h = pw * math.exp(tw), ph * math.exp(th)
                total = sum(math.exp(s) for s in scores)
                for c, s in enumerate(scores):
                    score = sigmoid(objectness) * (math.exp(s) / total if softmax else sigmoid(s))
                    if score > 1e-3:
                        made.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2, score, c))
    return sorted(made)


# Both compute in float64, with another order of operations.
def same(found, expected):
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(("decode", "softmax"), [(yolov2, True), (yolov3, False)])
def test_a_grid_with_anchors(decode, softmax):
    grid = np.random.default_rng(0).standard_normal((2 * 8, 3, 4)).astype(np.float32)
    found = decode({"grid": grid, "other": np.zeros(4)}, (48, 64), {"anchors": ANCHORS, "stride": 16})
    same(rows(found), grid_rows(grid, ANCHORS, 16, softmax))
    same(rows(decode({"grid": grid}, (48, 64), {"anchors": ANCHORS})), rows(found))


def test_several_grids_by_name():
    rng = np.random.default_rng(1)
    coarse, fine = (rng.standard_normal((2 * 7, n, n)).astype(np.float32) for n in (2, 4))
    grids = [{"output": "a", "anchors": ANCHORS, "stride": 32}, {"output": "b", "anchors": [[3, 4], [5, 6]]}]
    found = rows(yolov3({"a": coarse, "b": fine}, (64, 64), {"grids": grids}))
    expected = grid_rows(coarse, ANCHORS, 32, False) + grid_rows(fine, [[3, 4], [5, 6]], 16, False)
    same(found, sorted(expected))


@pytest.mark.parametrize("logits", [False, True])
def test_yolox(logits):
    rng = np.random.default_rng(2)
    values = rng.standard_normal((4 * 6 + 2 * 3, 7)).astype(np.float32)
    if not logits:
        values[:, 4:] = rng.uniform(0, 1, (30, 3))
    expected, row = [], 0
    for stride in (8, 16):
        for i in range(32 // stride):
            for j in range(48 // stride):
                tx, ty, tw, th, *said = (float(v) for v in values[row])
                said = [sigmoid(v) for v in said] if logits else said
                x, y, w, h = stride * (j + tx), stride * (i + ty), stride * math.exp(tw), stride * math.exp(th)
                expected += [
                    (x - w / 2, y - h / 2, x + w / 2, y + h / 2, said[0] * s, c) for c, s in enumerate(said[1:])
                ]
                row += 1
    found = rows(yolox({"output": values}, (32, 48), {"strides": [8, 16], "logits": logits}))
    same(found, sorted(r for r in expected if r[4] > 1e-3))


@pytest.mark.parametrize(
    ("exp", "normalised", "centred"), [(False, True, True), (True, False, True), (False, True, False)]
)
def test_fcos(exp, normalised, centred):
    rng = np.random.default_rng(3)
    outputs, levels, expected = {}, [], []
    for level, (h, w) in enumerate([(4, 3), (2, 2)]):
        cell = (96 / w, 64 / h)
        scores, sides, centre = (rng.standard_normal((n, h, w)).astype(np.float32) for n in (2, 4, 1))
        outputs |= {f"s{level}": scores, f"b{level}": sides, f"c{level}": centre}
        levels.append({"scores": f"s{level}", "boxes": f"b{level}"} | ({"centreness": f"c{level}"} if centred else {}))
        for i in range(h):
            for j in range(w):
                d = [math.exp(v) if exp else max(float(v), 0.0) for v in sides[:, i, j]]
                d = [v * cell[n % 2] for n, v in enumerate(d)] if normalised else d
                x, y = (j + 0.5) * cell[0], (i + 0.5) * cell[1]
                for c in range(2):
                    score = sigmoid(float(scores[c, i, j]))
                    score = math.sqrt(score * sigmoid(float(centre[0, i, j]))) if centred else score
                    expected.append((x - d[0], y - d[1], x + d[2], y + d[3], score, c))
    same(rows(fcos(outputs, (64, 96), {"levels": levels, "exp": exp, "normalised": normalised})), sorted(expected))


def test_enormous_outputs_do_not_overflow():
    grid = np.full((6, 2, 2), 1e30, np.float32)
    with np.errstate(all="raise"):
        boxes, scores, _ = yolov2({"g": grid}, (32, 32), {"anchors": [[8, 8]]})
    assert np.isfinite(boxes).all()
    assert np.isfinite(scores).all()


GRID = {"grid": np.zeros((16, 3, 4), np.float32)}


@pytest.mark.parametrize(
    ("decode", "outputs", "parameters", "message"),
    [
        (
            yolov2,
            GRID,
            {},
            "'anchors' is missing, a list of rows of 2 positive numbers: give it with --decoder-options",
        ),
        (yolov2, GRID, {"anchors": [[1, 2], [3]]}, "'anchors' is .*: it must be a list of rows of 2 positive numbers"),
        (yolov2, GRID, {"anchors": [[1, -2]]}, "'anchors' is"),
        (yolov2, GRID, {"anchors": [[1, float("nan")]]}, "'anchors' is"),
        (yolov2, GRID, {"anchors": "abc"}, "'anchors' is abc"),
        (
            yolov2,
            GRID,
            {"anchors": [[1, 2]] * 3},
            r"output 'grid' is \[N, 16, 3, 4\]: with 3 anchors its axis 1 must be",
        ),
        (yolov2, GRID, {"anchors": [[1, 2]] * 4}, "its axis 1 must be 4"),
        (yolov2, GRID, {"anchors": ANCHORS, "stride": 8}, "a cell is 16x16 pixels, not 8: correct 'stride'"),
        (yolov2, GRID, {"anchors": ANCHORS, "stride": "x"}, "'stride' is 'x': it must be a positive number"),
        (yolov2, GRID, {"grids": 3}, "'grids' is 3: it must be a list of one or more objects"),
        (yolov2, GRID, {"anchors": ANCHORS, "output": "y"}, r"no output 'y', only 'grid' \[N, 16, 3, 4\]"),
        (
            yolov2,
            {"flat": np.zeros(8)},
            {"anchors": ANCHORS},
            r"no output of 4 axes, batch included \('flat' \[N, 8\]\)",
        ),
        (yolov2, {**GRID, "two": GRID["grid"]}, {"anchors": ANCHORS}, "several outputs of 4 axes"),
        (yolov2, {"flat": np.zeros(8)}, {"anchors": ANCHORS, "output": "flat"}, r"output 'flat' is \[N, 8\]: 4 axes"),
        (yolox, {"o": np.zeros((5, 7))}, {}, r"with strides \[8, 16, 32\] an input of 48x64 has 62 cells"),
        (yolox, {"o": np.zeros((62, 5))}, {}, r"so it must be \[N, 62, 5 \+ classes\]"),
        (yolox, {"o": np.zeros((62, 7))}, {"strides": [0]}, "'strides' is"),
        (yolox, {"o": np.zeros((62, 7))}, {"logits": 1}, "'logits' is '1': it must be true or false"),
        (fcos, GRID, {}, "'levels' is missing"),
        (fcos, GRID, {"levels": [{"scores": "grid"}]}, "it must name 'scores' and 'boxes'"),
        (fcos, GRID, {"levels": [{"scores": "grid", "boxes": "grid"}]}, r"as 'boxes' it must be \[N, 4, 3, 4\]"),
        (fcos, GRID, {"levels": [{"scores": 3, "boxes": "grid"}]}, "'scores' of a level is '3'"),
    ],
)
def test_what_does_not_fit_is_refused(decode, outputs, parameters, message):
    with pytest.raises(UsageError, match=message):
        decode(outputs, (48, 64), parameters)


def model(**metadata: str) -> onnx.ModelProto:
    made = helper.make_model(helper.make_graph([], "g", [], []))
    helper.set_model_props(made, metadata)
    return made


SETTINGS = {"name": "yolov2", "anchors": ANCHORS, "most": 5, "least_score": 0.3}


def test_settings_come_from_the_network(tmp_path):
    own = model(decoder=json.dumps(SETTINGS))
    decoder = make_decoder(None, None, own)
    assert (decoder.decode, decoder.most, decoder.least_score) == (yolov2, 5, 0.3)
    assert decoder.parameters == {"anchors": ANCHORS}
    assert make_decoder("yolov2", None, own) == decoder
    assert make_decoder("yolov3", None, own).parameters == {}  # another decoder's parameters aren't its own
    file = tmp_path / "d.json"
    file.write_text(json.dumps({"anchors": [[1, 2]]}))
    given = make_decoder("yolov3", str(file), own)
    assert (given.decode, given.parameters, given.most) == (yolov3, {"anchors": [[1, 2]]}, 100)
    assert make_decoder(None, file, own).decode is yolov2


def test_detections_are_suppressed_and_cut():
    grid = np.random.default_rng(0).standard_normal((2 * 8, 3, 4)).astype(np.float32)
    decoder = make_decoder(None, {**SETTINGS, "least_score": 0.01}, model())
    found = decoder({"grid": grid}, (48, 64))
    assert len(found) == 5
    assert (np.diff(found.scores) <= 0).all()


def half(outputs, size, parameters):
    """A decoder as a user would write it."""
    return [[0, 0, size[1] / 2, size[0]]], [parameters["score"]], [3]


def wrong(outputs, size, parameters):
    return [[0, 0, 1]], [1.0], [0]


def broken(outputs, size, parameters):
    return outputs["nowhere"]


def test_a_function_of_a_module():
    decoder = make_decoder(f"{__name__}:half", {"score": 0.7}, model())
    found = decoder({}, (10, 20))
    assert (found.boxes.tolist(), found.scores.tolist(), found.classes.tolist()) == ([[0, 0, 10, 10]], [0.7], [3])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong", r"returns boxes, scores and classes of shapes \[1, 3\], \[1\], \[1\]: it must return \[K, 4\]"),
        ("broken", r"breaks \(KeyError: 'nowhere'\): correct it"),
    ],
)
def test_a_function_that_breaks_is_named(function, message):
    with pytest.raises(UsageError, match=message):
        Decoder(f"{__name__}:{function}", find(f"{__name__}:{function}"))({}, (10, 20))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yolo9", f"no decoder 'yolo9': choose one of {', '.join(BUILT_IN)}, or name a function as module:function"),
        ("no.such:f", "'no.such:f' can't be imported .ModuleNotFoundError.*PYTHONPATH"),
        ("math:no", "'math:no' can't be imported .AttributeError"),
        ("math:pi", "'math:pi' is no function but a float"),
    ],
)
def test_unknown_decoders(name, message):
    with pytest.raises(UsageError, match=message):
        make_decoder(name, None, model())


def test_a_file_never_names_a_module(tmp_path):
    """To import what a downloaded file names would be to run it."""
    for given in (model(decoder='{"name": "os:system"}'), model()):
        parameters = None if given.metadata_props else {"name": "os:system"}
        with pytest.raises(UsageError, match="a file names an installed decoder; name others with --decoder"):
            make_decoder(None, parameters, given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "holds a list, not an object of parameters"),
        ("[" * 200_000, "is no JSON"),
        ("\udcff", "can't be read"),
        (" " * (1 << 20) + "{}", "has 1,048,578 bytes"),
    ],
)
def test_files_that_hold_no_parameters(tmp_path, text, message):
    file = tmp_path / "d.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=message):
        read_parameters(file)
    with pytest.raises(UsageError, match="can't be read"):
        read_parameters(tmp_path / "missing.json")


def test_damaged_metadata_and_none():
    with pytest.raises(UsageError, match=r"the network's metadata 'decoder' is no JSON .*: give --decoder and"):
        make_decoder(None, None, model(decoder="{"))
    with pytest.raises(UsageError, match="nothing says how this network's outputs become boxes"):
        make_decoder(None, None, model())


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"most": 0}, "'most' is 0"),
        ({"least_score": "a"}, "'least_score' is 'a'"),
        ({"most_overlap": 2}, "'most_overlap'"),
    ],
)
def test_limits_out_of_range(limit, message):
    with pytest.raises(UsageError, match=message):
        make_decoder("yolov2", limit, model())
