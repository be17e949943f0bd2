import numpy as np
import pytest
from event_files import EVENTS, as_tuples, columns

from snncc.errors import DataError, UsageError
from snncc.events import Events


def recording(**changes: object) -> Events:
    made = columns(EVENTS)
    made["t"], made["p"] = made["t"].astype(np.int64), made["p"].astype(bool)
    return Events(**{**made, "width": 34, "height": 34, "source": "here", **changes})


def test_times() -> None:
    events = recording()
    assert (events.start, events.stop, events.duration, len(events)) == (5, 70_002, 69_997, 7)
    assert events.nbytes == 7 * (2 + 2 + 8 + 1)
    assert "7 events, 34x34" in repr(events)


def test_parts_share_memory() -> None:
    events = recording()
    part = events.between(5, 4098)
    assert as_tuples(part) == list(EVENTS[:4])
    assert np.shares_memory(part.t, events.t)
    assert as_tuples(events.part(4, 7)) == list(EVENTS[4:])
    with pytest.raises(DataError, match="here holds no events"):
        events.between(6, 130)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"width": 33}, DataError, "event 2 has x=33, outside the sensor of 33x34 pixels"),
        ({"height": 33}, DataError, "event 3 has y=33, outside the sensor of 34x33 pixels"),
        ({"width": 0}, UsageError, "sensor size is 0x34: each side must be from 1"),
        ({"height": 1 << 15}, UsageError, "each side must be from 1 to 16384"),
        ({"t": np.array([0, 1, 2, 9, 4, 5, 4])}, DataError, r"at event 4, from 9 to 4 µs \(2 such place"),
        ({"p": np.zeros(6, bool)}, DataError, r"columns differ in shape .*p \[6\]"),
    ],
)
def test_what_doesnt_fit(changes: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        recording(**changes)
