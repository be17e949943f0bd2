"""Samples that don't depend on their batch: each gets bit for bit what it would get alone, however many run together.

A kernel may add up in another order when there are more rows: it has other loops for what is left over or isn't aligned
in memory, and more rows are spread over more threads. Nothing in ONNX Runtime rules that out, so it is tried: before
rows are run together for the first time, and before a number of rows is, random rows are run together and one by one,
by a session with one thread. Where a bit differs, rows run one by one from then on. All inputs are aligned alike.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import onnx

from snncc.errors import ModelError
from snncc.packed import pack
from snncc.runtime.buffers import aligned
from snncc.runtime.session import Array, Session

_TRIED = 16
"""Rows of which each is compared."""

_FIRST = 13
"""Rows of the first trial: an odd number, so that they lie in memory in many ways, and enough for a difference to show.

Rounding hides it in about every second row: where all that differs is the last bit of a mean, for example.
"""


class RowSession:
    """A model whose inputs and outputs enumerate samples along their first axis, run so that samples stay apart."""

    def __init__(self, model: onnx.ModelProto, what: str, threads: int, batched: set[str]) -> None:
        """Load the model.

        Args:
            model: the model; every output has samples along its first axis.
            what: what it is, for error messages.
            threads: size of the thread pool, 0 for one thread per core.
            batched: names of the inputs that have samples along their first axis; the others are the same for all.

        Raises:
            ModelError: ONNX Runtime can't load it.
        """
        packed = pack(model)  # the same weights for both sessions
        self._model, self._what, self._batched = None if threads == 1 else packed, what, batched
        self._session = Session(packed, what, threads)
        self._alone = self._session if threads == 1 else None
        self._together = {1} if threads == 1 else set()
        self._apart = False
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model and return its outputs by name; see `Session.run`."""
        rows = self._rows(feeds)
        if self._may_run_together(feeds, rows):
            return self._session.run({name: aligned(feeds[name]) for name in self._session.inputs})
        parts = [self._one().run(self._row(feeds, i)) for i in range(rows)]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def run_into(self, feeds: Mapping[str, Array], results: Mapping[str, Array]) -> None:
        """Run the model and write its outputs into arrays; see `Session.run_into`."""
        rows = self._rows(feeds)
        if self._may_run_together(feeds, rows):
            self._session.run_into({name: aligned(feeds[name]) for name in self._session.inputs}, results)
            return
        for i in range(rows):
            for name, value in self._one().run(self._row(feeds, i)).items():
                results[name][i : i + 1] = value

    def _rows(self, feeds: Mapping[str, Array]) -> int:
        return next((len(feeds[name]) for name in self._session.inputs if name in self._batched), 1)

    def _row(self, feeds: Mapping[str, Array], i: int) -> dict[str, Array]:
        return {n: aligned(feeds[n][i : i + 1] if n in self._batched else feeds[n]) for n in self._session.inputs}

    def _one(self) -> Session:
        """Return the session with one thread."""
        alone = self._alone
        if alone is None and self._model is not None:
            alone = self._alone = Session(self._model, self._what, 1)
        return alone or self._session

    def _may_run_together(self, feeds: Mapping[str, Array], rows: int) -> bool:
        if self._apart or rows in self._together:
            return not self._apart
        with self._lock:
            if not self._apart and rows not in self._together:
                is_first = rows > 1 and all(count == 1 for count in self._together)
                same = (not is_first or self._try(feeds, _FIRST)) and self._try(feeds, rows)
                self._apart = not same
                self._together.add(rows)
                if self._alone is not self._session and same:
                    self._alone = None  # its weights take memory
            return not self._apart

    def _try(self, feeds: Mapping[str, Array], rows: int) -> bool:
        """Return whether random rows run together are, bit for bit, what they are alone."""
        drawn = {name: self._drawn(name, feeds[name], rows) for name in self._session.inputs}
        chosen = sorted({0, 1, *range(max(0, rows - _TRIED // 2), rows), *range(0, rows, -(-rows // _TRIED * 2))})
        try:
            together = self._session.run(drawn)
            for i in [i for i in chosen if i < rows]:
                alone = self._one().run(self._row(drawn, i))
                if not all(_is_same(together[name][i : i + 1], alone[name]) for name in together):
                    return False
        except ModelError:  # random values may make no sense there; what is wrong with real ones is told when they run
            return False
        return True

    def _drawn(self, name: str, value: Array, rows: int) -> Array:
        if name in self._batched:
            shape = (rows, *value.shape[1:])
            if value.dtype.kind == "f":
                value = np.random.default_rng(0).standard_normal(shape, np.float32).astype(value.dtype)
            else:
                value = np.resize(value, shape)
        return aligned(value)


def _is_same(a: Array, b: Array) -> bool:
    """Whether two arrays hold the same bits, all NaNs taken as one."""
    if a.shape != b.shape:
        return False
    same = a == b
    if a.dtype.kind == "f":
        same = (same & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
    return bool(np.all(same))
