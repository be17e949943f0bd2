"""Networks that were trained in steps, compiled, against ONNX Runtime on the original."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_checks import parse
from small_network import ann_outputs

import snncc
from snncc.config import Config

SCALE = "float lam = {2.5}, float levels = {8}, float half = {0.5}, float zero = {0}, float one = {1}"
QCFS = """h{i} = MatMul({x}, w{i}) d{i} = Div(h{i}, lam) c{i} = Clip(d{i}, zero, one) m{i} = Mul(c{i}, levels)
    a{i} = Add(m{i}, half) [act{i}] f{i} = Floor(a{i}) e{i} = Div(f{i}, levels) g{i} = Mul(e{i}, lam)"""


def network(depth: int, phase: float = 0.5) -> onnx.ModelProto:
    """Return [N, 32] to [N, 5]: layers with QCFS of 8 levels, without biases."""
    body = " ".join(QCFS.format(i=i, x=f"g{i - 1}" if i else "x") for i in range(depth))
    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.standard_normal((32, 32)) / 4 for i in range(depth)} | {"v": rng.standard_normal((32, 5))}
    declared = ", ".join(f"float[{32},{w.shape[1]}] {name}" for name, w in weights.items())
    scale = SCALE.replace("0.5", str(phase))
    text = f"g (float[N,32] x, {declared}) => (float[N,5] y) <{scale}> {{ {body} y = MatMul(g{depth - 1}, v) }}"
    return parse(text, weights)


def samples(seed: int, count: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 32)).astype(np.float32)


def relative_error(network: snncc.SpikingNetwork, model: onnx.ModelProto) -> float:
    """On inputs that the calibration hasn't seen."""
    expected = ann_outputs(model, samples(1))
    return float(np.linalg.norm(network.run(samples(1))["y"] - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("phase", [0.0, 0.5])
@pytest.mark.parametrize("neuron", ["auto", "burst", "signed"])
@pytest.mark.parametrize(("timesteps", "max_burst"), [(1, 8), (2, 4), (8, 1)])
def test_as_many_levels_and_constant_currents_are_exact(
    timesteps: int, max_burst: int, neuron: str, phase: float
) -> None:
    """Up to the rounding of float32: the steps are the same, and so are v0 and the bound."""
    model, config = network(1, phase), Config(timesteps=timesteps, max_burst=max_burst, neuron=neuron)
    for calibration in (samples(2), None):
        compiled = snncc.compile(model, calibration=calibration, config=config)
        assert [layer.threshold_source for layer in compiled.record.layers] == ["pattern"]
        assert relative_error(compiled, model) < 1e-6


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_deep_network_is_exact_where_its_neurons_can_take_spikes_back(calibrated: bool) -> None:
    """32 levels for 8 leave time enough to make up for spikes that come unevenly."""
    model = network(4)
    compiled = snncc.compile(model, calibration=samples(2) if calibrated else None)
    assert {layer.neuron for layer in compiled.record.layers} == {"signed"}
    assert relative_error(compiled, model) < 1e-6


def test_too_few_levels_are_calibrated() -> None:
    """The threshold of least error is smaller than what reaches λ, and better for it."""
    model, config = network(1), Config(timesteps=1, max_burst=2)
    compiled = snncc.compile(model, calibration=samples(2), config=config)
    assert [layer.threshold_source for layer in compiled.record.layers] == ["data"]
    assert compiled.record.layers[0].theta_max <= 2.5 / 2


def test_no_warning_of_random_inputs_where_none_are_needed() -> None:
    warnings = snncc.compile(network(2)).record.warnings
    assert any("steps of the training" in line for line in warnings)
    assert not any("random inputs" in line for line in warnings)
