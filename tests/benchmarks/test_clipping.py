"""What clipping leaves of an error, against a compile for so long a T that nothing else is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from clipping import FINER, errors, run, without_time
from conformance.errors import relative_errors
from conformance.inputs import generate
from small_network import small_model

import snncc


def test_only_clipping_is_left(tmp_path: Path) -> None:
    path, model = tmp_path / "net.onnx", small_model()
    onnx.save(model, path)
    few, many = (generate(model, count, seed=seed, open_size=8) for count, seed in ((1, 3), (64, 4)))
    many = {name: 4 * values for name, values in many.items()}  # far beyond what calibration sees
    expected = run(model, many, 1)
    config = snncc.Config(timesteps=1024, bias_correction=False)
    network = snncc.compile(path, calibration=few, config=config)
    long = relative_errors(network.run(many), expected)
    short = relative_errors(run(without_time(network.model, FINER), many, 1), expected)
    assert min(short.values()) > 0.05  # they are clipped
    # Rounding and uneven arrival at T=1024 are below a hundredth of that.
    assert short == pytest.approx(long, rel=0.02)


def test_more_calibration_inputs_leave_less(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(small_model(), path)
    one, many = (errors(path, count, 16, 256)[0] for count in (1, 64))
    assert many < one / 2
    assert np.isfinite(one)


def test_fewer_levels_leave_more(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(small_model(), path)
    rounded = {timesteps: errors(path, 64, 16, timesteps)[1] for timesteps in (4, 16, 64)}
    assert rounded[4] > 2 * rounded[16] > 4 * rounded[64]
    assert rounded[64] > errors(path, 64, 16, 64)[0]
