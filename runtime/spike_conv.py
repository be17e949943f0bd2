"""Convolutions of spike counts in the fused executor, and those in float32 as `float_tile` reads them."""

from __future__ import annotations

import functools
import math
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.graph import DOMAIN, INT8_CONV, constant
from snncc.runtime.buffers import aligned
from snncc.runtime.layer_table import APART, APART_ROUNDED, CODES, FLOATS, TOGETHER, address

LANES = 16
"""Output channels are filled up to a multiple of this many: with zeros in the weights, and sums that nobody reads."""

MOST_IN_FLOATS = (1 << 24) // (255 * 128)
"""Inputs of a window whose products with 8-bit weights are sure to add up in float32 without rounding."""


@functools.cache
def vector_width() -> int:
    """Return how many floats this processor multiplies and adds at once: 16, 8, or 0 if it lacks AVX2 or FMA."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return 0
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("avx512f", False):
        return 16
    return 8 if features.get("avx2", False) and features.get("fma", False) else 0


@dataclass(frozen=True)
class Rounding:
    """How the current of a convolution with 8-bit weights is rounded to 8 bits, too.

    Attributes:
        unit: what a spike is that the weights count in, float32 [C_in].
        offset: the code of no spike.
        bias: added to the sum of counts times weights, int32 [C_out].
        scale: codes for a sum of 1, float32 [C_out].
        step: what a code is, float32 [C_out].
        zero: the code of a current of 0, float32 [C_out].
    """

    unit: NDArray[np.float32]
    offset: int
    bias: NDArray[np.int32]
    scale: NDArray[np.float32]
    step: NDArray[np.float32]
    zero: NDArray[np.float32]


class SpikeConv:
    """A convolution that is ready to run as a part of `snncc.runtime.conv_neurons`.

    Attributes:
        depthwise: each output channel reads the input channel of its number alone.
        channels: input channels.
        features: output channels.
        weight: float32 [features, C_in, H, W], or int8 where there is a `rounding`.
        bias: float32 [features]; zeros where it is part of a `rounding`.
        rounding: how 8 bits come of the sums, or None in float32.
        kernel: height and width of the window.
        strides: its steps.
        pads: rows above, columns to the left, rows below and columns to the right that are zeros.
    """

    def __init__(self, node: gs.Node) -> None:
        """Read a node; see `runs_in_float`."""
        self.rounding: Rounding | None = None
        bias: NDArray[Any] | None
        if node.op == INT8_CONV:
            weight, added, unit, offset, scale, step, zero = (np.asarray(constant(t)) for t in node.inputs[1:])
            floats = [value.astype(np.float32) for value in (scale, step, zero)]
            self.rounding = Rounding(unit.astype(np.float32), int(offset), added.astype(np.int32), *floats)
            bias = None
        else:
            weight = np.asarray(constant(node.inputs[1]), np.float32)
            bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        self.weight, self.features = weight, len(weight)
        self.depthwise = int(node.attrs.get("group", 1)) > 1
        self.channels = self.features if self.depthwise else weight.shape[1]
        self.bias = np.zeros(self.features, np.float32) if bias is None else bias.astype(np.float32)
        self.kernel: tuple[int, int] = weight.shape[2:]
        self.strides: tuple[int, ...] = tuple(node.attrs.get("strides", (1, 1)))
        self.dilations: tuple[int, ...] = tuple(node.attrs.get("dilations", (1, 1)))
        self.pads: tuple[int, ...] = tuple(node.attrs.get("pads", (0, 0, 0, 0)))

    @functools.cached_property
    def weights(self) -> NDArray[np.float32]:
        """[blocks, inputs of a window, output channels of a block]; one block if it is depthwise."""
        return aligned(packed(self.weight, self.depthwise, vector_width()))

    @property
    def products(self) -> int:
        """Multiplications for each output."""
        return math.prod(self.kernel) * (1 if self.depthwise else self.channels)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sizes of the output's spatial axes for those of the input."""
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        sizes = zip(shape, reach, self.strides, self.pads[:2], self.pads[2:], strict=True)
        return tuple((size + before + after - r) // s + 1 for size, r, s, before, after in sizes)

    def rows(self, outputs: int) -> int:
        """Return how many rows of the padded input so many rows of the output read."""
        return (outputs - 1) * self.strides[0] + self.dilations[0] * (self.kernel[0] - 1) + 1

    def columns(self, outputs: int) -> int:
        """Return how many columns of the padded input so many columns of the output read."""
        return (outputs - 1) * self.strides[1] + self.dilations[1] * (self.kernel[1] - 1) + 1


class FloatRun:
    """A convolution of counts as `snncc.runtime.float_tile` runs it.

    Attributes:
        block: output channels that are computed together.
        products: multiplications for each output.
    """

    spare = 0

    def __init__(self, conv: SpikeConv, unit: NDArray[np.float32], zero: int) -> None:
        """Read counts of which `zero` is no spike, and whose spikes of a channel are `unit` [C_in]."""
        self.conv, self.products = conv, conv.products
        self.block = LANES if conv.depthwise else conv.weights.shape[2]
        self._unit, self._zero = unit, zero
        self._code = np.zeros((CODES, filled(conv.features)), np.float32)
        if conv.rounding is not None:  # weights count spikes, whatever one is
            self._unit = np.ones_like(unit)
            rows = conv.rounding.bias, conv.rounding.scale, conv.rounding.step, conv.rounding.zero
            self._code[:] = [filled_up(row.astype(np.float32)) for row in rows]
        self._fixed: dict[tuple[int, int], tuple[NDArray[np.float32], NDArray[np.int64], tuple[int, ...]]] = {}

    def source(self, rows: int, columns: int) -> int:
        """Return the floats of the padded input of a timestep, for so large an output."""
        return self.conv.rows(rows) * self.conv.columns(columns) * self.conv.channels

    def write(self, conv: Any, values: NDArray[np.uint8], rows: int, columns: int) -> None:
        """Write the row of a convolution of counts [T, N, H, W, C], for parts of so many rows of the output."""
        key = (values.shape[3], columns)
        if key not in self._fixed:
            wide = self.conv.columns(columns)
            starts, run = self._runs(wide)
            kind = TOGETHER if not self.conv.depthwise else APART if self.conv.rounding is None else APART_ROUNDED
            sizes = (*self.conv.strides, *self.conv.pads[:2], self.conv.rows(1), wide, run, self._zero, kind)
            self._fixed[key] = np.tile(self._unit, values.shape[3]), starts, sizes
        unit, starts, sizes = self._fixed[key]
        conv["kind"], conv["values"], conv["weights"] = FLOATS, address(values), address(self.conv.weights)
        conv["height"], conv["width"], conv["channels"] = values.shape[2:]
        conv["blocks"], conv["inputs"], conv["columns"] = self.conv.weights.shape
        conv["starts"], conv["start_count"], conv["unit"] = address(starts), len(starts), address(unit)
        conv["code"], conv["features"], conv["sizes"] = address(self._code), self._code.shape[1], sizes

    def _runs(self, columns: int) -> tuple[NDArray[np.int64], int]:
        """Return where the runs of inputs of a window begin in a padded input so wide, and how long each is."""
        conv = self.conv
        down = np.arange(conv.kernel[0]) * conv.dilations[0] * columns * conv.channels
        right = np.arange(conv.kernel[1]) * conv.dilations[1] * conv.channels
        if conv.depthwise or conv.dilations[1] > 1:
            return (down[:, None] + right).reshape(-1).astype(np.int64), conv.channels
        return down.astype(np.int64), conv.kernel[1] * conv.channels


def runs_in_float(node: gs.Node) -> bool:
    """Whether a node is a convolution that can run here: two spatial axes, constant weights, one group or depthwise.

    One with 8-bit weights must be depthwise.
    """
    of_bytes = node.domain == DOMAIN and node.op == INT8_CONV
    if not of_bytes and (node.op != "Conv" or node.domain not in (None, "")):
        return False
    weight, dtype = constant(node.inputs[1]), np.int8 if of_bytes else np.float32
    constant_bias = len(node.inputs) < 3 or constant(node.inputs[2]) is not None
    plain = node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "") and min(node.attrs.get("pads", (0,))) >= 0
    if weight is None or weight.ndim != 4 or weight.dtype != dtype or not constant_bias or not plain:
        return False
    group = int(node.attrs.get("group", 1))
    depthwise = group > 1 and group == len(weight) and weight.shape[1] == 1
    return bool(vector_width()) and (depthwise or (group == 1 and not of_bytes))


def packed(weight: NDArray[np.float32], depthwise: bool, width: int) -> NDArray[np.float32]:
    """Lay weights [C_out, C_in, H, W] out as the kernel reads them, for vectors of so many floats.

    Returns:
        [blocks, H·W·C_in, channels]: a block has the output channels of two vectors, or of one where there is an odd
        number of them. Of a depthwise convolution [1, H·W, C_out].
    """
    outputs = len(weight)
    whole = np.zeros((filled(outputs), *weight.shape[1:]), np.float32)
    whole[:outputs] = weight
    inputs = whole.transpose(2, 3, 1, 0).reshape(-1, len(whole))
    channels = len(whole) if depthwise else 2 * width if len(whole) % (2 * width) == 0 else width
    return np.ascontiguousarray(inputs.reshape(len(inputs), -1, channels).transpose(1, 0, 2))


def filled(channels: int) -> int:
    """Return for how many output channels there are sums."""
    return -(-channels // LANES) * LANES


def filled_up(values: NDArray[np.float32], beyond: float = 0.0) -> NDArray[np.float32]:
    """Return values of the output channels, followed by others for those that are `filled` in."""
    result = np.full(filled(len(values)), beyond, np.float32)
    result[: len(values)] = values
    return result
