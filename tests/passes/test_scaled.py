"""Values that are scaled where they are read, against NumPy and against ONNX Runtime's addition."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_networks import NETWORKS, compiled, inputs_of

from snncc.passes.calibration_walk import Walk
from snncc.passes.scaled import Scaled, add
from snncc.runtime.buffers import BufferPool

RNG = np.random.default_rng(0)
GAIN, SHIFT = (RNG.uniform(0.5, 2, (1, 3, 1)).astype(np.float32) for _ in range(2))


def values(name: str) -> Scaled:
    rng, shape = np.random.default_rng(1), (4, 2, 3, 5)
    return {
        "spikes": lambda: Scaled(rng.integers(0, 256, shape).astype(np.uint8), GAIN),
        "signed spikes": lambda: Scaled(rng.integers(-128, 128, shape).astype(np.int8), GAIN),
        "wide": lambda: Scaled(rng.integers(-255, 256, shape).astype(np.int16), GAIN),
        "currents": lambda: Scaled(rng.normal(size=shape).astype(np.float32), GAIN, SHIFT),
    }[name]()


NAMES = ["spikes", "signed spikes", "wide", "currents"]


def plain(value: Scaled) -> np.ndarray:
    shift = np.float32(0) if value.shift is None else value.shift
    return value.values.astype(np.float32) * value.gain + shift


@pytest.mark.parametrize("name", NAMES)
def test_decodes(name: str) -> None:
    value = values(name)
    found = value.decode()
    assert found.dtype == np.float32
    assert value.shape == found.shape
    np.testing.assert_array_equal(found, plain(value))
    buffers = BufferPool()
    some = Scaled(value.values, value.gain, value.shift, buffers)[1:3]
    np.testing.assert_array_equal(some, plain(value)[1:3])


@pytest.mark.parametrize("one", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_adds(one: str, other: str) -> None:
    """To the rounding of three float32 sums in another order."""
    a, b = values(one), values(other)
    out = np.empty(a.shape, np.float32)
    add(a, b, out)
    np.testing.assert_allclose(out, plain(a) + plain(b), rtol=3e-7, atol=3e-7 * np.abs(plain(a)).max())


@pytest.mark.parametrize("name", ["residual"])
def test_addition_is_that_of_onnxruntime(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network is calibrated alike with the addition here and there, to single precision."""
    model = NETWORKS[name].model()
    feeds = inputs_of(model, 40)
    additions: list[str] = []
    run = Walk._run_addition
    monkeypatch.setattr(Walk, "_run_addition", lambda self, s: additions.append(s.nodes[0].name) or run(self, s))
    ours = compiled(model, data=feeds, timesteps=4)
    assert additions
    monkeypatch.setattr(Walk, "_adds", lambda self, segment: False)
    theirs = compiled(model, data=feeds, timesteps=4)
    for a, b in zip(ours.model.graph.initializer, theirs.model.graph.initializer, strict=True):
        x, y = onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b)
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-4 * max(float(np.abs(x).max()), 1.0))
