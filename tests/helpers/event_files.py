"""Files of event cameras, written event by event from the specifications: slow, and independent of the readers.

An event is (t, x, y, on): microseconds, column, row from the top, polarity.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Event = tuple[int, int, int, bool]

EVENTS: tuple[Event, ...] = (
    (5, 3, 2, True),
    (5, 0, 0, False),
    (130, 33, 1, True),
    (4097, 20, 33, False),
    (4098, 21, 33, False),
    (70_000, 33, 33, True),
    (70_001, 12, 7, True),
)
"""Events that fit all formats and a sensor of 34x34."""


def random_events(count: int, width: int, height: int, duration: int, seed: int = 0) -> list[Event]:
    """Events at random places and times, in the order of time."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, duration, count))
    xs, ys, on = rng.integers(0, width, count), rng.integers(0, height, count), rng.integers(0, 2, count)
    return [(int(t), int(x), int(y), bool(p)) for t, x, y, p in zip(times, xs, ys, on, strict=True)]


def as_tuples(events: Any) -> list[Event]:
    """The events of a recording that was read."""
    columns = (events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist())
    return list(zip(*columns, strict=True))


def atis_bin(events: Iterable[Event]) -> bytes:
    """N-MNIST: 8 bits x, 8 bits y, 1 bit polarity, 23 bits time, big-endian."""
    return b"".join((x << 32 | y << 24 | on << 23 | t % (1 << 23)).to_bytes(5, "big") for t, x, y, on in events)


def dat(
    events: Iterable[Event], header: str = "% Version 2\n% Width 34\n% Height 34\n", kind: bytes = b"\x0c\x08"
) -> bytes:
    """Prophesee .dat: 32 bits time, then 14 bits x, 14 bits y, 4 bits polarity, little-endian."""
    body = b"".join(struct.pack("<II", t % (1 << 32), x | y << 14 | on << 28) for t, x, y, on in events)
    return header.encode() + kind + body


def raw_header(encoding: str, size: str = "34x34") -> bytes:
    """The text at the head of a .raw."""
    return f"% evt {encoding}\n% format EVT{encoding[0]}\n% geometry {size}\n% end\n".encode()


def evt2(events: Iterable[Event]) -> bytes:
    """The words of EVT 2.0."""
    words, high = [], None
    for t, x, y, on in events:
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 28 | high % (1 << 28))
        words.append(int(on) << 28 | (t & 0x3F) << 22 | x << 11 | y)
    return struct.pack(f"<{len(words)}I", *words)


def evt3_words(events: Iterable[Event]) -> list[int]:
    """The words of EVT 3.0, without vectors."""
    words: list[int] = []
    state: dict[str, int | None] = {"high": None, "low": None, "y": None}
    for t, x, y, on in events:
        high, low = t >> 12 & 0xFFF, t & 0xFFF
        if high != state["high"]:
            words.append(0x8 << 12 | high)
            state["low"] = None
        if low != state["low"]:
            words.append(0x6 << 12 | low)
        if y != state["y"]:
            words.append(y)
        words.append(0x2 << 12 | int(on) << 11 | x)
        state = {"high": high, "low": low, "y": y}
    return words


def evt3(words: Sequence[int]) -> bytes:
    """Words of EVT 3.0 as bytes."""
    return struct.pack(f"<{len(words)}H", *words)


def aedat2(events: Iterable[Event], chip: str | None = "eu.seebetter.ini.chips.davis.DAVIS240C") -> bytes:
    """AEDAT 2.0 of a DVS128 (128 rows) or a DAVIS240 (180 rows): rows count from the bottom."""
    davis = chip is not None and "DAVIS" in chip.upper()
    lines = ["#!AER-DAT2.0", "# This is a raw AE data file - do not edit"] + (
        [] if chip is None else [f"# AEChip: {chip}"]
    )
    body = []
    for t, x, y, on in events:
        address = (179 - y) << 22 | x << 12 | on << 11 if davis else (127 - y) << 8 | x << 1 | on
        body.append(struct.pack(">II", address, t % (1 << 32)))
    return "".join(f"{line}\r\n" for line in lines).encode() + b"".join(body)


def aedat3_packet(events: Sequence[Event], overflow: int = 0, kind: int = 1, valid: int = 1) -> bytes:
    """A packet of AEDAT 3.1: header of 28 bytes, then 8 bytes per event."""
    body = b"".join(struct.pack("<II", x << 17 | y << 2 | on << 1 | valid, t % (1 << 31)) for t, x, y, on in events)
    return struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, len(events), len(events), len(events) * valid) + body


def aedat3(*packets: bytes, source: str = "DVS128", form: str = "RAW") -> bytes:
    """A file of AEDAT 3.1."""
    head = f"#!AER-DAT3.1\r\n#Format: {form}\r\n#Source 1: {source}\r\n#Start-Time: 2016-01-01\r\n#!END-HEADER\r\n"
    return head.encode() + b"".join(packets)


def _table(fields: Sequence[bytes | None], identifier: bytes) -> bytes:
    """A FlatBuffer with one table whose fields are numbers (4 or 8 bytes) or, after a 'V', vectors or texts."""
    inline, later = [], []
    vtable_size = 4 + 2 * len(fields)
    at, offsets = 4, []
    for field in fields:
        if field is None:
            offsets.append(0)
            continue
        value = b"\0\0\0\0" if field[:1] == b"V" else field
        at += -at % len(value)
        offsets.append(at)
        inline.append((at, field, value))
        at += len(value)
    table = bytearray(at)
    root = 8 + vtable_size
    root += -root % 8
    end = root + at
    for place, field, value in inline:
        if field[:1] == b"V":
            count, content = struct.unpack("<I", field[1:5])[0], field[5:]
            end += -(end + 4) % 8
            later.append((end, struct.pack("<I", count) + content))
            value = struct.pack("<I", end - (root + place))
            end += 4 + len(content)
        table[place : place + len(value)] = value
    vtable_at = root - vtable_size
    table[0:4] = struct.pack("<i", root - vtable_at)
    out = bytearray(end)
    out[0:8] = struct.pack("<I", root) + identifier
    out[vtable_at:root] = struct.pack(f"<{2 + len(fields)}H", vtable_size, at, *offsets)
    out[root : root + at] = table
    for place, content in later:
        out[place : place + len(content)] = content
    return bytes(out)


def vector(count: int, content: bytes) -> bytes:
    """A vector or text as a field of a table."""
    return b"V" + struct.pack("<I", count) + content


STREAMS = (
    '<dv version="2.0"><node name="outInfo" path="/"><node name="{number}" path="/0/">'
    '<attr key="typeIdentifier" type="string">EVTS</attr>'
    '<node name="info" path="/0/info/"><attr key="sizeX" type="int">34</attr>'
    '<attr key="sizeY" type="int">34</attr></node></node></node></dv>'
)


def aedat4_packet(events: Sequence[Event]) -> bytes:
    """The FlatBuffer of a packet of events with its size before it, not compressed."""
    content = b"".join(struct.pack("<qhh?3x", t, x, y, on) for t, x, y, on in events)
    table = _table([vector(len(events), content)], b"EVTS")
    return struct.pack("<I", len(table)) + table


def aedat4(packets: Sequence[tuple[int, bytes]], compression: int = 0, xml: str = STREAMS.format(number=0)) -> bytes:
    """A file of AEDAT 4.0 of packets that are compressed already, each with the number of its stream."""
    text = xml.encode()
    fields = [struct.pack("<i", compression), struct.pack("<q", -1), vector(len(text), text)]
    header = _table(fields, b"IOHE")
    body = b"".join(struct.pack("<ii", number, len(packet)) + packet for number, packet in packets)
    return b"#!AER-DAT4.0\r\n" + struct.pack("<i", len(header)) + header + body


def columns(events: Sequence[Event]) -> dict[str, Any]:
    """x, y, t and p as arrays of the dtypes of DSEC."""
    t, x, y, on = (np.array(column) for column in zip(*events, strict=True))
    return {"x": x.astype(np.uint16), "y": y.astype(np.uint16), "t": t.astype(np.uint32), "p": on.astype(np.uint8)}


def write(path: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content)
    return path
