import random
from pathlib import Path

import numpy as np
import pytest
from event_files import (
    EVENTS,
    aedat2,
    aedat3,
    aedat3_packet,
    aedat4,
    aedat4_packet,
    as_tuples,
    atis_bin,
    columns,
    dat,
    evt2,
    evt3,
    evt3_words,
    random_events,
    raw_header,
    write,
)

from snncc.errors import DataError, SnnccError, UsageError
from snncc.events import read

SHUFFLED = [EVENTS[i] for i in (0, 2, 1, 3, 5, 4, 6)]
FILES = {
    "a.bin": atis_bin(EVENTS),
    "a.dat": dat(EVENTS),
    "2.raw": raw_header("2.0") + evt2(EVENTS),
    "3.raw": raw_header("3.0") + evt3(evt3_words(EVENTS)),
    "2.aedat": aedat2(EVENTS),
    "3.aedat": aedat3(aedat3_packet(EVENTS)),
    "4.aedat4": aedat4([(0, aedat4_packet(EVENTS))]),
}


def test_sorting_is_stable_and_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", dat(SHUFFLED))
    with pytest.raises(DataError, match=r"runs backwards at event 2, from 130 to 5 µs \(2 such place"):
        read(path)
    assert as_tuples(read(path, sort=True)) == sorted(SHUFFLED, key=lambda event: event[0])
    # Enough events at few times that a sort that isn't stable would change their order.
    many = [(t % 3, x, y, on) for t, x, y, on in random_events(500, 34, 34, 10_000)]
    path = write(tmp_path / "many.dat", dat(many))
    assert as_tuples(read(path, sort=True)) == sorted(many, key=lambda event: event[0])


def test_the_size_that_is_given_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", dat(EVENTS))
    events = read(path, sensor=(50, 40))
    assert (events.width, events.height, events.sensor_from) == (50, 40, "given")
    with pytest.raises(DataError, match=r"a\.dat: event 2 has x=33, outside the sensor of 20x40 .*size from: given"):
        read(path, sensor=(20, 40))
    with pytest.raises(UsageError, match=r"a\.dat: sensor size is 0x40"):
        read(path, sensor=(0, 40))


@pytest.mark.parametrize("suffix", [".bin", ".dat", ".raw", ".aedat", ".aedat4", ".h5", ".npz"])
def test_empty_and_missing_files(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DataError, match="is empty; copy or record it again"):
        read(write(tmp_path / f"a{suffix}", b""))
    with pytest.raises(DataError, match="doesn't exist"):
        read(tmp_path / f"b{suffix}")
    (tmp_path / f"c{suffix}").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path / f"c{suffix}")


def test_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown kind \('\.mat'\); recordings end in \.bin, \.dat"):
        read(tmp_path / "a.mat")


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "A.BIN", atis_bin(EVENTS)))) == len(EVENTS)


@pytest.mark.parametrize("name", sorted(FILES))
def test_all_formats_give_the_same_columns(tmp_path: Path, name: str) -> None:
    events = read(write(tmp_path / name, FILES[name]))
    assert as_tuples(events) == list(EVENTS)
    assert [events.x.dtype, events.y.dtype, events.t.dtype, events.p.dtype] == ["u2", "u2", "i8", "?"]


def _altered(content: bytes, rnd: random.Random) -> bytes:
    altered = bytearray(content)
    match rnd.randrange(4):
        case 0:
            return content[: rnd.randrange(len(content))]
        case 1:
            for _ in range(rnd.randint(1, 12)):
                altered[rnd.randrange(len(altered))] = rnd.randrange(256)
        case 2:
            at = rnd.randrange(len(altered))
            altered[at : at + 4] = rnd.choice([b"\xff\xff\xff\x7f", b"\xff" * 4, bytes(4), b"\0\0\0\x80"])
        case _:
            at = rnd.randrange(len(altered))
            altered[at:at] = rnd.randbytes(rnd.randint(1, 40))
    return bytes(altered)


@pytest.mark.parametrize("name", [*sorted(FILES), "a.npz"])
def test_altered_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    content = FILES.get(name)
    if content is None:
        np.savez(tmp_path / "whole.npz", **columns(EVENTS))
        content = (tmp_path / "whole.npz").read_bytes()
    rnd, messages = random.Random(name), []
    for _ in range(300):
        path = write(tmp_path / name, _altered(content, rnd))
        try:
            events = read(path)
        except SnnccError as error:
            messages.append(str(error))
        else:
            assert 0 < len(events) < 10_000
    assert all(name in message for message in messages)
    assert len(messages) > 50, "alterations that do nothing test nothing"
