"""Layers of neurons with the convolutions of spikes in front of them, and pools, as one compiled loop.

A layer is cut into parts, which any thread can take; the next layer begins when all of them are done. Threads wait for
each other by looking: what they wait for takes microseconds.

The loop is compiled when it is first called and kept on disk for the next process. Numba takes what it kept for right
as long as this file is the same; for the functions from other files, which become a part of it, stands a digest.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from snncc.runtime import float_tile, layer_table, neuron_loops
from snncc.runtime.layer_table import CODES, FLOATS, NEURONS, NO_CONV
from snncc.runtime.matrix_conv import CHANNELS, INPUTS, PLANES
from snncc.runtime.matrix_unit import available
from snncc.runtime.neuron_loops import fire
from snncc.runtime.spike_conv import LANES

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
cgutils: Any = _cgutils
carray: Any = getattr(numba, "carray")  # noqa: B009 - it isn't in the stubs
_part = numba.njit(nogil=True, error_model="numpy")


@_part
def _nothing(*arguments: Any) -> int:
    return 0


_drive_floats: Any = float_tile.drive
_drive_matrices: Any = _nothing
_others = [float_tile, neuron_loops, layer_table]
if available():
    from snncc.runtime import matrix_tile

    _drive_matrices = matrix_tile.drive
    _others.append(matrix_tile)
_yield: Any = types.ExternalFunction("sched_yield", types.int32()) if hasattr(os, "sched_yield") else _nothing
_SHIFT = 32
"""A ticket is the number of a layer, and in the lower half that of the next part that nobody has taken."""
_PATIENCE = 4096
"""Looks at a ticket until the core is offered to others."""


def _pointer(typing_context: Any, place: Any) -> Any:
    """Return an address as a pointer."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


_at: Any = intrinsic(_pointer)


def _fetch_and_add(typing_context: Any, values: Any, index: Any, more: Any) -> Any:
    """Add to an int64 of an array that other threads change, too; return what it was."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [arguments[1]]), arguments[2], "seq_cst")

    return types.int64(values, types.int64, types.int64), codegen


_add: Any = intrinsic(_fetch_and_add)


def _exchange(typing_context: Any, values: Any, index: Any, value: Any) -> Any:
    """Write an int64 that other threads read."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.atomic_rmw("xchg", builder.gep(data, [arguments[1]]), arguments[2], "seq_cst")
        return context.get_dummy_value()

    return types.void(values, types.int64, types.int64), codegen


_set: Any = intrinsic(_exchange)


def _load(typing_context: Any, values: Any, index: Any) -> Any:
    """Read an int64 that other threads change."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "acquire", 8)

    return types.int64(values, types.int64), codegen


_get: Any = intrinsic(_load)


def _relax(typing_context: Any) -> Any:
    """Tell the processor that this thread only waits."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), codegen


_pause: Any = intrinsic(_relax)


@_part
def _convolve(convs: Any, place: tuple[int, ...], samples: int, timesteps: int, source: Floats, out: Floats) -> None:
    """Add what the convolutions of a layer give to the currents of a part of it."""
    for which in range(len(convs)):
        conv = convs[which]
        if conv.kind == NO_CONV:
            return
        shape = (timesteps, samples, conv.height, conv.width, conv.channels)
        values, starts = carray(_at(conv.values), shape, np.uint8), carray(_at(conv.starts), conv.start_count, np.int64)
        a = conv.sizes
        sizes = (a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8])
        if conv.kind == FLOATS:
            weights = carray(_at(conv.weights), (conv.blocks, conv.inputs, conv.columns), np.float32)
            unit = carray(_at(conv.unit), conv.width * conv.channels, np.float32)
            code = carray(_at(conv.code), CODES * conv.features, np.float32)
            _drive_floats((values, unit, weights, starts, code, sizes), place, source, out)
        else:
            size = (conv.blocks, conv.inputs, conv.columns, CHANNELS, INPUTS)
            matrices = carray(_at(conv.weights), size, np.int8)
            phases = carray(_at(conv.phases), (conv.phase_count, 2), np.int64)
            zero = carray(_at(conv.zero), (PLANES if conv.columns == PLANES else 1, conv.features), np.int32)
            scale = carray(_at(conv.scale), conv.features, np.float32)
            code = carray(_at(conv.code), (2, conv.features), np.float32)
            _drive_matrices((values, matrices, starts, phases, zero, scale, code, sizes), place, source, out)


@_part
def _simulate(layer: Any, convs: Any, part: int, scratch: Floats) -> None:
    """Simulate some rows of a layer's output and some of its channels."""
    timesteps, samples, width, features = layer.timesteps, layer.samples, layer.width, layer.features
    channels, together, has_convs = layer.channels, layer.together, convs[0].kind != NO_CONV
    groups, image, filled = -(-features // channels), layer.height * width * features, -(-features // LANES) * LANES
    of_step, whole = samples * image, timesteps * samples * image
    top, channel = part // groups * layer.rows, part % groups * channels
    rows, some = min(layer.rows, layer.height - top), min(channels, features - channel)
    pixels = rows * width
    size, start = pixels * channels, top * width * features + channel
    source, rest = scratch[: layer.padded], scratch[layer.padded :]
    own, own_sums, fired, current = rest[:size], rest[size : 2 * size], rest[2 * size :][:size], rest[3 * size :]
    theta, bias = carray(_at(layer.theta), filled, np.float32), carray(_at(layer.bias), filled, np.float32)
    unit, out = carray(_at(layer.unit), filled, np.float32), carray(_at(layer.counts), whole, np.uint8)
    has_codes, kept, steps_given = layer.has_residual, layer.state != 0, layer.added_steps
    codes = carray(_at(layer.residual), whole if has_codes else filled, np.uint8)
    given, of_given = carray(_at(layer.added), steps_given * of_step, np.float32), of_step if steps_given > 1 else 0
    state = carray(_at(layer.state), of_step, np.float32) if kept else own
    sums = carray(_at(layer.sums), of_step, np.float32) if kept and layer.signed else own_sums
    bounds = (layer.v_init, layer.max_burst, layer.upper, layer.zero, layer.offset)
    fired[:] = 0
    for n in range(samples):
        here = n * image + start
        v_at, apart = (here, features) if kept else (0, channels)
        s_at, s_apart = (here, features) if kept and layer.signed else (0, channels)
        states = (state, v_at, apart, sums, s_at, s_apart, fired, 0, channels)
        for t in range(0, timesteps, together):
            steps = min(together, timesteps - t)
            arriving = (current, 0, channels, size)
            if steps_given and not has_convs:
                arriving = (given, t * of_given + here, features, of_given)
            elif steps_given:
                for s in range(steps):
                    at = (t + s) * of_given + here
                    for p in range(pixels):
                        target, values = current[s * size + p * channels :], given[at + p * features :]
                        for c in range(some):
                            target[c] = values[c]
            else:
                current[: steps * size] = 0
            _convolve(
                convs, (t, t + steps, n, top, rows, width, channel, channels), samples, timesteps, source, current
            )
            now = t * of_step + here
            fire(
                arriving,
                (codes, now if has_codes else channel, has_codes * features, has_codes * of_step),
                (out, now, features, of_step),
                states,
                (theta, bias, unit, channel),
                bounds,
                (pixels, some),
                layer.signed,
                steps,
                int(t == 0 and layer.done == 0),
                layer.done + t,
            )
    emitted = carray(_at(layer.emitted), image, np.float64)[start:]
    for p in range(pixels):  # less than 2**24 each: whole numbers in float32
        found, sum_of = fired[p * channels :], emitted[p * features :]
        for c in range(some):
            sum_of[c] = np.float64(found[c])


@_part
def _pool(layer: Any, part: int, scratch: Floats) -> None:
    """MaxPool of the spikes so far, as what it gains at each timestep, for some rows of the output."""
    timesteps, samples, width, channels = layer.timesteps, layer.samples, layer.width, layer.features
    high, wide, down, right, above, left = layer.window
    _, of_height, of_width = layer.source
    offset, first = np.int32(layer.offset), part * layer.rows
    last = min(layer.height, first + layer.rows)
    counts = carray(_at(layer.source[0]), (timesteps, samples, of_height, of_width, channels), np.uint8)
    out = carray(_at(layer.counts), (timesteps, samples, layer.height, width, channels), np.uint8)
    passed = carray(_at(layer.emitted), (layer.height, width, channels), np.float64)
    # Rows that this part accounts for, and those that it reads.
    mine = 0 if first == 0 else min(of_height, max(0, first * down - above))
    beyond = of_height if last == layer.height else min(of_height, max(0, last * down - above))
    begin, end = mine, max(beyond, min(of_height, (last - 1) * down - above + high))
    room = scratch.view(np.int32)
    size = (end - begin) * of_width * channels
    total = room[:size].reshape((end - begin, of_width, channels))
    applied = room[size : size + (last - first) * width * channels].reshape((last - first, width, channels))
    largest = np.empty(channels, np.int32)
    passed[first:last] = 0
    shapes = (samples, of_height, of_width, channels), (samples, layer.height, width, channels)
    for n in range(samples):
        if layer.before[0]:
            total[:] = carray(_at(layer.before[0]), shapes[0], np.int32)[n, begin:end]
            applied[:] = carray(_at(layer.before[1]), shapes[1], np.int32)[n, first:last]
        else:
            total[:] = 0
            applied[:] = 0
        for t in range(timesteps):
            gained, sums = counts[t, n, begin:end].reshape(-1), total.reshape(-1)
            for i in range(size):
                sums[i] += np.int32(gained[i]) - offset
            for y in range(first, last):
                for x in range(width):
                    largest[:] = np.int32(-(1 << 31) + 1)
                    for i in range(max(0, y * down - above), min(of_height, y * down - above + high)):
                        for j in range(max(0, x * right - left), min(of_width, x * right - left + wide)):
                            read = total[i - begin, j]
                            for c in range(channels):
                                largest[c] = max(largest[c], read[c])
                    earlier, target, sum_of = applied[y - first, x], out[t, n, y, x], passed[y, x]
                    for c in range(channels):
                        sum_of[c] += np.float64(abs(largest[c] - earlier[c]))
                    for c in range(channels):
                        target[c] = np.uint8(largest[c] - earlier[c] + offset)
                        earlier[c] = largest[c]
        if layer.after[0]:
            carray(_at(layer.after[0]), shapes[0], np.int32)[n, mine:beyond] = total[: beyond - mine]
            carray(_at(layer.after[1]), shapes[1], np.int32)[n, first:last] = applied


@_part
def _do(layers: Any, convs: Any, ticket: int, sync: Integers, scratch: Floats) -> bool:
    """Do the part with a ticket; return whether there is one."""
    which, part = ticket >> _SHIFT, ticket & ((1 << _SHIFT) - 1)
    if which >= len(layers) or part >= layers[which].parts:
        return False
    if layers[which].kind == NEURONS:
        _simulate(layers[which], convs[which], part, scratch)
    else:
        _pool(layers[which], part, scratch)
    _add(sync, 1 + which, 1)
    return True


@_part
def _run(layers: Any, convs: Any, sync: Integers, scratch: Floats, leads: bool) -> None:
    """Run layers, or help the thread that does.

    Args:
        layers: their table, `LAYER` [L].
        convs: their convolutions, `CONV` [L, 2].
        sync: int64 [1 + L], zeros: the next ticket, and the parts of each layer that are done.
        scratch: float32, large enough for a part of each layer, another one for each thread.
        leads: whether this is the thread that begins each layer; there is one.
    """
    idle = 0
    if leads:
        for which in range(len(layers)):
            if which:
                _set(sync, 0, which << _SHIFT)
            while _do(layers, convs, _add(sync, 0, 1), sync, scratch):
                pass
            while _get(sync, 1 + which) < layers[which].parts:
                idle = _wait(idle)
        _set(sync, 0, len(layers) << _SHIFT)
        return
    while True:
        ticket: int = _get(sync, 0)
        which = ticket >> _SHIFT
        if which >= len(layers):
            return
        if ticket & ((1 << _SHIFT) - 1) >= layers[which].parts or not _do(
            layers, convs, _add(sync, 0, 1), sync, scratch
        ):
            idle = _wait(idle)


@_part
def _wait(idle: int) -> int:
    _pause()
    if idle % _PATIENCE == _PATIENCE - 1:
        _yield()
    return idle + 1


def _kept(digest: str) -> Any:
    """Return the loop so that it is kept on disk, where a function is known by what it encloses, too."""

    def run(layers: Any, convs: Any, sync: Integers, scratch: Floats, leads: bool) -> None:
        if digest:
            _run(layers, convs, sync, scratch, leads)

    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(run)
    except RuntimeError:  # there is no folder that the code could be kept in
        return numba.njit(nogil=True, error_model="numpy")(run)


run = _kept(hashlib.sha256(b"".join(Path(str(m.__file__)).read_bytes() for m in _others)).hexdigest())
