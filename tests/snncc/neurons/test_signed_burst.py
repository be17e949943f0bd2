"""The forms of the signed neuron against each other: closed form, step, simulation, and the ONNX functions."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncc.neurons.functions import functions
from snncc.neurons.response import BLOCK
from snncc.neurons.signed_burst import closed_form, simulate, step

RNG = np.random.default_rng(0)


@given(st.integers(1, 12), st.integers(1, 6), st.sampled_from([0.0, 0.25, 0.5]), st.integers(0, 2**31))
def test_constant_values_give_the_closed_form(timesteps: int, max_burst: int, v_init: float, seed: int) -> None:
    """The aims of a constant value grow evenly, so ψ holds back no more than what the closed form clips."""
    rng = np.random.default_rng(seed)
    theta = rng.uniform(0.5, 2.0, 3).astype(np.float32)
    value = rng.uniform(-1.5, 1.5, (2, 3, 4)).astype(np.float32) * (theta * max_burst)[:, None]
    response = simulate(value[None], theta[:, None], timesteps, max_burst, v_init, means=True)
    mean = response.fired * theta[:, None] / timesteps
    expected = closed_form(value, theta[:, None], timesteps, max_burst, v_init)
    # A value on a step may fall to either side of it in single precision.
    assert (np.abs(mean - expected) <= 1.001 * theta[:, None] / timesteps).all()
    assert np.mean(np.abs(mean - expected) > 1e-4) < 0.05


def test_what_came_too_early_is_taken_back() -> None:
    """Currents 3, 0, -2 at θ = 1: three spikes, none, two taken back; the mean output is that of the mean current."""
    values = np.array([3.0, 0.0, -2.0], np.float32).reshape(3, 1, 1, 1)
    response = simulate(values, np.ones(1, np.float32), 3, 4, 0.5)
    assert response.counts.reshape(-1).tolist() == [3, 0, -2]
    assert response.fired.item() == 1
    assert response.spikes == 5
    assert response.arrived.item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(("max_burst", "dtype"), [(127, np.int8), (128, np.int16), (255, np.int16)])
def test_counts_hold_the_largest_burst(max_burst: int, dtype: type) -> None:
    counts = simulate(np.full((1, 1, 1, 1), 1e6, np.float32), np.ones(1, np.float32), 1, max_burst, 0.5).counts
    assert counts.dtype == dtype
    assert counts.item() == max_burst


@pytest.mark.parametrize("kind", ["SignedBurst", "SignedBurstRelu", "SignedBurstClip"])
def test_simulation_step_and_onnx_function_agree(kind: str) -> None:
    timesteps, max_burst, v_init = 7, 3, 0.5
    x = RNG.normal(0.3, 1.5, (timesteps, 4, 3, 5)).astype(np.float32)
    theta = np.array([0.7, 1.1, 0.4], np.float32)
    upper = np.float32(1.3 if kind == "SignedBurstClip" else np.inf)
    column, means = theta[:, None], kind == "SignedBurst"
    response = simulate(x, column, timesteps, max_burst, v_init, upper=float(upper), means=means)
    counts = response.counts
    numbers = np.arange(1, timesteps + 1, dtype=np.float32).reshape(-1, 1, 1, 1)
    wanted = x * numbers if means else np.clip(np.cumsum(x, axis=0, dtype=np.float32), 0, upper * numbers)
    total = np.zeros((4, 3, 5), np.float32)
    for t, aim in enumerate(wanted):
        fired, total = step(aim, total, theta[:, None], max_burst, v_init)
        np.testing.assert_array_equal(fired, counts[t])
    np.testing.assert_allclose(in_onnx(kind, x, theta, max_burst, v_init, upper), counts * theta[:, None], rtol=1e-6)


def in_onnx(
    kind: str, x: np.ndarray, theta: np.ndarray, max_burst: int, v_init: float, upper: np.float32
) -> np.ndarray:
    import onnx.parser

    bound = f", upper = {upper}" if kind == "SignedBurstClip" else ""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17, "snncc" : 1]>
        g (float[M,3,5] x, float[1,3,1] theta, float v_init) => (float[M,3,5] y) {{
            y = snncc.{kind} <timesteps = {len(x)}, max_burst = {max_burst}, threshold_ratio = 1.0{bound}>
                (x, theta, v_init)
        }}"""
    )
    model.functions.extend(functions([kind], 17))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"x": x.reshape(-1, 3, 5), "theta": theta.reshape(1, 3, 1), "v_init": np.array(v_init, np.float32)}
    return session.run(None, feeds)[0].reshape(x.shape)


def test_values_that_are_not_finite_count_as_zero() -> None:
    values = np.array([np.nan, np.inf, 2.0, -np.inf], np.float32).reshape(4, 1, 1)
    response = simulate(values, np.ones(1, np.float32), 4, 9, 0.5, means=True)
    assert response.counts.reshape(-1).tolist() == [0, 0, 6, -6]


@pytest.mark.parametrize("means", [False, True])
def test_blocks_of_elements_are_simulated_alike(means: bool) -> None:
    """More elements than one block, not a multiple of it: each on its own gives the same; the shift is a current."""
    rng = np.random.default_rng(3)
    size = 2 * BLOCK + 5
    values = rng.normal(0.4, 1.0, (4, 2, size)).astype(np.float32)
    theta = rng.uniform(0.3, 1, size).astype(np.float32)
    shift = None if means else rng.integers(-4, 5, size).astype(np.float32) / 16
    found = simulate(values, theta, 4, 3, 0.5, means=means, shift=shift)
    np.testing.assert_array_equal(found.counts.sum(axis=0), found.fired)
    assert found.spikes == np.abs(found.counts.astype(np.int64)).sum()
    np.testing.assert_allclose(found.arrived, values[-1] if means else values.mean(axis=0), rtol=0, atol=1e-6)
    for start in (0, BLOCK - 1, BLOCK, size - 1):
        part = slice(start, start + 1)
        moved = values[:, :, part] if shift is None else values[:, :, part] + shift[part]
        alone = simulate(moved, theta[part], 4, 3, 0.5, means=means)
        np.testing.assert_array_equal(found.counts[:, :, part], alone.counts)
