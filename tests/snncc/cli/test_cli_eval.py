from __future__ import annotations

import json
import re
from unittest.mock import ANY

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_network import ann_outputs, small_model

WORSE = ["-T", "1", "--max-burst", "1"]
LINE = re.compile(
    r"ANN (?P<ann>[\d.]+) %  SNN (?P<snn>[\d.]+) % \(T=\d, ψ=\d\)  agreement (?P<agreement>[\d.]+) %  "
    r"spikes/sample (?P<spikes>[\d,]+)  energy ANN (?P<e_ann>[\d.]+) (?P<unit>\S+)  SNN (?P<e_snn>[\d.]+) (?P=unit) "
    r"\(45nm\)"
)


def _accuracies() -> tuple[float, float, float]:
    """Accuracy of ANN and SNN and their agreement, by ONNX Runtime alone."""
    with np.load("data.npz") as data:
        images, labels = data["image"], data["label"]
    ann = ann_outputs(onnx.load("small.onnx"), images).argmax(axis=1)
    session = ort.InferenceSession("small.snn.onnx", providers=["CPUExecutionProvider"])
    snn = np.concatenate([session.run(None, {"image": images[i : i + 32]})[0] for i in range(0, 96, 32)]).argmax(axis=1)
    return float((ann == labels).mean()), float((snn == labels).mean()), float((ann == snn).mean())


def test_the_result_line_holds_what_onnxruntime_finds(folder, invoke):
    """One spike in all: the SNN is so much worse than the ANN that no figure can stand in for another."""
    assert invoke("compile", "small.onnx", "--calib", "data.npz", "-q", *WORSE).exit_code == 0
    result = invoke("eval", "small.snn.onnx", "--data", "data.npz", "--against", "small.onnx", "-q")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    found = LINE.fullmatch(result.stdout.strip())
    assert found, result.stdout
    ann, snn, agreement = _accuracies()
    assert len({ann, snn, agreement}) == 3
    assert float(found["ann"]) == round(100 * ann, 2)
    assert float(found["snn"]) == round(100 * snn, 2)
    assert float(found["agreement"]) == round(100 * agreement, 1)


def test_json_has_everything(compiled, invoke):
    result = invoke("eval", "small.snn.onnx", "--data", "data.npz", "--against", "small.onnx", "--json")
    told = json.loads(result.stdout)
    assert set(told) == {"snn", "data", "against", "profile", "config", "evaluation"}
    evaluation = told["evaluation"]
    assert set(evaluation) == {
        "samples",
        "timesteps",
        "backend",
        "class_output",
        "classes",
        "ann_accuracy",
        "snn_accuracy",
        "agreement",
        "accuracy_by_timestep",
        "agreement_by_timestep",
        "outputs",
        "activity",
        "energy",
        "warnings",
        "exits",
        "counterpart",
    }
    assert (evaluation["ann_accuracy"], evaluation["snn_accuracy"], evaluation["agreement"]) == _accuracies()
    assert len(evaluation["accuracy_by_timestep"]) == told["config"]["timesteps"] == 8
    assert evaluation["accuracy_by_timestep"][-1] == evaluation["snn_accuracy"]
    assert set(evaluation["energy"]) == {"45nm", "spikes"}
    assert {"spikes", "synaptic_operations", "ann_macs", "snn_macs", "firing_rate"} <= set(evaluation["activity"])


def test_tables(compiled, invoke):
    result = invoke("eval", "small.snn.onnx", "--data", "data.npz", "--against", "small.onnx", "-v")
    assert result.exit_code == 0
    for expected in ("96 samples", "accuracy", "agreement", "synaptic operations", "profile 45nm", "relu2", "conv2"):
        assert expected in result.stdout
    assert LINE.fullmatch(result.stdout.splitlines()[-1])


def test_the_profile_is_named_and_used(compiled, invoke):
    args = ["eval", "small.snn.onnx", "--data", "data.npz", "--limit", 10]
    assert invoke(*args, "-q", "--profile", "spikes").stdout.strip().endswith("(spikes)")
    assert invoke(*args, "--profile", "30nm").exit_code == 2


def test_labels_by_key(compiled, invoke):
    with np.load("data.npz") as data:
        np.savez("other.npz", image=data["image"], truth=(data["label"] + 1) % 4)
    args = ["eval", "small.snn.onnx", "--data", "other.npz", "--json"]
    assert json.loads(invoke(*args).stdout)["evaluation"]["snn_accuracy"] is None
    ours = json.loads(invoke(*args, "--labels", "truth").stdout)["evaluation"]["snn_accuracy"]
    # Every fifth label was off by one class before.
    assert ours < 0.35
    missing = invoke(*args, "--labels", "nope")
    assert missing.exit_code == 1
    assert "there is no labels key 'nope'; it has 'image', 'truth': name one of these" in missing.stderr


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_that_are_no_classes(compiled, invoke, label):
    with np.load("data.npz") as data:
        labels = data["label"].copy()
        labels[17] = label
        np.savez("bad.npz", image=data["image"], label=labels)
    result = invoke("eval", "small.snn.onnx", "--data", "bad.npz")
    assert result.exit_code == 1
    assert f"label {label} of sample 17 is no class of the network, which has 4 (0 to 3)" in result.stderr


def test_another_ann_is_noticed(compiled, invoke):
    model = onnx.load("small.onnx")
    model.doc_string = "a byte more"
    onnx.save(model, "other.onnx")
    result = invoke("eval", "small.snn.onnx", "--data", "data.npz", "--against", "other.onnx", "-q")
    assert result.exit_code == 0
    assert result.stderr.startswith("snncc: warning: the spiking network was compiled from 'small'")
    assert "not from this 'other'" in result.stderr


def test_an_ann_that_does_not_fit_is_refused(compiled, invoke):
    model = small_model()
    model.graph.input[0].name = model.graph.node[0].input[0] = "picture"
    onnx.save(model, "other.onnx")
    result = invoke("eval", "small.snn.onnx", "--data", "data.npz", "--against", "other.onnx")
    assert result.exit_code == 2
    assert "takes 'picture' float32 [N, 2, 8, 8]" in result.stderr
    assert "give the network that it was compiled from" in result.stderr


def test_without_labels_the_error_of_the_output_is_reported(compiled, invoke):
    np.save("images.npy", np.load("data.npz")["image"])
    result = invoke("eval", "small.snn.onnx", "--data", "images.npy", "--against", "small.onnx")
    assert result.exit_code == 0
    assert "no labels: no accuracy" in result.stdout
    assert re.search(r"relative error +[\d.]+ % +of output 'logits' \(L2\)", result.stdout)
    assert result.stdout.splitlines()[-1].startswith("SNN (T=8, ψ=4)  relative error ")


def test_zoo_names_work_in_every_place(folder, invoke):
    """One run of a real network, small."""
    name = "zoo:fashion_vgg"
    result = invoke("compile", name, "--calib", "zoo:calibration", "--samples", 8, "-T", 2, "-o", "z.onnx")
    assert result.exit_code == 0, result.stderr
    result = invoke("eval", "z.onnx", "--data", "zoo:test", "--against", name, "--limit", 8, "-q")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("ANN ")
    assert result.stderr == ""
    assert invoke("run", "z.onnx", "--input", "zoo:test", "--limit", 2).exit_code == 0


EXIT = ["--max-drop", "5", "--calib", "data.npz"]


def test_early_exit_tells_when_samples_left_and_what_that_saves(compiled, invoke):
    asked = ["eval", "small.snn.onnx", "--data", "data.npz", "--against", "small.onnx", *EXIT]
    told = json.loads(invoke(*asked, "--json").stdout)
    early, full = told["evaluation"], told["all_timesteps"]
    exits = told["early_exit"]
    assert exits["histogram"] == early["exits"]
    assert sum(exits["histogram"]) == early["samples"] == 96
    steps = sum(t * n for t, n in enumerate(exits["histogram"], 1)) / 96
    assert exits["mean_timesteps"] == pytest.approx(steps)
    assert early["activity"]["mean_timesteps"] == pytest.approx(steps)
    assert steps < early["timesteps"]
    assert exits["calibration"] == {"samples": 96, "mean_timesteps": pytest.approx(steps), "disagreement": ANY}
    assert exits["calibration"]["disagreement"] <= 0.05
    assert early["activity"]["spikes"] < full["activity"]["spikes"]
    assert early["energy"]["45nm"]["snn"] < full["energy"]["45nm"]["snn"]
    shown = invoke(*asked)
    assert shown.exit_code == 0, shown.stderr
    share = max(exits["histogram"]) / 96
    assert f"{100 * share:.1f} %" in shown.stdout
    assert "█" in shown.stdout
    assert f"{steps:.2f}" in shown.stdout
    assert f"(T={steps:.2f} of {early['timesteps']}" in shown.stdout.splitlines()[-1]
    fixed = json.loads(invoke(*asked[:-4], "--early-exit", str(exits["confidence"]), "--json").stdout)
    assert fixed["evaluation"]["exits"] == early["exits"]
    assert fixed["early_exit"]["calibration"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--early-exit", "0.9", *EXIT], "give one of them"),
        (["--max-drop", "1"], "--max-drop and --calib go together"),
        (["--calib", "data.npz"], "--max-drop and --calib go together"),
        (["--exit-measure", "max"], "--exit-measure without early exit"),
        (["--early-exit", "0.9", "--backend", "ort"], "early exit with --backend ort"),
        (["--early-exit", "0"], "'--early-exit'"),
        (["--threads", "0"], "'--threads'"),
    ],
)
@pytest.mark.parametrize("command", [["eval", "--data"], ["run", "--input"]])
def test_refuses_options_of_early_exit_that_make_no_sense(compiled, invoke, command, options, message):
    result = invoke(command[0], "small.snn.onnx", command[1], "data.npz", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
