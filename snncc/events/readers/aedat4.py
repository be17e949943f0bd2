"""AEDAT 4.0, the format of iniVation's DV, after its documentation and the schemas of its FlatBuffers.

A header (a FlatBuffer: compression, place of the index, XML about the streams), then packets: 4 bytes stream, 4 bytes
size, and a compressed FlatBuffer. The few fields that are needed are read here, with every offset checked, and every
packet is unpacked up to a limit.
"""

from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.errors import DataError
from snncc.events.columns import Columns, check_count, microseconds, need, pixel_axis, sensor_size, truncated

MAGIC = b"#!AER-DAT4.0\r\n"
MAX_HEADER_BYTES = 16 << 20
MAX_PACKET_BYTES = 256 << 20
"""Most bytes that a packet may unpack to: 16 million events. DV writes packets of 10 ms."""
EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("padding", "V3")])
_COMPRESSION = {0: "none", 1: "lz4", 2: "lz4", 3: "zstandard", 4: "zstandard"}

Unpack = Callable[[bytes], bytes]


@dataclass(frozen=True)
class _Header:
    compression: int
    index: int
    xml: bytes
    start: int


def read_aedat4(path: Path) -> Columns:
    """Read the first stream of events of an AEDAT 4.0 file.

    Raises:
        DataError: it is truncated or damaged, or has no stream of events.
        UsageError: lz4 or zstandard isn't installed.
    """
    data = path.read_bytes()
    header = _header(data, path)
    stream, size = _event_stream(header.xml, path)
    unpack = _unpacker(header.compression, path)
    # The index of all packets stands at the end; -1 where the recording was interrupted.
    stop = header.index if header.start <= header.index <= len(data) else len(data)
    pieces, count, offset = [], 0, header.start
    while offset < stop:
        if offset + 8 > stop:
            raise truncated(path, f"it ends within the header of a packet at byte {offset:,}")
        number, length = struct.unpack_from("<ii", data, offset)
        offset += 8
        if length < 0 or offset + length > stop:
            raise truncated(path, f"the packet at byte {offset:,} declares {length:,} bytes, {stop - offset:,} follow")
        if number == stream:
            piece = _events(unpack(data[offset : offset + length]), f"{path}: packet at byte {offset:,}")
            count += len(piece)
            check_count(count, path, compressed=True)
            pieces.append(piece)
        offset += length
    events = np.concatenate(pieces) if pieces else np.empty(0, EVENT)
    x, y = (pixel_axis(events[axis], f"{path}: {axis}") for axis in ("x", "y"))
    return Columns(x, y, microseconds(events["t"], f"{path}: t"), events["p"] != 0, "AEDAT 4.0", size)


def _header(data: bytes, path: Path) -> _Header:
    at = len(MAGIC)
    if len(data) < at + 4:
        raise truncated(path, "it ends within its header")
    (length,) = struct.unpack_from("<i", data, at)
    start = at + 4 + length
    if not 8 <= length <= MAX_HEADER_BYTES or start > len(data):
        raise truncated(path, f"its header declares {length:,} bytes, {len(data) - at - 4:,} follow")
    table = _Table(data[at + 4 : start], str(path))
    compression = table.number(0, "<i", 0)
    return _Header(compression, table.number(1, "<q", -1), bytes(table.vector(2, 1)), start)


def _event_stream(xml: bytes, path: Path) -> tuple[int, tuple[int, int] | None]:
    """Return the number of the first stream of events, and its size."""
    # Entities can make a small document huge; DV writes none.
    if b"<!" in xml:
        raise DataError(f"{path}: the description of its streams declares XML entities, which are refused")
    try:
        root = ET.fromstring(xml.rstrip(b"\0").decode("utf-8"))  # noqa: S314 (no entities)
    except (ET.ParseError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: the description of its streams can't be read ({error}): it is damaged") from error
    for node in root.iter("node"):
        attributes = {attr.get("key"): attr.text or "" for attr in node.findall("attr")}
        name = node.get("name", "")
        if attributes.get("typeIdentifier") == "EVTS" and re.fullmatch(r"\d{1,9}", name):
            sides = {attr.get("key"): attr.text for attr in node.findall("node[@name='info']/attr")}
            known = "sizeX" in sides and "sizeY" in sides
            return int(name), sensor_size(sides["sizeX"], sides["sizeY"], str(path)) if known else None
    raise DataError(f"{path} has no stream of events; record it with the events of the camera switched on")


def _unpacker(compression: int, path: Path) -> Unpack:
    kind = _COMPRESSION.get(compression)
    if kind is None:
        raise DataError(f"{path}: its header declares the unknown compression {compression}: it is damaged")
    if kind == "none":
        return bytes

    def checked(work: Unpack, failure: type[Exception]) -> Unpack:
        def unpack(packet: bytes) -> bytes:
            try:
                unpacked = work(packet)
            except failure as error:
                raise DataError(f"{path}: a packet can't be unpacked ({error}): the file is damaged") from error
            if len(unpacked) > MAX_PACKET_BYTES:
                raise DataError(f"{path}: a packet unpacks to more than {MAX_PACKET_BYTES >> 20} MiB, and is refused")
            return unpacked

        return unpack

    try:
        if kind == "lz4":
            import lz4.frame

            return checked(
                lambda packet: lz4.frame.LZ4FrameDecompressor().decompress(packet, MAX_PACKET_BYTES + 1), RuntimeError
            )
        import zstandard

        reader = zstandard.ZstdDecompressor()
        return checked(lambda packet: reader.stream_reader(packet).read(MAX_PACKET_BYTES + 1), zstandard.ZstdError)
    except ImportError as error:
        raise need(kind, path, "an AEDAT 4 file compressed with it") from error


def _events(packet: bytes, where: str) -> NDArray[Any]:
    if len(packet) < 12 or packet[8:12] != b"EVTS":
        raise DataError(f"{where} holds no events, unlike the stream that it belongs to: the file is damaged")
    return np.frombuffer(_Table(packet[4:], where).vector(0, EVENT.itemsize), EVENT)


class _Table:
    """The root table of a FlatBuffer; each offset is checked, as nothing in the file is to be trusted."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._where = data, where
        self._at = self._read("<I", 0)
        self._fields = self._at - self._read("<i", self._at)
        self._size = self._read("<H", self._fields)

    def _read(self, form: str, at: int) -> int:
        if not 0 <= at <= len(self._data) - struct.calcsize(form):
            raise DataError(f"{self._where}: an offset leads outside it: the file is damaged")
        return int(struct.unpack_from(form, self._data, at)[0])

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        offset = self._read("<H", self._fields + entry) if entry + 2 <= self._size else 0
        return self._at + offset if offset else None

    def number(self, field: int, form: str, default: int) -> int:
        """Return a number, or what stands for one that isn't stored."""
        at = self._place(field)
        return default if at is None else self._read(form, at)

    def vector(self, field: int, item_bytes: int) -> memoryview:
        """Return the bytes of a vector or a text."""
        at = self._place(field)
        if at is None:
            return memoryview(b"")
        at += self._read("<I", at)
        length = self._read("<I", at) * item_bytes
        if at + 4 + length > len(self._data):
            raise DataError(f"{self._where} declares more than it holds: the file is damaged")
        return memoryview(self._data)[at + 4 : at + 4 + length]
