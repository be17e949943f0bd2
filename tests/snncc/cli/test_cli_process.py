"""What only a real process shows: signals, pipes, encodings, and what is printed where."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import click
import numpy as np
import pytest

import snncc
from snncc.cli import main

ROOT = Path(snncc.__file__).resolve().parents[1]


def _start(*args: str, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.Popen(
        [sys.executable, "-m", "snncc", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        # A test run in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def _wait_for(condition, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def test_version_and_help():
    process = _start("--version")
    assert process.communicate()[0] == f"snncc {snncc.__version__}\n"
    assert process.returncode == 0
    for name in main.commands:
        out, err = _start(name, "-h").communicate()
        assert out.startswith(f"Usage: snncc {name}")
        assert "Example" in out
        assert f"snncc {name}" in out.split("Example", 1)[1]
        assert err == ""


def test_ctrl_c_leaves_nothing_behind(folder):
    """The graph after `Refuse` is on disk: then the calibration, made long, is interrupted."""
    images = np.random.default_rng(0).random((512, 2, 8, 8), dtype=np.float32)
    np.save("images.npy", images)
    before = sorted(folder.iterdir())
    process = _start("compile", "small.onnx", "--calib", "images.npy", "-T", "512", "--dump-passes", "dump")
    _wait_for(lambda: list(folder.glob("dump/*-Refuse.onnx")), process)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert err.strip() == "snncc: error: interrupted"
    assert not list(folder.glob("dump/*-Calibrate.onnx")), "the test is too slow: it interrupted nothing"
    assert sorted(p for p in folder.iterdir() if p.name != "dump") == before


def test_ctrl_c_while_the_output_is_written(folder, monkeypatch, invoke):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = sorted(folder.iterdir())
    monkeypatch.setattr("snncc.artifact.Path.replace", interrupt)
    result = invoke("compile", "small.onnx", "--calib", "data.npz")
    assert result.exit_code == 130
    assert result.stderr.strip().endswith("snncc: error: interrupted")
    assert sorted(folder.iterdir()) == before


def test_a_reader_that_leaves_early_is_no_error(folder):
    process = _start("inspect", "small.onnx", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait(timeout=30)
    process.stderr.close()


def test_a_terminal_without_utf8_gets_question_marks(compiled):
    process = _start("inspect", "small.snn.onnx", env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "T=8, ?=4" in out


def test_nothing_but_text_goes_into_a_pipe(compiled):
    process = _start("eval", "small.snn.onnx", "--data", "data.npz", "--against", "small.onnx")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_unforeseen_errors(folder, invoke, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("gremlins\nin the works")

    monkeypatch.setattr("snncc.cli.compile.read_ann", fail)
    result = invoke("compile", "small.onnx")
    assert result.exit_code == 1
    assert result.stderr == "snncc: error: unexpected RuntimeError: gremlins; please report it with the command\n"
    assert "Traceback" in invoke("compile", "small.onnx", "-v").stderr
    assert "Traceback" in invoke("-v", "compile", "small.onnx").stderr
    monkeypatch.setenv("SNNCC_DEBUG", "1")
    assert "Traceback" in invoke("compile", "small.onnx").stderr


def test_out_of_memory(folder, invoke, monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("snncc.cli.compile.read_ann", fail)
    result = invoke("compile", "small.onnx")
    assert result.exit_code == 1
    assert "not enough memory: try a smaller --batch-size" in result.stderr


def test_no_arguments_show_the_help(invoke):
    result = invoke()
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: snncc")


def test_every_option_of_every_command_is_explained():
    def check(command: click.Command) -> None:
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{command.name}: {parameter.name}"
        for child in getattr(command, "commands", {}).values():
            assert child.epilog, f"{child.name} has no example"
            check(child)

    check(main)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def test_view_serves_until_ctrl_c(compiled):
    port = _free_port()
    process = _start("view", "small.snn.onnx", "--no-browser", "--port", str(port))
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == f"http://localhost:{port} shows small.snn.onnx; Ctrl-C stops\n"
    with urllib.request.urlopen(f"http://localhost:{port}/data/small.snn.onnx", timeout=10) as reply:
        assert reply.read() == (compiled / "small.snn.onnx").read_bytes()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_view_on_a_port_that_is_in_use(compiled, invoke):
    with socket.socket() as busy:
        busy.bind(("localhost", 0))
        busy.listen()
        port = busy.getsockname()[1]
        result = invoke("view", "small.snn.onnx", "--no-browser", "--port", port)
    assert result.exit_code == 2
    assert f"port {port} can't be used" in result.stderr


@pytest.mark.parametrize(("name", "message"), [("nothing.onnx", "doesn't exist"), (".", "is a directory")])
def test_view_of_nothing(folder, invoke, name, message):
    result = invoke("view", name, "--no-browser")
    assert result.exit_code == 1
    assert message in result.stderr
