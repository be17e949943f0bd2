"""Events as lines of text, as a pipe delivers them: in pieces, and with mistakes."""

from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest

from snncc.errors import DataError
from snncc.events.live import read_lines


def columns(text: bytes, sensor: tuple[int, int] = (10, 8)) -> list[list[int]]:
    parts = list(read_lines(io.BytesIO(text), sensor))
    return [np.concatenate([getattr(p, c) for p in parts]).astype(int).tolist() for c in "txyp"]


def test_lines_are_events() -> None:
    assert columns(b"5 1 2 0\n7 9 7 1\n\n8 3 3 -1\n9 0 0 1") == [[5, 7, 8, 9], [1, 9, 3, 0], [2, 7, 3, 0], [0, 1, 0, 1]]


def test_pieces_of_a_pipe_are_put_together() -> None:
    text = b"".join(b"%d %d %d %d\n" % (i, i % 10, i % 8, i % 2) for i in range(5000))
    reading, writing = os.pipe()

    def send() -> None:
        with os.fdopen(writing, "wb", buffering=0) as out:
            for start in range(0, len(text), 777):
                out.write(text[start : start + 777])

    sender = threading.Thread(target=send)
    sender.start()
    with os.fdopen(reading, "rb") as stream:
        parts = list(read_lines(stream, (10, 8)))
    sender.join()
    assert sum(map(len, parts)) == 5000
    np.testing.assert_array_equal(np.concatenate([p.t for p in parts]), np.arange(5000))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"1 2 3\n", "'1 2 3' is no event"),
        (b"1 2 3 0\nx 2 3 1\n", "'x 2 3 1' is no event"),
        (b"1 2 3 0 4\n", "is no event"),
        (b"99999999999999999999999 2 3 0\n", "is no event"),
        (b"1 2.5 3 0\n", "is no event"),
        (b"1 10 3 0\n", "outside the sensor of 10x8"),
        (b"1 -1 3 0\n", "outside the sensor"),
        (b"1 1 3 7\n", "polarity"),
        (b"5 1 1 0\n4 1 1 0\n", "backwards"),
        (b"7" * 5000, "more than 200 bytes"),
        (b"\xff\xfe 1 2 0\n", "is no event"),
    ],
)
def test_mistakes_are_named(text: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        columns(text)


def test_nothing_arrives() -> None:
    assert list(read_lines(io.BytesIO(b""), (4, 4))) == []
