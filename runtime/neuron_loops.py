"""The neurons of a part of a layer over some timesteps, for `snncc.runtime.layer_loop`: currents in, counts out.

    current[t] = what convolutions gave + bias + spikes of another tensor       16 channels of some pixels at once

What a neuron keeps stays in registers from one timestep to the next. The arithmetic is that of the steps in
`snncc.neurons`, in the same order.
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

from snncc.runtime.spike_conv import LANES, vector_width

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
PIXELS = 4 if vector_width() == LANES else 2
"""Pixels that are simulated at once, so that one needn't wait for the other."""

cgutils: Any = _cgutils
_I1, _I8, _I32, _I64, _FLOAT = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_FLOATS, _INTS, _CODES = (ir.VectorType(kind, LANES) for kind in (_FLOAT, _I32, _I8))


class _Block:
    """Emits the code for 16 channels of some pixels."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, pixels: int, masked: bool) -> None:
        self.b, self.pixels, self.masked = builder, pixels, masked
        self.context, self.signature, self.arguments = context, signature, arguments
        lanes = arguments[-1]
        numbers = ir.Constant(_INTS, list(range(LANES)))
        self.mask = builder.icmp_signed("<", numbers, self._every(builder.trunc(lanes, _I32), _INTS))
        self.bounds = [self._every(v, _FLOATS) for v in cgutils.unpack_tuple(builder, arguments[5])]

    def _every(self, value: Any, kind: Any) -> Any:
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
        return self.b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(_INTS, None))

    def _function(self, name: str, result: Any, *operands: Any) -> Any:
        return cgutils.get_or_insert_function(self.b.module, ir.FunctionType(result, operands), name)

    def array(self, which: int, place: int = 0) -> tuple[list[Any], Any]:
        """Return where each pixel begins in an array of the tuple `which`, and how far apart timesteps are there."""
        kinds, values = self.signature.args[which], cgutils.unpack_tuple(self.b, self.arguments[which])
        data = self.context.make_array(kinds[place])(self.context, self.b, values[place]).data
        at, of_pixel = values[place + 1 : place + 3]
        begins = [self.b.gep(data, [self.b.add(at, self.b.mul(of_pixel, _I64(m)))]) for m in range(self.pixels)]
        return begins, values[-1]

    def load(self, pointer: Any, kind: Any) -> Any:
        place = self.b.bitcast(pointer, kind.as_pointer())
        align = 1 if kind is _CODES else 4
        if not self.masked:
            return self.b.load(place, align=align)
        name = f"llvm.masked.load.v{LANES}{'i8' if kind is _CODES else 'f32'}.p0"
        masks = ir.VectorType(_I1, LANES)
        function = self._function(name, kind, place.type, _I32, masks, kind)
        return self.b.call(function, [place, _I32(align), self.mask, ir.Constant(kind, None)])

    def store(self, value: Any, pointer: Any) -> None:
        kind = value.type
        place = self.b.bitcast(pointer, kind.as_pointer())
        align = 1 if kind == _CODES else 4
        if not self.masked:
            self.b.store(value, place, align=align)
            return
        name = f"llvm.masked.store.v{LANES}{'i8' if kind == _CODES else 'f32'}.p0"
        function = self._function(name, ir.VoidType(), kind, place.type, _I32, ir.VectorType(_I1, LANES))
        self.b.call(function, [value, place, _I32(align), self.mask])

    def of_channels(self, which: int, place: int) -> Any:
        """Return the vector of an array of the tuple `which` that all pixels share."""
        kinds, values = self.signature.args[which], cgutils.unpack_tuple(self.b, self.arguments[which])
        data = self.context.make_array(kinds[place])(self.context, self.b, values[place]).data
        return self.b.load(self.b.bitcast(self.b.gep(data, [values[-1]]), _FLOATS.as_pointer()), align=4)

    def least(self, one: Any, other: Any) -> Any:
        return self.b.select(self.b.fcmp_ordered("<", one, other), one, other)

    def most(self, one: Any, other: Any) -> Any:
        return self.b.select(self.b.fcmp_ordered(">", one, other), one, other)

    def floor(self, value: Any) -> Any:
        return self.b.call(self._function(f"llvm.floor.v{LANES}f32", _FLOATS, _FLOATS), [value])

    def current(self, step: Any, pixel: int) -> Any:
        """Return what arrives at a timestep."""
        b = self.b
        (given, of_given), (codes, of_codes) = self.given, self.codes
        value = b.fadd(self.load(b.gep(given[pixel], [b.mul(step, of_given)]), _FLOATS), self.bias)
        code = self.load(b.gep(codes[pixel], [b.mul(step, of_codes)]), _CODES)
        spikes = b.fmul(b.fsub(b.uitofp(code, _FLOATS), self.none), self.unit)
        return b.fadd(value, spikes)

    def read(self) -> None:
        """Emit what is known before the first timestep."""
        self.theta, self.bias, self.unit = (self.of_channels(4, k) for k in range(3))
        self.v_init, self.max_burst, self.upper, self.none, self.shown = self.bounds
        self.given, self.codes = self.array(0), self.array(1)
        self.out, self.out_apart = self.array(2)
        self.states = [self.array(3, 3 * which)[0] for which in range(3)]
        self.zero = ir.Constant(_FLOATS, [0.0] * LANES)

    def kept(self, which: int, fresh: Any, initial: Any) -> list[Any]:
        """Return variables with a state of each pixel: what is there already, or `initial`."""
        found = []
        for pointer in self.states[which]:
            place = cgutils.alloca_once(self.b, _FLOATS)
            with self.b.if_else(fresh) as (then, otherwise):
                with then:
                    self.b.store(initial, place)
                with otherwise:
                    self.b.store(self.load(pointer, _FLOATS), place)
            found.append(place)
        return found

    def emit_burst(self, steps: Any, fresh: Any) -> None:
        """Emit burst neurons: u = v + current; k = clip(⌊u / θ⌋, 0, ψ); v = u - θ·k."""
        b = self.b
        self.read()
        v_mem = self.kept(0, fresh, b.fmul(self.v_init, self.theta))
        fired = self.kept(2, _I1(0), self.zero)
        with cgutils.for_range(b, steps, intp=_I64) as loop:
            for m in range(self.pixels):
                u = b.fadd(b.load(v_mem[m]), self.current(loop.index, m))
                k = self.least(self.most(self.floor(b.fdiv(u, self.theta)), self.zero), self.max_burst)
                b.store(b.fsub(u, b.fmul(self.theta, k)), v_mem[m])
                b.store(b.fadd(b.load(fired[m]), k), fired[m])
                self.emit_count(loop.index, m, k)
        self.emit_states((0, v_mem), (2, fired))

    def emit_signed(self, steps: Any, fresh: Any, done: Any) -> None:
        """Emit signed neurons, which never emit more than `upper` times the timesteps so far."""
        b = self.b
        self.read()
        net, total = self.kept(0, fresh, self.zero), self.kept(1, fresh, self.zero)
        fired, least = self.kept(2, _I1(0), self.zero), b.fneg(self.max_burst)
        magnitude = self._function(f"llvm.fabs.v{LANES}f32", _FLOATS, _FLOATS)
        with cgutils.for_range(b, steps, intp=_I64) as loop:
            number = b.sitofp(b.add(b.add(done, loop.index), _I64(1)), _FLOAT)
            bound = b.fmul(self.upper, self._every(number, _FLOATS))
            for m in range(self.pixels):
                b.store(b.fadd(b.load(total[m]), self.current(loop.index, m)), total[m])
                aim = self.least(self.most(b.load(total[m]), self.zero), bound)
                wanted = self.floor(b.fadd(b.fdiv(aim, self.theta), self.v_init))
                k = b.fsub(wanted, b.load(net[m]))
                k = self.least(self.most(k, least), self.max_burst)
                b.store(b.fadd(b.load(net[m]), k), net[m])
                b.store(b.fadd(b.load(fired[m]), b.call(magnitude, [k])), fired[m])
                self.emit_count(loop.index, m, k)
        self.emit_states((0, net), (1, total), (2, fired))

    def emit_count(self, step: Any, pixel: int, k: Any) -> None:
        """Emit the writing of spikes as counts."""
        b = self.b
        code = b.trunc(b.fptosi(b.fadd(k, self.shown), _INTS), _CODES)
        self.store(code, b.gep(self.out[pixel], [b.mul(step, self.out_apart)]))

    def emit_states(self, *kept: tuple[int, list[Any]]) -> None:
        """Emit the writing of states."""
        for which, places in kept:
            for pointer, place in zip(self.states[which], places, strict=True):
                self.store(self.b.load(place), pointer)


def _fire_of(pixels: int, masked: bool) -> Any:
    def fire(
        typing_context: Any,
        given: Any,
        codes: Any,
        out: Any,
        states: Any,
        of_channels: Any,
        bounds: Any,
        signed: Any,
        steps: Any,
        fresh: Any,
        done: Any,
        lanes: Any,
    ) -> Any:
        """Simulate the first `lanes` of 16 channels of some pixels over `steps` timesteps, of which `done` went before.

        Each array comes with where the first pixel begins there, and how far apart pixels and timesteps are.

        Args: given: currents float32. codes: counts that are added. out: counts uint8, filled. states: float32, v_mem
        or a signed neuron's count; the sum of its currents; spikes so far. of_channels: θ, bias, the spike of `codes`,
        float32 for each channel, and the first channel. bounds: float32, v0, ψ, what a signed neuron encodes at most,
        the code of no spike in `codes`, in `out`. fresh: whether neurons start now.
        """
        kinds = (given, codes, out, states, of_channels, bounds, signed, steps, fresh, done, lanes)
        made = types.void(*kinds)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            is_fresh = builder.icmp_signed("!=", arguments[8], _I64(0))
            with builder.if_else(builder.icmp_signed("!=", arguments[6], _I64(0))) as (then, otherwise):
                with then:
                    block = _Block(context, builder, signature, arguments, pixels, masked)
                    block.emit_signed(arguments[7], is_fresh, arguments[9])
                with otherwise:
                    block = _Block(context, builder, signature, arguments, pixels, masked)
                    block.emit_burst(arguments[7], is_fresh)
            return context.get_dummy_value()

        return made, codegen

    return intrinsic(fire)


_several, _single, _some = _fire_of(PIXELS, False), _fire_of(1, False), _fire_of(1, True)


@numba.njit(nogil=True, error_model="numpy")
def fire(
    given: tuple[Floats, int, int, int],
    codes: tuple[Bytes, int, int, int],
    out: tuple[Bytes, int, int, int],
    states: tuple[Floats, int, int, Floats, int, int, Floats, int, int],
    of_channels: tuple[Floats, Floats, Floats, int],
    bounds: tuple[np.float32, np.float32, np.float32, np.float32, np.float32],
    size: tuple[int, int],
    signed: int,
    steps: int,
    fresh: int,
    done: int,
) -> None:
    """Simulate neurons [pixels, channels] of a `size`; see `_fire_of`."""
    pixels, channels = size
    a, a_at, a_pixel, a_step = given
    b, b_at, b_pixel, b_step = codes
    o, o_at, o_pixel, o_step = out
    v, v_at, v_pixel, s, s_at, s_pixel, f, f_at, f_pixel = states
    theta, bias, unit, first = of_channels
    p = 0
    while p < pixels:
        several = channels % LANES == 0 and p + PIXELS <= pixels
        for c in range(0, channels, LANES):
            x = (a, a_at + p * a_pixel + c, a_pixel, a_step)
            y = (b, b_at + p * b_pixel + c, b_pixel, b_step)
            z = (o, o_at + p * o_pixel + c, o_pixel, o_step)
            kept = (
                v, v_at + p * v_pixel + c, v_pixel, s, s_at + p * s_pixel + c, s_pixel, f, f_at + p * f_pixel + c,
                f_pixel,
            )  # fmt: skip
            shared, lanes = (theta, bias, unit, first + c), channels - c
            if several:
                _several(x, y, z, kept, shared, bounds, signed, steps, fresh, done, lanes)
            elif lanes < LANES:
                _some(x, y, z, kept, shared, bounds, signed, steps, fresh, done, lanes)
            else:
                _single(x, y, z, kept, shared, bounds, signed, steps, fresh, done, lanes)
        p += PIXELS if several else 1
