"""AEDAT 2.0 and 3.1, the formats of jAER and cAER, after iniVation's documentation.

AEDAT 2.0: events of 32 bits of address and 32 bits of time in microseconds, both big-endian and signed. What an
address means depends on the camera, which the header names. AEDAT 3.1: packets of events of one type, little-endian.
AEDAT 2.0 counts rows from the bottom: they are turned over, so that row 0 is the upper one as everywhere else.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import IO

import numpy as np

from snncc.errors import DataError
from snncc.events.columns import Columns, check_count, truncated, unwrap
from snncc.events.readers.aedat4 import read_aedat4

MAX_HEADER_BYTES = 16 << 20
"""jAER may dump all its preferences into the header."""
SENSORS = {
    "DVS128": (128, 128),
    "DAVIS128": (128, 128),
    "DAVIS208": (208, 192),
    "DAVIS240": (240, 180),
    "DAVIS346": (346, 260),
    "DAVIS640": (640, 480),
    "DVXPLORER": (640, 480),
    "EDVS": (128, 128),
}
"""Sizes by what the name of the camera begins with."""
POLARITY_TYPE = 1
_PACKET = struct.Struct("<hhiiiiii")
_VERSION = re.compile(rb"#!AER-DAT(\d+\.\d+)\s*$")


def read_aedat(path: Path) -> Columns:
    """Read a file of AEDAT 2.0, 3.1 or 4.0; its first line says which.

    Raises:
        DataError: it is truncated, damaged, of another version, or of a camera that isn't known.
        UsageError: a library for AEDAT 4 isn't installed.
    """
    with path.open("rb") as stream:
        found = _VERSION.match(stream.readline(64))
        version = found.group(1).decode() if found else "1.0"
        if version == "4.0":
            return read_aedat4(path)
        if version not in ("2.0", "3.1"):
            said = f"is of AEDAT {version}" if found else "doesn't begin with the version line of an AEDAT file"
            raise DataError(f"{path} {said}; AEDAT 2.0, 3.1 and 4.0 are read: convert it with jAER or DV")
        header = _read_header(stream, path, version)
        start = stream.tell()
    return _read_2(path, header, start) if version == "2.0" else _read_3(path, header, start)


def _read_header(stream: IO[bytes], path: Path, version: str) -> list[str]:
    lines: list[str] = []
    while True:
        start = stream.tell()
        if start > MAX_HEADER_BYTES:
            raise DataError(f"{path}: its header is longer than {MAX_HEADER_BYTES:,} bytes: the file is damaged")
        line = stream.readline(1 << 16)
        if version == "3.1" and line.startswith(b"#!END-HEADER"):
            return lines
        if not line.startswith(b"#"):
            stream.seek(start)
            if version == "3.1":
                raise truncated(path, "the line '#!END-HEADER' is missing")
            return lines
        lines.append(line.decode("latin-1").strip())


def _read_2(path: Path, header: list[str], start: int) -> Columns:
    size = path.stat().st_size - start
    if size % 8:
        raise truncated(path, f"{size:,} bytes after the header are no whole number of 8-byte events")
    check_count(size // 8, path)
    words = np.fromfile(path, ">u4", offset=start).reshape(-1, 2)
    address = words[:, 0].astype(np.uint32)
    t = unwrap(words[:, 1].view(">i4").astype(np.int64), 32)
    chip = next((line.split(":", 1)[1].strip() for line in header if re.match(r"#\s*AEChip\s*:", line)), None)
    width, height = _chip_size(chip, path)
    if (width, height) == (128, 128):
        kept = address >> 15 & 1 == 0  # the rest are pulses on a pin
        x, row, p = address >> 1 & 0x7F, address >> 8 & 0x7F, address & 1
    else:
        kept = (address >> 31 == 0) & (address >> 10 & 1 == 0)  # the rest are intensities, inertia and pins
        x, row, p = address >> 12 & 0x3FF, address >> 22 & 0x1FF, address >> 11 & 1
    outside = kept & (row >= height)
    if outside.any():
        index = int(np.argmax(outside))
        raise DataError(
            f"{path}: event {index} has row {row[index]} from the bottom, outside the {width}x{height} pixels of the "
            f"camera that its header names ({chip}); the file is damaged"
        )
    y = height - 1 - row[kept]
    columns = x[kept].astype(np.uint16), y.astype(np.uint16), t[kept], p[kept].astype(np.bool_)
    return Columns(*columns, "AEDAT 2.0", (width, height))


def _chip_size(chip: str | None, path: Path) -> tuple[int, int]:
    """Return the size of the sensor whose class in jAER the header names; without a name it is the DVS128."""
    if chip is None:
        return SENSORS["DVS128"]
    size = _size(chip.rsplit(".", 1)[-1])
    if size is None:
        raise DataError(
            f"{path} is of the camera '{chip[:80]}', whose addresses aren't known; known are {', '.join(SENSORS)}: "
            "export the recording as AEDAT 4 or .npz"
        )
    return size


def _size(name: str) -> tuple[int, int] | None:
    return next((size for known, size in SENSORS.items() if name.upper().startswith(known)), None)


def _read_3(path: Path, header: list[str], start: int) -> Columns:
    kind = next((line.split(":", 1)[1].strip() for line in header if line.startswith("#Format:")), "RAW")
    if kind != "RAW":
        raise DataError(f"{path} is of AEDAT 3.1 in the format '{kind[:20]}': only RAW is read; convert it with cAER")
    sources = [line.split(":", 1)[1].strip() for line in header if re.match(r"#Source -?\d+:", line)]
    data = np.fromfile(path, np.uint8, offset=start)
    pieces, offset = [np.zeros((0, 2), np.int64)], 0
    while offset < len(data):
        if offset + _PACKET.size > len(data):
            raise truncated(path, f"it ends within the header of a packet at byte {start + offset:,}")
        kind_id, _, width, _, overflow, _, count, _ = _PACKET.unpack_from(data.data, offset)
        offset += _PACKET.size
        if width < 8 or count < 0 or overflow < 0 or offset + width * count > len(data):
            raise truncated(path, f"the packet at byte {start + offset:,} declares {count} events of {width} bytes")
        if kind_id == POLARITY_TYPE:
            rows = data[offset : offset + width * count].reshape(count, width)
            words = np.ascontiguousarray(rows[:, :8]).view("<u4")
            valid = words[words[:, 0] & 1 == 1].astype(np.int64)
            valid[:, 1] |= overflow << 31
            pieces.append(valid)
        offset += width * count
    events = np.concatenate(pieces)
    check_count(len(events), path)
    word, t = events[:, 0], events[:, 1]
    x, y = (word >> 17 & 0x7FFF).astype(np.uint16), (word >> 2 & 0x7FFF).astype(np.uint16)
    return Columns(x, y, t.copy(), word >> 1 & 1 == 1, "AEDAT 3.1", _size(sources[0]) if sources else None)
