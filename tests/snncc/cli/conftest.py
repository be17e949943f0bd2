"""A working directory with a small network and data for it, and a way to run the command line there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from small_network import CLASSES, SHAPE, ann_outputs, small_model

from snncc.cli import main

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Run the command line in this process; stdout and stderr are kept apart."""

    def run(*args: object) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with `small.onnx` and `data.npz` (96 images; every fifth label is wrong)."""
    monkeypatch.chdir(tmp_path)
    model = small_model()
    onnx.save(model, tmp_path / "small.onnx")
    images = 2 * np.random.default_rng(1).standard_normal((96, *SHAPE)).astype(np.float32)
    labels = ann_outputs(model, images).argmax(axis=1)
    assert len(set(labels)) > 1, "data of one class would hide most errors"
    labels[::5] = (labels[::5] + 1) % CLASSES
    np.savez(tmp_path / "data.npz", image=images, label=labels)
    return tmp_path


@pytest.fixture
def compiled(folder: Path, invoke: Invoke) -> Path:
    """The same directory after `snncc compile`, which made `small.snn.onnx`."""
    result = invoke("compile", "small.onnx", "--calib", "data.npz", "-q")
    assert result.exit_code == 0, result.stderr
    return folder
