"""Work on chunks: every chunk once, results in order, errors as they are."""

from __future__ import annotations

import threading

import pytest

from snncc.passes.chunk_pool import ChunkPool
from snncc.runtime.threads import available_cores


@pytest.mark.parametrize("cores", [1, 2, 3, 8, None])
@pytest.mark.parametrize("chunks", [0, 1, 2, 7])
def test_results_come_in_the_order_of_the_chunks(chunks: int, cores: int | None) -> None:
    with ChunkPool(chunks, cores) as pool:
        assert pool.each(lambda i: i * i) == [i * i for i in range(chunks)]


@pytest.mark.parametrize("cores", [1, 2, 3, 8, None])
@pytest.mark.parametrize("chunks", [0, 1, 2, 7])
def test_every_chunk_is_in_one_share(chunks: int, cores: int | None) -> None:
    with ChunkPool(chunks, cores) as pool:
        shares = pool.shares(list)
    assert len(shares) == max(1, min(chunks, cores or available_cores()))
    assert sorted(chunk for share in shares for chunk in share) == list(range(chunks))


def test_chunks_run_side_by_side() -> None:
    """Each of two waits for the other: one after the other they would never meet."""
    meeting = threading.Barrier(2, timeout=30)
    with ChunkPool(2, cores=2) as pool:
        assert sorted(pool.each(lambda _: meeting.wait())) == [0, 1]


@pytest.mark.parametrize(
    ("chunks", "cores", "threads"), [(8, 1, 1), (8, 2, 1), (8, 8, 1), (1, 2, 2), (2, 8, 7), (1, 1, 1)]
)
def test_sessions_get_the_cores_that_the_chunks_leave(chunks: int, cores: int, threads: int) -> None:
    with ChunkPool(chunks, cores) as pool:
        assert pool.session_threads == threads


@pytest.mark.parametrize("cores", [1, 4])
def test_the_first_failure_is_raised_and_the_pool_ends(cores: int) -> None:
    def work(chunk: int) -> int:
        if chunk in (2, 4):
            raise KeyError(chunk)
        return chunk

    before = threading.active_count()
    with pytest.raises(KeyError, match="2"), ChunkPool(6, cores) as pool:
        pool.each(work)
    assert threading.active_count() == before


def test_there_is_a_core() -> None:
    assert available_cores() >= 1
