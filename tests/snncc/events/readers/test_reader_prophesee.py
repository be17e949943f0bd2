from pathlib import Path

import pytest
from event_files import EVENTS, as_tuples, dat, evt2, evt3, evt3_words, random_events, raw_header, write

from snncc.errors import DataError
from snncc.events import read
from snncc.events.readers import prophesee


def test_dat(tmp_path: Path) -> None:
    events = read(write(tmp_path / "a.dat", dat(EVENTS)))
    assert as_tuples(events) == list(EVENTS)
    assert (events.width, events.height, events.sensor_from) == (34, 34, "header")


def test_dat_of_n_cars_without_a_size(tmp_path: Path) -> None:
    header = "% Data file containing CD events.\n% Version 2\n"
    events = read(write(tmp_path / "a.dat", dat([(1, 99, 41, True)], header, b"\x00\x08")))
    assert (events.width, events.height, events.sensor_from) == (100, 42, "coordinates")


def test_dat_whose_clock_of_32_bits_wraps_goes_on(tmp_path: Path) -> None:
    lap = 1 << 32
    expected = [(lap - 1, 0, 0, True), (lap, 1, 1, False), (lap + 9, 2, 2, True)]
    assert as_tuples(read(write(tmp_path / "a.dat", dat(expected)))) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dat(EVENTS)[:-3], "is truncated.*no whole number of 8-byte events"),
        (dat([], kind=b""), "is truncated.*nothing follows its header"),
        (dat([]), "holds no events"),
        (dat(EVENTS, "% Version 1\n"), "of version 1: only version 2"),
        (dat(EVENTS, kind=b"\x0e\x08"), "type 0x0e.*only change detection events"),
        (dat(EVENTS, "% Version 2\n% Width 0\n% Height 99999999\n"), "declares a sensor of 0x99999999"),
        (dat(EVENTS, ""), "has no header"),
        (b"% Version 2", "ends within its header"),
        (b"% a\n" * 20_000, "header is longer than"),
        (dat([(1, 34, 0, True)]), r"event 0 has x=34, outside the sensor of 34x34.*--sensor"),
        (dat([(9, 0, 0, True), (3, 0, 0, True)]), "runs backwards at event 1, from 9 to 3 µs.*--sort"),
    ],
)
def test_bad_dat(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.dat.*{message}"):
        read(write(tmp_path / "a.dat", content))


def test_evt2(tmp_path: Path) -> None:
    events = read(write(tmp_path / "a.raw", raw_header("2.0") + evt2(EVENTS)))
    assert as_tuples(events) == list(EVENTS)
    assert (events.width, events.height, events.format) == (34, 34, "EVT 2.0")


def test_evt2_of_34_bits_wraps_and_other_words_are_left_out(tmp_path: Path) -> None:
    lap = 1 << 34
    expected = [(lap - 70, 1, 1, True), (lap + 70, 2, 2, False)]
    others = evt3([0, 0xA000, 0, 0xE000, 0, 0xF000])  # a trigger and vendors' words, as 16-bit halves
    content = raw_header("2.0") + evt2(expected[:1]) + others + evt2(expected[1:])
    assert as_tuples(read(write(tmp_path / "a.raw", content))) == expected


def test_evt2_before_the_first_time_has_none(tmp_path: Path) -> None:
    content = raw_header("2.0") + evt2([(1, 5, 5, True)])[4:] + evt2([(64, 6, 6, True)])
    assert as_tuples(read(write(tmp_path / "a.raw", content))) == [(64, 6, 6, True)]


def test_evt3(tmp_path: Path) -> None:
    events = read(write(tmp_path / "a.raw", raw_header("3.0") + evt3(evt3_words(EVENTS))))
    assert as_tuples(events) == list(EVENTS)
    assert events.format == "EVT 3.0"


def test_evt3_vectors_move_their_base_and_single_events_dont(tmp_path: Path) -> None:
    words = [0x8000, 0x6064, 0x0005, 0x3800 | 20, 0x4000 | 0b1000_0000_0101, 0x5000 | 0b11, 0x2000 | 9, 0x4001]
    expected = [(100, x, 5, True) for x in (20, 22, 31, 32, 33)] + [(100, 9, 5, False), (100, 40, 5, True)]
    assert as_tuples(read(write(tmp_path / "a.raw", raw_header("3.0", "64x34") + evt3(words)))) == expected


def test_evt3_new_high_bits_clear_the_low_ones_and_repeated_ones_dont(tmp_path: Path) -> None:
    words = [0x8000, 0x6064, 0x0001, 0x2001, 0x8000, 0x2002, 0x8001, 0x2003, 0x6005, 0x2004]
    expected = [(100, 1, 1, False), (100, 2, 1, False), (4096, 3, 1, False), (4101, 4, 1, False)]
    assert as_tuples(read(write(tmp_path / "a.raw", raw_header("3.0") + evt3(words)))) == expected


def test_evt3_of_24_bits_wraps(tmp_path: Path) -> None:
    lap = 1 << 24
    expected = [(lap - 1, 1, 1, True), (lap + 1, 2, 2, False), (2 * lap - 5, 3, 3, True), (2 * lap, 4, 4, True)]
    assert as_tuples(read(write(tmp_path / "a.raw", raw_header("3.0") + evt3(evt3_words(expected))))) == expected


def test_evt3_before_time_row_or_base_is_left_out(tmp_path: Path) -> None:
    words = [0x2001, 0x8000, 0x6001, 0x2002, 0x0003, 0x4001, 0x2004]
    assert as_tuples(read(write(tmp_path / "a.raw", raw_header("3.0") + evt3(words)))) == [(1, 4, 3, False)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_pieces_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    expected = random_events(400, 34, 34, 100_000)
    vectors = [0x8000 | 99_999 >> 12, 0x6000 | 99_999 & 0xFFF, 0x0007, 0x3800 | 2, 0x4FFF, 0x5081, 0x4001]
    monkeypatch.setattr(prophesee, "_CHUNK_WORDS", size)
    assert as_tuples(read(write(tmp_path / "2.raw", raw_header("2.0") + evt2(expected)))) == expected
    content = raw_header("3.0") + evt3(evt3_words(expected) + vectors)
    drawn = [(99_999, x, 7, True) for x in (*range(2, 14), 14, 21, 22)]
    assert as_tuples(read(write(tmp_path / "3.raw", content))) == expected + drawn


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (raw_header("2.0") + evt2(EVENTS)[:-1], "is truncated.*4-byte words"),
        (raw_header("3.0") + evt3(evt3_words(EVENTS))[:-1], "is truncated.*2-byte words"),
        (raw_header("3.0"), "is truncated.*nothing follows its header"),
        (raw_header("3.0") + evt3([0x8000, 0x6000]), "holds no events"),
        (raw_header("2.1") + bytes(16), "its encoding is EVT 2.1; only EVT 2.0 and EVT 3.0"),
        (b"% format EVT21;height=720;width=1280\n% end\n" + bytes(16), "EVT 2.1"),
        (b"% date 2020\n% end\n" + bytes(16), "doesn't say its encoding"),
        (b"% evt 3.0\n% endianness big\n% end\n" + bytes(16), "is big-endian"),
        (raw_header("3.0", "0x7") + bytes(16), "declares a sensor of 0x7"),
        (bytes(64), "has no header"),
        (raw_header("3.0") + evt3([0x8000, 0x6000, 0x0001, 0x3000] + [0x4FFF] * 9000), "outside the sensor"),
        (b"% evt 3.0\n% end\n" + evt3([0x8000, 0x6000, 0x0001, 0x3000] + [0x4FFF] * 9000), "beyond any sensor"),
    ],
)
def test_bad_raw(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.raw.*{message}"):
        read(write(tmp_path / "a.raw", content))


def test_the_size_in_the_line_of_the_format(tmp_path: Path) -> None:
    content = b"% format EVT3;height=72;width=128\n% end\n" + evt3(evt3_words(EVENTS))
    events = read(write(tmp_path / "a.raw", content))
    assert (events.width, events.height) == (128, 72)
