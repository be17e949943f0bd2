"""Bad input ends with one clear line, the right exit code, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from small_network import SHAPE, small_model

from snncc.cli.files import OutputError, save_npz


def _text(folder: Path) -> None:
    (folder / "bad.onnx").write_text("this is not a network")


def _truncated(folder: Path) -> None:
    data = (folder / "small.onnx").read_bytes()
    (folder / "bad.onnx").write_bytes(data[: len(data) // 2])


def _empty(folder: Path) -> None:
    (folder / "bad.onnx").write_bytes(b"")


def _external(folder: Path) -> onnx.ModelProto:
    onnx.save(small_model(), folder / "bad.onnx", save_as_external_data=True, location="bad.data", size_threshold=0)
    return onnx.load(folder / "bad.onnx", load_external_data=False)


def _missing_external(folder: Path) -> None:
    _external(folder)
    (folder / "bad.data").unlink()


def _escaping_external(folder: Path) -> None:
    model = _external(folder)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../bad.data"
    (folder / "bad.onnx").write_bytes(model.SerializeToString())


def _unknown_op(folder: Path) -> None:
    model = small_model()
    model.graph.node[4].op_type = "Frobnicate"
    (folder / "bad.onnx").write_bytes(model.SerializeToString())


def _unknown_domain(folder: Path) -> None:
    model = small_model()
    model.graph.node[4].domain = "com.acme"
    model.opset_import.append(helper.make_opsetid("com.acme", 1))
    (folder / "bad.onnx").write_bytes(model.SerializeToString())


def _obstacle(folder: Path) -> None:
    onnx.save(small_model(hidden="RandomNormalLike"), folder / "bad.onnx")


MODELS: list[tuple[Callable[[Path], object], str]] = [
    (lambda _: None, "'bad.onnx': doesn't exist; check the path"),
    (_text, "'bad.onnx': is no ONNX model"),
    (_truncated, "'bad.onnx': is no ONNX model or is cut short; export or download it again"),
    (_empty, "'bad.onnx': is empty; export or download"),
    (_missing_external, "('bad.data') is missing; copy it into the model's folder"),
    (_escaping_external, "lies outside the model's folder, which is refused; keep the data in the model's own folder"),
    (_unknown_op, "Frobnicate"),
    (_unknown_domain, "com.acme"),
    (_obstacle, "node 'relu2' (RandomNormalLike): it gives other values in every run"),
]

IMAGES = np.random.default_rng(0).random((8, *SHAPE), dtype=np.float32)


def _with(value: float) -> np.ndarray:
    images = IMAGES.copy()
    images[3, 1, 2, 5] = value
    return images


DATA: list[tuple[dict[str, np.ndarray] | None, str]] = [
    (None, "'bad.npz' doesn't exist; give the path of"),
    ({"image": IMAGES[:, :1]}, "has shape [8, 1, 8, 8] but model input 'image' wants [N, 2, 8, 8]"),
    ({"image": IMAGES.transpose(0, 2, 3, 1)}, "use np.transpose(array, (0, 3, 1, 2))"),
    ({"image": IMAGES.astype(np.complex64)}, "convert it to real numbers"),
    ({"image": IMAGES.astype(str)}, "convert it to real numbers"),
    ({"picture": IMAGES, "mask": IMAGES}, "rename the arrays to the inputs' names"),
    ({"image": _with(np.nan)}, "holds NaN at index [3, 1, 2, 5]"),
    ({"image": _with(np.inf)}, "holds Inf at index [3, 1, 2, 5]"),
    ({"image": IMAGES[:0]}, "is empty"),
]

OPTIONS: list[tuple[list[str], int, str]] = [
    (["-T", "0"], 2, "timesteps is 0: it must be a whole number from 1 to 4096"),
    (["-T", "-1"], 2, "timesteps is -1"),
    (["-T", "5000"], 2, "timesteps is 5000"),
    (["--max-burst", "0"], 2, "max_burst is 0: it must be a whole number from 1 to 255"),
    (["--max-burst", "256"], 2, "max_burst is 256"),
    (["--v-init", "1"], 2, "v_init is 1.0"),
    (["--v-init", "nan"], 2, "v_init is nan"),
    (["--threshold-ratio", "0.5"], 2, "threshold_ratio is 0.5"),
    (["--batch-size", "0"], 2, "batch_size is 0"),
    (["--samples", "0"], 2, "limit is 0"),
    (["--size", "8"], 2, "image options are given but data.npz holds no image files"),
    (["-o", "nowhere/out.onnx"], 1, "there is no directory 'nowhere'; create it or choose another place with -o"),
    (["-o", "."], 1, "can't write '.': it is a directory; choose another place with -o"),
    # Never a real device: if the check were broken, a run as root would replace it for the whole machine.
    (["-o", "pipe"], 1, "can't write 'pipe': it is no regular file; choose another place with -o"),
    (["-o", "/proc/out.onnx"], 1, "can't write '/proc/out.onnx'"),
    (["-o", "small.onnx"], 2, "'small.onnx' is the model itself, which would be overwritten: choose another -o"),
    (["-o", "./../{here}/small.onnx"], 2, "is the model itself"),
    (["-o", "data.npz"], 2, "'data.npz' is the calibration data itself"),
    (["-o", "bad\0name"], 1, "can't write"),
    (["--dump-passes", "data.npz"], 1, "choose another --dump-passes"),
]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _check(result, folder: Path, before: dict[str, bytes], code: int, message: str) -> None:
    assert result.exit_code == code, result.stderr
    assert message in result.stderr
    assert result.stderr.startswith("snncc: error: ")
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert _files(folder) == before


def test_a_file_of_a_folder_that_is_read_is_no_output(folder, invoke):
    (folder / "images" / "cat").mkdir(parents=True)
    (folder / "images" / "cat" / "1.png").write_bytes(b"an image")
    before = _files(folder)
    result = invoke("compile", "small.onnx", "--calib", "images", "-o", "images/cat/1.png")
    _check(result, folder, before, 2, "'images/cat/1.png' is part of the calibration data, which would be overwritten")


@pytest.mark.parametrize("command", ["compile", "inspect", "eval"])
@pytest.mark.parametrize(("make", "message"), MODELS)
def test_bad_models(folder, compiled, invoke, make, message, command):
    make(folder)
    before = _files(folder)
    args = {
        "compile": ["bad.onnx", "--calib", "data.npz"],
        "inspect": ["bad.onnx"],
        "eval": ["small.snn.onnx", "--data", "data.npz", "--against", "bad.onnx"],
    }[command]
    if make is _obstacle and command != "compile":
        pytest.skip("not an error: a network with an obstacle can be looked at and run")
    result = invoke(command, *args)
    _check(result, folder, before, 1, message)
    assert result.stderr.count("\n") == 1 if make is not _obstacle else result.stderr.count("\n") == 2


@pytest.mark.parametrize("command", ["compile", "run", "eval"])
@pytest.mark.parametrize(("arrays", "message"), DATA)
def test_bad_data(folder, compiled, invoke, arrays, message, command):
    if arrays is not None:
        np.savez("bad.npz", **arrays)
    before = _files(folder)
    args = {
        "compile": ["small.onnx", "--calib", "bad.npz"],
        "run": ["small.snn.onnx", "--input", "bad.npz", "--output", "out.npz"],
        "eval": ["small.snn.onnx", "--data", "bad.npz"],
    }[command]
    result = invoke(command, *args)
    _check(result, folder, before, 1, message)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("options", "code", "message"), OPTIONS)
def test_bad_options(folder, invoke, options, code, message):
    os.mkfifo(folder / "pipe")
    before = _files(folder)
    options = [option.replace("{here}", folder.name) for option in options]
    result = invoke("compile", "small.onnx", "--calib", "data.npz", *options)
    _check(result, folder, before, code, message)
    assert (folder / "pipe").is_fifo()


@pytest.mark.parametrize("output", ["nowhere/out.onnx", "/proc/out.onnx", ".", "pipe"])
def test_the_output_is_tried_before_any_work(folder, invoke, monkeypatch, output):
    os.mkfifo(folder / "pipe")
    monkeypatch.setattr("snncc.cli.compile.read_ann", lambda _: pytest.fail("the model was read first"))
    result = invoke("compile", "small.onnx", "-o", output)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"snncc: error: can't write '{output}'")


def test_arrays_never_replace_a_device(folder):
    os.mkfifo(folder / "pipe.npz")
    with pytest.raises(OutputError, match="it is no regular file"):
        save_npz(folder / "pipe.npz", {"x": np.zeros(3)})
    assert (folder / "pipe.npz").is_fifo()


def test_pickled_data_is_refused(folder, invoke):
    np.save("evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    before = _files(folder)
    result = invoke("compile", "small.onnx", "--calib", "evil.npy")
    _check(result, folder, before, 1, "pickled data is refused")


@pytest.mark.parametrize("command", [["run", "--input"], ["eval", "--data"]])
def test_an_ann_is_no_spiking_network(folder, invoke, command):
    name, option = command
    result = invoke(name, "small.onnx", option, "data.npz")
    _check(result, folder, _files(folder), 1, "'small.onnx' is not a network compiled by snncc")
    assert "snncc compile small.onnx" in result.stderr


def test_a_spiking_network_is_not_compiled_again(compiled, invoke):
    before = _files(compiled)
    _check(invoke("compile", "small.snn.onnx"), compiled, before, 2, "is already a spiking network")


def test_a_damaged_record_is_named(compiled, invoke):
    model = onnx.load("small.snn.onnx")
    for entry in model.metadata_props:
        if entry.key == "snncc.layers":
            entry.value = "[{"
    onnx.save(model, "small.snn.onnx")
    for args in (["inspect"], ["run", "--input", "data.npz"]):
        result = invoke(args[0], "small.snn.onnx", *args[1:])
        _check(result, compiled, _files(compiled), 1, "'small.snn.onnx' has a damaged record")


def test_control_characters_of_a_file_do_not_reach_the_terminal(folder, invoke):
    model = small_model(hidden="RandomNormalLike")
    model.graph.node[4].name = "\x1b]0;owned\x07\x1b[2J"
    onnx.save(model, "bad.onnx")
    for command in ("compile", "inspect"):
        result = invoke(command, "bad.onnx")
        assert "owned" in result.output
        assert "\x1b" not in result.output
        assert "\x07" not in result.output
