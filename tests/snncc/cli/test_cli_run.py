from __future__ import annotations

import json
import time

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import snncc.network
from snncc.runtime.early_exit import EarlyExit
from snncc.runtime.session import Session


def test_run_writes_what_plain_onnxruntime_gives(compiled, invoke):
    result = invoke("run", "small.snn.onnx", "--input", "data.npz", "--output", "out.npz", "--batch-size", 7)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "wrote out.npz: logits [96, 4] from 96 samples\n"
    session = ort.InferenceSession("small.snn.onnx", providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"image": np.load("data.npz")["image"]})[0]
    with np.load("out.npz") as written:
        assert list(written) == ["logits"]
        # Other batch sizes may sum in another order, and a spike more or less is θ/T; that is rare.
        assert (np.abs(written["logits"] - wanted).max(axis=1) < 1e-4).mean() > 0.95


def test_the_same_run_writes_the_same_bytes(compiled, invoke):
    for name in ("a.npz", "b.npz"):
        assert invoke("run", "small.snn.onnx", "--input", "data.npz", "--output", name, "-q").stdout == ""
        time.sleep(2.1 if name == "a.npz" else 0)  # time stamps in a zip archive have a resolution of 2 seconds
    assert (compiled / "a.npz").read_bytes() == (compiled / "b.npz").read_bytes()


def test_outputs_of_any_name_can_be_written(folder, invoke):
    """`file` is the name of a parameter of np.savez; a slash makes a folder of a member."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 3] x) => (float[N, 3] file, float[N, 3] y) { y = Relu(x)  file = Neg(y) }"""
    )
    model.graph.output[1].name = model.graph.node[0].output[0] = model.graph.node[1].input[0] = "head/y"
    onnx.save(model, "named.onnx")
    np.save("x.npy", np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32))
    assert invoke("compile", "named.onnx", "--calib", "x.npy").exit_code == 0
    result = invoke("run", "named.snn.onnx", "--input", "x.npy", "--output", "out.npz")
    assert result.exit_code == 0, result.stderr
    with np.load("out.npz") as written:
        assert set(written) == {"file", "head/y"}
        assert np.array_equal(written["file"], -written["head/y"])


def test_without_output_a_summary_is_printed(compiled, invoke):
    result = invoke("run", "small.snn.onnx", "--input", "data.npz", "--limit", 5)
    assert result.exit_code == 0
    session = ort.InferenceSession("small.snn.onnx", providers=["CPUExecutionProvider"])
    classes = session.run(None, {"image": np.load("data.npz")["image"][:5]})[0].argmax(axis=1)
    line = next(line for line in result.stdout.splitlines() if line.startswith("logits"))
    assert "[5, 4]" in line
    assert line.endswith(" ".join(str(c) for c in classes))


@pytest.mark.parametrize("backend", ["ort", "numpy"])
def test_json(compiled, invoke, backend):
    result = invoke("run", "small.snn.onnx", "--input", "data.npz", "--limit", 20, "--json", "--backend", backend)
    told = json.loads(result.stdout)
    assert {k: told[k] for k in ("snn", "samples", "backend", "output")} == {
        "snn": "small.snn.onnx",
        "samples": 20,
        "backend": backend,
        "output": None,
    }
    logits = told["outputs"]["logits"]
    assert logits["shape"] == [20, 4]
    assert len(logits["classes"]) == 16
    assert logits["min"] <= logits["mean"] <= logits["max"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("out.npy", "its name must end in .npz"),
        ("data.npz", "'data.npz' is the input itself"),
    ],
)
def test_bad_outputs(compiled, invoke, output, message):
    result = invoke("run", "small.snn.onnx", "--input", "data.npz", "--output", output)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_data_of_early_exit_is_no_output(compiled, invoke):
    (compiled / "calib.npz").write_bytes((compiled / "data.npz").read_bytes())
    options = ("--max-drop", 1, "--calib", "calib.npz", "--output", "calib.npz")
    result = invoke("run", "small.snn.onnx", "--input", "data.npz", *options)
    assert result.exit_code == 2
    assert "'calib.npz' is the calibration data itself" in result.stderr
    assert (compiled / "calib.npz").read_bytes() == (compiled / "data.npz").read_bytes()


def test_the_output_is_tried_first(compiled, invoke):
    result = invoke("run", "small.snn.onnx", "--input", "nothing.npz", "--output", "nowhere/out.npz")
    assert result.exit_code == 1
    assert "there is no directory 'nowhere'" in result.stderr
    assert "--output" in result.stderr


def test_a_batch_size_below_one_is_refused(compiled, invoke):
    result = invoke("run", "small.snn.onnx", "--input", "data.npz", "--batch-size", 0)
    assert result.exit_code == 2
    assert "batch size is 0" in result.stderr


def test_the_backend_is_the_one_that_was_asked_for(compiled, invoke, monkeypatch):
    used: list[str] = []
    for name in ("OrtExecutor", "ReferenceSimulator"):
        original = getattr(snncc.network, name)

        def noted(*args, original=original, name=name):
            used.append(name)
            return original(*args)

        monkeypatch.setattr(snncc.network, name, noted)
    for backend in ("numpy", "ort"):
        args = ("run", "small.snn.onnx", "--input", "data.npz", "--limit", 4, "--backend", backend)
        assert invoke(*args).exit_code == 0
    assert used == ["ReferenceSimulator", "OrtExecutor"]


def test_early_exit_writes_what_each_sample_left_with(compiled, invoke):
    asked = ["run", "small.snn.onnx", "--input", "data.npz", "--early-exit", "0.5", "--exit-measure", "max"]
    told = json.loads(invoke(*asked, "--output", "early.npz", "--json").stdout)
    network = snncc.load("small.snn.onnx")
    with np.load("data.npz") as data:
        outputs, exits = network.run_early(data["image"], EarlyExit(0.5, "max"))
    with np.load("early.npz") as found:
        for name, value in outputs.items():
            np.testing.assert_array_equal(found[name], value)
    histogram = np.bincount(exits - 1, minlength=network.record.timesteps).tolist()
    assert told["early_exit"]["histogram"] == histogram
    assert len([n for n in histogram if n]) > 1
    shown = invoke(*asked)
    assert shown.exit_code == 0, shown.stderr
    assert f"mean timesteps: {exits.mean():.2f} of {network.record.timesteps}" in shown.stdout


@pytest.mark.parametrize("backend", ["fused", "ort", "numpy"])
def test_every_session_keeps_to_the_threads(compiled, invoke, backend, monkeypatch):
    made = []
    plain = Session.__init__

    def noting(self, model, what, threads=0):
        made.append(threads)
        plain(self, model, what, threads)

    monkeypatch.setattr(Session, "__init__", noting)
    result = invoke("run", "small.snn.onnx", "--input", "data.npz", "--backend", backend, "--threads", "3", "--json")
    assert result.exit_code == 0, result.stderr
    assert made
    # The fused executor runs three chunks side by side, each with one thread.
    assert set(made) == ({1} if backend == "fused" else {3})
