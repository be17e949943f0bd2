"""Networks whose input presents a frame at each timestep: every kind of network, every backend, and the oracles.

Values agree to `ROUNDING` (float32 sums in another order); spikes are whole and equal to the last one.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from small_networks import NETWORKS, compiled, inputs_of, parse, run

import snncc
from snncc import sequences
from snncc.config import Config
from snncc.data.spec import InputSpec
from snncc.errors import DataError, UnsupportedModelError, UsageError
from snncc.evaluate import evaluate
from snncc.network import SpikingNetwork
from snncc.runtime.fused import FusedExecutor

ROUNDING = 2e-5
T = 4

Arrays = dict[str, np.ndarray]


def sequences_of(name: str, samples: int, frames: int, seed: int = 5) -> Arrays:
    """Sequences [N, frames, ...] whose frames differ."""
    model = NETWORKS[name].model()
    parts = [inputs_of(model, samples, seed + 100 * number) for number in range(frames)]
    return {key: np.stack([part[key] for part in parts], axis=1) for key in parts[0]}


@functools.cache
def network_of(name: str, reset_after: int = T, trace: bool = False) -> SpikingNetwork:
    options: dict[str, Any] = {"input_coding": "frames", "reset_after": reset_after, "trace": trace}
    return compiled(NETWORKS[name].model(), data=sequences_of(name, 8, T), timesteps=T, max_burst=3, **options)


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=ROUNDING * max(float(np.abs(wanted).max()), 1e-6))


def fed(data: Arrays) -> Arrays:
    """[N, T, ...] as the artifact takes it."""
    return {name: np.ascontiguousarray(np.moveaxis(value, 1, 0)) for name, value in data.items()}


def check_backends(network: SpikingNetwork, data: Arrays) -> None:
    feeds = fed(data)
    wanted = network.simulator("numpy").run(feeds, trace=True)
    session = ort.InferenceSession(network.model.SerializeToString(), providers=["CPUExecutionProvider"])
    plain = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))
    assert sum(float(s.sum()) for s in wanted.spikes.values()) > 0
    for backend in ("fused", "ort"):
        found = network.simulator(backend).run(feeds, trace=True)
        assert found.samples == wanted.samples
        assert found.spikes.keys() == wanted.spikes.keys()
        for node, spikes in wanted.spikes.items():
            np.testing.assert_array_equal(found.spikes[node], spikes)
        for name, value in wanted.outputs.items():
            close(found.outputs[name], value)
            close(found.trace[name], wanted.trace[name])
    for name, value in wanted.outputs.items():
        close(plain[name], value)
        close(wanted.trace[name][-1], value)


def batch_of(name: str) -> int:
    return NETWORKS[name].model().graph.input[0].type.tensor_type.shape.dim[0].dim_value or 3


@pytest.mark.parametrize("name", NETWORKS)
def test_every_backend_does_the_same(name: str) -> None:
    network = network_of(name)
    assert network.record.frames == [i.name for i in network.inputs]
    check_backends(network, sequences_of(name, batch_of(name), T, seed=9))


FOLDED = [name for name, small in NETWORKS.items() if small.lowering == "batch"]


@pytest.mark.parametrize("name", FOLDED)
def test_every_backend_starts_anew(name: str) -> None:
    check_backends(network_of(name, 2), sequences_of(name, batch_of(name), T, seed=9))


@pytest.mark.parametrize("reset_after", [2, T])
@pytest.mark.parametrize("name", ["plain", "residual", "maxpool_pads"])
def test_a_trace_is_that_of_the_reference(name: str, reset_after: int) -> None:
    network = network_of(name, reset_after, trace=True)
    feeds = fed(sequences_of(name, 3, T, seed=9))
    wanted = network.simulator("numpy").run(feeds, trace=True)
    session = ort.InferenceSession(network.model.SerializeToString(), providers=["CPUExecutionProvider"])
    plain = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))
    for output, trace in wanted.trace.items():
        close(plain[f"{output}_trace"], trace)


def constant_and_frames(name: str, neuron: str) -> tuple[SpikingNetwork, SpikingNetwork, Arrays]:
    """The same thresholds in both codings: without corrections they follow from the ANN's activations alone."""
    model, data = NETWORKS[name].model(), inputs_of(NETWORKS[name].model(), 8)
    options: dict[str, Any] = {"timesteps": T, "max_burst": 3, "neuron": neuron, "bias_correction": False}
    constant = compiled(model, data=data, **options)
    held = {key: np.repeat(value[:, None], T, axis=1) for key, value in data.items()}
    frames = compiled(model, data=held, input_coding="frames", reset_after=T, **options)
    return constant, frames, data


@pytest.mark.parametrize("neuron", ["burst", "signed"])
@pytest.mark.parametrize("name", ["plain", "residual", "maxpool_pads", "mobile"])
def test_equal_frames_are_a_constant_input(name: str, neuron: str) -> None:
    constant, frames, data = constant_and_frames(name, neuron)
    wanted = constant.simulator("numpy").run(data, trace=True)
    found = frames.simulator("numpy").run({k: np.stack([v] * T) for k, v in data.items()}, trace=True)
    for node, spikes in wanted.spikes.items():
        np.testing.assert_array_equal(found.spikes[node], spikes)
    for output, trace in wanted.trace.items():
        np.testing.assert_array_equal(found.trace[output], trace)


def test_a_period_is_a_network_of_its_own() -> None:
    """With R = 2, four frames are two runs of the network with T = 2, whose outputs are averaged."""
    model, data = NETWORKS["plain"].model(), sequences_of("plain", 8, 2)
    options: dict[str, Any] = {"max_burst": 3, "bias_correction": False}
    whole = compiled(model, data=data, timesteps=4, input_coding="frames", reset_after=2, **options)
    both = np.concatenate([data["x"][:, 0], data["x"][:, 1]])
    alone = compiled(model, data={"x": both}, timesteps=2, **options)
    expected = alone.run({"x": both})["y"].reshape(2, 8, -1).mean(axis=0)
    close(whole.run(data)["y"], expected)


def test_the_order_of_frames_changes_spikes_but_in_a_linear_network_not_the_mean() -> None:
    """A network whose only neuron is far from its bounds is linear but for rounding to spikes."""
    text = "g (float[N,6] x, float[6,4] w_1) => (float[N,4] y) { h = MatMul(x, w_1) y = Relu(h) }"
    model = parse(text)
    weight = np.abs(np.random.default_rng(0).standard_normal((6, 4))).astype(np.float32)
    model.graph.initializer[0].raw_data = weight.tobytes()
    x = np.random.default_rng(1).random((16, 32, 6), np.float32)
    network = compiled(model, data={"x": x}, timesteps=32, max_burst=64, input_coding="frames", reset_after=32)
    ordered, turned = (network.simulator("numpy").run(fed({"x": v}), trace=True) for v in (x, x[:, ::-1]))
    assert not np.allclose(ordered.trace["y"][10], turned.trace["y"][10])  # it got there by other spikes
    step = network.record.layers[0].theta_max / 32
    np.testing.assert_allclose(ordered.outputs["y"], turned.outputs["y"], rtol=0, atol=step * (1 + 1e-4))
    np.testing.assert_allclose(ordered.outputs["y"], run(model, {"x": x.mean(axis=1)})["y"], rtol=0, atol=2 * step)


def test_fewer_frames_are_held() -> None:
    network = network_of("plain", 2)
    two = sequences_of("plain", 3, 2)
    held = {key: np.repeat(value, 2, axis=1) for key, value in two.items()}
    np.testing.assert_array_equal(network.run(two)["y"], network.run(held)["y"])


def test_the_evaluation_compares_with_the_counterpart() -> None:
    model, data = NETWORKS["plain"].model(), sequences_of("plain", 12, T)
    found = evaluate(network_of("plain", 2), data, ann=model)
    means = [run(model, {"x": data["x"][:, p : p + 2].mean(axis=1)})["y"] for p in (0, 2)]
    ann, snn = np.mean(means, axis=0), network_of("plain", 2).run(data)["y"]
    assert found.counterpart == "the mean of its outputs on the mean frame of every 2 timesteps"
    assert found.outputs[0].relative_error == pytest.approx(np.linalg.norm(snn - ann) / np.linalg.norm(ann), rel=1e-4)
    assert found.agreement == np.mean(ann.argmax(1) == snn.argmax(1))
    assert found.outputs[0].by_timestep[-1] == pytest.approx(found.outputs[0].relative_error, rel=1e-4)


def test_the_first_layer_is_counted_at_every_timestep() -> None:
    model, data = NETWORKS["plain"].model(), sequences_of("plain", 4, T)
    first = [evaluate(network_of("plain", r), data, ann=model).reading.layers[0] for r in (T, 2)]
    assert [layer.driven_by for layer in first] == ["frames", "frames"]
    assert [layer.snn_macs for layer in first] == [T * first[0].macs] * 2
    assert first[1].macs == 2 * first[0].macs  # the ANN sees two presentations


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_calibration_comes_nearer_with_more_timesteps(name: str) -> None:
    """An independent figure: the ANN on the mean frame."""
    model = NETWORKS[name].model()
    data = sequences_of(name, 32, 4)
    errors = []
    for timesteps in (4, 32):
        network = compiled(
            model, data=data, timesteps=timesteps, max_burst=4, input_coding="frames", reset_after=timesteps
        )
        output, found = next(iter(network.run(data).items()))
        wanted = run(model, {k: v.mean(axis=1) for k, v in data.items()})[output]
        errors.append(float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted)))
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.15


MIXED = """
g (float[N,6] x, bool[N,6] keep, float[6,8] w_1, float[8,4] w_2) => (float[N,4] y)
{
    zero = Constant <value_float = 0.0> ()
    kept = Where(keep, x, zero)
    h = MatMul(kept, w_1)
    a = Relu(h)
    y = MatMul(a, w_2)
}
"""


@pytest.mark.parametrize("reset_after", [2, T])
def test_masks_stay_the_same_at_every_timestep(reset_after: int) -> None:
    rng = np.random.default_rng(3)
    data = {"x": rng.standard_normal((6, T, 6)).astype(np.float32), "keep": rng.random((6, 6)) > 0.3}
    options: dict[str, Any] = {"timesteps": T, "input_coding": "frames", "reset_after": reset_after}
    network = snncc.compile(parse(MIXED), calibration=data, config=Config(**options))
    assert network.record.frames == ["x"]
    assert [spec.timesteps for spec in network.inputs] == [T, None]
    results = [network.run(data, backend=backend)["y"] for backend in ("fused", "ort", "numpy")]
    close(results[0], results[2])
    close(results[1], results[2])


def test_frames_of_another_floating_point_type() -> None:
    model = parse(
        """g (double[N,6] x, float[6,8] w_1, float[8,4] w_2) => (float[N,4] y)
        { f = Cast <to = 1> (x) h = MatMul(f, w_1) a = Relu(h) y = MatMul(a, w_2) }"""
    )
    x = np.random.default_rng(0).standard_normal((6, T, 6))
    network = compiled(model, data={"x": x}, timesteps=T, input_coding="frames", reset_after=T)
    assert network.model.graph.input[0].type.tensor_type.elem_type == 11
    results = [network.run({"x": x}, backend=backend)["y"] for backend in ("fused", "ort", "numpy")]
    close(results[0], results[2])
    close(results[1], results[2])


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((8, 3, 3, 8, 8), "3 frames per sample, the spiking network takes 4.*--bins 4.*multiple of 3"),
        ((8, 3, 8, 8), r"no axis for the frames.*np.expand_dims\(array, 1\)"),
        ((8, 8, 3, 8, 8), "8 frames per sample"),
        ((4, 9, 3, 8, 8), "9 frames per sample"),
        ((8, 4, 3, 8, 9), "all axes but the first two agree"),
        ((8, 0, 3, 8, 8), "0 frames"),
    ],
)
def test_data_that_does_not_fit_is_refused(shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        compiled(NETWORKS["plain"].model(), data={"x": np.zeros(shape, np.float32)}, timesteps=T, input_coding="frames")


def test_a_network_without_floating_point_inputs_is_refused() -> None:
    text = """g (int64[N,6] x, float[6,8] w_1) => (float[N,8] y)
    { f = Cast <to = 1> (x) h = MatMul(f, w_1) y = Relu(h) }"""
    with pytest.raises(UsageError, match=r"no input can present frames.*input coding constant"):
        compiled(parse(text), data={"x": np.zeros((4, T, 6), np.int64)}, timesteps=T, input_coding="frames")


def test_a_scan_can_not_start_anew_within_a_sample() -> None:
    name = next(name for name, small in NETWORKS.items() if small.lowering == "scan")
    with pytest.raises(UnsupportedModelError, match=f"--reset-after {T}"):
        network_of(name, 2)


OPEN_STATES = """g (float[N,4,6] x, float[6,5] w_1, float[5,3] w_2) => (float[4,N,3] y) {
    t = Transpose <perm = [1,0,2]> (x) m = MatMul (t, w_1) r = Relu (m) s = Softmax (r)
    h = MatMul (s, w_2) y = Relu (h)
}"""


def test_states_of_open_size_take_their_shape_from_the_first_frame() -> None:
    """The samples move to another axis, so the sizes of the states aren't known before a frame is there."""
    x = np.random.default_rng(3).standard_normal((8, T, 4, 6)).astype(np.float32)
    network = compiled(parse(OPEN_STATES), data={"x": x}, timesteps=T, input_coding="frames", reset_after=T)
    assert network.record.network["lowering"] == "scan"
    feeds = fed({"x": x[:3]})
    wanted = network.simulator("numpy").run(feeds)
    session = ort.InferenceSession(network.model.SerializeToString(), providers=["CPUExecutionProvider"])
    close(session.run(["y"], feeds)[0], wanted.outputs["y"])
    assert not [node.name for node in network.network.nodes if "shape_only" in node.name]


def test_an_input_that_is_an_output_is_refused() -> None:
    model = parse("g (float[N,6] x, float[6,4] w_1) => (float[N,4] y) { h = MatMul(x, w_1) y = Relu(h) }")
    model.graph.output.append(model.graph.input[0])
    with pytest.raises(UnsupportedModelError, match="output as it is"):
        compiled(model, data={"x": np.ones((4, T, 6), np.float32)}, timesteps=T, input_coding="frames")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"input_coding": "spikes"}, "one of constant, frames"),
        ({"reset_after": 2}, "input is constant"),
        ({"input_coding": "frames", "timesteps": 8, "reset_after": 3}, "must divide the 8 timesteps"),
        ({"input_coding": "frames", "timesteps": 8, "reset_after": 0}, "whole number from 1 to 8"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Config(**options)


def test_options_about_frames_are_named_only_where_there_are_some() -> None:
    assert not {"input_coding", "reset_after"} & Config().to_dict().keys()
    given = Config(input_coding="frames", reset_after=4)
    assert Config(**given.to_dict()) == given  # type: ignore[arg-type]


# --- arrays ---------------------------------------------------------------------------------------------------------


def test_periods_and_back() -> None:
    x = np.arange(6 * 2 * 3, dtype=np.float32).reshape(6, 2, 3)
    apart = sequences.per_period(x, 2)
    assert apart.shape == (2, 6, 3)
    np.testing.assert_array_equal(apart[1, 4], x[5, 0])  # third period, second timestep, first sample
    np.testing.assert_array_equal(sequences.in_order(apart, 3), x)
    assert not np.shares_memory(sequences.per_period(x, 6), x)


def test_running_means_over_periods() -> None:
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    apart = sequences.per_period(x, 2)
    within = np.cumsum(apart, axis=0) / np.arange(1, 3).reshape(-1, 1, 1)
    wanted = np.cumsum(x, axis=0) / np.arange(1, 7).reshape(-1, 1, 1)
    np.testing.assert_allclose(sequences.running_over(within.astype(np.float32), 3), wanted, rtol=1e-5, atol=1e-6)


def test_the_mean_of_equal_frames_is_the_frame() -> None:
    x = np.random.default_rng(0).standard_normal((1, 5, 7)).astype(np.float32)
    np.testing.assert_array_equal(sequences.mean_frame(np.repeat(x, 4095, axis=0), 4095), x[0])


def test_which_inputs_present_frames() -> None:
    specs = [InputSpec("x", np.dtype(np.float32), ("N", 3)), InputSpec("i", np.dtype(np.int64), ("N",))]
    specs += [InputSpec("table", np.dtype(np.float32), (7, 3)), InputSpec("z", np.dtype(np.float16), ("N", 1))]
    assert sequences.frame_inputs(specs) == ["x", "z"]


def test_the_fused_executor_is_used() -> None:
    assert isinstance(network_of("plain", 2).simulator(), FusedExecutor)
