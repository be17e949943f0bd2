"""Convolutions of spike counts in float32, for `snncc.runtime.layer_loop`.

The inner loop is a tile of output pixels times a block of output channels:

    sums[m, k] += input of pixel m × weights of 8 or 16 channels      for each input of a window

or, where each channel is convolved apart from the others (depthwise),

    sums[m] += 8 or 16 channels of pixel m × their weights            for each pixel of a window

All sums of a tile stay in registers. Each adds up its products one by one in the order of the inputs, so that it is the
same bit for bit wherever its pixel stands in a tile. Import this module only where `snncc.runtime.spike_conv` has found
the processor able: it loads Numba.
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

from snncc.runtime.layer_table import APART_ROUNDED, CODES, TOGETHER
from snncc.runtime.spike_conv import vector_width

WIDTH = vector_width()
PIXELS = 12 if WIDTH == 16 else 6
"""Output pixels of a tile: with two vectors for each, their sums and the weights fill the registers."""

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Sizes = tuple[int, int, int]
Conv = tuple[Bytes, Floats, Floats, Integers, Floats, tuple[int, ...]]

cgutils: Any = _cgutils
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_FLOATS = ir.VectorType(ir.FloatType(), WIDTH)


class _Tile:
    """Emits the code of one tile."""

    def __init__(self, builder: Any, source: Any, offsets: Any, weights: Any, vectors: int) -> None:
        self.b, self.weights, self.vectors = builder, weights, vectors
        self.windows = [builder.gep(source, [builder.load(builder.gep(offsets, [_I64(m)]))]) for m in range(PIXELS)]
        kind = ir.FunctionType(_FLOATS, (_FLOATS, _FLOATS, _FLOATS))
        self.fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{WIDTH}f32")
        self.sums = [[cgutils.alloca_once(builder, _FLOATS) for _ in range(vectors)] for _ in range(PIXELS)]

    def _vector(self, values: Any, k: int) -> Any:
        """Return where the k-th vector of an array stands."""
        return self.b.bitcast(self.b.gep(values, [_I64(k * WIDTH)]), _FLOATS.as_pointer())

    def emit(self, starts: Any, count: Any, run: Any, out: Any, places: Any) -> None:
        """Emit the loops over `count` runs of `run` inputs each; sums begin with what is in `out` and end there."""
        b = self.b
        outer, inner, close, done = (b.append_basic_block(n) for n in ("outer", "inner", "close", "done"))
        targets = [b.gep(out, [b.load(b.gep(places, [_I64(m)]))]) for m in range(PIXELS)]
        for target, row in zip(targets, self.sums, strict=True):
            for k, place in enumerate(row):
                b.store(b.load(self._vector(target, k), align=4), place)
        which, place, end = (cgutils.alloca_once_value(b, _I64(0)) for _ in range(3))
        weights = cgutils.alloca_once_value(b, self.weights)
        b.branch(outer)
        b.position_at_end(outer)
        start = b.load(b.gep(starts, [b.load(which)]))
        b.store(start, place)
        b.store(b.add(start, run), end)
        b.branch(inner)
        # One input at a time: of more, LLVM would load all before it multiplies, and run out of registers.
        b.position_at_end(inner)
        now, packed = b.load(place), b.load(weights)
        self._multiply(now, packed)
        following = b.add(now, _I64(1))
        b.store(following, place)
        b.store(b.gep(packed, [_I64(WIDTH * self.vectors)]), weights)
        b.cbranch(b.icmp_signed("<", following, b.load(end)), inner, close)
        b.position_at_end(close)
        following = b.add(b.load(which), _I64(1))
        b.store(following, which)
        b.cbranch(b.icmp_signed("<", following, count), outer, done)
        b.position_at_end(done)
        for target, row in zip(targets, self.sums, strict=True):
            for k, place in enumerate(row):
                b.store(b.load(place), self._vector(target, k), align=4)

    def _multiply(self, place: Any, packed: Any) -> None:
        """Add the products of one input of each pixel."""
        b = self.b
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(_I32, WIDTH), None)
        columns = [b.load(self._vector(packed, k), align=4) for k in range(self.vectors)]
        for window, row in zip(self.windows, self.sums, strict=True):
            one = b.insert_element(undefined, b.load(b.gep(window, [place])), _I32(0))
            every = b.shuffle_vector(one, undefined, lanes)
            for column, total in zip(columns, row, strict=True):
                b.store(b.call(self.fma, [every, column, b.load(total)]), total)


class _TileApart:
    """Emits the code of one tile of a depthwise convolution: one vector of channels of some pixels."""

    def __init__(self, builder: Any, source: Any, offsets: Any) -> None:
        self.b = builder
        self.windows = [builder.gep(source, [builder.load(builder.gep(offsets, [_I64(m)]))]) for m in range(PIXELS)]
        kind = ir.FunctionType(_FLOATS, (_FLOATS, _FLOATS, _FLOATS))
        self.fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{WIDTH}f32")
        zero = ir.Constant(_FLOATS, None)
        self.sums = [cgutils.alloca_once_value(builder, zero) for _ in range(PIXELS)]

    def _vector(self, values: Any, at: Any = None) -> Any:
        place = values if at is None else self.b.gep(values, [at])
        return self.b.load(self.b.bitcast(place, _FLOATS.as_pointer()), align=4)

    def add_up(self, starts: Any, count: Any, weights: Any, apart: Any) -> None:
        """Emit the loop over the pixels of a window, whose weights are `apart` floats from each other."""
        b = self.b
        loop, done = b.append_basic_block("apart"), b.append_basic_block("summed")
        which, packed = cgutils.alloca_once_value(b, _I64(0)), cgutils.alloca_once_value(b, weights)
        b.branch(loop)
        b.position_at_end(loop)
        start, column = b.load(b.gep(starts, [b.load(which)])), self._vector(b.load(packed))
        for window, total in zip(self.windows, self.sums, strict=True):
            b.store(b.call(self.fma, [self._vector(window, start), column, b.load(total)]), total)
        b.store(b.gep(b.load(packed), [apart]), packed)
        following = b.add(b.load(which), _I64(1))
        b.store(following, which)
        b.cbranch(b.icmp_signed("<", following, count), loop, done)
        b.position_at_end(done)

    def round(self, code: Any, apart: Any) -> None:
        """Round the sums to currents of 8 bits, as QLinearConv and DequantizeLinear do it; see `Rounding`."""
        b = self.b
        bias, scale, step, zero = (self._vector(code, b.mul(apart, _I64(k))) for k in range(CODES))
        none, most = (ir.Constant(_FLOATS, [bound] * WIDTH) for bound in (0.0, 255.0))
        rint = cgutils.get_or_insert_function(b.module, ir.FunctionType(_FLOATS, [_FLOATS]), f"llvm.rint.v{WIDTH}f32")
        for place in self.sums:
            total = b.fmul(b.fadd(b.load(place), bias), scale)
            total = b.select(b.fcmp_ordered(">", total, none), total, none)
            total = b.select(b.fcmp_ordered("<", total, most), total, most)
            b.store(b.fmul(b.fsub(b.call(rint, [total]), zero), step), place)

    def write(self, out: Any, places: Any) -> None:
        """Add the sums to what is there; all of that is read first, as a pixel may be there twice."""
        b, kind = self.b, _FLOATS.as_pointer()
        targets = [b.bitcast(b.gep(out, [b.load(b.gep(places, [_I64(m)]))]), kind) for m in range(PIXELS)]
        before = [b.load(target, align=4) for target in targets]
        for target, value, place in zip(targets, before, self.sums, strict=True):
            b.store(b.fadd(value, b.load(place)), target, align=4)


def _tile_apart(rounds: bool) -> Any:
    def tile(
        typing_context: Any, source: Any, offsets: Any, starts: Any, weights: Any, code: Any, apart: Any, out: Any,
        places: Any,
    ) -> Any:  # fmt: skip
        """Add to `out` at `places` the products of the windows that begin at `offsets` in source, channel by channel.

        The weights of a pixel of the window are `apart` floats from those of the next one; so are the rows of `code`.
        """
        signature = types.void(source, offsets, starts, weights, code, apart, out, places)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pairs = list(zip(signature.args, arguments, strict=True))
            arrays = [context.make_array(kind)(context, builder, value) for kind, value in pairs[:5] + pairs[6:]]
            inputs, begin, first, weights, code, out, places = (array.data for array in arrays)
            made = _TileApart(builder, inputs, begin)
            made.add_up(first, builder.extract_value(arrays[2].shape, 0), weights, arguments[5])
            if rounds:
                made.round(code, arguments[5])
            made.write(out, places)
            return context.get_dummy_value()

        return signature, codegen

    return intrinsic(tile)


def _tile_of(vectors: int) -> Any:
    def tile(
        typing_context: Any, source: Any, offsets: Any, starts: Any, run: Any, weights: Any, out: Any, places: Any
    ) -> Any:
        """Add to `out` at `places` the products of the windows that begin at `offsets` in source."""
        signature = types.void(source, offsets, starts, run, weights, out, places)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pairs = list(zip(signature.args, arguments, strict=True))
            arrays = [context.make_array(kind)(context, builder, value) for kind, value in pairs[:3] + pairs[4:]]
            inputs, begin, first, weights, out, places = (array.data for array in arrays)
            count = builder.extract_value(arrays[2].shape, 0)
            _Tile(builder, inputs, begin, weights, vectors).emit(first, count, arguments[3], out, places)
            return context.get_dummy_value()

        return signature, codegen

    return intrinsic(tile)


_one, _two = _tile_of(1), _tile_of(2)
_apart, _apart_rounded = _tile_apart(False), _tile_apart(True)
_part = numba.njit(nogil=True, error_model="numpy")


@_part
def _read(
    image: Bytes, first: int, rows: int, left: int, columns: int, unit: Floats, zero: np.float32, out: Floats
) -> None:
    """Write rows of an image [H, W, C] of counts into a padded float image [rows, columns, C], as spikes."""
    height, width, channels = image.shape
    size, counts, none = columns * channels, image.reshape(-1), np.float32(0)
    for r in range(rows):
        line, within = out[r * size : (r + 1) * size], 0 <= first + r < height
        begin = left * channels if within else size
        end = begin + min(width * channels, size - begin)
        for i in range(begin):
            line[i] = none
        if within:
            row, inner = counts[(first + r) * width * channels :], line[begin:end]
            for i in range(end - begin):
                inner[i] = (np.float32(row[i]) - zero) * unit[i]
        for i in range(end, size):
            line[i] = none


@_part
def _places(shape: Sizes, apart: Sizes, channels: int) -> tuple[Integers, Integers]:
    """Return where the windows of all output pixels begin, and where these stand, filled up for the last tile."""
    (steps, rows, columns), (image, line, step) = shape, apart
    total = steps * rows * columns
    offsets, places = np.empty(total + PIXELS, np.int64), np.empty(total + PIXELS, np.int64)
    for row in range(steps * rows):
        first = row // rows * image + row % rows * line
        of_row, place_of_row = offsets[row * columns :], places[row * columns :]
        for x in range(columns):
            of_row[x] = first + x * step
            place_of_row[x] = (row * columns + x) * channels
    for p in range(total, total + PIXELS):  # the last pixel is done again as often as the last tile has room
        offsets[p], places[p] = offsets[total - 1], places[total - 1]
    return offsets, places


@_part
def _convolve(
    source: Floats,
    shape: Sizes,
    apart: Sizes,
    starts: Integers,
    run: int,
    weights: Floats,
    begin: int,
    channels: int,
    out: Floats,
) -> None:
    """Add convolutions to out [steps, rows, columns, channels], of output channels from `begin` on.

    In the source, steps, rows and columns of the output are `apart` floats from each other.
    """
    total, width = shape[0] * shape[1] * shape[2], weights.shape[2]
    offsets, places = _places(shape, apart, channels)
    for block in range(begin // width, (begin + channels) // width):
        packed, target = weights[block].reshape(-1), out[block * width - begin :]
        for p in range(0, total, PIXELS):
            if width == WIDTH:
                _one(source, offsets[p:], starts, run, packed, target, places[p:])
            else:
                _two(source, offsets[p:], starts, run, packed, target, places[p:])


@_part
def _convolve_apart(
    source: Floats,
    shape: Sizes,
    apart: Sizes,
    starts: Integers,
    weights: Floats,
    code: Floats,
    rounds: bool,
    begin: int,
    channels: int,
    out: Floats,
) -> None:
    """Add depthwise convolutions to out [steps, rows, columns, channels], of channels from `begin` on."""
    offsets, places = _places(shape, apart, channels)
    columns, size = weights.reshape(-1)[begin:], weights.shape[2]
    for p in range(0, shape[0] * shape[1] * shape[2], PIXELS):
        windows, targets = offsets[p:], places[p:]
        for c in range(0, channels, WIDTH):
            inputs, packed, target = source[begin + c :], columns[c:], out[c:]
            if rounds:
                _apart_rounded(inputs, windows, starts, packed, code[begin + c :], size, target, targets)
            else:
                _apart(inputs, windows, starts, packed, packed, size, target, targets)


@_part
def drive(conv: Conv, part: tuple[int, ...], source: Floats, out: Floats) -> None:
    """Add a convolution to out [timesteps, rows, columns, channels], a part of a layer.

    Args:
        conv: counts uint8 [T, N, H, W, C], the spike of each element of a row of them, weights [blocks, inputs,
            channels], where runs of inputs begin, how sums are rounded (see `CODES`), and sizes.
        part: first timestep, the one behind the last, sample, first row of the output, rows, columns, first channel,
            channels.
        source: room for the padded input.
        out: the currents, flat.
    """
    counts, unit, weights, starts, code, sizes = conv
    begin, end, n, first, rows, columns, channel, channels = part
    down, right, top, left, reach, wide, run, zero, kind = sizes
    features = counts.shape[4]
    high = (rows - 1) * down + reach
    image = high * wide * features
    for t in range(begin, end):
        line = source[(t - begin) * image : (t - begin + 1) * image]
        _read(counts[t, n], first * down - top, high, left, wide, unit, np.float32(zero), line)
    shape, apart = (end - begin, rows, columns), (image, down * wide * features, right * features)
    if kind == TOGETHER:
        _convolve(source, shape, apart, starts, run, weights, channel, channels, out)
    else:
        _convolve_apart(source, shape, apart, starts, weights, code, kind == APART_ROUNDED, channel, channels, out)
