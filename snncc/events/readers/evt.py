"""Decoders of Prophesee's EVT 2.0 and EVT 3.0, after its documentation of the encodings; both work piece by piece."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Piece = tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.int64], NDArray[np.bool_]]
"""Columns x, y, t and p; times as the counter of the camera has them, which wraps around."""

_UNKNOWN = -1


class Evt2Decoder:
    """EVT 2.0: words of 32 bits, the upper 4 their type.

    0 and 1 are events (OFF and ON): 6 low bits of time, 11 bits x, 11 bits y. 8 holds the 28 high bits of the time of
    what follows. Triggers and vendors' words are left out.

    Attributes:
        dtype: of a word.
        time_bits: of the counter.
    """

    dtype = np.dtype("<u4")
    time_bits = 34

    def __init__(self) -> None:
        self._high = _UNKNOWN

    def decode(self, words: NDArray[Any]) -> Piece:
        """Decode the words that follow those decoded before."""
        kind = words >> 28
        high = _hold((words & 0x0FFFFFFF).astype(np.int32), kind == 8, self._high)
        # What comes before the first time has none.
        chosen = np.flatnonzero((kind <= 1) & (high != _UNKNOWN))
        if len(high):
            self._high = int(high[-1])
        event = words[chosen]
        t = high[chosen].astype(np.int64) << 6 | (event >> 22 & 0x3F)
        x, y = (event >> 11 & 0x7FF).astype(np.uint16), (event & 0x7FF).astype(np.uint16)
        return x, y, t, kind[chosen] == 1


class Evt3Decoder:
    """EVT 3.0: words of 16 bits, the upper 4 their type, that change a state or give events in it.

    0 sets y; 2 is an event with its x and polarity; 3 sets the x and the polarity of the vectors that follow; 4 and 5
    are vectors of 12 and 8 pixels, one bit each, and move that x on by as many; 6 and 8 set the 12 low and the 12 high
    bits of the time. New high bits clear the low ones. Triggers and vendors' words are left out.

    Attributes:
        dtype: of a word.
        time_bits: of the counter.
    """

    dtype = np.dtype("<u2")
    time_bits = 24

    def __init__(self) -> None:
        self._y = self._base = self._base_on = self._high = self._low = _UNKNOWN

    def decode(self, words: NDArray[Any]) -> Piece:
        """Decode the words that follow those decoded before."""
        if not len(words):
            return self._columns(*(np.zeros(0, np.int64),) * 4)
        kind, value = (words >> 12).astype(np.uint8), (words & 0xFFF).astype(np.int32)
        y = _hold(value & 0x7FF, kind == 0, self._y)
        t = self._times(kind, value)
        self._y = int(y[-1])
        known = (y != _UNKNOWN) & (t >= 0)
        single, vector = kind == 2, (kind == 4) | (kind == 5)
        if not (vector | (kind == 3)).any():
            chosen = np.flatnonzero(known & single)
            return self._columns(value[chosen] & 0x7FF, y[chosen], t[chosen], value[chosen] >> 11)
        base, base_on = self._bases(kind, value)
        chosen = np.flatnonzero(known & (single | (vector & (base != _UNKNOWN))))
        is_single = single[chosen]
        masks = np.where(is_single, 1, np.where(kind[chosen] == 5, value[chosen] & 0xFF, value[chosen]))
        first = np.where(is_single, value[chosen] & 0x7FF, base[chosen])
        on = np.where(is_single, value[chosen] >> 11, base_on[chosen])
        row, bit = np.nonzero(masks[:, None] >> np.arange(12, dtype=np.int32) & 1)
        at = chosen[row]
        return self._columns(first[row] + bit, y[at], t[at], on[row])

    @staticmethod
    def _columns(x: NDArray[Any], y: NDArray[Any], t: NDArray[Any], on: NDArray[Any]) -> Piece:
        # Vectors of a damaged file may reach far beyond the sensor: kept there, so that the check finds them.
        return np.minimum(x, 0xFFFF).astype(np.uint16), y.astype(np.uint16), t.astype(np.int64), on.astype(np.bool_)

    def _times(self, kind: NDArray[Any], value: NDArray[Any]) -> NDArray[np.int32]:
        """Return the time of every word; negative before the first high bits."""
        high = _hold(value, kind == 8, self._high)
        renewed = np.diff(high, prepend=np.int32(self._high)) != 0
        low = _hold(np.where(kind == 6, value, 0), (kind == 6) | renewed, max(self._low, 0))
        self._high, self._low = int(high[-1]), int(low[-1])
        times: NDArray[np.int32] = high << 12 | low  # negative where the high bits are
        return times

    def _bases(self, kind: NDArray[Any], value: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the x at which a vector would begin at every word, and its polarity."""
        sets = kind == 3
        base_on = _hold(value >> 11, sets, self._base_on)
        steps = np.where(kind == 4, 12, np.where(kind == 5, 8, 0)).cumsum()
        start = _hold((value & 0x7FF) - steps, sets, self._base)
        known = base_on != _UNKNOWN
        after = np.where(known, start + steps, _UNKNOWN)
        self._base_on, self._base = int(base_on[-1]), int(after[-1])
        moved = np.diff(steps, prepend=0)
        return np.where(known, after - moved, _UNKNOWN), base_on


def _hold(values: NDArray[Any], sets: NDArray[np.bool_], initial: int) -> NDArray[Any]:
    """Return at each place the value of the last place that sets one, `initial` before the first."""
    places = np.flatnonzero(sets)
    lengths = np.diff(places, prepend=0, append=len(sets))
    return np.repeat(np.concatenate([np.array([initial], values.dtype), values[places]]), lengths)
