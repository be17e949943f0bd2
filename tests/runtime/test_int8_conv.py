"""The convolution of counts with 8-bit weights against sums of whole numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from apart import is_apart, run_apart
from numpy.lib.stride_tricks import sliding_window_view

from snncc.graph import DOMAIN, INT8_CONV, INT8_MATMUL
from snncc.passes.int8_layer import MOST_COUNTS
from snncc.runtime.int8_conv import Int8Layer, Parallel, alone, available, dot_products, packed

pytestmark = pytest.mark.skipif(not available(), reason="the processor lacks the instructions")


def layer_of(weight: np.ndarray, offset: int, bias: np.ndarray, scale: float, **attributes: Any) -> Int8Layer:
    """Return a layer whose codes are scale times the sum, and zeros 3."""
    features, channels = (len(weight), weight.shape[1]) if weight.ndim == 4 else weight.shape[::-1]
    values = [
        weight, bias, np.ones(channels, np.float32), np.array(offset, np.uint8), np.full(features, scale, np.float32),
        np.ones(features, np.float32), np.full(features, 3, np.uint8),
    ]  # fmt: skip
    op = INT8_CONV if weight.ndim == 4 else INT8_MATMUL
    inputs = [gs.Variable("x"), *(gs.Constant(str(i), v) for i, v in enumerate(values))]
    return Int8Layer(gs.Node(op, attrs=attributes, inputs=inputs, outputs=[gs.Variable("y")], domain=DOMAIN))


def run(layer: Int8Layer, counts: np.ndarray, most: int, parallel: Parallel = alone) -> np.ndarray:
    """Run a layer on counts [B, H, W, C] that include the offset."""
    size = counts.shape[1:3]
    padded = np.full((len(counts), *layer.padded_shape(size)), 77, np.uint8)
    layer.pad(counts, padded)
    out = np.full((len(counts), *layer.output_shape(size), layer.features), 99, np.uint8)
    layer.run(padded, out, most, parallel)
    return out


def sums_of(
    counts: np.ndarray, weight: np.ndarray, strides: tuple[int, int], dilations: tuple[int, int], pads: list[int]
) -> np.ndarray:
    """Return the sums for spikes [B, H, W, C], offset taken off."""
    padded = np.pad(counts, [(0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)])
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
    windows = sliding_window_view(padded, reach, axis=(1, 2))[:, :: strides[0], :: strides[1]]
    return np.einsum("byxcij,ocij->byxo", windows[..., :: dilations[0], :: dilations[1]], weight.astype(np.int64))


@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize(
    ("channels", "features", "kernel", "strides", "dilations", "pads"),
    [
        (4, 16, (3, 3), (1, 1), (1, 1), [1, 1, 1, 1]),
        (3, 5, (3, 3), (1, 1), (1, 1), [1, 1, 1, 1]),
        (6, 17, (2, 3), (2, 3), (1, 1), [0, 2, 1, 0]),
        (5, 33, (3, 2), (1, 2), (2, 3), [2, 0, 1, 3]),
        (64, 32, (1, 1), (2, 2), (1, 1), [0, 0, 0, 0]),
        (1, 1, (1, 1), (1, 1), (1, 1), [0, 0, 0, 0]),
    ],
)
def test_sums_of_whole_numbers(
    channels: int,
    features: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: list[int],
    offset: int,
) -> None:
    rng = np.random.default_rng(channels)
    weight = rng.integers(-127, 128, (features, channels, *kernel)).astype(np.int8)
    bias = rng.integers(-1000, 1000, features).astype(np.int32)
    spikes = rng.integers(-offset, 4, (3, 9, 8, channels))
    scale = 0.1
    layer = layer_of(weight, offset, bias, scale, strides=strides, dilations=dilations, pads=pads)
    found = run(layer, (spikes + offset).astype(np.uint8), 3 + offset)
    sums = sums_of(spikes, weight, strides, dilations, pads) + bias
    wanted = np.clip(np.rint(sums.astype(np.float32) * np.float32(scale)), 0, 255)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("most", [1, 4, 15, 30, MOST_COUNTS])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_do_not_overflow(most: int, sign: int) -> None:
    """All counts and weights at their limits, over so many inputs that 16 bits hold a small part of the sum."""
    weight = np.full((16, 512, 3, 3), 127 * sign, np.int8)
    total = most * 127 * 512 * 9
    bias = np.full(16, 0 if sign > 0 else total + 200, np.int32)
    layer = layer_of(weight, 0, bias, 1.0 if sign < 0 else 200 / total, pads=[0, 0, 0, 0])
    assert (run(layer, np.full((1, 3, 3, 512), most, np.uint8), most) == 200).all()


def test_a_matrix_has_its_zero_in_the_middle() -> None:
    rng = np.random.default_rng(1)
    weight = rng.integers(-127, 128, (50, 21)).astype(np.int8)
    layer = layer_of(weight, 2, np.linspace(-1, 1, 21).astype(np.float32), 0.05)
    spikes = rng.integers(-2, 5, (7, 50))
    found = run(layer, (spikes + 2).astype(np.uint8).reshape(7, 1, 1, 50), 6)
    wanted = np.clip(np.rint((spikes @ weight.astype(np.int64)).astype(np.float32) * np.float32(0.05)) + 128, 0, 255)
    np.testing.assert_array_equal(found.reshape(7, 21), wanted)
    np.testing.assert_allclose(layer.shift, np.linspace(-1, 1, 21), rtol=1e-6)


def test_parts_are_no_matter() -> None:
    rng = np.random.default_rng(2)
    weight = rng.integers(-127, 128, (20, 8, 3, 3)).astype(np.int8)
    layer = layer_of(weight, 0, np.zeros(20, np.int32), 0.2, pads=[1, 1, 1, 1])
    counts = rng.integers(0, 5, (2, 7, 9, 8)).astype(np.uint8)

    def in_parts(work: Any, items: int) -> None:
        for start in range(0, items, 11):
            work(start, min(start + 11, items))

    np.testing.assert_array_equal(run(layer, counts, 4, in_parts), run(layer, counts, 4))


def test_weights_are_packed_four_inputs_by_sixteen_outputs() -> None:
    weight = np.arange(18 * 5 * 2, dtype=np.int8).reshape(18, 5, 1, 2)
    found = packed(weight)
    assert found.shape == (2, 4, 64)
    for output in range(18):
        for channel in range(5):
            for column in range(2):
                step, place = column * 2 + channel // 4, (output % 16) * 4 + channel % 4
                assert found[output // 16, step, place] == weight[output, channel, 0, column]
    assert np.count_nonzero(found) == np.count_nonzero(weight)


@pytest.mark.skipif(not dot_products() or is_apart(), reason="the processor lacks the instructions")
def test_without_dot_products(tmp_path: Path) -> None:
    """What a processor with AVX2 alone would run."""
    patch = "from snncc.runtime import int8_conv; int8_conv.dot_products = lambda: False"
    run_apart(patch, __file__, "sums or zero or parts", tmp_path)
