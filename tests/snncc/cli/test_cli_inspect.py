from __future__ import annotations

import json

import numpy as np
import onnx
from small_network import small_model

import snncc


def test_json_of_an_ann_says_what_becomes_of_each_node(folder, invoke):
    result = invoke("inspect", "small.onnx", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["kind"] == "ann"
    assert told["compilable"] is True
    rows = {node["name"]: node for node in told["nodes"]}
    # By hand: padded 3×3 convolution to 6×8×8, 3×3 convolution of 4×4 to 8×2×2, two fully connected layers.
    macs = {"conv1": 6 * 64 * 2 * 9, "conv2": 8 * 4 * 6 * 9, "hidden": 16 * 32, "classifier": 4 * 16}
    assert {name: rows[name]["macs"] for name in macs} == macs
    assert {name: rows[name]["becomes"] for name in rows} == {
        "conv1": "once",
        "relu1": "neuron",
        "pool1": "once",
        "conv2": "linear",
        "relu2": "neuron",
        "flatten": "linear",
        "hidden": "linear",
        "relu3": "neuron",
        "classifier": "readout",
    }
    assert {name: rows[name]["driven_by"] for name in macs} == {
        "conv1": "analog",
        "conv2": "spikes",
        "hidden": "spikes",
        "classifier": "spikes",
    }
    summary = told["summary"]
    assert summary["neurons"] == 6 * 16 + 8 * 4 + 16
    assert summary["neuron_layers"] == 3
    assert summary["lowering"] == "batch"
    assert summary["macs"]["total"] == sum(macs.values())
    assert summary["spiking_share"] == (sum(macs.values()) - macs["conv1"]) / sum(macs.values())
    assert told["inputs"] == [{"name": "image", "dtype": "float32", "shape": ["N", 2, 8, 8]}]


def test_table_of_an_ann(folder, invoke):
    result = invoke("inspect", "small.onnx")
    assert result.exit_code == 0
    assert "can be compiled" in result.stdout
    assert "folded into the batch axis" in result.stdout
    line = next(line for line in result.stdout.splitlines() if line.startswith("conv2"))
    assert line.split()[:4] == ["conv2", "Conv", "temporal", "linear"]
    assert "conv2" not in invoke("inspect", "small.onnx", "-q").stdout


def test_obstacles_are_a_finding_not_a_failure(folder, invoke):
    onnx.save(small_model(hidden="RandomNormalLike"), "random.onnx")
    result = invoke("inspect", "random.onnx")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "cannot be compiled: 1 obstacle" in result.stdout
    assert "remedy: export the network for inference" in result.stdout
    assert "relu2" in result.stdout
    told = json.loads(invoke("inspect", "random.onnx", "--json").stdout)
    assert told["compilable"] is False
    assert [(o["node"], o["op"]) for o in told["obstacles"]] == [("relu2", "RandomNormalLike")]
    assert {"reason", "remedy"} <= set(told["obstacles"][0])


def test_why_time_cannot_be_folded(folder, invoke):
    """A Reshape that mixes the samples of a batch."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        mix (float[2, 6] x) => (float[3, 4] y) <int64[2] shape = {3, 4}>
        { a = Relu(x)  b = Reshape(a, shape)  y = Relu(b) }"""
    )
    model.graph.node[1].name = "mixer"
    onnx.save(model, "mix.onnx")
    result = invoke("inspect", "mix.onnx")
    assert result.exit_code == 0
    assert "a Scan over timesteps" in result.stdout
    told = json.loads(invoke("inspect", "mix.onnx", "--json").stdout)
    assert told["summary"]["lowering"] == "scan"
    assert any("mixer" in line for line in told["fold_blockers"])


def test_an_snn_shows_its_record(compiled, invoke):
    told = json.loads(invoke("inspect", "small.snn.onnx", "--json").stdout)
    assert told["kind"] == "snn"
    assert told["record"] == json.loads(json.dumps(snncc.load("small.snn.onnx").report()))
    result = invoke("inspect", "small.snn.onnx")
    assert result.exit_code == 0
    for layer in told["record"]["layers"]:
        line = next(line for line in result.stdout.splitlines() if line.startswith(layer["name"]))
        assert f"{layer['theta_min']:.3g} … {layer['theta_max']:.3g}" in line
        assert f"{layer['firing_rate']:.3f}" in line
    for expected in (told["record"]["source"]["sha256"], told["record"]["calibration"]["fingerprint"], "T=8, ψ=4"):
        assert expected in result.stdout


def test_warnings_of_a_compile_are_told_again(folder, invoke):
    assert invoke("compile", "small.onnx", "-q").exit_code == 0
    result = invoke("inspect", "small.snn.onnx")
    assert result.stderr.startswith("snncc: warning: no calibration data")


def test_json_holds_no_nan(folder, invoke):
    """A layer that never fires has nothing to be relative to."""
    model = small_model()
    np.savez("zeros.npz", image=np.zeros((4, 2, 8, 8), np.float32))
    onnx.save(model, "small.onnx")
    assert invoke("compile", "small.onnx", "--calib", "zeros.npz", "-q").exit_code == 0
    args = ("eval", "small.snn.onnx", "--data", "zeros.npz", "--against", "small.onnx", "--json")
    for told in (invoke("inspect", "small.snn.onnx", "--json"), invoke(*args)):
        json.loads(told.stdout, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
