from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image
from small_network import small_model

import snncc

OPTIONS = ["-T", "3", "--max-burst", "2", "--v-init", "0.25", "--threshold-ratio", "1.5"]
OPTIONS += ["--per-layer", "--no-bias-correction", "--trace"]


def test_compile_writes_a_network_that_plain_onnxruntime_runs(folder, invoke):
    result = invoke("compile", "small.onnx", "--calib", "data.npz", "-o", "out.onnx")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    for expected in ("wrote", "out.onnx", "3 layers", "T=8, ψ=4", "from 96 samples; biases corrected", "next"):
        assert expected in result.stdout
    assert "snncc eval out.onnx --data DATA --against small.onnx" in result.stdout

    images = np.load("data.npz")["image"]
    ann = ort.InferenceSession("small.onnx", providers=["CPUExecutionProvider"])
    snn = ort.InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape, i.type) for i in snn.get_inputs()] == [
        (i.name, i.shape, i.type) for i in ann.get_inputs()
    ]
    wanted, got = ann.run(None, {"image": images})[0], snn.run(None, {"image": images})[0]
    assert np.linalg.norm(got - wanted) < 0.1 * np.linalg.norm(wanted)


def test_the_options_reach_the_compiler(folder, invoke):
    result = invoke("compile", "small.onnx", "--calib", "data.npz", "--samples", 40, "--json", *OPTIONS)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert set(told) == {"output", "files", "record", "timings"}
    assert (told["output"], told["files"]) == ("small.snn.onnx", ["small.snn.onnx"])
    chosen = {
        "timesteps": 3,
        "max_burst": 2,
        "v_init": 0.25,
        "threshold_ratio": 1.5,
        "per_channel": False,
        "bias_correction": False,
        "trace": True,
    }
    assert {name: told["record"]["config"][name] for name in chosen} == chosen
    assert told["record"]["calibration"]["samples"] == 40
    assert {"Calibrate", "LowerTime"} <= {step["pass"] for step in told["timings"]}
    # What is told is what the file says about itself.
    assert json.loads(json.dumps(snncc.load("small.snn.onnx").report())) == told["record"]
    assert [o.name for o in onnx.load("small.snn.onnx").graph.output] == ["logits", "logits_trace"]


def test_the_command_line_and_python_make_the_same_bytes(folder, invoke):
    assert invoke("compile", "small.onnx", "--calib", "data.npz", "-T", 4, "-o", "a.onnx").exit_code == 0
    snncc.compile("small.onnx", calibration="data.npz", config=snncc.Config(timesteps=4)).save("b.onnx")
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()


def test_without_data_a_warning_says_what_that_is_worth(folder, invoke):
    result = invoke("compile", "small.onnx")
    assert result.exit_code == 0
    assert result.stderr.startswith("snncc: warning: no calibration data")
    assert "--calib" in result.stderr
    assert (folder / "small.snn.onnx").exists()


@pytest.mark.parametrize("args", [["-q", "compile"], ["compile", "-q"], ["compile", "--quiet"]])
def test_quiet_prints_nothing_wherever_it_stands(folder, invoke, args):
    result = invoke(*args, "small.onnx", "--calib", "data.npz")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("args", [["-v", "compile"], ["compile", "-v"]])
def test_verbose_adds_the_table_of_layers(folder, invoke, args):
    result = invoke(*args, "small.onnx", "--calib", "data.npz")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("relu1", "relu2", "relu3", "bias shift"))
    assert "bias shift" not in invoke("compile", "small.onnx", "--calib", "data.npz").stdout


def test_verify_time_and_dump_passes(folder, invoke):
    result = invoke(
        "compile", "small.onnx", "--calib", "data.npz", "--verify", "--time-passes", "--dump-passes", "dump"
    )
    assert result.exit_code == 0, result.stderr
    assert "every pass that must keep the outputs kept them" in result.stdout
    assert "Calibrate" in result.stdout
    dumps = sorted(path.name for path in (folder / "dump").iterdir())
    assert len(dumps) > 5
    assert dumps[-1].endswith("FoldThresholds.onnx")


def test_an_existing_output_is_replaced(folder, invoke):
    (folder / "small.snn.onnx").write_bytes(b"old")
    assert invoke("compile", "small.onnx", "--calib", "data.npz").exit_code == 0
    assert snncc.load("small.snn.onnx").record.timesteps == 8


def test_image_options_reach_the_data(folder, invoke):
    """An input of 3 channels and open size; the calibration's fingerprint shows what was fed."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        rgb (float[N, 3, h, w] x) => (float[N, 3, h, w] y) <float[3, 3, 1, 1] w = {1,0,0,0,1,0,0,0,1}>
        { c = Conv(x, w)  y = Relu(c) }"""
    )
    onnx.save(model, "rgb.onnx")
    (folder / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / "photos" / f"{number}.png")
    fed = (pixels.transpose(0, 3, 1, 2) / 255.0 * 255 - 100) / np.array([50.0, 60.0, 70.0])[:, None, None]
    np.save("photos.npy", fed.astype(np.float32))
    options = ["--mean", "100", "--std", "50,60,70", "--pixel-max", "255", "--layout", "nchw", "--size", "6x5"]
    one = invoke("compile", "rgb.onnx", "--calib", "photos", "--json", *options)
    assert one.exit_code == 0, one.stderr
    other = invoke("compile", "rgb.onnx", "--calib", "photos.npy", "--json")
    fingerprints = [json.loads(r.stdout)["record"]["calibration"]["fingerprint"] for r in (one, other)]
    assert fingerprints[0] == fingerprints[1]


@pytest.mark.parametrize(("option", "value"), [("--size", "28y2"), ("--mean", "a,b"), ("--layout", "HWC"), ("-T", "x")])
def test_values_that_cannot_be_read_are_usage_errors(folder, invoke, option, value):
    result = invoke("compile", "small.onnx", "--calib", "data.npz", option, value)
    assert result.exit_code == 2
    assert result.stderr.startswith("snncc: error: invalid value for")
    assert "`snncc compile --help`" in result.stderr
    assert not (folder / "small.snn.onnx").exists()


@pytest.mark.parametrize("options", [["--samples", "3"], ["--mean", "0.5"]])
def test_options_for_data_need_data(folder, invoke, options):
    result = invoke("compile", "small.onnx", *options)
    assert result.exit_code == 2
    assert "without --calib" in result.stderr


def test_strict_names_what_does_not_spike(folder, invoke):
    onnx.save(small_model(hidden="Softmax"), "soft.onnx")
    result = invoke("compile", "soft.onnx", "--calib", "data.npz", "--strict")
    assert result.exit_code == 1
    assert "node 'relu2' (Softmax): it isn't linear and no activation" in result.stderr
    assert not (folder / "soft.snn.onnx").exists()
    assert invoke("compile", "soft.onnx", "--calib", "data.npz").exit_code == 0
    result = invoke("compile", "soft.onnx", "--calib", "data.npz", "--strict", "--analog")
    assert "graded values, not spikes, drive its weights" in result.stderr
    assert invoke("compile", "small.onnx", "--calib", "data.npz", "--strict").exit_code == 0


def test_strict_takes_other_activations(folder, invoke):
    onnx.save(small_model(hidden="Tanh"), "tanh.onnx")
    result = invoke("compile", "tanh.onnx", "--calib", "data.npz", "--strict", "--json")
    assert result.exit_code == 0, result.stderr
    layers = json.loads(result.stdout)["record"]["layers"]
    assert [(r["activation"], r["neuron"]) for r in layers][1] == ("tanh", "signed")


@pytest.mark.parametrize(("neuron", "kinds"), [("burst", {"burst"}), ("signed", {"signed"})])
def test_kind_of_neuron(folder, invoke, neuron, kinds):
    result = invoke("compile", "small.onnx", "--calib", "data.npz", "--neuron", neuron, "--json")
    assert {r["neuron"] for r in json.loads(result.stdout)["record"]["layers"]} == kinds


def test_8_bit_weights(folder, invoke):
    result = invoke("compile", "small.onnx", "--calib", "data.npz", "--weights", "int8", "-o", "small.snn.onnx")
    assert result.exit_code == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("weights ")]
    assert line.split()[1:3] == ["int8", "in"]
    assert "float32 in" in line
    assert "int8 in 2 layers" in line
    assert "int8 in 2 layers" in invoke("inspect", "small.snn.onnx").stdout
    plain = invoke("compile", "small.onnx", "--calib", "data.npz")
    assert not [line for line in plain.stdout.splitlines() if line.startswith("weights ")]
    refused = invoke("compile", "small.onnx", "--weights", "int8")
    assert refused.exit_code != 0
    assert "--calib" in refused.stderr
