"""The inner loop of convolutions on a unit that multiplies matrices of bytes (AMX): counts times signed weights.

    sums[m, c] += count of pixel m at 64 inputs × weights of 64 inputs × 16 columns      for each step of a window

Columns are output channels, or the bytes of their weights. The unit's eight registers hold the sums of 32 pixels and
three times 16 columns, and what is multiplied next. Numba reaches the instructions through LLVM's names for them.
Import this module only where `snncc.runtime.matrix_unit` has found the processor able.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from snncc.runtime.matrix_conv import CHANNELS, INPUTS, PIXELS, PLANES

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Sums = NDArray[np.int32]
Conv = tuple[Bytes, NDArray[np.int8], NDArray[np.int64], NDArray[np.int64], Sums, Floats, Floats, tuple[int, ...]]
_REGISTERS, _BYTES = 8, CHANNELS * INPUTS

cgutils: Any = _cgutils
_I8, _I16, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(64)
_POINTER, _NOTHING = _I8.as_pointer(), ir.VoidType()
_FLOATS, _INTS = ir.VectorType(ir.FloatType(), CHANNELS), ir.VectorType(ir.IntType(32), CHANNELS)


def _call(builder: Any, name: str, *operands: Any) -> None:
    kind = ir.FunctionType(_NOTHING, [operand.type for operand in operands])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), operands)


def _configure(typing_context: Any) -> Any:
    """Give all registers of the unit 16 rows of 64 bytes; between this and `_stop`, nothing else may use it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        settings = [1] + [0] * 15 + [64, 0] * _REGISTERS + [0] * 16 + [PIXELS] * _REGISTERS + [0] * 8
        kind = ir.ArrayType(_I8, 64)
        place = cgutils.alloca_once_value(builder, ir.Constant(kind, settings))
        _call(builder, "ldtilecfg", builder.bitcast(place, _POINTER))
        return context.get_dummy_value()

    return types.void(), codegen


_start: Any = intrinsic(_configure)


def _release(typing_context: Any) -> Any:
    """Give the unit back."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), codegen


_stop: Any = intrinsic(_release)


def _tile_of(matrices: int, columns: int) -> Any:
    def tile(typing_context: Any, source: Any, first: Any, apart: Any, steps: Any, weights: Any, sums: Any) -> Any:
        """Write the sums of 16 pixels for each matrix, whose windows begin at `first` and then so far apart.

        Args: source: bytes. first, apart: int64. steps: int64, where in a window the inputs of each step begin.
        weights: int8 [steps, columns, 16, 64]. sums: int32 [matrices · 16, columns · 16], both flat.
        """
        signature = types.void(source, first, apart, steps, weights, sums)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def data(which: int) -> Any:
                return context.make_array(signature.args[which])(context, builder, arguments[which])

            b, step_list = builder, data(3)
            start = b.gep(b.bitcast(data(0).data, _POINTER), [arguments[1]])
            far = arguments[2]
            begins = [b.gep(start, [b.mul(far, _I64(m * PIXELS))]) for m in range(matrices)]
            packed, found = (b.bitcast(data(i).data, _POINTER) for i in (4, 5))
            total = matrices * columns
            # All that is multiplied stays in registers where there are enough, or else one of each at a time.
            each = total + matrices + columns <= _REGISTERS
            of_inputs = [_I8(total + m if each else total) for m in range(matrices)]
            of_weights = [_I8(_REGISTERS - 1 - c if each else _REGISTERS - 1) for c in range(columns)]
            for register in range(matrices * columns):
                _call(b, "tilezero", _I8(register))
            with cgutils.for_range(b, b.extract_value(step_list.shape, 0), intp=_I64) as loop:
                place = b.load(b.gep(step_list.data, [loop.index]))
                of_step = b.gep(packed, [b.mul(loop.index, _I64(_BYTES * columns))])
                for m in range(matrices):
                    _call(b, "tileloadd64", of_inputs[m], b.gep(begins[m], [place]), far)
                    for c in range(columns):
                        if not each or not m:
                            matrix = b.gep(of_step, [_I64(_BYTES * c)])
                            _call(b, "tileloadd64", of_weights[c], matrix, _I64(INPUTS))
                        _call(b, "tdpbusd", _I8(m * columns + c), of_inputs[m], of_weights[c])
            line = 4 * CHANNELS * columns
            for m in range(matrices):
                for c in range(columns):
                    target = b.gep(found, [_I64(m * PIXELS * line + 4 * CHANNELS * c)])
                    _call(b, "tilestored64", _I8(m * columns + c), target, _I64(line))
            return context.get_dummy_value()

        return signature, codegen

    return intrinsic(tile)


_one_by_one, _two_by_one = _tile_of(1, 1), _tile_of(2, 1)
_one_by_two, _two_by_two = _tile_of(1, 2), _tile_of(2, 2)
_one_by_three, _two_by_three = _tile_of(1, 3), _tile_of(2, 3)
_part = numba.njit(nogil=True, error_model="numpy")


@_part
def _lay_out(
    image: Bytes,
    begin: tuple[int, int],
    strides: tuple[int, int],
    phases: NDArray[np.int64],
    size: tuple[int, int, int],
    zero: np.uint8,
    out: Bytes,
) -> None:
    """Write rows of an image [H, W, C] of counts, padded, as an image for each phase, of `size` each.

    The first one is row and column `begin` of the image; of the rows of `out`, only so many are read.
    """
    height, width, channels = image.shape
    (down, right), (rows, high, wide), counts = strides, size, image.reshape(-1)
    length = wide * channels
    for p in range(len(phases)):
        left = begin[1] + phases[p, 1]
        first = -(left // right) if left < 0 else 0  # columns before that are beyond the image
        last = min(wide, max(first, (width - left + right - 1) // right))
        for q in range(rows):
            y = begin[0] + phases[p, 0] + q * down
            line = out[(p * high + q) * length : (p * high + q + 1) * length]
            if y < 0 or y >= height:
                line[:] = zero
                continue
            line[: first * channels] = zero
            line[last * channels :] = zero
            row = counts[y * width * channels : (y + 1) * width * channels]
            if right == 1:
                target, read = line[first * channels : last * channels], row[(left + first) * channels :]
                for i in range(len(target)):
                    target[i] = read[i]
            else:
                for x in range(first, last):
                    target, read = line[x * channels :], row[(left + x * right) * channels :]
                    for i in range(channels):
                        target[i] = read[i]


def _value_of(planes: int) -> Any:
    def value(
        typing_context: Any, sums: Any, place: Any, zero: Any, apart: Any, scale: Any, code: Any, out: Any, target: Any
    ) -> Any:
        """Add to 16 floats of out at `target` what the sums of their bytes at `place` amount to.

        Args: zero: sums of no spikes, `apart` from each other for each byte. scale: what a sum of 1 is. code: of one
        byte, where the current is rounded to 8 bits, the size of a step and, so far from it, the code of zero.
        """
        signature = types.void(sums, place, zero, apart, scale, code, out, target)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def vector(which: int, at: Any, kind: Any) -> Any:
                data = context.make_array(signature.args[which])(context, builder, arguments[which]).data
                return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())

            b, apart = builder, arguments[3]
            total = None
            for plane in range(planes):
                of_plane = vector(0, b.add(arguments[1], _I64(plane * CHANNELS)), _INTS)
                of_none = vector(2, b.mul(apart, _I64(plane)), _INTS)
                found = b.sitofp(b.sub(b.load(of_plane, align=4), b.load(of_none, align=4)), _FLOATS)
                if plane < planes - 1:
                    found = b.fmul(found, ir.Constant(_FLOATS, [float(256 ** (planes - 1 - plane))] * CHANNELS))
                total = found if total is None else b.fadd(total, found)
            total = b.fmul(total, b.load(vector(4, _I64(0), _FLOATS), align=4))
            if planes == 1:  # as QLinearConv and DequantizeLinear do it
                none, most = (ir.Constant(_FLOATS, [bound] * CHANNELS) for bound in (0.0, 255.0))
                total = b.select(b.fcmp_ordered(">", total, none), total, none)
                total = b.select(b.fcmp_ordered("<", total, most), total, most)
                kind = ir.FunctionType(_FLOATS, [_FLOATS])
                total = b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.rint.v16f32"), [total])
                total = b.fsub(total, b.load(vector(5, apart, _FLOATS), align=4))
                total = b.fmul(total, b.load(vector(5, _I64(0), _FLOATS), align=4))
            current = vector(6, arguments[7], _FLOATS)
            b.store(b.fadd(b.load(current, align=4), total), current, align=4)
            return context.get_dummy_value()

        return signature, codegen

    return intrinsic(value)


_of_three, _of_one = _value_of(3), _value_of(1)


@_part
def drive(conv: Conv, part: tuple[int, ...], source: Floats, out: Floats) -> None:
    """Add a convolution to out [timesteps, rows, columns, channels], a part of a layer.

    Args:
        conv: counts uint8 [T, N, H, W, C]; weights [blocks, steps, columns, 16, 64], of which columns are the three
            bytes of 16 output channels, or one or two times 16 channels; where in a window the inputs of each step
            begin; the phases; what the sums of no spikes are, int32 [3 or 1, C]; what a sum of 1 is,
            float32 [C]; for 8-bit currents the size of a step and the code of zero, float32 [2, C]; and sizes.
        part: first timestep, the one behind the last, sample, first row of the output, rows, columns, first channel,
            channels.
        source: room for the padded input.
        out: the currents, flat.
    """
    counts, weights, steps, phases, zero, scale, code, sizes = conv
    begin, end, n, first, rows, columns, channel, channels = part
    down, right, top, left, high, wide, more, none, image = sizes
    room, of_inputs = source.view(np.uint8), counts.shape[4]
    for t in range(begin, end):
        padded = room[(t - begin) * image : (t - begin + 1) * image]
        corner, size = (first * down - top, -left), (rows + more, high, wide)
        _lay_out(counts[t, n], corner, (down, right), phases, size, np.uint8(none), padded)
    pixels, of_weights, features = (rows - 1) * wide + columns, weights.shape[2], len(scale)
    together = CHANNELS if of_weights == PLANES else CHANNELS * of_weights
    sums, values = np.empty(2 * PIXELS * of_weights * CHANNELS, np.int32), rows * columns * channels
    zeros, codes = zero.reshape(-1), code.reshape(-1)
    _start()
    for output in range(channel, channel + channels, together):
        packed = weights[output // together].reshape(-1)
        of_none, of_unit, of_code = zeros[output:], scale[output:], codes[output:]
        for t in range(begin, end):
            current = out[(t - begin) * values + output - channel :]
            for p in range(0, pixels, 2 * PIXELS):
                place, several = (t - begin) * image + p * of_inputs, pixels - p > PIXELS
                if of_weights == PLANES:
                    if several:
                        _two_by_three(room, place, of_inputs, steps, packed, sums)
                    else:
                        _one_by_three(room, place, of_inputs, steps, packed, sums)
                elif of_weights == 2:
                    if several:
                        _two_by_two(room, place, of_inputs, steps, packed, sums)
                    else:
                        _one_by_two(room, place, of_inputs, steps, packed, sums)
                elif several:
                    _two_by_one(room, place, of_inputs, steps, packed, sums)
                else:
                    _one_by_one(room, place, of_inputs, steps, packed, sums)
                y, x = p // wide, p % wide
                for m in range(min(pixels - p, 2 * PIXELS)):
                    if x < columns:  # what is beyond is no output
                        target = (y * columns + x) * channels
                        if of_weights == PLANES:
                            _of_three(sums, m * PLANES * CHANNELS, of_none, features, of_unit, of_code, current, target)
                        else:
                            for c in range(0, together, CHANNELS):
                                found, parts = m * together + c, (of_none[c:], of_unit[c:], of_code[c:])
                                _of_one(sums, found, parts[0], features, parts[1], parts[2], current, target + c)
                    x += 1
                    if x == wide:
                        x, y = 0, y + 1
    _stop()
