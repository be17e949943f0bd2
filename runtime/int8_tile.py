"""The inner loop of an 8-bit convolution: a tile of output pixels times a block of output channels.

Counts are unsigned bytes and weights signed ones. Processors with AVX-512 VNNI multiply 64 pairs of them at once and
add the products in fours to sums in 32 bits (vpdpbusd). Those with AVX2 multiply 32 pairs and add the products in twos,
in 16 bits (vpmaddubsw). Because spike counts are small, many of these sums can be added up in 16 bits before they must
become 32: that is twice as fast as widening each of them, which a kernel for any bytes has to do.

    acc16[m, k] += pairs(count of pixel m at 4 inputs, weights of 4 inputs × 8 channels)      `run` times
    acc32[m, k] += neighbours of acc16 added

Numba reaches the instructions through LLVM's names for them. Import this module only where `snncc.runtime.int8_conv`
has found the processor able: it loads Numba.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from snncc.runtime.int8_conv import dot_products

_DOT_PRODUCTS = dot_products()
PIXELS = 12 if _DOT_PRODUCTS else 6
"""Output pixels of a tile: as many as the registers hold sums of."""
_VECTORS = 1 if _DOT_PRODUCTS else 2
_LANES = 16 if _DOT_PRODUCTS else 8
CHANNELS = 16
"""Output channels of a block."""
TOGETHER = 4
"""Inputs that are multiplied at once for each channel."""

cgutils: Any = _cgutils
_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOAT = ir.FloatType()
_FLOATS, _CODES = ir.VectorType(_FLOAT, _LANES), ir.VectorType(ir.IntType(8), _LANES)
_BYTES, _SHORTS = ir.VectorType(ir.IntType(8), 4 * _LANES), ir.VectorType(_I16, 2 * _LANES)
_INTS = ir.VectorType(_I32, _LANES)


class _Tile:
    """Emits the code of one tile."""

    def __init__(self, builder: Any, counts: Any, offsets: Any, steps: Any, weights: Any) -> None:
        self.b, self.steps, self.weights = builder, steps, weights
        self.places = [builder.gep(counts, [builder.load(builder.gep(offsets, [_I64(m)]))]) for m in range(PIXELS)]
        self.sums = self._accumulators(_INTS)

    def emit(self, count: Any, run: Any) -> None:
        """Emit the loops: `count` steps; of sums in 16 bits, `run` of them are added up before these are widened."""
        raise NotImplementedError

    def _function(self, name: str, result: Any, *operands: Any) -> Any:
        return cgutils.get_or_insert_function(self.b.module, ir.FunctionType(result, operands), name)

    def _accumulators(self, kind: Any) -> list[list[Any]]:
        return [[cgutils.alloca_once(self.b, kind) for _ in range(_VECTORS)] for _ in range(PIXELS)]

    def _clear(self, accumulators: list[list[Any]], kind: Any) -> None:
        for row in accumulators:
            for place in row:
                self.b.store(ir.Constant(kind, None), place)

    def _operands(self, step: Any) -> Iterator[tuple[int, int, Any, Any]]:
        """Yield pixel, vector, four counts repeated for each channel, and weights: both as 32 bits a channel."""
        b = self.b
        offset = b.sext(b.load(b.gep(self.steps, [step])), _I64)
        packed = b.gep(self.weights, [b.mul(step, _I64(TOGETHER * CHANNELS))])
        columns = []
        for k in range(_VECTORS):
            columns.append(b.load(b.bitcast(b.gep(packed, [_I64(TOGETHER * _LANES * k)]), _INTS.as_pointer())))
            columns[-1].align = 1
        undefined = ir.Constant(_INTS, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(_I32, _LANES), None)
        for m in range(PIXELS):
            four = b.load(b.bitcast(b.gep(self.places[m], [offset]), _I32.as_pointer()))
            four.align = 1
            every = b.shuffle_vector(b.insert_element(undefined, four, _I32(0)), undefined, lanes)
            for k in range(_VECTORS):
                yield m, k, every, columns[k]

    def write(self, bias: Any, scale: Any, zero: Any, out: Any, places: Any) -> None:
        """Emit the codes: clip(round(scale·(sum + bias)) + zero, 0, 255)."""
        b = self.b
        low, high = b.fneg(zero), b.fsub(_FLOAT(255.0), zero)
        zeros, lows, highs = (self._every(value) for value in (zero, low, high))
        round_ = self._function(f"llvm.rint.v{_LANES}f32", _FLOATS, _FLOATS)
        for k in range(_VECTORS):
            added = self._vector(bias, k, _INTS)
            factor = self._vector(scale, k, _FLOATS)
            for m in range(PIXELS):
                value = b.fmul(b.sitofp(b.add(b.load(self.sums[m][k]), added), _FLOATS), factor)
                value = b.select(b.fcmp_ordered(">", value, lows), value, lows)
                value = b.select(b.fcmp_ordered("<", value, highs), value, highs)
                code = b.fptosi(b.fadd(b.call(round_, [value]), zeros), _INTS)
                target = b.gep(out, [b.add(b.load(b.gep(places, [_I64(m)])), _I64(_LANES * k))])
                stored = b.store(b.trunc(code, _CODES), b.bitcast(target, _CODES.as_pointer()))
                stored.align = 1

    def _every(self, value: Any) -> Any:
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        one = self.b.insert_element(undefined, value, _I32(0))
        return self.b.shuffle_vector(one, undefined, ir.Constant(_INTS, None))

    def _vector(self, values: Any, k: int, kind: Any) -> Any:
        loaded = self.b.load(self.b.bitcast(self.b.gep(values, [_I64(_LANES * k)]), kind.as_pointer()))
        loaded.align = 4
        return loaded


class _DotProducts(_Tile):
    """With sums in 32 bits from the start."""

    def emit(self, count: Any, run: Any) -> None:
        """Emit the loop over `count` steps."""
        b = self.b
        add = self._function("llvm.x86.avx512.vpdpbusd.512", _INTS, _INTS, _INTS, _INTS)
        self._clear(self.sums, _INTS)
        with cgutils.for_range(b, count, intp=_I64) as loop:
            for m, k, counts, weights in self._operands(loop.index):
                b.store(b.call(add, [b.load(self.sums[m][k]), counts, weights]), self.sums[m][k])


class _ShortSums(_Tile):
    """With sums in 16 bits that are widened now and then."""

    def emit(self, count: Any, run: Any) -> None:
        """Emit the loops: `count` steps, `run` of them between two flushes."""
        self.short = self._accumulators(_SHORTS)
        b = self.b
        outer, inner, flush, done = (b.append_basic_block(n) for n in ("outer", "inner", "flush", "done"))
        place, end = cgutils.alloca_once(b, _I64), cgutils.alloca_once(b, _I64)
        self._clear(self.sums, _INTS)
        b.store(_I64(0), place)
        b.branch(outer)
        b.position_at_end(outer)
        last = b.add(b.load(place), run)
        b.store(b.select(b.icmp_signed("<", last, count), last, count), end)
        self._clear(self.short, _SHORTS)
        b.branch(inner)
        b.position_at_end(inner)
        step = b.load(place)
        self._multiply(step)
        following = b.add(step, _I64(1))
        b.store(following, place)
        b.cbranch(b.icmp_signed("<", following, b.load(end)), inner, flush)
        b.position_at_end(flush)
        self._flush()
        b.cbranch(b.icmp_signed("<", b.load(place), count), outer, done)
        b.position_at_end(done)

    def _multiply(self, step: Any) -> None:
        """Add the products of four inputs to the short sums."""
        b, pairs = self.b, self._function("llvm.x86.avx2.pmadd.ub.sw", _SHORTS, _BYTES, _BYTES)
        for m, k, counts, weights in self._operands(step):
            product = b.call(pairs, [b.bitcast(counts, _BYTES), b.bitcast(weights, _BYTES)])
            b.store(b.add(b.load(self.short[m][k]), product), self.short[m][k])

    def _flush(self) -> None:
        """Add the short sums to the long ones."""
        b, ones = self.b, ir.Constant(_SHORTS, [1] * 16)
        widen = self._function("llvm.x86.avx2.pmadd.wd", _INTS, _SHORTS, _SHORTS)
        for m in range(PIXELS):
            for k in range(_VECTORS):
                wide = b.call(widen, [b.load(self.short[m][k]), ones])
                b.store(b.add(b.load(self.sums[m][k]), wide), self.sums[m][k])


@intrinsic
def _tile(
    typing_context: Any,
    counts: Any,
    offsets: Any,
    steps: Any,
    weights: Any,
    bias: Any,
    scale: Any,
    out: Any,
    places: Any,
    run: Any,
    zero: Any,
) -> Any:
    """Write the codes of PIXELS pixels, which begin at `offsets` in counts, to `places` in out, CHANNELS at each."""
    signature = types.void(counts, offsets, steps, weights, bias, scale, out, places, run, zero)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pairs = list(zip(signature.args, arguments, strict=True))
        arrays = [context.make_array(kind)(context, builder, value) for kind, value in pairs[:8]]
        data = [array.data for array in arrays]
        tile = (_DotProducts if _DOT_PRODUCTS else _ShortSums)(builder, *data[:4])
        tile.emit(builder.extract_value(arrays[2].shape, 0), arguments[8])
        tile.write(data[4], data[5], arguments[9], data[6], data[7])
        return context.get_dummy_value()

    return signature, codegen


def _convolve(
    counts: NDArray[np.uint8],
    size: int,
    pixels: NDArray[np.int64],
    begin: int,
    end: int,
    steps: NDArray[np.int32],
    weights: NDArray[np.int8],
    run: int,
    bias: NDArray[np.int32],
    scale: NDArray[np.float32],
    zero: np.float32,
    out: NDArray[np.uint8],
) -> None:
    """Fill rows of out [B·P, C] with the codes clip(round(scale·(sum + bias)) + zero, 0, 255).

    Args:
        counts: all input, flat.
        size: elements of one of its B images.
        pixels: where the window of each output pixel begins in the first image, [P].
        begin: first row to fill.
        end: the row behind the last one.
        steps: where the inputs of a window stand, relative to that; four at each place.
        weights: [blocks, steps, 64], as `snncc.runtime.int8_conv.packed` lays them out.
        run: steps whose products can be added up in 16 bits.
        bias: int32, [blocks · CHANNELS].
        scale: float32, the same.
        zero: the code of zero.
        out: the result.
    """
    features, of_image = out.shape[1], len(pixels)
    flat, spare = out.reshape(-1), np.empty(PIXELS * CHANNELS, np.uint8)
    offsets, places = np.empty(PIXELS, np.int64), np.empty(PIXELS, np.int64)
    for block in range(len(weights)):
        first = block * CHANNELS
        width = min(CHANNELS, features - first)
        packed, b, s = weights[block].reshape(-1), bias[first : first + CHANNELS], scale[first : first + CHANNELS]
        image = begin // of_image
        pixel = begin - image * of_image
        for p in range(begin, end, PIXELS):
            for m in range(PIXELS):
                # The last pixel is done again as often as the tile has room.
                offsets[m], places[m] = image * size + pixels[pixel], min(p + m, end - 1) * features + first
                if p + m + 1 < end:
                    pixel += 1
                    if pixel == of_image:
                        image, pixel = image + 1, 0
            if width == CHANNELS:
                _tile(counts, offsets, steps, packed, b, s, flat, places, run, zero)  # type: ignore[call-arg]
            else:
                for m in range(PIXELS):
                    places[m] = m * CHANNELS
                _tile(counts, offsets, steps, packed, b, s, spare, places, run, zero)  # type: ignore[call-arg]
                for m in range(min(PIXELS, end - p)):
                    for i in range(width):
                        out[p + m, first + i] = spare[m * CHANNELS + i]


try:
    convolve = numba.njit(nogil=True, error_model="numpy", cache=True)(_convolve)
except RuntimeError:  # there is no folder that the code could be kept in
    convolve = numba.njit(nogil=True, error_model="numpy")(_convolve)
