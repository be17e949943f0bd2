"""HDF5: datasets x, y, t and p, in a group `events` as in DSEC, or at the root.

DSEC (Gehrig et al., 2021) stores times less `t_offset`, which is added here, and an index `ms_to_idx` of milliseconds,
which isn't needed to read all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.errors import DataError
from snncc.events.columns import Columns, check_count, microseconds, need, pixel_axis, polarity, sensor_size
from snncc.graph import first_line

NAMES = ("x", "y", "t", "p")
_FAR = 1 << 61


def read_hdf5(path: Path) -> Columns:
    """Read a `.h5` file.

    Raises:
        DataError: it is truncated, damaged, lacks a dataset, or reaches into other files.
        UsageError: h5py isn't installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise need("h5py", path, "an HDF5 file") from error
    try:
        import hdf5plugin  # noqa: F401 (registers the Blosc filters of DSEC)
    except ImportError:
        plugins = False
    else:
        plugins = True
    try:
        # Without a file's lock: others may be reading it, and the folder may be read-only.
        with h5py.File(path, "r", locking=False) as file:
            return _read(file, path)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = first_line(error)
        if not plugins and "filter" in reason:
            raise need("hdf5plugin", path, f"a filter of this HDF5 file ({reason})") from error
        raise DataError(f"{path} can't be read as HDF5 ({reason}): it may be truncated; copy it again") from error


def _read(file: Any, path: Path) -> Columns:
    import h5py

    if "events" in _own(file, path) and isinstance(file["events"], h5py.Group):
        group, where = file["events"], f"{path}: events/"
    else:
        group, where = file, f"{path}: "
    missing = [name for name in NAMES if name not in _own(group, path)]
    if missing:
        hint = "Prophesee's HDF5 must be converted to .dat or .raw" if "CD" in file else "rename its datasets"
        raise DataError(
            f"{path} holds {', '.join(sorted(group)[:8]) or 'nothing'} where x, y, t and p are wanted; {hint}"
        )
    columns = _columns({name: group[name] for name in NAMES}, path, where)
    t = microseconds(columns["t"], f"{where}t")
    if "t_offset" in _own(file, path):
        t = t + _offset(file["t_offset"], t, path)
    size = None
    if {"width", "height"} <= set(group.attrs):
        size = sensor_size(group.attrs["width"], group.attrs["height"], str(path))
    x, y = pixel_axis(columns["x"], f"{where}x"), pixel_axis(columns["y"], f"{where}y")
    return Columns(x, y, t, polarity(columns["p"], f"{where}p"), "HDF5", size)


def _offset(dataset: Any, t: NDArray[np.int64], path: Path) -> int:
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.shape not in ((), (1,)) or dataset.external:
        raise DataError(f"{path}: t_offset must be a single number, in microseconds; store it so")
    offset = int(microseconds(np.asarray(dataset[()]).reshape(1), f"{path}: t_offset")[0])
    if abs(offset) > _FAR or (len(t) and int(np.abs(t).max()) > _FAR):
        raise DataError(f"{path}: t and t_offset overflow 64 bits; the file is damaged")
    return offset


def _own(group: Any, path: Path) -> Any:
    """Return the group's names, after a check that none leads into another file of the reader's disk."""
    import h5py

    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            raise DataError(f"{path}: '{name}' is a link into another file, which is refused; copy the data into this")
    return group


def _columns(datasets: dict[str, Any], path: Path, where: str) -> dict[str, NDArray[Any]]:
    import h5py

    for name, dataset in datasets.items():
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1 or dataset.dtype.kind not in "iufb":
            raise DataError(f"{where}{name} must be a dataset of numbers, one per event; store it so")
        if dataset.external or dataset.is_virtual:
            raise DataError(f"{where}{name} is stored in another file, which is refused; copy the data into this one")
        # The size is checked first: a dataset of any size can be declared and never written.
        check_count(dataset.shape[0], path, compressed=True)
    sizes = {name: dataset.shape[0] for name, dataset in datasets.items()}
    if len(set(sizes.values())) != 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(
            f"{where[:-1]} datasets differ in length ({listed}); the file is damaged or still being written"
        )
    return {name: np.asarray(dataset[()]) for name, dataset in datasets.items()}
