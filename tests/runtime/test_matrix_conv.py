"""Convolutions on a unit that multiplies matrices of bytes: what they are laid out as, and how exact they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from snncc.runtime import matrix_unit
from snncc.runtime.carried import Carried
from snncc.runtime.chain import Chain, Job
from snncc.runtime.coded import CodedNeurons
from snncc.runtime.conv_neurons import ConvNeurons
from snncc.runtime.int8_conv import Coded
from snncc.runtime.matrix_conv import MOST_INPUTS, MatrixConv, Window, digits, is_exact, packed, steps
from snncc.runtime.parameters import NeuronParameters
from snncc.runtime.spike_conv import FloatRun, SpikeConv, vector_width


def conv_of(weight: np.ndarray, **attributes: Any) -> SpikeConv:
    bias = np.zeros(len(weight), np.float32)
    inputs = [gs.Variable("x"), gs.Constant("w", weight.astype(np.float32)), gs.Constant("b", bias)]
    return SpikeConv(gs.Node("Conv", attrs=attributes, inputs=inputs, outputs=[gs.Variable("y")]))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, shape)


def test_three_bytes_are_a_weight() -> None:
    weight = normal(9, 20, 3, 3) * np.exp2(np.arange(-4.0, 5.0)).reshape(-1, 1, 1, 1)
    planes, scale = digits(weight)
    whole = planes.astype(np.float64)
    found = (65536 * whole[0] + 256 * whole[1] + whole[2]) * scale.reshape(-1, 1, 1, 1)
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    assert (np.abs(found - weight) <= largest * 2.0**-23).all()
    assert (np.log2(scale) == np.rint(np.log2(scale))).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 2.0**20 - 1, 1 - 2.0**20, 3 / 8])
def test_short_weights_are_exact(value: float) -> None:
    planes, scale = digits(np.array([[value, value / 4]]))
    assert ((65536.0 * planes[0] + 256.0 * planes[1] + planes[2]) * scale).tolist() == [[value, value / 4]]


def test_weights_that_are_large_for_the_threshold_are_left_to_floats() -> None:
    conv, unit, theta = conv_of(np.full((4, 8, 3, 3), 2.0)), np.full(8, 0.5, np.float32), np.full(4, 0.125, np.float32)
    assert is_exact(conv, unit, theta)
    assert not is_exact(conv, unit * 1.01, theta)
    theta[2] = 0.12
    assert not is_exact(conv, unit, theta)
    assert is_exact(conv_of(np.zeros((4, 8, 3, 3))), unit, theta)
    assert not is_exact(conv_of(np.full((4, 8, 3, 3), np.inf)), unit, theta)
    assert not is_exact(conv_of(np.full((8, 1, 3, 3), 0.1), group=8), unit, np.ones(8, np.float32))
    wide = conv_of(np.full((1, MOST_INPUTS + 1, 1, 1), 1e-3))
    assert not is_exact(wide, np.ones(MOST_INPUTS + 1, np.float32), np.ones(1, np.float32))


@pytest.mark.parametrize(
    ("kernel", "strides", "dilations"),
    [((3, 3), (1, 1), (1, 1)), ((3, 3), (2, 2), (1, 1)), ((1, 1), (2, 2), (1, 1)), ((2, 5), (3, 2), (2, 3))],
)
def test_windows_find_their_inputs(
    kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> None:
    """Of an image that is laid out in phases, each output finds what it reads at the same distances."""
    rows, columns, channels = 4, 6, 3
    window = Window.of(kernel, strides, dilations)
    high, wide = rows + window.beyond[0], columns + window.beyond[1]
    rng = np.random.default_rng(1)
    size = [(n + b) * s for n, b, s in zip((rows, columns), window.beyond, strides, strict=True)]
    image = rng.integers(0, 9, (*size, channels))
    phases = [image[y :: strides[0], x :: strides[1]][:high, :wide] for y, x in window.phases.tolist()]
    flat = np.stack(phases).reshape(-1)
    for y in range(rows):
        for x in range(columns):
            place = (y * wide + x) * channels
            for begin, taps in window.runs(rows, columns, channels):
                for k, tap in enumerate(taps):
                    down, right = (p * d for p, d in zip(divmod(tap, kernel[1]), dilations, strict=True))
                    wanted = image[y * strides[0] + down, x * strides[1] + right]
                    at = place + begin + k * channels
                    np.testing.assert_array_equal(flat[at : at + channels], wanted)


def test_weights_beyond_a_run_are_zero() -> None:
    window = Window.of((3, 3), (1, 1), (1, 1))
    runs = window.runs(4, 4, 24)
    values = np.random.default_rng(2).integers(1, 128, (3, 20, 24, 9)).astype(np.int8)
    found = packed(values, runs)
    assert found.shape == (2, 6, 3, 16, 64)  # 20 outputs in two blocks; 72 inputs of a row in two steps
    assert np.count_nonzero(found) == values.size
    assert steps(runs, 24).tolist() == [0, 64, 6 * 24, 6 * 24 + 64, 12 * 24, 12 * 24 + 64]
    of_input = found[0, 1, 2].reshape(16, 16, 4)  # lowest bytes of the second step
    assert of_input[1, 3, 2] == values[2, 3, (64 + 6) % 24, 2]


@pytest.mark.skipif(not matrix_unit.available(), reason="the processor has no such unit")
@pytest.mark.parametrize("matrices", [True, False])
def test_currents_are_as_exact_as_in_single_precision(matrices: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against sums in double precision, of weights of all sizes: membranes are off by what float32 rounds off."""
    monkeypatch.setattr("snncc.runtime.conv_neurons.available", lambda: matrices)
    channels, features = 72, 40
    conv = conv_of(normal(features, channels, 3, 3, seed=3), pads=[1] * 4)
    unit = np.random.default_rng(4).uniform(0.2, 2.0, channels).astype(np.float32)
    values = np.random.default_rng(5).integers(0, 16, (1, 1, 9, 11, channels), dtype=np.uint8)
    none = np.zeros(channels, np.float32)
    theta = np.full((1, features, 1, 1), 1e3, np.float32)  # never reached, so that the membrane is the current
    neurons = CodedNeurons(NeuronParameters("BurstIF", theta, np.float32(0), 3, np.float32(np.inf)), features)
    layer = ConvNeurons(neurons, [conv])
    given = {"x": Coded(values, unit, none, none, 15)}
    carried: Carried = {}
    alone = Chain([Job("layer", layer, ("x",), "y")], {"y"})
    alone.take(given, 1, 1).run(given, {"layer": carried}, 0)
    assert layer._runs is not None
    assert isinstance(layer._runs[0], MatrixConv if matrices else FloatRun)
    padded = np.pad((values[0, 0] * unit.astype(np.float64)), [(1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    wanted = np.maximum(np.einsum("yxcij,ocij->oyx", windows, conv.weight.astype(np.float64)), -np.inf)
    size = np.einsum("yxcij,ocij->oyx", windows, np.abs(conv.weight).astype(np.float64))
    assert (np.abs(carried["v_mem"][0] - wanted) < 2e-7 * size).all()


@pytest.mark.skipif(not vector_width(), reason="the processor lacks the instructions")
def test_without_the_unit_convolutions_run_in_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snncc.runtime.conv_neurons.available", lambda: False)
    theta = np.ones((1, 4, 1, 1), np.float32)
    neurons = CodedNeurons(NeuronParameters("BurstIF", theta, np.float32(0.5), 3, np.float32(np.inf)), 4)
    layer = ConvNeurons(neurons, [conv_of(normal(4, 4, 3, 3), pads=[1] * 4)])
    zeros = np.zeros(4, np.float32)
    given = {"x": Coded(np.zeros((1, 1, 5, 5, 4), np.uint8), np.ones(4, np.float32), zeros, zeros, 3)}
    Chain([Job("layer", layer, ("x",), "y")], {"y"}).take(given, 1, 1)
    assert layer._runs is not None
    assert isinstance(layer._runs[0], FloatRun)
