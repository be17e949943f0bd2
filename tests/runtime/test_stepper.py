"""The stepper is the batch run, bit for bit, and its state is all that it needs to go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_networks import NETWORKS, compiled, inputs_of, parse

import snncc
from snncc import models
from snncc.config import WEIGHTS
from snncc.errors import DataError, UsageError
from snncc.network import SpikingNetwork
from snncc.runtime.fused import FusedExecutor
from snncc.runtime.reference import ReferenceSimulator
from snncc.runtime.stepper import Stepper

T = 5
CONSTANT = {"static_branch": "node 'd'", "currents_are_outputs": "output 'g1'"}
CHANGING = [name for name in NETWORKS if name not in CONSTANT]

ON_MEANS = {
    "attention": """g (float[N,6,8] x, float[8,8] w_1, float[8] w_s, float[8] b_1, float[8,8] w_q, float[8,8] w_k,
        float[8,8] w_v, float[8,5] w_o) => (float[N,6,5] y) {
            m1 = MatMul (x, w_1) r1 = Relu (m1)
            n1 = LayerNormalization (r1, w_s, b_1)
            q = MatMul (n1, w_q) k = MatMul (n1, w_k) v = MatMul (n1, w_v)
            t = Transpose <perm = [0,2,1]> (k) s = MatMul (q, t) a = Softmax <axis = -1> (s)
            m = MatMul (a, v) d = Add (m, r1) r2 = Relu (d)
            y = MatMul (r2, w_o)
        }""",
    "softmax_and_products": """g (float[N,7] x, float[7,9] w_1, float[9,9] w_2, float[9,4] w_3) => (float[N,4] y) {
            m1 = MatMul (x, w_1) r1 = Sigmoid (m1) m2 = MatMul (r1, w_2) s = Softmax (m2)
            p = Mul (s, r1) e = Tanh (p) m3 = MatMul (e, w_3) r3 = Relu (m3)
            y = Softmax (r3)
        }""",
    "rows_that_depend_on_their_place": """g (float[N,37] x, float[37,37] w_1, float[37,4] w_2)
        => (float[N,4] y, float[N,4] m2) {
            m1 = MatMul (x, w_1) r1 = Relu (m1) a = ReduceMean <axes = [1], keepdims = 1> (r1)
            d = Sub (r1, a) m2 = MatMul (d, w_2) y = Relu (m2)
        }""",
}
"""What works on running means; and a mean that ONNX Runtime adds up by where a row lies in memory."""


def network_of(name: str, neuron: str = "auto", weights: str = "float32") -> SpikingNetwork:
    model = parse(ON_MEANS[name]) if name in ON_MEANS else NETWORKS[name].model()
    return compiled(model, timesteps=T, max_burst=3, neuron=neuron, weights=weights)


def feeds_of(network: SpikingNetwork, samples: int, seed: int = 3) -> dict[str, np.ndarray]:
    return inputs_of(network.model, network.inputs[0].batch or samples, seed)


def check_bits(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype)
        assert found[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("neuron", ["burst", "signed"])
@pytest.mark.parametrize("name", [*NETWORKS, *ON_MEANS])
def test_is_the_batch_run_bit_for_bit(name: str, neuron: str, weights: str) -> None:
    """After each step the trace of the run, after the last one its output, for one sample and for several."""
    network = network_of(name, neuron, weights)
    for samples in (1, 3, 19):
        feeds = feeds_of(network, samples)
        run = network.simulator("fused").run(feeds, trace=True)
        stepper = network.stepper(len(next(iter(feeds.values()))))
        for t in range(T):
            outputs = stepper.step(feeds if t in (0, 3) else None)
            check_bits(outputs, {n: v[t] for n, v in run.trace.items()})
            assert stepper.timesteps == t + 1
        check_bits(outputs, network.run(feeds))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", models.names())
def test_is_the_batch_run_on_the_zoo(name: str, weights: str) -> None:
    """Of the bundled networks, whatever the batch that a sample is in, the threads and the length of the blocks."""
    images = models.calibration_set()[0][:11].astype(np.float32)
    config = snncc.Config(timesteps=9, max_burst=4, weights=weights)
    network = snncc.compile(f"zoo:{name}", calibration=images, config=config)
    run = FusedExecutor(network.network, 9, threads=2).run({"image": images}, trace=True)
    few, alone = Stepper(FusedExecutor(network.network, 9, threads=1), network.inputs, 3), network.stepper()
    for t in range(9):
        check_bits(few.step(images[4:7]), {n: v[t, 4:7] for n, v in run.trace.items()})
        check_bits(alone.step(images[10:]), {n: v[t, 10:] for n, v in run.trace.items()})


@pytest.mark.parametrize("name", CHANGING)
def test_frames_that_change_are_the_currents_of_each_timestep(name: str) -> None:
    """After the first frame it is the reference's run of one timestep; a second frame then makes a difference."""
    network = network_of(name)
    first, second = feeds_of(network, 2, seed=5), feeds_of(network, 2, seed=6)
    stepper = network.stepper(len(next(iter(first.values()))))
    one = stepper.step(first)
    wanted = ReferenceSimulator(network.network, 1).run(first).outputs
    for output, value in wanted.items():
        np.testing.assert_allclose(one[output], value, rtol=1e-4, atol=1e-5)
    stepper.step(second)
    again = network.stepper(stepper.batch)
    again.step(first)
    again.step(first)
    assert any(not np.array_equal(stepper.step()[n], again.step()[n]) for n in wanted)


def test_frames_add_up_by_hand() -> None:
    """θ = 1 and ψ = 3 with v0 = 0.5: currents of 0.4, 0.3 and 2.0 fire 0, 1 and 2 (membranes 0.9, 0.2, 0.2)."""
    network = compiled(NETWORKS["first_is_relu"].model(), timesteps=T, max_burst=3, neuron="burst")
    graph = network.network
    theta = next(n for n in graph.nodes if n.op == "BurstIF").inputs[1]
    theta.values = np.ones_like(theta.values)
    stepper = Stepper(FusedExecutor(graph, T), network.inputs, 1)
    fired, v_mem = [], []
    for current in (0.4, 0.3, 2.0):
        stepper.step(np.full((1, 6), current, np.float32))
        state = stepper.state()
        v_mem.append(float(state["r1:v_mem"][0, 0]))
        fired.append(float(stepper._walks[0][0].result.spikes["r1"][0]))
    assert np.diff(fired, prepend=0).tolist() == [0, 1, 2]
    assert v_mem == pytest.approx([0.9, 0.2, 0.2], abs=1e-6)


@pytest.mark.parametrize("name", CONSTANT)
def test_a_network_that_takes_its_input_as_constant_says_so(name: str) -> None:
    network = network_of(name)
    stepper, feeds = network.stepper(2), feeds_of(network, 2)
    stepper.step(feeds)
    stepper.step({name: value.copy() for name, value in feeds.items()})
    other = {name: value + 1 for name, value in feeds.items()}
    with pytest.raises(UsageError, match=f"but {CONSTANT[name]}.*show the same frame at every step, or call reset"):
        stepper.step(other)
    assert stepper.timesteps == 2
    stepper.reset()
    check_bits(stepper.step(other), {n: v[0] for n, v in network.simulator().run(other, trace=True).trace.items()})


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("neuron", ["burst", "signed"])
@pytest.mark.parametrize("name", [*NETWORKS, *ON_MEANS])
def test_goes_on_from_a_saved_state(name: str, neuron: str, weights: str, tmp_path: Path) -> None:
    network = network_of(name, neuron, weights)
    feeds = feeds_of(network, 11)
    batch = len(next(iter(feeds.values())))
    stepper = network.stepper(batch)
    for when in (0, 1, 3):
        while stepper.timesteps < when:
            stepper.step(feeds)
        state = stepper.state()
        np.savez(tmp_path / "state.npz", **state)  # type: ignore[arg-type]
        other = network_of(name, neuron, weights).stepper(batch)
        with np.load(tmp_path / "state.npz") as loaded:
            other.restore(dict(loaded))
        check_bits(other.state(), state)
        frame = feeds if when == 0 else None
        check_bits(other.step(frame), stepper.step(frame))
        for value in state.values():  # what was handed out is nobody else's
            if value.ndim:
                value.fill(0)
        check_bits(other.state(), stepper.state())


def test_takes_no_state_of_another_network_or_batch() -> None:
    network = network_of("residual")
    feeds = feeds_of(network, 4)
    stepper = network.stepper(4)
    first = stepper.step(feeds)
    state = stepper.state()
    broken = {
        "batch": {k: v[:2] if v.ndim else v for k, v in state.items()},
        "shape": {k: v[..., :2] if k.startswith("r2:") else v for k, v in state.items()},
        "dtype": {k: v.astype(np.float64) if k.startswith("r2:") else v for k, v in state.items()},
        "missing": {k: v for k, v in state.items() if not k.startswith("r2:")},
        "more": {**state, "r9:v_mem": np.zeros(4, np.float32)},
        "frame": {k: v for k, v in state.items() if not k.startswith("frame:")},
        "timesteps": {k: v for k, v in state.items() if k != "timesteps"},
        "negative": {**state, "timesteps": np.array(-1)},
        "nothing": {},
        "none yet": {**state, "timesteps": np.array(0)},
    }
    for what, values in broken.items():
        with pytest.raises(UsageError, match=r"the state "):
            stepper.restore(values)
        assert stepper.timesteps == 1, what
    again = network.stepper(4)
    again.step(feeds)
    check_bits(stepper.step(), again.step())
    assert set(first) == {"y"}


def test_refuses_what_does_not_fit() -> None:
    network = network_of("plain")
    with pytest.raises(UsageError, match="no input yet"):
        network.stepper().step()
    with pytest.raises(UsageError, match="batch is 0: it must be at least 1"):
        network.stepper(0)
    with pytest.raises(DataError, match="holds 2 samples, the stepper was made for 3"):
        network.stepper(3).step(feeds_of(network, 2))
    with pytest.raises(DataError):
        network.stepper().step(np.zeros((1, 3, 8, 9), np.float32))
    with pytest.raises(UsageError, match="batch is 3: it must be 2, the number that the network takes at a time"):
        network_of("samples_mixed").stepper(3)
    assert network_of("samples_mixed").stepper().batch == 2
