import struct
import sys
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from event_files import EVENTS, STREAMS, aedat4, aedat4_packet, as_tuples, random_events, write

from snncc.errors import DataError, UsageError
from snncc.events import columns as limits
from snncc.events import read
from snncc.events.readers import aedat4 as reader

PACK = {0: bytes, 1: lz4.frame.compress, 2: lz4.frame.compress, 3: zstandard.compress, 4: zstandard.compress}


@pytest.mark.parametrize("compression", sorted(PACK))
def test_events_come_back(tmp_path: Path, compression: int) -> None:
    pack = PACK[compression]
    packets = [(0, pack(aedat4_packet(EVENTS[:4]))), (3, b"frames"), (0, pack(aedat4_packet(EVENTS[4:])))]
    events = read(write(tmp_path / "a.aedat4", aedat4(packets, compression)))
    assert as_tuples(events) == list(EVENTS)
    assert (events.width, events.height, events.format, events.sensor_from) == (34, 34, "AEDAT 4.0", "header")


def test_the_index_at_the_end_is_no_packet(tmp_path: Path) -> None:
    content = aedat4([(0, aedat4_packet(EVENTS))])
    at = content.index(struct.pack("<q", -1))
    content = content[:at] + struct.pack("<q", len(content)) + content[at + 8 :] + b"the index"
    assert as_tuples(read(write(tmp_path / "a.aedat4", content))) == list(EVENTS)


def test_many_events_of_another_stream(tmp_path: Path) -> None:
    expected = random_events(5000, 34, 34, 10**13)
    content = aedat4([(7, lz4.frame.compress(aedat4_packet(expected)))], 1, STREAMS.format(number=7))
    assert as_tuples(read(write(tmp_path / "a.aedat4", content))) == expected


GOOD = aedat4([(0, aedat4_packet(EVENTS))])
BOMB = zstandard.compress(bytes(1 << 20))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD[:16], "ends within its header"),
        (GOOD[:40], "its header declares"),
        (GOOD[:-5], r"the packet at byte [\d,]+ declares"),
        (GOOD + b"1234", "ends within the header of a packet"),
        (GOOD[: -len(aedat4_packet(EVENTS)) - 8], "holds no events"),
        (aedat4([(0, b"short")]), "holds no events, unlike the stream"),
        (aedat4([(0, aedat4_packet(EVENTS))], 9), "unknown compression 9"),
        (aedat4([(0, b"no frame")], 1), "can't be unpacked"),
        (aedat4([(0, b"no frame")], 3), "can't be unpacked"),
        (aedat4([], xml="<dv>"), "description of its streams can't be read"),
        (aedat4([], xml="<!DOCTYPE x><dv/>"), "XML entities, which are refused"),
        (aedat4([], xml="<dv/>"), "has no stream of events"),
        (aedat4([(0, aedat4_packet([(-5, 40, 0, True)]))]), "x=40, outside the sensor of 34x34"),
        (aedat4([(0, aedat4_packet([(5, -1, 0, True)]))]), "x is -1 at event 0"),
        (aedat4([(0, aedat4_packet([(9, 0, 0, True), (3, 0, 0, True)]))]), "runs backwards"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.aedat4.*{message}"):
        read(write(tmp_path / "a.aedat4", content))


@pytest.mark.parametrize("at", range(4, 60, 2))
def test_no_offset_leads_outside_the_packet(tmp_path: Path, at: int) -> None:
    packet = bytearray(aedat4_packet(EVENTS[:2]))
    for value in (0xFFFF, 0x7FFF, 0x8000):
        struct.pack_into("<H", packet, at, value)
        try:
            read(write(tmp_path / "a.aedat4", aedat4([(0, bytes(packet))])))
        except DataError:
            continue


@pytest.mark.parametrize(("compression", "pack"), [(1, lz4.frame.compress), (3, zstandard.compress)])
def test_a_packet_that_unpacks_to_more_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: int, pack
) -> None:
    monkeypatch.setattr(reader, "MAX_PACKET_BYTES", 100_000)
    path = write(tmp_path / "a.aedat4", aedat4([(0, pack(bytes(200_000)))], compression))
    with pytest.raises(DataError, match="unpacks to more than"):
        read(path)


def test_more_events_than_a_file_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_EVENTS_PER_BYTE", 1)
    packet = zstandard.compress(aedat4_packet([(1, 1, 1, True)] * 70_000))
    with pytest.raises(DataError, match=r"declares 70,000 events in .* bytes, which no recording compresses to"):
        read(write(tmp_path / "a.aedat4", aedat4([(0, packet)], 3)))


@pytest.mark.parametrize(("compression", "module"), [(1, "lz4"), (3, "zstandard")])
def test_a_library_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: int, module: str
) -> None:
    path = write(tmp_path / "a.aedat4", aedat4([(0, PACK[compression](aedat4_packet(EVENTS)))], compression))
    for name in (module, f"{module}.frame"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"a\.aedat4.*needs {module}.*pip install 'snncc\[events\]'"):
        read(path)
