"""Convolutions of spike counts in float32 and the neurons behind them, as one compiled loop.

The inner loop is a tile of output pixels times a block of output channels:

    sums[m, k] += input of pixel m × weights of 8 or 16 channels      for each input of a window

All sums of a tile stay in registers. Each adds up its products one by one in the order of the inputs, so that it is the
same bit for bit wherever its pixel stands in a tile. Import this module only where `snncc.runtime.float_conv` has found
the processor able: it loads Numba. All that is compiled stands in this one file: Numba looks at no other to see whether
what it keeps on disk is still right.
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

from snncc.runtime.float_conv import vector_width

WIDTH = vector_width()
PIXELS = 12 if WIDTH == 16 else 6
"""Output pixels of a tile: with two vectors for each, their sums and the weights fill the registers."""

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Sizes = tuple[int, int, int]
Conv = tuple[Bytes, Floats, Floats, Integers, tuple[int, ...]]

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
_part = numba.njit(nogil=True, error_model="numpy")
_loop = numba.njit(nogil=True, error_model="numpy", cache=True)


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
    offsets: Integers,
    places: Integers,
) -> None:
    """Add convolutions to out [steps, rows, columns, channels], of output channels from `begin` on.

    In the source, steps, rows and columns of the output are `apart` floats from each other.
    """
    (steps, rows, columns), (image, line, step) = shape, apart
    total, width = steps * rows * columns, weights.shape[2]
    for row in range(steps * rows):
        first = row // rows * image + row % rows * line
        of_row, place_of_row = offsets[row * columns :], places[row * columns :]
        for x in range(columns):
            of_row[x] = first + x * step
            place_of_row[x] = (row * columns + x) * channels
    for p in range(total, total + PIXELS):  # the last pixel is done again as often as the last tile has room
        offsets[p], places[p] = offsets[total - 1], places[total - 1]
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
    of_all: int,
    weights: Floats,
    begin: int,
    channels: int,
    out: Floats,
) -> None:
    """Add depthwise convolutions of `of_all` channels to out [steps, rows, columns, channels], from `begin` on."""
    (steps, rows, columns), (image, line, step) = shape, apart
    some, place = min(channels, of_all - begin), 0
    for t in range(steps):
        for y in range(rows):
            for x in range(columns):
                sums = out[place : place + some]
                place += channels
                window = source[t * image + y * line + x * step + begin :]
                for k in range(len(starts)):
                    inputs, column = window[starts[k] : starts[k] + some], weights[0, k, begin : begin + some]
                    for c in range(some):
                        sums[c] += inputs[c] * column[c]


@_part
def _drive(
    conv: Conv,
    steps: tuple[int, int],
    n: int,
    first: int,
    rows: int,
    columns: int,
    begin: int,
    channels: int,
    source: Floats,
    out: Floats,
    offsets: Integers,
    places: Integers,
) -> None:
    """Add a convolution of timesteps `steps` of sample n to out, for output rows from `first` on."""
    counts, unit, weights, starts, sizes = conv
    down, right, top, left, reach, wide, run, zero, depthwise = sizes
    features = counts.shape[4]
    high = (rows - 1) * down + reach
    image = high * wide * features
    for t in range(steps[0], steps[1]):
        part = source[(t - steps[0]) * image : (t - steps[0] + 1) * image]
        _read(counts[t, n], first * down - top, high, left, wide, unit, np.float32(zero), part)
    shape, apart = (steps[1] - steps[0], rows, columns), (image, down * wide * features, right * features)
    if depthwise:
        _convolve_apart(source, shape, apart, starts, features, weights, begin, channels, out)
    else:
        _convolve(source, shape, apart, starts, run, weights, begin, channels, out, offsets, places)


@_part
def _fill(out: Floats, values: Floats, begin: int, beyond: np.float32) -> None:
    """Repeat the values of channels, from `begin` on, for each pixel of out [pixels, channels]."""
    some = min(out.shape[1], len(values) - begin)
    for p in range(len(out)):
        for c in range(some):
            out[p, c] = values[begin + c]
        for c in range(some, out.shape[1]):
            out[p, c] = beyond


@_part
def _copy(values: Floats, apart: int, out: Floats, out_apart: int, lines: int, length: int) -> None:
    """Copy lines of memory of which so many floats lie between the beginnings."""
    for k in range(lines):
        line, target = values[k * apart :], out[k * out_apart :]
        for i in range(length):
            target[i] = line[i]


@_part
def _fire(current: Floats, theta: Floats, v_mem: Floats, fired: Floats, max_burst: np.float32) -> None:
    """Run a timestep of burst neurons; spikes replace currents."""
    none = np.float32(0)
    for i in range(len(current)):
        u = v_mem[i] + current[i]
        k = min(max(np.floor(u / theta[i]), none), max_burst)
        v_mem[i] = u - theta[i] * k
        current[i] = k
    for i in range(len(current)):
        fired[i] += current[i]


@_part
def _fire_signed(
    current: Floats,
    theta: Floats,
    net: Floats,
    total: Floats,
    fired: Floats,
    v_init: np.float32,
    max_burst: np.float32,
    most: np.float32,
) -> None:
    """Run a timestep of signed neurons, which never emit more than `most` altogether; spikes replace currents."""
    none = np.float32(0)
    for i in range(len(current)):
        total[i] += current[i]
        current[i] = min(max(total[i], none), most)
    for i in range(len(current)):
        k = np.floor(current[i] / theta[i] + v_init) - net[i]
        k = min(max(k, -max_burst), max_burst)
        net[i] += k
        current[i] = k
    for i in range(len(current)):
        fired[i] += abs(current[i])


@_loop
def simulate(
    begin: int,
    end: int,
    sizes: tuple[int, ...],
    bounds: tuple[np.float32, np.float32, np.float32],
    first: Conv,
    second: Conv,
    residual: Bytes,
    unit: Floats,
    added: Floats,
    theta: Floats,
    bias: Floats,
    counts: Bytes,
    emitted: NDArray[np.float64],
    state: Floats,
    sums: Floats,
    scratch: Floats,
) -> None:
    """Simulate parts `begin` to `end` of a layer: some rows of the output, and some of its channels.

    Args:
        begin: first part.
        end: the part behind the last one.
        sizes: int64: convolutions, rows of a part, channels of a part, timesteps that are convolved together, whether
            neurons are signed, the spike count that is written as zero, that in `residual`, timesteps before, whether
            there is a state, floats of a padded input.
        bounds: float32: v0, ψ, and the bound of what a signed neuron encodes.
        first: a convolution: counts uint8 [T, N, H, W, C], the spike of each element of a row of them, weights
            [blocks, inputs, channels], where runs of inputs begin, and sizes.
        second: another one, or the same where there is none.
        residual: counts that are added to the current, uint8 [T, N, H, W, C], or empty.
        unit: float32 [C], their spikes.
        added: float32 [T or 1, N, H, W, C] that is added to the current, or empty.
        theta: float32 [C].
        bias: float32 [C].
        counts: filled with the spikes plus an offset, uint8 [T, N, H, W, C].
        emitted: spikes over time and samples are added to it, float64 [H, W, C].
        state: v_mem, or the spikes of signed neurons so far, float32 [N, H, W, C], or empty where nothing is kept.
        sums: currents of signed neurons so far, the same.
        scratch: float32, large enough.
    """
    convolutions, of_rows, channels, together, signed, offset, zero, done, goes_on, padded = sizes
    timesteps, samples, height, width, features = counts.shape
    groups = -(-features // channels)
    pixels = together * of_rows * width + PIXELS
    offsets, places = np.empty(pixels, np.int64), np.empty(pixels, np.int64)
    v_init, max_burst, upper = bounds
    shown, none = np.float32(offset), np.float32(zero)
    for part in range(begin, end):
        top, channel = part // groups * of_rows, part % groups * channels
        rows = min(of_rows, height - top)
        size, whole = rows * width * channels, of_rows * width * channels
        # Where the channels of a part are all that there are, its pixels are one line of memory.
        lines, length = (1, size) if channels == features else (rows * width, min(channels, features - channel))
        source, rest = scratch[:padded], scratch[padded:]
        units, shifts, scales = rest[:size], rest[whole : whole + size], rest[2 * whole : 2 * whole + size]
        own, own_sums, fired = rest[3 * whole :][:size], rest[4 * whole :][:size], rest[5 * whole :][:size]
        current = rest[6 * whole :]
        if part == begin or groups > 1:
            _fill(rest[:whole].reshape(-1, channels), theta, channel, np.float32(1))
            _fill(rest[whole : 2 * whole].reshape(-1, channels), bias, channel, np.float32(0))
            if residual.size:
                _fill(rest[2 * whole : 3 * whole].reshape(-1, channels), unit, channel, np.float32(0))
        start = (top * width) * features + channel
        for i in range(size):
            fired[i] = np.float32(0)
        in_place = state.size > 0 and lines == 1
        for n in range(samples):
            v_mem = state[n].reshape(-1)[start : start + size] if in_place else own
            total = sums[n].reshape(-1)[start : start + size] if in_place else own_sums
            if not goes_on:
                for i in range(size):
                    v_mem[i] = np.float32(0) if signed else v_init * units[i]
                if signed:
                    for i in range(size):
                        total[i] = np.float32(0)
            elif not in_place:
                _copy(state[n].reshape(-1)[start:], features, v_mem, channels, lines, length)
                if signed:
                    _copy(sums[n].reshape(-1)[start:], features, total, channels, lines, length)
            for t in range(0, timesteps, together):
                steps = (t, min(timesteps, t + together))
                for s in range(steps[1] - t):
                    now = current[s * size : (s + 1) * size]
                    for i in range(size):
                        now[i] = shifts[i]
                    if residual.size:
                        codes = residual[t + s, n].reshape(-1)[start:]
                        for k in range(lines):
                            codes_k, target = codes[k * features :], now[k * channels :]
                            scale = scales[k * channels :]
                            for i in range(length):
                                target[i] += (np.float32(codes_k[i]) - none) * scale[i]
                    if added.size:
                        values = added[min(t + s, len(added) - 1), n].reshape(-1)[start:]
                        for k in range(lines):
                            values_k, target = values[k * features :], now[k * channels :]
                            for i in range(length):
                                target[i] += values_k[i]
                for which in range(convolutions):
                    conv = second if which else first
                    _drive(conv, steps, n, top, rows, width, channel, channels, source, current, offsets, places)
                for s in range(steps[1] - t):
                    now = current[s * size : (s + 1) * size]
                    if signed:
                        most = upper * np.float32(done + t + s + 1)
                        _fire_signed(now, units, v_mem, total, fired, v_init, max_burst, most)
                    else:
                        _fire(now, units, v_mem, fired, max_burst)
                    out = counts[t + s, n].reshape(-1)[start:]
                    for k in range(lines):
                        spikes, target = now[k * channels :], out[k * features :]
                        for i in range(length):
                            target[i] = np.uint8(np.int32(spikes[i] + shown))
            if state.size and not in_place:
                _copy(v_mem, channels, state[n].reshape(-1)[start:], features, lines, length)
                if signed:
                    _copy(total, channels, sums[n].reshape(-1)[start:], features, lines, length)
        found = emitted.reshape(-1)[start:]  # less than 2**24 each: whole numbers in float32
        for k in range(lines):
            more, sum_of = fired[k * channels :], found[k * features :]
            for i in range(length):
                sum_of[i] += np.float64(more[i])
