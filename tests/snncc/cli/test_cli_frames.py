"""Sequences on the command line: compile, inspect, eval, run and search, on one layout of the data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_network import SHAPE, ann_outputs


@pytest.fixture
def frames(folder: Path) -> Path:
    """Sequences of two frames, labelled with the class of the mean of their outputs."""
    x = 2 * np.random.default_rng(1).standard_normal((64, 2, *SHAPE)).astype(np.float32)
    outputs = np.mean([ann_outputs(onnx.load("small.onnx"), x[:, k]) for k in range(2)], axis=0)
    np.savez(folder / "frames.npz", image=x, label=outputs.argmax(axis=1))
    return folder


COMPILE = ["compile", "small.onnx", "--calib", "frames.npz", "--input-coding", "frames", "-T", "4", "--max-burst", "8"]


def test_compile_run_and_eval(frames, invoke):
    made = invoke(*COMPILE, "--json")
    assert made.exit_code == 0, made.stderr
    record = json.loads(made.stdout)["record"]
    assert record["config"]["input_coding"] == "frames"
    assert record["config"]["reset_after"] == 2  # the labels say so
    assert record["network"]["frames"] == ["image"]
    found = invoke("eval", "small.snn.onnx", "--data", "frames.npz", "--against", "small.onnx", "--json")
    assert found.exit_code == 0, found.stderr
    evaluation = json.loads(found.stdout)["evaluation"]
    assert evaluation["ann_accuracy"] == 1.0
    assert evaluation["counterpart"] == "the mean of its outputs on the mean frame of every 2 timesteps"
    assert len(evaluation["accuracy_by_timestep"]) == 4
    assert invoke("run", "small.snn.onnx", "--input", "frames.npz", "--output", "out.npz").exit_code == 0
    x = np.load("frames.npz")["image"]
    fed = np.ascontiguousarray(np.moveaxis(np.repeat(x, 2, axis=1), 1, 0))  # as any program would feed the artifact
    plain = ort.InferenceSession("small.snn.onnx", providers=["CPUExecutionProvider"]).run(None, {"image": fed})[0]
    np.testing.assert_allclose(np.load("out.npz")["logits"], plain, rtol=0, atol=1e-4)
    assert evaluation["snn_accuracy"] == np.mean(plain.argmax(axis=1) == np.load("frames.npz")["label"])


def test_what_is_printed_names_the_counterpart(frames, invoke):
    made = invoke(*COMPILE)
    assert "neurons start anew after 2" in made.stdout
    assert "by the frames of the input" in made.stdout
    looked = invoke("inspect", "small.snn.onnx")
    assert "[4, N, " in looked.stdout
    assert "the mean of its outputs" in looked.stdout
    dry = invoke("inspect", "small.onnx", "--input-coding", "frames")
    assert "a frame each step" in dry.stdout
    found = invoke("eval", "small.snn.onnx", "--data", "frames.npz", "--against", "small.onnx")
    assert "small.onnx, the mean of its outputs" in found.stdout


def test_a_search_and_its_front(frames, invoke, monkeypatch):
    monkeypatch.setenv("SNNCC_CACHE", str(frames / "cache"))
    options = ["--calib", "frames.npz", "-T", "4", "--input-coding", "frames", "--simulate", "1", "-q"]
    searched = invoke("search", "small.onnx", *options, "--method", "bsr", "-o", "front.json")
    assert searched.exit_code == 0, searched.stderr
    made = invoke("compile", "small.onnx", "--calib", "frames.npz", "--front", "front.json", "--json")
    assert made.exit_code == 0, made.stderr
    assert json.loads(made.stdout)["record"]["config"]["reset_after"] == 2
    refused = invoke(
        "compile", "small.onnx", "--calib", "frames.npz", "--front", "front.json", "--input-coding", "frames"
    )
    assert "--input-coding with --front" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*COMPILE, "-T", "5"], "2 frames per sample, the spiking network takes 5"),
        (["compile", "small.onnx", "--calib", "frames.npz"], "has shape [64, 2, "),
        ([*COMPILE[:2], "--calib", "data.npz", "--input-coding", "frames"], "no axis for the frames"),
        ([*COMPILE, "--reset-after", "3"], "must divide the 4 timesteps"),
        (["compile", "small.onnx", "--reset-after", "2"], "the input is constant"),
    ],
)
def test_refusals(frames, invoke, arguments, message):
    result = invoke(*arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
