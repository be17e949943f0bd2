from pathlib import Path

import pytest
from event_files import EVENTS, as_tuples, atis_bin, random_events, write

from snncc.errors import DataError
from snncc.events import read


def test_events_come_back(tmp_path: Path) -> None:
    events = read(write(tmp_path / "a.bin", atis_bin(EVENTS)))
    assert as_tuples(events) == list(EVENTS)
    assert (events.width, events.height, events.sensor_from, events.format) == (34, 34, "dataset", "ATIS 40 bits")


def test_the_published_layout_byte_by_byte(tmp_path: Path) -> None:
    # x = 17, y = 9, polarity 1, t = 0x123456: the highest bit of byte 2 is the polarity.
    assert as_tuples(read(write(tmp_path / "a.bin", bytes([17, 9, 0x80 | 0x12, 0x34, 0x56])))) == [
        (0x123456, 17, 9, True)
    ]


@pytest.mark.parametrize(("x", "y", "size"), [(33, 33, (34, 34)), (34, 0, (240, 180)), (0, 180, (304, 240))])
def test_the_smallest_sensor_that_holds_all_events(tmp_path: Path, x: int, y: int, size: tuple[int, int]) -> None:
    events = read(write(tmp_path / "a.bin", atis_bin([(1, x, y, True)])))
    assert (events.width, events.height) == size


def test_a_clock_of_23_bits_that_wraps_goes_on(tmp_path: Path) -> None:
    lap = 1 << 23
    expected = [(lap - 2, 1, 1, True), (lap + 3, 1, 1, True), (2 * lap - 1, 2, 2, False), (2 * lap, 3, 3, False)]
    assert as_tuples(read(write(tmp_path / "a.bin", atis_bin(expected)))) == expected


def test_row_240_stands_for_an_overflow_of_the_timer(tmp_path: Path) -> None:
    stored = [(100, 1, 1, True), (200, 0, 240, False), (210, 2, 2, True), (300, 0, 240, False), (301, 3, 3, True)]
    expected = [(100, 1, 1, True), (210 + 8192, 2, 2, True), (301 + 2 * 8192, 3, 3, True)]
    assert as_tuples(read(write(tmp_path / "a.bin", atis_bin(stored)))) == expected


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_a_truncated_file(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "digit.bin", atis_bin(EVENTS)[:cut])
    with pytest.raises(DataError, match=r"digit\.bin is truncated.*no whole number of events of 5 bytes; copy"):
        read(path)


def test_only_overflows_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no events"):
        read(write(tmp_path / "a.bin", atis_bin([(1, 0, 240, True)])))


def test_many_events(tmp_path: Path) -> None:
    expected = random_events(5000, 240, 180, 20_000_000)
    assert as_tuples(read(write(tmp_path / "a.bin", atis_bin(expected)))) == expected
