"""Models that travel to where they run: a job may be scored in another process or on another machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from snncc.runtime.session import Array, Session


class DeferredSession:
    """A model that becomes a session when it first runs; without the session it can be pickled."""

    def __init__(self, model: onnx.ModelProto, what: str, threads: int = 0) -> None:
        """Keep a model; see `snncc.runtime.session.Session`."""
        self._model, self._what, self._threads = model.SerializeToString(), what, threads
        self._session: Session | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_session": None}

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model and return its outputs by name; see `Session.run`."""
        if self._session is None:
            self._session = Session(onnx.ModelProto.FromString(self._model), self._what, self._threads)
        return self._session.run(feeds, outputs)
