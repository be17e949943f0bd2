"""Layers with 8-bit weights in the fused executor: spike counts in, 8-bit currents out, channels last.

Each output pixel reads the pixels of its window where they stand in a padded copy of the input; no matrix of patches is
made. A layer that multiplies by a matrix is a convolution of single pixels.
"""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.graph import INT8_CONV, constant

_LEAST = np.iinfo(np.int16).max
_CHANNELS, _TOGETHER = 16, 4  # those of int8_tile, which isn't imported where it can't run

_PART = 48
"""Pixels that are run by one thread: whole tiles of `int8_tile`."""

Parallel = Callable[[Callable[[int, int], None], int], None]
"""Runs work on parts (start, stop) of so many items, side by side or not."""


def alone(work: Callable[[int, int], None], items: int) -> None:
    """Run work on all items at once: a `Parallel` for one thread."""
    work(0, items)


@functools.cache
def available() -> bool:
    """Whether this processor has the instructions of the kernel (AVX2)."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    import llvmlite.binding as llvm

    return bool(llvm.get_host_cpu_features().get("avx2", False))


@functools.cache
def dot_products() -> bool:
    """Whether this processor adds products of bytes to sums in 32 bits (AVX-512 VNNI)."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return all(features.get(name, False) for name in ("avx512f", "avx512vnni"))


@dataclass(frozen=True)
class Coded:
    """A tensor over time in 8 bits, channels last.

    Attributes:
        values: uint8 [T, N, ..., C].
        step: float32 [C]; the value is step·(code - zero) + shift.
        zero: float32 [C].
        shift: float32 [C].
        most: no code is larger.
    """

    values: NDArray[np.uint8]
    step: NDArray[np.float32]
    zero: NDArray[np.float32]
    shift: NDArray[np.float32]
    most: int = 255

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, N, C, ...], as the network has it."""
        timesteps, samples, *spatial, channels = self.values.shape
        return (timesteps, samples, channels, *spatial)


class Int8Layer:
    """A layer of the domain `snncc` with 8-bit weights, ready to run."""

    def __init__(self, node: gs.Node) -> None:
        """Lay out its weights; see `runs_natively`."""
        values = [np.asarray(constant(t)) for t in node.inputs[1:]]
        weight, bias, self.unit, zero, scale, step, y_zero = values
        self.node, self.offset, self.channels = node, int(zero), len(self.unit)
        is_conv = node.op == INT8_CONV
        weight = weight if is_conv else weight.T[:, :, None, None]
        self.features, self.fan_in = len(weight), math.prod(weight.shape[1:])
        self.kernel = weight.shape[2:]
        self.strides = tuple(node.attrs.get("strides", (1, 1)))
        self.dilations = tuple(node.attrs.get("dilations", (1, 1)))
        self.pads = tuple(node.attrs.get("pads", (0, 0, 0, 0)))
        self._weights = packed(weight)
        self._scale = _filled(scale, len(self._weights)).astype(np.float32)
        self._bias = _filled(bias if is_conv else np.zeros(self.features), len(self._weights)).astype(np.int32)
        correction = self.offset * weight.reshape(self.features, -1).sum(axis=1, dtype=np.int64)
        self._bias[: self.features] -= correction.astype(np.int32)
        self._middle = np.float32(0 if is_conv else 128)
        self.step, self.zero = step.astype(np.float32), y_zero.astype(np.float32)
        self.shift = np.zeros(self.features, np.float32) if is_conv else bias.astype(np.float32)
        self._places: dict[tuple[int, ...], tuple[NDArray[np.int64], NDArray[np.int32]]] = {}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sizes of the output's spatial axes for those of the input."""
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        sizes = zip(shape, reach, self.strides, self.pads[:2], self.pads[2:], strict=True)
        return tuple((size + before + after - r) // s + 1 for size, r, s, before, after in sizes)

    def padded_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return [H, W, C] of the padded input for the sizes of its spatial axes."""
        height, width = (n + a + b for n, a, b in zip(shape, self.pads[:2], self.pads[2:], strict=True))
        return height, width, -(-self.channels // _TOGETHER) * _TOGETHER

    def pad(self, counts: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Copy counts [B, H, W, C] into [B, *padded_shape]; what is beyond them are counts of zero."""
        height, width = counts.shape[1:3]
        top, left = self.pads[:2]
        out[:, :top] = self.offset
        out[:, top + height :] = self.offset
        out[:, top : top + height, :left] = self.offset
        out[:, top : top + height, left + width :] = self.offset
        inner = out[:, top : top + height, left : left + width]
        inner[..., self.channels :] = 0  # their weights are zero
        inner[..., : self.channels] = counts

    def run(
        self, padded: NDArray[np.uint8], out: NDArray[np.uint8], most: int, parallel: Parallel | None = None
    ) -> None:
        """Compute the codes of the output.

        Args:
            padded: counts plus `offset`, uint8 [B, *padded_shape], contiguous.
            out: filled, uint8 [B, H, W, C], contiguous.
            most: no value in `padded` is larger.
            parallel: runs parts of the pixels; None: all at once.
        """
        from snncc.runtime.int8_tile import convolve

        pixels, steps = self._window(padded.shape, out.shape)
        run = max(1, _LEAST // (2 * 127 * max(most, 1)))
        source, flat, size = padded.reshape(-1), out.reshape(-1, self.features), math.prod(padded.shape[1:])
        parameters = (self._weights, run, self._bias, self._scale, self._middle)

        def work(start: int, stop: int) -> None:
            convolve(source, size, pixels, start * _PART, min(stop * _PART, len(flat)), steps, *parameters, flat)

        (parallel or alone)(work, -(-len(flat) // _PART))

    def _window(self, padded: tuple[int, ...], out: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return where the windows of an image begin, and where the inputs of one stand; see `int8_tile`."""
        key = (*padded[1:], *out[1:3])
        if key not in self._places:
            _, _, width, channels = padded
            rows, columns = (np.arange(n, dtype=np.int64) * s for n, s in zip(out[1:3], self.strides, strict=True))
            begin = (rows[:, None] * width + columns) * channels
            down, right = (np.arange(k) * d for k, d in zip(self.kernel, self.dilations, strict=True))
            fours = np.arange(0, channels, _TOGETHER)
            steps = ((down[:, None] * width + right)[..., None] * channels + fours).reshape(-1)
            self._places[key] = (begin.reshape(-1), steps.astype(np.int32))
        return self._places[key]


def runs_natively(node: gs.Node) -> bool:
    """Whether a layer with 8-bit weights can run here: one group, two spatial axes or a matrix."""
    if node.op == INT8_CONV:
        weight = constant(node.inputs[1])
        if weight is None or weight.ndim != 4 or int(node.attrs["group"]) != 1:
            return False
    elif len(node.inputs[0].shape or ()) != 2:
        return False
    return available()


def packed(weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """Lay weights [C_out, C_in, H, W] out as the kernel reads them, zeros where channels are missing.

    Returns:
        [blocks of 16 outputs, steps, 64]: for each step, 16 outputs times 4 inputs; steps run over the window, and in
        each of its pixels over the inputs.
    """
    outputs, inputs, height, width = weight.shape
    blocks, fours = -(-outputs // _CHANNELS), -(-inputs // _TOGETHER)
    whole = np.zeros((blocks * _CHANNELS, height, width, fours * _TOGETHER), np.int8)
    whole[:outputs, :, :, :inputs] = weight.transpose(0, 2, 3, 1)
    parts = whole.reshape(blocks, _CHANNELS, height * width * fours, _TOGETHER).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(parts).reshape(blocks, height * width * fours, _CHANNELS * _TOGETHER)


def _filled(values: NDArray[Any], blocks: int) -> NDArray[np.float64]:
    result = np.zeros(blocks * _CHANNELS)
    result[: math.prod(values.shape)] = values
    return result
