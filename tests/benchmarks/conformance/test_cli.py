"""The command line: sources, options, what is printed, the exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import conformance.export
import onnx
import pytest
from conformance import cli, sources
from conformance.export.__main__ import export
from conformance.export.__main__ import main as export_all
from conformance.row import COMPILED, REFUSED, Row, Step
from small_network import small_model


def result(name: str, **options: object) -> Row:
    if name == "bad":
        return Row(name, status=REFUSED, reasons=["Odd 'n': it is odd"])
    return Row(name, status=COMPILED, steps=[Step(4, {"y": 0.01}, loads=True)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("good", "bad", "deep/third"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        onnx.save(small_model(), tmp_path / f"{name}.onnx")
    monkeypatch.setattr(cli, "measure_apart", lambda name, request, **limits: result(name))
    return tmp_path


def test_rows_remarks_total_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "out.json"
    assert cli.main([str(folder), "--timesteps", "4", "--json", str(file), "--jobs", "2", "--markdown"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["bad", "deep/third", "good"]
    assert "- bad: Odd 'n': it is odd" in lines
    assert "3 networks: 2 converges, 1 refused; 0 s" in lines
    rows = json.loads(file.read_text())["rows"]
    assert [row["verdict"] for row in rows] == ["refused", "converges", "converges"]


def test_interrupted_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []

    def measure(name: str, request: object, **limits: object) -> Row:
        if name == "good" and not measured.count("deep/third") > 1:
            raise KeyboardInterrupt
        measured.append(name)
        return result(name)

    monkeypatch.setattr(cli, "measure_apart", measure)
    arguments = [str(folder), "--json", str(folder / "rows.json"), "--timesteps", "4"]
    with pytest.raises(KeyboardInterrupt):
        cli.main(arguments)
    assert measured == ["bad", "deep/third"]
    assert cli.main([*arguments, "--known"]) == 1
    printed = capsys.readouterr().out
    assert "1 converges, 1 not measured, 1 refused" in printed
    assert [line for line in printed.splitlines() if "good" in line] == ["not measured: good"]
    measured += ["deep/third"]
    assert cli.main(arguments) == 1
    assert measured[3:] == ["good"]
    assert cli.main([*arguments, "--known"]) == 1
    assert "2 converges, 1 refused" in capsys.readouterr().out
    assert cli.main([*arguments, "--samples", "2"]) == 1  # other options: everything again
    assert measured[4:] == ["bad", "deep/third", "good"]


def test_options_may_stand_between_the_networks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(folder / "good.onnx"), "--timesteps", "4", "--samples", "2", str(folder / "bad.onnx")]
    assert cli.main(arguments) == 1
    assert "2 networks: 1 converges, 1 refused" in capsys.readouterr().out


def test_exit_code_is_zero_if_all_is_well(folder: Path) -> None:
    assert cli.main([str(folder), "--match", "oo", "--timesteps", "4"]) == 0


def test_wrong_usage_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([], "no network"),
        (["nowhere.onnx"], "'nowhere.onnx' doesn't exist"),
        ([f"{folder / 'good.onnx'}=no.npz"], "'no.npz' doesn't exist"),
        ([str(folder), "--set", "neuron"], "isn't of the form NAME=VALUE"),
        ([str(folder), "--samples", "0"], "must be positive"),
    ):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert message in capsys.readouterr().err


def test_settings_are_python_values_or_words() -> None:
    assert cli.settings(["max_burst=2", "v_init=0.25", "trace=True", "neuron=signed"]) == {
        "max_burst": 2,
        "v_init": 0.25,
        "trace": True,
        "neuron": "signed",
    }


def test_bundled_networks_and_those_of_onnx_are_found() -> None:
    assert {network.name for network in sources.zoo()} >= {"zoo:fashion_vgg", "zoo:fashion_resnet20"}
    found = {network.name: network.path for network in (*sources.light(), *sources.onnx_tests())}
    assert {"light_resnet50", "light_densenet121", "test_Conv2d", "test_single_relu_model"} <= set(found)
    assert all(path.is_file() for path in found.values())


def test_export_is_whole_or_not_at_all_and_done_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("a graph of many lines\nno such operator")

    export(tmp_path, "broken", fail)
    assert not list(tmp_path.iterdir())
    assert "can't export broken: RuntimeError: no such operator" in capsys.readouterr().err
    export(tmp_path, "fine", lambda path: path.write_bytes(b"first") and None)
    export(tmp_path, "fine", fail)
    assert (tmp_path / "fine.onnx").read_bytes() == b"first"


def test_family_whose_libraries_do_not_fit_together_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (tmp_path / "fine.py").write_text("networks = lambda: {'net': lambda path: path.write_bytes(b'net') and None}")
    monkeypatch.setattr(conformance.export, "__path__", [*conformance.export.__path__, str(tmp_path)])
    monkeypatch.setattr("conformance.export.__main__.FAMILIES", ("broken", "fine"))
    monkeypatch.setattr(sys, "argv", ["export", str(tmp_path / "out")])
    export_all()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["net.onnx"]
    assert "left out broken: operator torchvision::nms does not exist" in capsys.readouterr().err
