"""`snncc stream` on a recording and on a pipe."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_networks import parse

NETWORK = """
g (float[N,2,6,6] x, float[72,12] w_1, float[12,3] w_2) => (float[N,3] y)
{
    f = Flatten (x) h = MatMul (f, w_1) r = Relu (h) y = MatMul (r, w_2)
}
"""


@pytest.fixture
def streaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke) -> Path:
    """A directory with a compiled network, a recording of 100 ms, and the same as text."""
    monkeypatch.chdir(tmp_path)
    onnx.save(parse(NETWORK), "net.onnx")
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 100_000, 3000))
    x, y, p = rng.integers(0, 6, 3000), rng.integers(0, 6, 3000), rng.integers(0, 2, 3000)
    np.savez("recording.npz", x=x, y=y, t=t, p=p)
    lines = [f"{a} {b} {c} {d}" for a, b, c, d in zip(t, x, y, p, strict=True)]
    (tmp_path / "events.txt").write_text("\n".join(lines) + "\n")
    np.savez("calib.npz", x=rng.poisson(4, (16, 4, 2, 6, 6)).astype(np.float32))
    made = invoke("compile", "net.onnx", "--calib", "calib.npz", "--input-coding", "frames", "-T", "4", "-q")
    assert made.exit_code == 0, made.stderr
    return tmp_path


def test_a_line_per_window_and_a_summary(streaming, invoke):
    found = invoke("stream", "net.snn.onnx", "recording.npz", "--window", "10ms")
    assert found.exit_code == 0, found.stderr
    *lines, last = found.stdout.strip().splitlines()
    assert len(lines) == 9
    assert all("class" in line and "events" in line and line.endswith("ms") for line in lines)
    assert "9 windows in 0.090 s" in last


def test_json_lines_from_a_pipe_are_those_of_the_recording(streaming, invoke):
    of_file = invoke("stream", "net.snn.onnx", "recording.npz", "--window", "10ms", "--json")
    command = [sys.executable, "-m", "snncc", "stream", "net.snn.onnx", "-", "--sensor", "6x6", "--json"]
    with Path("events.txt").open("rb") as stdin:
        piped = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False, timeout=120)
    assert piped.returncode == 0, piped.stderr
    one, two = ([json.loads(line) for line in text.splitlines()] for text in (of_file.stdout, piped.stdout))
    assert one[-1]["summary"]["windows"] == two[-1]["summary"]["windows"] == 9
    for a, b in zip(one[:-1], two[:-1], strict=True):
        assert (a["seconds"], a["events"]) == (b["seconds"], b["events"])
        if not b["skipped"]:
            assert a["label"] == b["label"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recording.npz", "--window", "1s"], "shorter than a window"),
        (["recording.npz", "--sensor", "7x6"], "sensor of 7x6 pixels, the network takes frames of 6x6"),
        (["missing.bin"], "doesn't exist"),
        (["-"], "standard input needs --sensor"),
        (["recording.npz", "--window", "10ms", "--frame", "15ms"], "times the window"),
    ],
)
def test_refusals(streaming, invoke, arguments, message):
    found = invoke("stream", "net.snn.onnx", *arguments)
    assert found.exit_code in (1, 2)
    assert message in found.stderr
    assert "Traceback" not in found.stderr
