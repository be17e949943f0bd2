import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from event_files import EVENTS, atis_bin, dat, write
from PIL import Image

Invoke = Callable[..., Result]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`digits/` with classes 0 (two recordings) and 1 (one, and a truncated one)."""
    monkeypatch.chdir(tmp_path)
    for name in ("0", "1"):
        (tmp_path / "digits" / name).mkdir(parents=True)
    write(tmp_path / "digits/0/a.bin", atis_bin(EVENTS))
    write(tmp_path / "digits/0/b.bin", atis_bin(EVENTS[:4]))
    write(tmp_path / "digits/1/c.bin", atis_bin(EVENTS[2:]))
    write(tmp_path / "digits/1/d.bin", atis_bin(EVENTS)[:-2])
    return tmp_path / "digits"


def test_a_recording(dataset: Path, invoke: Invoke) -> None:
    result = invoke("events", dataset / "0/a.bin")
    assert result.exit_code == 0, result.stderr
    for text in ("ATIS 40 bits", "34x34 pixels", "70.0 ms, from 5 µs on", "57.1 % ON, 42.9 % OFF", "7 of 1,156"):
        assert text in result.stdout
    facts = json.loads(invoke("events", dataset / "0/a.bin", "--json", "--sensor", "50x40").stdout)
    assert (facts["events"], facts["sensor"]) == (7, {"width": 50, "height": 40, "from": "given"})


def test_a_folder_names_and_counts_what_is_broken(dataset: Path, invoke: Invoke) -> None:
    result = invoke("events", "digits")
    assert result.exit_code == 0
    assert "d.bin is truncated" in result.stderr
    assert "1 recording of 4 left out" in result.stderr
    facts = json.loads(invoke("events", "digits", "--json").stdout)
    assert [(c["class"], c["recordings"], c["events"]) for c in facts["classes"]] == [("0", 2, 11), ("1", 1, 5)]
    assert [left["path"] for left in facts["left_out"]] == ["digits/1/d.bin"]
    strict = invoke("events", "digits", "--strict")
    assert (strict.exit_code, strict.stdout) == (1, "")
    assert "d.bin is truncated" in strict.stderr


def test_frames_with_labels(dataset: Path, invoke: Invoke) -> None:
    result = invoke("events", "digits", "--bins", 3, "--layout", "samples", "-o", "out.npz")
    assert result.exit_code == 0, result.stderr
    assert "wrote out.npz: events [9, 2, 34, 34], label [9]" in result.stdout
    with np.load("out.npz") as made:
        assert made["label"].tolist() == [0] * 6 + [1] * 3
        assert made["events"].dtype == np.float32
        assert made["events"].reshape(3, -1).sum(axis=1).tolist() == [7, 4, 5]


def test_frames_that_a_recording_is_too_short_for(dataset: Path, invoke: Invoke) -> None:
    result = invoke("events", "digits", "--window", "30ms", "--representation", "surface", "-o", "out.npz", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["output"]["shapes"] == {"events": [2, 2, 2, 34, 34], "label": [2]}
    reasons = {Path(left["path"]).name: left["reason"] for left in facts["left_out"]}
    assert "less than a window of 30,000 µs" in reasons["b.bin"]
    strict = invoke("events", "digits", "--window", "30ms", "-o", "other.npz", "--strict")
    assert strict.exit_code == 1
    assert not Path("other.npz").exists()


def test_limit_takes_from_all_classes(dataset: Path, invoke: Invoke) -> None:
    facts = json.loads(invoke("events", "digits", "--limit", 2, "--json").stdout)
    assert [c["recordings"] for c in facts["classes"]] == [1, 1]


def test_an_animation(dataset: Path, invoke: Invoke) -> None:
    result = invoke("events", dataset / "0/a.bin", "--plot", "a.gif", "--window", "10ms")
    assert result.exit_code == 0, result.stderr
    with Image.open("a.gif") as image:
        # Pillow joins equal frames into one that is shown longer: of the six only the first holds events.
        pauses = [image.seek(number) or image.info["duration"] for number in range(image.n_frames)]
    assert pauses == [500, 2500]
    assert sorted(path.name for path in Path().iterdir()) == ["a.gif", "digits"], "no temporary file stays"


def test_a_plot_that_fails_leaves_nothing(dataset: Path, invoke: Invoke) -> None:
    Path("a.gif").write_bytes(b"before")
    result = invoke("events", dataset / "0/a.bin", "--plot", "a.gif", "--window", "1s")
    assert result.exit_code == 1
    assert "less than a window" in result.stderr
    assert Path("a.gif").read_bytes() == b"before"
    result = invoke("events", dataset / "0/a.bin", "--plot", "a.gif", "--bins", "601", "-o", "a.npz")
    assert result.exit_code == 2, "an animation of so many frames"
    assert not Path("a.npz").exists(), "half of what was asked for"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.bin"], 1, "'none.bin' doesn't exist"),
        (["digits/1/d.bin"], 1, "is truncated"),
        (["digits/0/a.bin", "--sensor", "20x20"], 1, "outside the sensor of 20x20"),
        (["digits/0/a.bin", "--sensor", "20"], 2, "is no size: give width and height"),
        (["digits/0/a.bin", "--sensor", "0x20"], 2, "sensor size is 0x20"),
        (["digits/0/a.bin", "--window", "10", "--plot", "a.gif"], 2, "is no time: give it with its unit"),
        (["digits/0/a.bin", "--window", "0.1us"], 2, "less than a microsecond"),
        (["digits/0/a.bin", "--bins", "3", "--count", "3"], 2, "given by bins, count"),
        (["digits/0/a.bin", "--bins", "0"], 2, "bins is 0"),
        (["digits/0/a.bin", "-o", "a.npz"], 2, "--output needs --bins, --window or --count"),
        (["digits/0/a.bin", "-o", "a.npy", "--bins", "3"], 2, "must end in .npz"),
        (["digits/0/a.bin", "-o", "no/a.npz", "--bins", "3"], 1, "there is no directory 'no'"),
        (["digits/0/a.bin", "-o", "a.npz", "--window", "5ms", "--representation", "voxel"], 2, "voxel grid covers"),
        (["digits/0/a.bin", "--plot", "a.pdf"], 2, "must end in .png, .svg or .gif"),
        (["digits", "--plot", "a.gif"], 2, "draws one recording"),
        (["digits", "--limit", "0"], 2, "--limit is 0"),
        (["digits", "--count", "4", "-o", "a.npz"], 0, "left out"),
        (["digits", "--count", "2", "-o", "a.npz"], 1, "need --bins, or --layout samples"),
    ],
)
def test_bad_input(dataset: Path, invoke: Invoke, arguments: list[str], code: int, message: str) -> None:
    result = invoke("events", *arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_the_recording_itself_is_no_output(dataset: Path, invoke: Invoke) -> None:
    np.savez("in.npz", **{name: np.zeros(3, int) for name in "xytp"})
    result = invoke("events", "in.npz", "--bins", 1, "-o", "in.npz")
    assert result.exit_code == 2
    assert "would be overwritten" in result.stderr
    inside = dataset / "0" / "e.npz"
    Path("in.npz").rename(inside)
    before = inside.read_bytes()
    result = invoke("events", dataset, "--bins", 1, "-o", inside)
    assert result.exit_code == 2
    assert "is part of the recording, which would be overwritten" in result.stderr
    assert inside.read_bytes() == before


def test_events_out_of_order(dataset: Path, invoke: Invoke) -> None:
    path = write(dataset / "x.dat", dat(EVENTS[::-1]))
    refused = invoke("events", path)
    assert refused.exit_code == 1
    assert "--sort" in refused.stderr
    assert invoke("events", path, "--sort").exit_code == 0
