import struct
from pathlib import Path

import pytest
from event_files import EVENTS, aedat2, aedat3, aedat3_packet, as_tuples, random_events, write

from snncc.errors import DataError
from snncc.events import read

DVS128 = "ch.unizh.ini.jaer.chip.retina.DVS128"


@pytest.mark.parametrize(
    ("chip", "size"),
    [
        ("eu.seebetter.ini.chips.davis.DAVIS240C", (240, 180)),
        ("eu.seebetter.ini.chips.davis.Davis240B", (240, 180)),
        (DVS128, (128, 128)),
        (None, (128, 128)),
    ],
)
def test_aedat2(tmp_path: Path, chip: str | None, size: tuple[int, int]) -> None:
    events = read(write(tmp_path / "a.aedat", aedat2(EVENTS, chip)))
    assert as_tuples(events) == list(EVENTS)
    assert ((events.width, events.height), events.format) == (size, "AEDAT 2.0")


def test_aedat2_leaves_out_frames_inertia_and_pins(tmp_path: Path) -> None:
    frame, pin = struct.pack(">II", 1 << 31 | 5 << 12, 7), struct.pack(">II", 1 << 10, 8)
    content = aedat2(EVENTS[:1]) + frame + pin + aedat2(EVENTS[1:]).split(b"DAVIS240C\r\n")[1]
    assert as_tuples(read(write(tmp_path / "a.aedat", content))) == list(EVENTS)


def test_aedat2_whose_clock_of_32_bits_wraps_goes_on(tmp_path: Path) -> None:
    # Signed: after 2^31 - 1 comes -2^31.
    half = 1 << 31
    times = [half - 2, half + 2, 2 * half - 1, 2 * half]
    events = read(write(tmp_path / "a.aedat", aedat2([(t, 1, 1, True) for t in times], DVS128)))
    assert events.t.tolist() == times


def test_aedat3(tmp_path: Path) -> None:
    other, gone = aedat3_packet(EVENTS[:3], kind=0), aedat3_packet(EVENTS[:1], valid=0)
    content = aedat3(aedat3_packet(EVENTS[:4]), other, gone, aedat3_packet(EVENTS[4:]))
    events = read(write(tmp_path / "a.aedat", content))
    assert as_tuples(events) == list(EVENTS)
    assert (events.width, events.height, events.format) == (128, 128, "AEDAT 3.1")


def test_aedat3_counts_the_overflows_of_31_bits(tmp_path: Path) -> None:
    lap = 1 << 31
    packets = aedat3_packet([(lap - 1, 1, 1, True)]), aedat3_packet([(5, 2, 2, False)], overflow=1)
    assert read(write(tmp_path / "a.aedat", aedat3(*packets))).t.tolist() == [lap - 1, lap + 5]


def test_many_events(tmp_path: Path) -> None:
    expected = random_events(3000, 128, 128, 10_000_000)
    assert as_tuples(read(write(tmp_path / "2.aedat", aedat2(expected, DVS128)))) == expected
    assert as_tuples(read(write(tmp_path / "3.aedat", aedat3(aedat3_packet(expected))))) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (aedat2(EVENTS)[:-2], "is truncated.*no whole number of 8-byte events"),
        (aedat2([]), "holds no events"),
        (aedat2(EVENTS, "my.own.Chip"), r"camera 'my\.own\.Chip', whose addresses aren't known; known are DVS128"),
        (aedat2([(1, 5, -20, True)]), "event 0 has row 199 from the bottom, outside the 240x180"),
        (aedat2([(1, 300, 5, True)]), "event 0 has x=300, outside the sensor of 240x180"),
        (aedat2([(9, 1, 1, True), (3, 1, 1, True)]), "runs backwards"),
        (aedat2(EVENTS).replace(b"DAT2.0", b"DAT1.0"), "of AEDAT 1.0; AEDAT 2.0, 3.1 and 4.0 are read"),
        (b"hello", "doesn't begin with the version line"),
        (aedat3(aedat3_packet(EVENTS))[:-5], "is truncated.*declares 7 events of 8 bytes"),
        (aedat3(aedat3_packet(EVENTS), bytes(9)), "is truncated.*within the header of a packet"),
        (aedat3(struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, 2**31 - 1, 1)), "declares 2147483647 events"),
        (aedat3(struct.pack("<hhiiiiii", 1, 1, 0, 4, 0, 1, 1, 1)), "events of 0 bytes"),
        (aedat3(struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, -1, 1)), "declares -1 events"),
        (aedat3(aedat3_packet(EVENTS), form="SerializedTS"), "'SerializedTS': only RAW"),
        (aedat3().replace(b"#!END-HEADER\r\n", b""), "'#!END-HEADER' is missing"),
        (aedat3(aedat3_packet(EVENTS), source="DVS128").replace(b"DVS128", b"DVS999")[:-1], "is truncated"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.aedat.*{message}"):
        read(write(tmp_path / "a.aedat", content))
