"""Work on all chunks of the calibration samples, several at a time.

The chunks keep the cores busy better than a pool of threads inside each ONNX Runtime session: there is nothing to wait
for between the nodes, and NumPy's share of the work runs side by side too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

from snncc.runtime.threads import available_cores

R = TypeVar("R")


class ChunkPool:
    """Applies a function to each chunk, in as many threads as there are cores.

    Results come in the order of the chunks, so that sums over them don't depend on which thread was first.

    Attributes:
        chunks: number of chunks.
        session_threads: size of an ONNX Runtime session's own thread pool; more than 1 if there are few chunks.
    """

    def __init__(self, chunks: int, cores: int | None = None) -> None:
        cores = cores or available_cores()
        workers = max(1, min(chunks, cores))
        self.chunks, self._workers = chunks, workers
        # The threads that call a session work too; what its pool adds are the cores that they leave idle.
        self.session_threads = cores - workers + 1
        self._executor = ThreadPoolExecutor(workers, "snncc-chunk") if workers > 1 else None

    def __enter__(self) -> ChunkPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def each(self, work: Callable[[int], R]) -> list[R]:
        """Return `work(chunk)` for every chunk; raises what the first chunk that failed raised."""
        return self._run(work, range(self.chunks))

    def shares(self, work: Callable[[range], R]) -> list[R]:
        """Return `work(chunks)` for as many shares of the chunks as there are threads, at least one.

        How many that are depends on the machine: the result must not depend on how the chunks are put together.
        """
        return self._run(work, [range(i, self.chunks, self._workers) for i in range(self._workers)])

    def _run(self, work: Callable[[Any], R], parts: Sequence[Any]) -> list[R]:
        run = map if self._executor is None else self._executor.map
        return list(run(work, parts))
