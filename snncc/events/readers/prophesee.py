"""Prophesee's files: `.dat` (decoded events, also of N-Cars) and `.raw` (EVT 2.0 and EVT 3.0), after its documentation.

Both begin with lines of text, `% keyword value`. In a `.dat` two bytes follow, the type and the size of an event, then
events of 8 bytes, little-endian: 32 bits of time in microseconds, 14 bits x, 14 bits y, 4 bits polarity.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np

from snncc.errors import DataError
from snncc.events.columns import Columns, check_count, sensor_size, truncated, unwrap
from snncc.events.readers.evt import Evt2Decoder, Evt3Decoder

MAX_HEADER_BYTES = 1 << 16
CD_TYPES = (0x00, 0x0C)
"""Event2d and EventCD."""
DAT_EVENT_BYTES = 8
_CHUNK_WORDS = 1 << 18


def read_dat(path: Path) -> Columns:
    """Read a `.dat` file.

    Raises:
        DataError: it is truncated, of another version, or holds other events.
    """
    with path.open("rb") as stream:
        header = _read_header(stream, path)
        version = header.get("version", "2")
        if version != "2":
            raise DataError(f"{path} is a .dat of version {version[:20]}: only version 2 is read; convert the file")
        kind = stream.read(2)
        start = stream.tell()
    if len(kind) < 2:
        raise truncated(path, "nothing follows its header")
    if kind[0] not in CD_TYPES or kind[1] != DAT_EVENT_BYTES:
        raise DataError(
            f"{path} holds events of type {kind[0]:#04x} with {kind[1]} bytes each: only change detection events "
            f"(type 0x00 or 0x0c, {DAT_EVENT_BYTES} bytes) are read; export those"
        )
    size = path.stat().st_size - start
    if size % DAT_EVENT_BYTES:
        raise truncated(path, f"{size:,} bytes after the header are no whole number of {DAT_EVENT_BYTES}-byte events")
    check_count(size // DAT_EVENT_BYTES, path)
    words = np.fromfile(path, "<u4", offset=start).reshape(-1, 2)
    address = words[:, 1]
    t = unwrap(words[:, 0].astype(np.int64), 32)
    x = (address & 0x3FFF).astype(np.uint16)
    y = (address >> 14 & 0x3FFF).astype(np.uint16)
    # Four bits, of which only the lowest is in use.
    return Columns(x, y, t, (address >> 28 & 1).astype(np.bool_), "Prophesee DAT", _size(header, path))


def read_raw(path: Path) -> Columns:
    """Read a `.raw` file.

    Raises:
        DataError: it is truncated or of another encoding.
    """
    with path.open("rb") as stream:
        header = _read_header(stream, path)
        start = stream.tell()
    encoding = _encoding(header, path)
    decoder: Evt2Decoder | Evt3Decoder = Evt2Decoder() if encoding == "2.0" else Evt3Decoder()
    width = decoder.dtype.itemsize
    size = path.stat().st_size - start
    if size % width:
        raise truncated(path, f"{size:,} bytes after the header are no whole number of {width}-byte words")
    pieces, count = [], 0
    # Piece by piece, as decoding takes several times the memory of what comes out.
    for offset in range(0, size, _CHUNK_WORDS * width):
        piece = decoder.decode(np.fromfile(path, decoder.dtype, _CHUNK_WORDS, offset=start + offset))
        count += len(piece[0])
        check_count(count, path)
        pieces.append(piece)
    if not pieces:
        raise truncated(path, "nothing follows its header")
    x, y, t, p = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return Columns(x, y, unwrap(t, decoder.time_bits), p, f"EVT {encoding}", _size(header, path))


def _read_header(stream: IO[bytes], path: Path) -> dict[str, str]:
    """Read the lines of text at the head; keywords in lower case."""
    header: dict[str, str] = {}
    while True:
        start = stream.tell()
        if start > MAX_HEADER_BYTES:
            raise DataError(f"{path}: its header is longer than {MAX_HEADER_BYTES:,} bytes: the file is damaged")
        line = stream.readline(4096)
        if not line.startswith(b"% ") and line.strip() != b"%":
            stream.seek(start)
            break
        if not line.endswith(b"\n"):
            raise truncated(path, "it ends within its header")
        keyword, _, value = line[2:].decode("latin-1").strip().partition(" ")
        if keyword.lower() == "end":
            break
        header[keyword.lower()] = value.strip()
    if not header:
        raise DataError(
            f"{path} has no header of lines that begin with '%': it is no file of a Prophesee camera, or it is damaged"
        )
    return header


def _encoding(header: dict[str, str], path: Path) -> str:
    named = header.get("evt", "")
    if not named:
        formats = {"EVT2": "2.0", "EVT21": "2.1", "EVT3": "3.0"}
        named = formats.get(header.get("format", "").partition(";")[0].upper(), "")
    if named not in ("2.0", "3.0"):
        said = f"its encoding is EVT {named[:20]}" if named else "its header doesn't say its encoding"
        raise DataError(f"{path}: {said}; only EVT 2.0 and EVT 3.0 are read: convert it with Prophesee's tools")
    if "big" in (header.get("endianness", ""), _options(header).get("endianness", "")):
        raise DataError(f"{path} is big-endian; only little-endian files are read: convert it with Prophesee's tools")
    return named


def _options(header: dict[str, str]) -> dict[str, str]:
    """Return what follows the encoding in a line such as `% format EVT3;height=720;width=1280`."""
    parts = (part.partition("=") for part in header.get("format", "").split(";")[1:])
    return {key.strip(): value.strip() for key, _, value in parts}


def _size(header: dict[str, str], path: Path) -> tuple[int, int] | None:
    if "geometry" in header:
        width, _, height = header["geometry"].partition("x")
        return sensor_size(width, height, str(path))
    sides = {**_options(header), **header}
    if "width" in sides and "height" in sides:
        return sensor_size(sides["width"], sides["height"], str(path))
    return None
