"""Models that travel to where they run: a job may be scored in another process or on another machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from snncc.packed import pack
from snncc.runtime.session import Array, Session


class DeferredSession:
    """A model that becomes a session when it first runs; without the session it can be pickled."""

    def __init__(self, model: onnx.ModelProto, what: str, threads: int = 0) -> None:
        """Keep a model; see `snncc.runtime.session.Session`."""
        self._model, self._what, self._threads = pack(model), what, threads
        self._session: Session | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_session": None}

    def load(self, threads: int | None = None) -> Session:
        """Return the session, made if it isn't there yet, with a thread pool of this size instead of the given one."""
        if self._session is None:
            size = self._threads if threads is None else threads
            self._session = Session(self._model, self._what, size)
        return self._session

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model and return its outputs by name; see `Session.run`."""
        return self.load().run(feeds, outputs)
