"""When neurons start anew: which reading of a sequence is taken, on networks for which only one of them is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from small_networks import parse

import snncc
from snncc.config import Config
from snncc.data import Dataset, load
from snncc.period import frame_counts, settled
from snncc.sequences import with_frames
from snncc.sources import input_specs, read_ann

# Two classes: which of two values is farther from zero. On a frame and its negative, the mean says nothing.
DISTANCE = """
g (float[N,2] x, float[2,4] w_1, float[4,2] w_2) => (float[N,2] y)
{
    h = MatMul(x, w_1)
    a = Relu(h)
    y = MatMul(a, w_2)
}
"""


def network() -> onnx.ModelProto:
    model = parse(DISTANCE)
    first = np.array([[1, -1, 0, 0], [0, 0, 1, -1]], np.float32)
    second = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    for initializer, value in zip(model.graph.initializer, (first, second), strict=True):
        initializer.CopyFrom(onnx.numpy_helper.from_array(value, initializer.name))
    return model


def opposite(samples: int = 64) -> np.ndarray:
    """Sequences [N, 2, 2] of a frame and most of its negative."""
    one = np.random.default_rng(0).standard_normal((samples, 2)).astype(np.float32)
    return np.stack([one, -one + 0.1 * one[:, ::-1]], axis=1)


def period_of(x: np.ndarray, labels: np.ndarray | None = None, **options: Any) -> tuple[int, str | None]:
    config = Config(**{"timesteps": 4, "input_coding": "frames", **options})
    content = {"x": x} if labels is None else {"x": x, "label": labels}
    data: Dataset = load(content, with_frames(input_specs(network()), config))
    found, note = settled(config, data, read_ann(network()))
    return found.period, note


def by_mean(x: np.ndarray) -> np.ndarray:
    return np.abs(x.mean(axis=1)).argmax(axis=1)


def by_frame(x: np.ndarray) -> np.ndarray:
    return np.abs(x).mean(axis=1).argmax(axis=1)


def test_labels_decide() -> None:
    x = opposite()
    assert (by_mean(x) != by_frame(x)).mean() > 0.2
    assert period_of(x, by_frame(x)) == (2, None)
    assert period_of(x, by_mean(x)) == (4, None)


def test_without_labels_frames_are_taken_one_by_one_and_the_user_is_told() -> None:
    period, note = period_of(opposite())
    assert period == 2
    assert note is not None
    assert "every 2 timesteps" in note
    assert "--reset-after 4" in note


def test_readings_that_agree_let_neurons_go_on() -> None:
    x = opposite()[:, :1]
    assert period_of(np.repeat(x, 4, axis=1)) == (4, None)
    assert period_of(np.concatenate([x, 1.01 * x], axis=1)) == (4, None)


def test_the_user_decides() -> None:
    x = opposite()
    assert period_of(x, by_frame(x), reset_after=4) == (4, None)
    assert period_of(x, by_mean(x), reset_after=1) == (1, None)


def test_one_frame_and_no_data_leave_nothing_to_decide() -> None:
    assert period_of(opposite()[:, :1]) == (4, None)
    found, note = settled(Config(timesteps=4, input_coding="frames"), None, read_ann(network()))
    assert (found.period, note) == (4, None)


def test_constant_inputs_have_no_period() -> None:
    config = Config(timesteps=4)
    assert settled(config, None, read_ann(network()))[0] is config


def test_the_distance_of_outputs_decides_where_there_are_no_classes() -> None:
    text = "g (float[N,2] x, float[2,1] w_1) => (float[N,1] y) { h = MatMul(x, w_1) y = Relu(h) }"
    config = Config(timesteps=4, input_coding="frames")
    for x, wanted in ((opposite(), 2), (np.repeat(opposite()[:, :1], 2, axis=1), 4)):
        data = load({"x": x}, with_frames(input_specs(parse(text)), config))
        assert frame_counts(data) == [2]
        assert settled(config, data, read_ann(parse(text)))[0].period == wanted


@pytest.mark.parametrize("reset_after", [None, 4])
def test_a_compile_records_the_period_and_the_warning(reset_after: int | None) -> None:
    config = Config(timesteps=4, max_burst=8, input_coding="frames", reset_after=reset_after)
    x = opposite()
    compiled = snncc.compile(network(), calibration=x, config=config)
    assert compiled.record.period == (reset_after or 2)
    assert any("start anew" in w for w in compiled.record.warnings) == (reset_after is None)
    if not reset_after:  # what cancels out over a sample would take more spikes than ψ allows
        assert (compiled.run(x)["y"].argmax(axis=1) == by_frame(x)).mean() > 0.9
