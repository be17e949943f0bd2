import numpy as np
import pytest

from snncc.errors import DataError
from snncc.events import columns


def test_a_file_of_more_events_than_are_read(tmp_path) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(b"x")
    columns.check_count(columns.MAX_EVENTS, path)
    with pytest.raises(DataError, match=r"a\.dat holds 536,870,913 events, more than .* cut the recording"):
        columns.check_count(columns.MAX_EVENTS + 1, path)


@pytest.mark.parametrize(("before", "after"), [(7, 3), (4, 0), (3, 7), (3, 0)])
def test_a_fall_by_more_than_half_the_range_is_a_wrap(before: int, after: int) -> None:
    # A clock of 3 bits: half its range is 4. What falls less is left for the check of the order.
    wrapped = after - before < -4
    found = columns.unwrap(np.array([before, after], np.int64), 3)
    assert found.tolist() == [before, after + 8 * wrapped]


def test_unwrapping_a_counter_gives_back_the_times() -> None:
    times = np.cumsum(np.random.default_rng(0).integers(0, 7, 500)).astype(np.int64)
    assert (columns.unwrap(times & 15, 4) == times).all()
