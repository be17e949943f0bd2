"""`snncc search`, and `snncc compile --front`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import snncc
from snncc.allocation.file import read
from snncc.errors import UsageError

Invoke = Callable[..., Result]

SEARCH = ("search", "small.onnx", "--calib", "data.npz", "-T", "4", "--max-burst", "3", "--method", "bsr")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def front(folder: Path, invoke: Invoke) -> Path:
    result = invoke(*SEARCH, "--simulate", "0", "-q", "-o", "front.json")
    assert result.exit_code == 0, result.stderr
    return folder / "front.json"


def settings(path: Path) -> dict[str, tuple[int, float]]:
    return {layer.name: (layer.max_burst, layer.threshold_ratio) for layer in snncc.load(path).record.layers}


def test_search_prints_points_and_what_to_do_next(folder: Path, invoke: Invoke) -> None:
    result = invoke(*SEARCH, "--budget", "0.8", "--simulate", "2", "-o", "front.json", "-v")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["spikes", "predicted", "simulated", "loss", "predicted", "simulated", "agreement"]
    assert lines[1].startswith("uniform ")
    assert any(line.startswith("chosen ") for line in lines)
    assert any(line.startswith("relu1 ") for line in lines)
    assert lines[-1].endswith("next: snncc compile small.onnx --calib data.npz --front front.json")
    found = read("front.json")
    assert found.config.timesteps == 4
    assert len(found.measured) >= 2


def test_points_are_simulated_and_compiled_with_8_bit_weights(folder: Path, invoke: Invoke) -> None:
    result = invoke(*SEARCH, "--budget", "0.8", "--simulate", "1", "--weights", "int8", "-q", "-o", "front.json")
    assert result.exit_code == 0, result.stderr
    assert read("front.json").config.weights == "int8"
    invoke("compile", "small.onnx", "--calib", "data.npz", "--front", "front.json", "-q", "-o", "a.snn.onnx")
    assert snncc.load(folder / "a.snn.onnx").record.network["int8_layers"] > 0


def test_json_is_what_is_in_the_file(folder: Path, invoke: Invoke) -> None:
    result = invoke(*SEARCH, "--simulate", "0", "--json", "-o", "front.json")
    printed = json.loads(result.stdout)
    assert printed.pop("output") == "front.json"
    assert printed == json.loads((folder / "front.json").read_text())


def test_compile_takes_the_choice_for_any_budget(front: Path, invoke: Invoke) -> None:
    found = read(front)
    result = invoke("compile", "small.onnx", "--calib", "data.npz", "--front", front, "-q", "-o", "a.snn.onnx")
    assert result.exit_code == 0, result.stderr
    assert settings(Path("a.snn.onnx")) == {n: tuple(c) for n, c in found.assignment.items()}
    assert snncc.load("a.snn.onnx").record.timesteps == 4
    budget = ("--budget", "0.5", "--cost", "operations")
    result = invoke("compile", "small.onnx", "--calib", "data.npz", "--front", front, *budget, "-q", "-o", "b.snn.onnx")
    assert result.exit_code == 0, result.stderr
    expected = found.choose(snncc.Budget("relative", 0.5, "operations"))
    assert expected != found.assignment
    assert settings(Path("b.snn.onnx")) == {n: tuple(c) for n, c in expected.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--front", "front.json", "-T", "2"), "-T with --front: 'front.json' settles it"),
        (("--front", "front.json", "--max-burst", "2"), "--max-burst with --front"),
        (("--front", "front.json", "--budget", "0.001"), "the nearest that can is"),
        (("--front", "front.json", "--budget", "0.5", "--spikes", "9"), "give one budget only"),
        (("--front", "front.json", "--max-drop", "1"), "needs class scores and simulated points"),
        (("--front", "front.json", "--cost", "energy"), "--cost without a budget"),
        (("--front", "front.json", "--spikes", "9", "--cost", "energy"), "--cost with --spikes"),
        (("--front", "data.npz"), "'data.npz' is no file of `snncc search`"),
        (("--budget", "0.5"), "a budget needs the result of a search: give --front"),
        (("--front", "front.json", "-o", "front.json"), "'front.json' is the front itself"),
    ],
)
def test_compile_refuses(front: Path, invoke: Invoke, options: tuple[str, ...], message: str) -> None:
    result = invoke("compile", "small.onnx", "--calib", "data.npz", *options)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert read(front).assignment


@pytest.mark.parametrize("data", [("--calib", "data.npz"), ()])
def test_a_front_without_one_of_the_layers_is_refused(front: Path, invoke: Invoke, data: tuple[str, ...]) -> None:
    values = json.loads(front.read_text())
    gone = values["layers"].pop(1)["name"]
    values["assignment"] = [row for row in values["assignment"] if row[0] != gone]
    front.write_text(json.dumps(values))
    assert read(front).assignment  # as far as the file alone can tell, all is well
    result = invoke("compile", "small.onnx", *data, "--front", front, "-o", "a.snn.onnx")
    assert result.exit_code == 1
    assert f"it leaves out layer '{gone}' of 'small'" in result.stderr
    assert not Path("a.snn.onnx").exists()


def test_a_search_of_another_network_is_refused(front: Path, invoke: Invoke) -> None:
    values = json.loads(front.read_text())
    values["source"]["sha256"] = "0" * 64
    front.write_text(json.dumps(values))
    result = invoke("compile", "small.onnx", "--calib", "data.npz", "--front", front)
    assert result.exit_code == 2
    assert "which is not 'small.onnx'" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "front.json", "--budget", "-1"), "it must be a positive number"),
        (("-o", "nowhere/front.json"), "there is no directory 'nowhere'"),
        (("-o", "small.onnx"), "is the model itself"),
        (("-o", "front.json", "--plot", "front.pdf"), "must end in .svg or .png"),
        (("-o", "same.svg", "--plot", "same.svg"), "'same.svg' is the output of -o itself"),
        (("-o", "same.svg", "--plot", "./cache/../same.svg"), "is the output of -o itself"),
        (("-o", "front.json", "--spikes", "1", "--simulate", "0"), "the nearest that can is"),
        (("-o", "front.json", "--simulate", "-2"), "it must be a whole number, 0 or more"),
    ],
)
def test_search_refuses(folder: Path, invoke: Invoke, options: tuple[str, ...], message: str) -> None:
    result = invoke(*SEARCH, *options)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "front.json").exists()


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is not None, reason="matplotlib is installed")
def test_plot_without_matplotlib_names_the_remedy(folder: Path, invoke: Invoke) -> None:
    result = invoke(*SEARCH, "-o", "front.json", "--plot", "front.svg")
    assert result.exit_code == 2
    assert "pip install 'snncc[plot]'" in result.stderr


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_plot(folder: Path, invoke: Invoke, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    result = invoke(*SEARCH, "-o", "front.json", "--simulate", "1", "--plot", f"front.{suffix}")
    assert result.exit_code == 0, result.stderr
    drawn = (folder / f"front.{suffix}").read_bytes()
    assert drawn.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    if suffix == "svg":
        text = drawn.decode()
        for words in ("Pareto front, predicted", "simulated", "chosen", "sensitivity of each layer to ψ", "ψ=16"):
            assert words in text


def test_plot_of_layers_with_candidates_of_their_own(folder: Path, invoke: Invoke) -> None:
    """The second step of bsr+ssc scores the ψ that each layer got in the first."""
    pytest.importorskip("matplotlib")
    command = [option if option != "bsr" else "bsr+ssc" for option in SEARCH]
    result = invoke(*command, "-o", "front.json", "--simulate", "1", "--budget", "0.7", "--plot", "front.svg")
    assert result.exit_code == 0, result.stderr
    layers = read("front.json").layers
    assert len({layer.candidates for layer in layers}) > 1
    assert "ψ=3" in (folder / "front.svg").read_text()


def test_a_plot_that_fails_leaves_nothing_behind(folder: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")

    def broken(*_: object) -> None:
        raise UsageError("it can't be drawn")

    monkeypatch.setattr("snncc.cli.search.plot", broken)
    result = invoke(*SEARCH, "-o", "front.json", "--simulate", "0", "--plot", "front.svg")
    assert result.exit_code == 2
    assert "it can't be drawn" in result.stderr
    assert {path.name for path in folder.iterdir()} == {"small.onnx", "data.npz", "cache"}


def test_presets(folder: Path, invoke: Invoke) -> None:
    result = invoke("compile", "small.onnx", "--calib", "data.npz", "-T", "4", "--preset", "bs+bsr", "-q")
    assert result.exit_code == 0, result.stderr
    network = snncc.load("small.snn.onnx")
    assert network.record.config["v_init"] == 0.0
    assert network.record.timesteps == 4
    result = invoke("compile", "small.onnx", "--calib", "data.npz", "--preset", "opt", "--max-burst", "2", "-q")
    assert result.exit_code == 0, result.stderr
    assert {layer.max_burst for layer in snncc.load("small.snn.onnx").record.layers} == {2}
    result = invoke("compile", "small.onnx", "--calib", "data.npz", "--preset", "best", "--budget", "0.5")
    assert result.exit_code == 2
    assert "--preset chooses ψ and τ itself" in result.stderr


def test_several_timesteps_and_one_target(folder: Path, invoke: Invoke) -> None:
    command = ("search", "small.onnx", "--calib", "data.npz", "--simulate", "2", "-T", "2", "-T", "6")
    command += ("--method", "bsr", "-o", "front.json")
    result = invoke(*command, "--min-agreement", "60")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["T", "spikes", "agreement"]
    chosen = [line[0] for line in lines[1:3] if line[-1] == "chosen"]
    assert chosen == [str(read("front.json").config.timesteps)]
    refused = invoke(*command, "--budget", "0.8")
    assert refused.exit_code != 0
    assert "give --min-agreement" in refused.stderr
