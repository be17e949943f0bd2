"""How long a call takes; shared by the scripts beside it."""

from __future__ import annotations

import time
from collections.abc import Callable

Work = Callable[[], object]


def seconds(work: Work, rest: float = 0.0) -> float:
    """Return how long a call takes.

    Args:
        work: the call.
        rest: seconds to wait before, so that the threads of an earlier one have stopped spinning.
    """
    time.sleep(rest)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
