"""Time and memory of reading recordings of a million events into frames, by format."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.events import Slicing, count_frames, read

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import signature

Columns = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
WIDTH, HEIGHT = 240, 180


def make(count: int, rate: float = 1e6, seed: int = 0) -> Columns:
    """Return x, y, t and p of a moving bar with noise: a million events per second."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, round(count / rate * 1e6), count))
    bar = (t * 0.2e-3 % WIDTH + rng.normal(0, 3, count)).clip(0, WIDTH - 1)
    x = np.where(rng.random(count) < 0.8, bar, rng.integers(0, WIDTH, count)).astype(np.int64)
    return x, rng.integers(0, HEIGHT, count), t, rng.integers(0, 2, count)


def write_bin(path: Path, columns: Columns) -> None:
    """Write the format of N-MNIST; its clock wraps around after 8.4 s."""
    x, y, t, p = columns
    t = t & 0x7FFFFF
    np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], axis=1).astype(np.uint8).tofile(path)


def write_dat(path: Path, columns: Columns) -> None:
    """Write Prophesee's `.dat`."""
    x, y, t, p = columns
    body = np.stack([t, x | y << 14 | p << 28], axis=1).astype("<u4").tobytes()
    path.write_bytes(f"% Version 2\n% Width {WIDTH}\n% Height {HEIGHT}\n".encode() + b"\x0c\x08" + body)


def _interleave(columns: list[NDArray[Any]], keep: list[NDArray[np.bool_]]) -> NDArray[Any]:
    """Return words row by row, without those that aren't kept."""
    kept: NDArray[Any] = np.stack(columns, axis=1)[np.stack(keep, axis=1)]
    return kept


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.concatenate([[True], np.diff(values) != 0])


def write_evt2(path: Path, columns: Columns) -> None:
    """Write Prophesee's `.raw` in EVT 2.0."""
    x, y, t, p = columns
    words = _interleave(
        [8 << 28 | t >> 6, p << 28 | (t & 63) << 22 | x << 11 | y], [_changes(t >> 6), np.full(len(t), True)]
    )
    path.write_bytes(f"% evt 2.0\n% geometry {WIDTH}x{HEIGHT}\n% end\n".encode() + words.astype("<u4").tobytes())


def write_evt3(path: Path, columns: Columns) -> None:
    """Write Prophesee's `.raw` in EVT 3.0, without vectors."""
    x, y, t, p = columns
    high, low = t >> 12 & 0xFFF, t & 0xFFF
    keep = [_changes(high), _changes(t), _changes(y), np.full(len(t), True)]
    words = _interleave([8 << 12 | high, 6 << 12 | low, y, 2 << 12 | p << 11 | x], keep)
    path.write_bytes(f"% evt 3.0\n% geometry {WIDTH}x{HEIGHT}\n% end\n".encode() + words.astype("<u2").tobytes())


def write_aedat2(path: Path, columns: Columns) -> None:
    """Write AEDAT 2.0 of a DAVIS240."""
    x, y, t, p = columns
    head = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n"
    body = np.stack([(HEIGHT - 1 - y) << 22 | x << 12 | p << 11, t], axis=1).astype(">u4").tobytes()
    path.write_bytes(head + body)


def write_npz(path: Path, columns: Columns) -> None:
    """Write an `.npz` with small dtypes."""
    x, y, t, p = columns
    np.savez(path, x=x.astype(np.uint16), y=y.astype(np.uint16), t=t, p=p.astype(bool), width=WIDTH, height=HEIGHT)


def write_hdf5(path: Path, columns: Columns) -> None:
    """Write HDF5 in the layout of DSEC, with gzip."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, column, dtype in zip("xytp", columns, ("u2", "u2", "u4", "u1"), strict=True):
            file.create_dataset(f"events/{name}", data=column.astype(dtype), compression="gzip", compression_opts=1)
        file["t_offset"] = 0


WRITERS: dict[str, tuple[str, Callable[[Path, Columns], None]]] = {
    "ATIS 40 bits": (".bin", write_bin),
    "DAT": (".dat", write_dat),
    "EVT 2.0": (".raw", write_evt2),
    "EVT 3.0": (".raw", write_evt3),
    "AEDAT 2.0": (".aedat", write_aedat2),
    "npz": (".npz", write_npz),
    "HDF5, gzip": (".h5", write_hdf5),
}


def frames(path: Path, bins: int) -> int:
    """Read a recording into frames, and return how many events they hold."""
    return round(float(count_frames(read(path, sensor=(WIDTH, HEIGHT)), Slicing(bins=bins)).sum()))


def peak(path: Path, bins: int) -> int:
    """Return the most memory that reading into frames takes at a time."""
    tracemalloc.start()
    frames(path, bins)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def main() -> None:
    """Write the recordings into a temporary folder, read them in turn, and print a row per format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="events per recording (default: a million)")
    parser.add_argument("--bins", type=int, default=10, help="frames per recording (default: 10)")
    parser.add_argument("--rounds", type=int, default=7, help="times that each is measured (default: 7)")
    options = parser.parse_args()
    if min(options.events, options.bins, options.rounds) < 1:
        parser.error("--events, --bins and --rounds must be at least 1")
    times: dict[str, list[float]] = {name: [] for name in WRITERS}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for factor in (1, 4):
            columns = make(options.events * factor)
            for name, (suffix, write) in WRITERS.items():
                files[name, factor] = Path(folder) / f"{name} {factor}{suffix}"
                write(files[name, factor], columns)
        for _ in range(options.rounds):
            for name in WRITERS:
                start = time.perf_counter()
                count = frames(files[name, 1], options.bins)
                times[name].append(time.perf_counter() - start)
                if count != options.events:
                    sys.exit(f"{name}: {count:,} events in the frames instead of {options.events:,}")
        print(
            f"{options.events:,} events into {options.bins} frames of {WIDTH}x{HEIGHT}; "
            f"medians of {options.rounds} rounds"
        )
        print(f"{'format':14}{'file':>10}{'time':>10}{'peak memory':>14}{'per event':>12}{'of 4 times as many':>22}")
        for name in WRITERS:
            one, four = (peak(files[name, factor], options.bins) for factor in (1, 4))
            size, seconds = files[name, 1].stat().st_size, statistics.median(times[name])
            more = f"{(four - one) / 3 / options.events:.1f} B more each"
            per = f"{one / options.events:.1f} B"
            print(f"{name:14}{size / 1e6:7.1f} MB{1e3 * seconds:7.1f} ms{one / 1e6:11.1f} MB{per:>12}{more:>22}")
    print(signature())


if __name__ == "__main__":
    main()
