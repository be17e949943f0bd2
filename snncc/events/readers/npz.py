"""`.npz` archives with arrays x, y, t and p; optionally width and height. Pickle is never used."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path

from snncc.data.archive import NpzArchive
from snncc.errors import DataError
from snncc.events.columns import Columns, microseconds, pixel_axis, polarity, sensor_size

NAMES = ("x", "y", "t", "p")
SIDES = ("width", "height")
MAX_RATIO = 256
"""Most bytes per byte of the archive; zip alone allows a thousand, and far more in rarer encodings."""
HARMLESS_BYTES = 1 << 27


def read_npz(path: Path) -> Columns:
    """Read an `.npz` archive.

    Raises:
        DataError: it is damaged, lacks an array, or holds something else than numbers.
    """
    archive = NpzArchive(path)
    missing = [name for name in NAMES if name not in archive]
    if missing:
        raise DataError(
            f"{path} holds {', '.join(archive) or 'nothing'} where x, y, t and p are wanted, one value per event; "
            "rename its arrays"
        )
    _check_size(path, archive.keys())
    arrays = {name: archive[name] for name in NAMES}
    for name, array in arrays.items():
        if array.ndim != 1:
            raise DataError(f"{path}: {name} has the shape {list(array.shape)}: it must hold one value per event")
    size = None
    if all(side in archive for side in SIDES):
        size = sensor_size(archive["width"], archive["height"], str(path))
    where = {name: f"{path}: {name}" for name in NAMES}
    return Columns(
        pixel_axis(arrays["x"], where["x"]),
        pixel_axis(arrays["y"], where["y"]),
        microseconds(arrays["t"], where["t"]),
        polarity(arrays["p"], where["p"]),
        "npz",
        size,
    )


def _check_size(path: Path, keys: Collection[str]) -> None:
    """Check what the archive unpacks to before it is unpacked."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(archive.getinfo(f"{name}.npy").file_size for name in (*NAMES, *SIDES) if name in keys)
    if unpacked > max(MAX_RATIO * path.stat().st_size, HARMLESS_BYTES):
        raise DataError(
            f"{path} unpacks to {unpacked:,} bytes, which no recording compresses to (it may be made to exhaust "
            "memory); store it again from its source"
        )
