"""Convolutions of spike counts on a unit that multiplies matrices of bytes: weights and windows as it reads them.

A spike count is a byte, exactly. So a convolution in float32 becomes one of whole numbers: the weights, times the spike
of their input channel, are rounded to 24 bits of a fixed point for each output channel, and these are three signed
bytes, highest first:

    w·θ = scale · (65536·w₂ + 256·w₁ + w₀) + r,      |r| ≤ scale / 2

The three sums are exact in 32 bits, so that a current doesn't depend on the order of its products.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.runtime.buffers import aligned
from snncc.runtime.layer_table import MATRICES, address
from snncc.runtime.spike_conv import LANES, SpikeConv, filled, filled_up

PIXELS = 16
"""Output pixels of a matrix."""
CHANNELS = LANES
"""Output channels of a block: the columns of a matrix."""
INPUTS = 64
"""Inputs of a step: the rows of a matrix."""
PLANES = 3
"""Bytes of a weight."""
_LARGEST = 127 * 65536 + 127 * 256 + 127
_FASTER = 8
"""How many multiplications take as long as one in float32."""
MOST_INPUTS = (1 << 31) // (255 * 128)
"""Inputs of a window whose products are sure to add up in 32 bits."""
_LARGEST_CURRENT = 8.0
"""The most thresholds that one spike may charge a neuron with. What is rounded off is then 2⁻²⁰ of a threshold for each
spike at most, and in the sum about what float32 rounds off."""


@dataclass(frozen=True)
class Window:
    """Where the inputs of a window stand.

    Rows and columns of the padded input stand apart by their remainder of the division by the stride, so that whatever
    the stride, outputs next to each other read inputs next to each other.

    Attributes:
        phases: remainders of row and column, of which there is an image each, int64 [P, 2].
        beyond: rows and columns that such an image has more than the output.
        taps: for each element of the window, its phase, and its row and column there.
    """

    phases: NDArray[np.int64]
    beyond: tuple[int, int]
    taps: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> Window:
        """Return it for a convolution."""
        places = [(y * dilations[0], x * dilations[1]) for y, x in itertools.product(*map(range, kernel))]
        phases = sorted({(y % strides[0], x % strides[1]) for y, x in places})
        taps = [(phases.index((y % strides[0], x % strides[1])), y // strides[0], x // strides[1]) for y, x in places]
        beyond = max(row for _, row, _ in taps), max(column for _, _, column in taps)
        return cls(np.asarray(phases, np.int64).reshape(-1, 2), beyond, tuple(taps))

    def image(self, rows: int, columns: int, channels: int) -> int:
        """Return the bytes that are read for so large an output."""
        return len(self.phases) * (rows + self.beyond[0]) * (columns + self.beyond[1]) * channels

    def runs(self, rows: int, columns: int, channels: int) -> list[tuple[int, list[int]]]:
        """Return the inputs of a window in runs: where one begins, and the elements of the window that follow there."""
        high, wide = rows + self.beyond[0], columns + self.beyond[1]
        runs: list[tuple[int, list[int]]] = []
        before = (-1, -1, -1)
        for (phase, row, column), tap in sorted(zip(self.taps, range(len(self.taps)), strict=True)):
            if before == (phase, row, column - 1):
                runs[-1][1].append(tap)
            else:
                runs.append((((phase * high + row) * wide + column) * channels, [tap]))
            before = (phase, row, column)
        return runs


def steps(runs: list[tuple[int, list[int]]], channels: int) -> NDArray[np.int64]:
    """Return where the `INPUTS` inputs of each step begin, of which those beyond a run count nothing."""
    return np.asarray(
        [begin + k for begin, taps in runs for k in range(0, len(taps) * channels, INPUTS)], dtype=np.int64
    )


def packed(planes: NDArray[np.int8], runs: list[tuple[int, list[int]]]) -> NDArray[np.int8]:
    """Lay weights [planes, C_out, C_in, taps] out as the unit reads them.

    Returns:
        [blocks, steps, planes, 16, 64]: a matrix of 64 inputs, in fours, times 16 outputs.
    """
    count, outputs, channels, _ = planes.shape
    blocks = -(-outputs // CHANNELS)
    parts = []
    for _, taps in runs:
        length = len(taps) * channels
        part = np.zeros((count, blocks * CHANNELS, -(-length // INPUTS) * INPUTS), np.int8)
        part[:, :outputs, :length] = planes[..., taps].transpose(0, 1, 3, 2).reshape(count, outputs, length)
        parts.append(part)
    whole = np.concatenate(parts, axis=2).reshape(count, blocks, CHANNELS, -1, INPUTS // 4, 4)
    return aligned(np.ascontiguousarray(whole.transpose(1, 3, 0, 4, 2, 5)).reshape(blocks, -1, count, 16, INPUTS))


def digits(weight: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return weights [C_out, ...] as three bytes each, int8 [3, C_out, ...], highest first, and the scale [C_out]."""
    axes = tuple(range(1, weight.ndim))
    largest = np.abs(weight).max(axis=axes, initial=0.0)
    scale = np.exp2(np.ceil(np.log2(np.where(largest > 0, largest, 1.0) / _LARGEST)))
    left = np.rint(weight / scale.reshape(-1, *[1] * len(axes))).astype(np.int64)
    found = []
    for _ in range(PLANES):
        low = ((left + 128) & 255) - 128
        found.append(low.astype(np.int8))
        left = (left - low) >> 8
    return np.stack(found[::-1]), scale.astype(np.float32)


class MatrixConv:
    """A convolution of counts as `snncc.runtime.matrix_tile` runs it.

    Attributes:
        block: output channels that are computed together.
        products: multiplications in float32 that take as long as an output.
        spare: floats behind the last input that are read, though they count nothing.
    """

    def __init__(self, conv: SpikeConv, unit: NDArray[np.float32], zero: int) -> None:
        """Lay out its weights.

        Args:
            conv: the convolution; not depthwise.
            unit: the spike of each input channel, float32 [C_in].
            zero: the code of no spike.
        """
        self.conv, self.products = conv, conv.products // _FASTER
        self.spare = (2 * PIXELS * conv.channels + INPUTS) // 4 + 1
        self._zero_code = zero
        self.window = Window.of(conv.kernel, conv.strides, conv.dilations)
        rounding, count = conv.rounding, filled(conv.features)
        if rounding is None:
            planes, scale = digits(folded(conv, unit))
        else:
            planes, scale = conv.weight[None], rounding.scale
        self.scale = filled_up(scale)
        self.zero = np.zeros((len(planes), count), np.int32)
        self.zero[:, : conv.features] = zero * planes.sum(axis=(2, 3, 4), dtype=np.int64)
        self.code = np.zeros((2, count), np.float32)
        if rounding is not None:
            self.zero[0, : conv.features] -= rounding.bias
            self.code[:] = filled_up(rounding.step), filled_up(rounding.zero)
        weights = packed(planes.reshape(*planes.shape[:3], -1), self.window.runs(1, 1, conv.channels))
        self.block = CHANNELS
        if rounding is not None and len(weights) % 2 == 0:  # two blocks of channels next to each other
            pairs = weights.reshape(len(weights) // 2, 2, *weights.shape[1:2], *weights.shape[3:])
            self.block, weights = 2 * CHANNELS, aligned(np.ascontiguousarray(pairs.swapaxes(1, 2)))
        self.weights = weights
        self._fixed: dict[tuple[int, int], NDArray[np.int64]] = {}

    def source(self, rows: int, columns: int) -> int:
        """Return the floats that hold the padded input of a timestep, for so large an output."""
        return self._image(rows, columns) // 4

    def write(self, conv: Any, values: NDArray[np.uint8], rows: int, columns: int) -> None:
        """Write the row of a convolution of counts [T, N, H, W, C], for parts of so many rows of the output."""
        below, aside = self.window.beyond
        if (rows, columns) not in self._fixed:
            self._fixed[rows, columns] = steps(self.window.runs(rows, columns, self.conv.channels), self.conv.channels)
        begins, phases = self._fixed[rows, columns], self.window.phases
        conv["kind"], conv["values"], conv["weights"] = MATRICES, address(values), address(self.weights)
        conv["height"], conv["width"], conv["channels"] = values.shape[2:]
        conv["blocks"], conv["inputs"], conv["columns"] = self.weights.shape[:3]
        conv["starts"], conv["start_count"] = address(begins), len(begins)
        conv["phases"], conv["phase_count"] = address(phases), len(phases)
        conv["zero"], conv["scale"], conv["code"] = address(self.zero), address(self.scale), address(self.code)
        conv["features"] = len(self.scale)
        sizes = (*self.conv.strides, *self.conv.pads[:2], rows + below, columns + aside, below, self._zero_code)
        conv["sizes"] = (*sizes, self._image(rows, columns))

    def _image(self, rows: int, columns: int) -> int:
        return -(-self.window.image(rows, columns, self.conv.channels) // INPUTS) * INPUTS


def folded(conv: SpikeConv, unit: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the weights [C_out, C_in, H, W] times the spikes of the input channels."""
    return conv.weight.astype(np.float64) * unit.astype(np.float64).reshape(1, -1, 1, 1)


def is_exact(conv: SpikeConv, unit: NDArray[np.float32], theta: NDArray[np.float32]) -> bool:
    """Whether a convolution is as good in a fixed point as in float32.

    Args:
        conv: the convolution.
        unit: the spike of each input channel, float32 [C_in].
        theta: threshold of the neurons behind it, float32 [C_out].
    """
    if conv.depthwise or conv.rounding is not None or conv.products > MOST_INPUTS:
        return conv.rounding is not None and not conv.depthwise
    largest = np.abs(folded(conv, unit)).max(axis=(1, 2, 3), initial=0.0)
    return bool((largest <= _LARGEST_CURRENT * theta.astype(np.float64)).all())
