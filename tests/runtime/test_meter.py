"""The meter against counts by brute force: a loop over spikes and connections, and sums by hand.

Counts are whole numbers below 2^24, so float32 holds them exactly and every comparison is exact, but for MaxPool, whose
increments are differences of float32 sums (to 1e-5).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from small_networks import NETWORKS, compiled, inputs_of, parse

from snncc.network import SpikingNetwork
from snncc.runtime.meter import CMOS_45NM, PROFILES, SPIKES, EnergyProfile, LayerOperations, Meter, Reading
from snncc.runtime.reference import Simulation

T = 3


def measured(network: SpikingNetwork, feeds: dict[str, np.ndarray], backend: str = "ort") -> tuple[Reading, Simulation]:
    simulation = network.simulator(backend).run(feeds)
    meter = Meter(network.network, network.record.timesteps)
    meter.add(simulation)
    return meter.reading(), simulation


def operations(reading: Reading) -> dict[str, float]:
    return {layer.name: layer.synaptic_operations for layer in reading.layers}


def windows(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    out: Sequence[int],
) -> list[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """List, for each output position, the positions of the input within bounds that it reads."""
    found = []
    for place in itertools.product(*map(range, out)):
        read = []
        for offset in itertools.product(*map(range, kernel)):
            at = tuple(
                p * s - b + o * d for p, s, b, o, d in zip(place, strides, pads, offset, dilations, strict=False)
            )
            if all(0 <= a < limit for a, limit in zip(at, size, strict=True)):
                read.append(at)
        found.append((place, read))
    return found


def conv_operations(
    spikes: np.ndarray,
    weight: tuple[int, ...],
    out: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
) -> int:
    """Count one operation for each spike [C, ...] and each weight that it meets."""
    features, per_group, *kernel = weight
    total = 0
    for feature in range(features):
        first = feature // (features // group) * per_group
        for _, read in windows(spikes.shape[1:], kernel, strides, pads, dilations, out):
            for channel in range(first, first + per_group):
                total += sum(int(spikes[(channel, *at)]) for at in read)
    return total


def pooled(
    spikes: np.ndarray, kernel: Sequence[int], out: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> np.ndarray:
    """Sum the spikes of each window: average pooling passes every one of them on."""
    result = np.zeros((len(spikes), *out))
    for place, read in windows(spikes.shape[1:], kernel, strides, pads, (1,) * len(kernel), out):
        for at in read:
            result[(slice(None), *place)] += spikes[(slice(None), *at)]
    return result


def network_of(text: str, **options: object) -> SpikingNetwork:
    return compiled(parse(text), timesteps=T, bias_correction=False, **options)


def feeds_of(network: SpikingNetwork, samples: int = 1) -> dict[str, np.ndarray]:
    return inputs_of(network.model, samples, seed=5)


@pytest.mark.parametrize("backend", ["ort", "numpy", "fused"])
@pytest.mark.parametrize(
    ("attributes", "weight", "out", "options"),
    [
        ("strides = [1,1]", "3,4,3,2", (4, 4), {}),
        ("strides = [2,1], pads = [1,0,0,1]", "3,4,3,2", (3, 5), {"strides": (2, 1), "pads": (1, 0, 0, 1)}),
        ("group = 2, pads = [1,1,1,1]", "6,2,3,3", (6, 5), {"group": 2, "pads": (1, 1, 1, 1)}),
        ("group = 4, dilations = [2,2]", "4,1,2,2", (4, 3), {"group": 4, "dilations": (2, 2)}),
    ],
    ids=["plain", "stride and padding", "groups", "depthwise, dilated"],
)
def test_convolution(
    attributes: str, weight: str, out: tuple[int, ...], options: dict[str, object], backend: str
) -> None:
    network = network_of(
        f"""g (float[N,4,6,5] x, float[{weight}] w_1) => (float[N,C,H,W] y) {{
            r = Relu (x) c = Conv <{attributes}> (r, w_1) y = Relu (c)
        }}"""
    )
    reading, simulation = measured(network, feeds_of(network), backend)
    dims = tuple(map(int, weight.split(",")))
    expected = conv_operations(simulation.spikes["r"], dims, out, **options)  # type: ignore[arg-type]
    assert expected > 100
    assert operations(reading) == {"c": expected}
    assert reading.synaptic_operations == expected


def test_transposed_convolution() -> None:
    """Each spike meets [out / group, kernel] weights, except where padding crops the output."""
    network = network_of(
        """g (float[N,4,3,3] x, float[4,3,2,2] w_1) => (float[N,C,H,W] y) {
            r = Relu (x) c = ConvTranspose <group = 2, strides = [2,2], pads = [1,1,0,0]> (r, w_1) y = Relu (c)
        }"""
    )
    reading, simulation = measured(network, feeds_of(network))
    expected = 0
    for _, row, column in itertools.product(range(4), range(3), range(3)):
        reached = sum(2 * row + i - 1 >= 0 and 2 * column + j - 1 >= 0 for i in range(2) for j in range(2))
        expected += reached * 3 * int(simulation.spikes["r"][_, row, column])
    assert operations(reading) == {"c": expected}


@pytest.mark.parametrize(("attributes", "weight"), [("", "12,5"), ("<transB = 1, alpha = 2.0>", "5,12")])
def test_dense_layers_after_flatten(attributes: str, weight: str) -> None:
    network = network_of(
        f"""g (float[N,3,2,2] x, float[{weight}] w_1, float[5] b_1, float[5,2] w_2) => (float[N,2] y) {{
            r = Relu (x) f = Flatten (r) c = Gemm {attributes} (f, w_1, b_1) s = Relu (c) y = MatMul (s, w_2)
        }}"""
    )
    reading, simulation = measured(network, feeds_of(network))
    assert operations(reading) == {"c": simulation.spikes["r"].sum() * 5, "y": simulation.spikes["s"].sum() * 2}


def test_matrices_on_either_side() -> None:
    network = network_of(
        """g (float[N,3,4] x, float[4,5] w_1, float[6,3] w_2) => (float[N,6,5] y) {
            r = Relu (x) m = MatMul (r, w_1) s = Relu (m) y = MatMul (w_2, s)
        }"""
    )
    reading, simulation = measured(network, feeds_of(network))
    assert operations(reading) == {"m": simulation.spikes["r"].sum() * 5, "y": simulation.spikes["s"].sum() * 6}


@pytest.mark.parametrize(
    ("attributes", "out", "strides", "pads"),
    [
        ("strides = [2,2]", (3, 3), (2, 2), (0, 0)),
        ("strides = [2,2], pads = [1,1,1,1]", (4, 4), (2, 2), (1, 1)),
        ("strides = [2,2], pads = [1,1,1,1], count_include_pad = 1", (4, 4), (2, 2), (1, 1)),
        ("strides = [3,2], ceil_mode = 1", (3, 4), (3, 2), (0, 0)),
        ('strides = [2,2], auto_pad = "SAME_UPPER"', (4, 4), (2, 2), (0, 0)),
    ],
    ids=str,
)
def test_average_pooling_passes_every_spike_on(
    attributes: str, out: tuple[int, int], strides: tuple[int, int], pads: tuple[int, int]
) -> None:
    network = network_of(
        f"""g (float[N,2,7,7] x, float[3,2,2,2] w_1) => (float[N,C,H,W] y) {{
            r = Relu (x) p = AveragePool <kernel_shape = [2,2], {attributes}> (r) c = Conv (p, w_1) y = Relu (c)
        }}"""
    )
    reading, simulation = measured(network, feeds_of(network))
    passed = pooled(simulation.spikes["r"], (2, 2), out, strides, pads)
    assert operations(reading) == {"c": conv_operations(passed, (3, 2, 2, 2), [d - 1 for d in out])}


@pytest.mark.parametrize(
    "pool", ["GlobalAveragePool (r)", "ReduceMean <axes = [2,3]> (r)", "ReduceMean <axes = [-1,-2], keepdims = 1> (r)"]
)
def test_global_pooling_passes_every_spike_on(pool: str) -> None:
    network = network_of(
        f"""g (float[N,2,3,3] x, float[2,4] w_1) => (float[N,4] y) {{
            r = Relu (x) p = {pool} f = Flatten (p) y = MatMul (f, w_1)
        }}"""
    )
    reading, simulation = measured(network, feeds_of(network))
    assert operations(reading) == {"y": simulation.spikes["r"].sum() * 4}


def test_reduction_with_axes_as_input() -> None:
    text = """g (float[N,2,3] x, float[2,4] w_1) => (float[N,4] y) <int64[1] axes = {-1}> {
        r = Relu (x) p = ReduceMean <keepdims = 0> (r, axes) y = MatMul (p, w_1)
    }"""
    network = compiled(parse(text, opset=18), timesteps=T, bias_correction=False)
    reading, simulation = measured(network, feeds_of(network))
    assert operations(reading) == {"y": simulation.spikes["r"].sum() * 4}


def test_concatenation_and_sums() -> None:
    network = network_of(
        """g (float[N,2,4] x, float[2,2,1] w_1, float[3,4,2] w_2, float[3,2,2] w_3) => (float[N,3,3] y) {
            r = Relu (x) c1 = Conv (r, w_1) s = Relu (c1)
            k = Concat <axis = 1> (s, r) c2 = Conv (k, w_2)
            a = Add (r, s) c3 = Conv (a, w_3)
            t = Add (c2, c3) y = Relu (t)
        }"""
    )
    reading, simulation = measured(network, feeds_of(network))
    r, s = simulation.spikes["r"], simulation.spikes["s"]
    one_d = {"strides": (1,), "pads": (0,), "dilations": (1,)}
    assert operations(reading) == {
        "c1": r.sum() * 2,
        "c2": conv_operations(np.concatenate([s, r]), (3, 4, 2), (3,), **one_d),  # type: ignore[arg-type]
        "c3": conv_operations(r + s, (3, 2, 2), (3,), **one_d),  # type: ignore[arg-type]
    }


def test_what_moves_or_scales_spikes() -> None:
    """Slices drop spikes, padding adds none (whatever its value), scaling and signs change nothing."""
    network = network_of(
        """g (float[N,4,6] x, float[6,5] w_1) => (float[N,2,5] y)
        <int64[2] halves = {2, 2}, float two = {2}, float[2,1] scale = {3, -1}, int64[6] pads = {0, 0, 1, 0, 0, 1},
         float half = {0.5}, int64[1] one = {1}, int64[1] five = {5}, int64[1] axis = {2},
         int64[6] order = {0, 0, 1, 2, 3, 4}> {
            r = Relu (x)
            a, b = Split <axis = 1> (r, halves)
            n = Neg (b) m = Mul (n, scale) d = Div (m, two)
            l = Slice (d, one, five, axis)
            p = Pad (l, pads, half)
            t = Transpose <perm = [0,2,1]> (p) u = Transpose <perm = [0,2,1]> (t)
            g = Gather <axis = 2> (u, order)
            c = MatMul (g, w_1)
            y = Relu (c)
        }"""
    )
    reading, simulation = measured(network, feeds_of(network))
    kept = np.pad(simulation.spikes["r"][2:, 1:5], ((0, 0), (1, 1)))[:, [0, 0, 1, 2, 3, 4]]
    assert operations(reading) == {"c": kept.sum() * 5}


@pytest.mark.parametrize("per_channel", [True, False])
def test_max_pooling_passes_on_what_its_maximum_gains(per_channel: bool) -> None:
    """Over all steps that is the largest count of each window, as all neurons of a channel share a threshold."""
    network = network_of(
        """g (float[N,3,6,6] x, float[3,1,1,1] w_id, float[4,3,2,2] w_1) => (float[N,4,2,2] y) {
            a = Relu (x) i = Conv <group = 3> (a, w_id)
            r = Relu (i) m = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r) c = Conv (m, w_1) y = Relu (c)
        }""",
        per_channel=per_channel,
    )
    reading, simulation = measured(network, feeds_of(network))
    passed = simulation.spikes["r"].reshape(3, 3, 2, 3, 2).max(axis=(2, 4))
    assert passed.sum() < simulation.spikes["r"].sum()
    assert operations(reading)["c"] == pytest.approx(conv_operations(passed, (4, 3, 2, 2), (2, 2)), rel=1e-5)


def test_max_pooling_of_transposed_channels() -> None:
    network = network_of(
        """g (float[N,4,4,3] x, float[2,3,2,2] w_1) => (float[N,2,1,1] y) {
            t0 = Transpose <perm = [0,3,1,2]> (x) i = Conv <group = 3> (t0, w_id) t1 = Transpose <perm = [0,2,3,1]> (i)
            r = Relu (t1)
            t = Transpose <perm = [0,3,1,2]> (r) m = MaxPool <kernel_shape = [2,2], strides = [2,2]> (t)
            c = Conv (m, w_1) y = Relu (c)
        }""".replace("float[2,3,2,2] w_1)", "float[2,3,2,2] w_1, float[3,1,1,1] w_id)")
    )
    assert network.record.layers[0].thresholds == 3
    reading, simulation = measured(network, feeds_of(network))
    passed = simulation.spikes["r"].transpose(2, 0, 1).reshape(3, 2, 2, 2, 2).max(axis=(2, 4))
    assert operations(reading)["c"] == pytest.approx(conv_operations(passed, (2, 3, 2, 2), (1, 1)), rel=1e-5)


def test_max_pooling_of_channels_that_moved_counts_by_the_smallest_threshold() -> None:
    """The count errs on the high side, and no more than by the thresholds' ratio."""
    network = network_of(
        """g (float[N,4,8] x, float[2,8,1] w_1) => (float[N,2,2] y) <int64[3] target = {0, 8, 4}> {
            r = Relu (x) q = Reshape (r, target) m = MaxPool <kernel_shape = [2], strides = [2]> (q)
            c = Conv (m, w_1) y = Relu (c)
        }"""
    )
    reading, simulation = measured(network, feeds_of(network))
    exact = 2 * simulation.spikes["r"].reshape(8, 2, 2).max(axis=2).sum()
    layer = network.record.layers[0]
    assert exact * 0.999 <= operations(reading)["c"] <= 1.001 * exact * layer.theta_max / layer.theta_min


def test_max_pooling_of_currents_is_no_traffic_of_spikes() -> None:
    network = compiled(NETWORKS["maxpool_before_relu"].model(), timesteps=T)
    reading, simulation = measured(network, feeds_of(network))
    layers = {layer.name: layer for layer in reading.layers}
    assert layers["c1"].driven_by == "analog"
    assert layers["c2"].driven_by == "spikes"
    assert operations(reading)["c1"] == 0
    expected = conv_operations(simulation.spikes["r1"], (6, 3, 3, 3), (4, 4), pads=(1, 1, 1, 1))
    assert operations(reading)["c2"] == expected


# --- spikes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["ort", "fused"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_executor_measures_what_the_reference_does(name: str, backend: str) -> None:
    """To the last spike: their number is a whole one, and must be the same."""
    network = compiled(NETWORKS[name].model(), timesteps=T)
    feeds = feeds_of(network, samples=4)
    batch = network.inputs[0].batch
    feeds = {k: v[: batch or 4] for k, v in feeds.items()}
    found, reference = measured(network, feeds, backend)[0], measured(network, feeds, "numpy")[0]
    assert found.neurons == reference.neurons
    for a, b in zip(found.layers, reference.layers, strict=True):
        assert a.synaptic_operations == pytest.approx(b.synaptic_operations, rel=1e-5)
        assert (a.macs, a.snn_macs, a.driven_by) == (b.macs, b.snn_macs, b.driven_by)
    driven = [layer for layer in found.layers if layer.driven_by == "spikes"]
    assert driven or name == "maxpool_before_relu"
    assert all(layer.synaptic_operations > 0 for layer in driven)


def test_one_spike_more_or_less_is_seen() -> None:
    """One spike of 5 samples: 1/5 spike and the fan-out of that very neuron (a corner: 4 of 9 places, 6 features)."""
    network = network_of(
        """g (float[N,2,4,4] x, float[6,2,3,3] w_1) => (float[N,6,4,4] y) {
            r = Relu (x) c = Conv <pads = [1,1,1,1]> (r, w_1) y = Relu (c)
        }"""
    )
    simulation = network.simulator("ort").run(feeds_of(network, samples=5))
    before = Meter(network.network, T)
    before.add(simulation)
    simulation.spikes["r"][1, 0, 0] += 1
    after = Meter(network.network, T)
    after.add(simulation)
    assert after.reading().spikes - before.reading().spikes == pytest.approx(1 / 5, abs=1e-9)
    difference = after.reading().synaptic_operations - before.reading().synaptic_operations
    assert difference == pytest.approx(4 * 6 / 5, abs=1e-3)  # a float32 sum of some thousands


def test_spikes_of_a_burst_count_one_by_one() -> None:
    """θ = 1 and ψ = 4: a constant current of 3.6 fires 4, 3, 4 with v0 = 0.5; negative ones never fire."""
    network = network_of("g (float[N,2] x) => (float[N,2] y) { y = Relu (x) }", max_burst=4)
    theta = next(t for t in network.model.graph.initializer if t.name.endswith("v_threshold"))
    theta.CopyFrom(onnx.numpy_helper.from_array(np.ones((1, 2), np.float32), theta.name))
    reading, simulation = measured(network, {"x": np.array([[3.6, -9.0], [3.6, 0.2]], np.float32)})
    assert simulation.spikes["y"].tolist() == [22.0, 1.0]
    assert reading.spikes == 23 / 2
    assert reading.neurons[0].firing_rate == pytest.approx(23 / 2 / (2 * T))
    assert reading.neuron_count == 2


@pytest.mark.parametrize("sizes", [(6,), (1, 2, 3), (4, 2)])
def test_batches_add_up(sizes: tuple[int, ...]) -> None:
    network = compiled(NETWORKS["residual"].model(), timesteps=T)
    feeds = feeds_of(network, samples=6)
    whole, _ = measured(network, feeds)
    meter, simulator, start = Meter(network.network, T), network.simulator("ort"), 0
    for size in sizes:
        meter.add(simulator.run({k: v[start : start + size] for k, v in feeds.items()}))
        start += size
    reading = meter.reading()
    assert reading.neurons == whole.neurons
    assert reading.synaptic_operations == pytest.approx(whole.synaptic_operations, rel=1e-6)


@pytest.mark.parametrize("name", ["samples_mixed", "samples_moved"])
def test_networks_that_mix_their_samples(name: str) -> None:
    """Every layer of these two is dense, or a convolution by brute force; numbers are per sample."""
    model = NETWORKS[name].model()
    network = compiled(model, timesteps=T)
    batch = network.inputs[0].batch or 1
    meter, simulator = Meter(network.network, T), network.simulator("ort")
    feeds = inputs_of(model, 3 * batch, seed=5)
    spikes: dict[str, np.ndarray] = {}
    for start in range(0, 3 * batch, batch):
        simulation = simulator.run({k: v[start : start + batch] for k, v in feeds.items()})
        meter.add(simulation)
        spikes = {k: spikes.get(k, 0) + v for k, v in simulation.spikes.items()}
    reading = meter.reading()
    count = 3 * batch
    sizes = {n.name: n.neurons for n in reading.neurons}
    found = operations(reading)
    if name == "samples_mixed":
        assert sizes == {"r1": 8, "r2": 12}
        assert found == {
            "g1": 0,
            "g2": pytest.approx(spikes["r1"].sum() * 6 / count),
            "y": pytest.approx(spikes["r2"].sum() * 5 / count),
        }
    else:
        assert sizes == {"r1": 30, "r2": 24}
        assert found["y"] == pytest.approx(spikes["r2"].sum() * 5 / count)
        assert found["h"] > 0
    assert reading.spikes == pytest.approx(sum(s.sum() for s in spikes.values()) / count)


# --- energy ---------------------------------------------------------------------------------------------------------


def test_energy_by_hand() -> None:
    """One layer of 12 MACs that 30 spikes drive 4 times each, one of 7 on analog values, one of 5 graded, T=3."""
    rows = (
        LayerOperations("a", "Gemm", "spikes", 12, 120.0, 0.0),
        LayerOperations("b", "Gemm", "analog", 7, 0.0, 7.0),
        LayerOperations("c", "Gemm", "graded", 5, 0.0, 15.0),
    )
    reading = Reading(3, (), rows)
    assert (reading.ann_macs, reading.snn_macs, reading.synaptic_operations) == (24, 22, 120)
    assert reading.energy(CMOS_45NM) == pytest.approx((24 * 4.6e-12, 120 * 0.9e-12 + 22 * 4.6e-12))
    own = EnergyProfile("own", 3.0, 2.0, 0.5, "by hand")
    assert reading.energy(own) == pytest.approx((72.0, 240.0 + 66.0))
    assert PROFILES == {"45nm": CMOS_45NM, "spikes": SPIKES}


def test_energy_counts_spikes() -> None:
    network = network_of("g (float[N,2] x) => (float[N,2] y) { y = Relu (x) }")
    reading, _ = measured(network, feeds_of(network))
    assert reading.energy(SPIKES) == pytest.approx((0.0, reading.spikes * 77e-15))


VALUES = """g (float[N,3] x, float[3,4] w_1, float[4,4] w_2, float[4,4] w_3, float[4,2] w_4) => (float[N,2] y) {
    m1 = MatMul (x, w_1) r1 = Relu (m1) m2 = MatMul (r1, w_2) m3 = MatMul (m2, w_3) r3 = Relu (m3)
    s = Softmax (r3) y = MatMul (s, w_4)
}"""


def test_what_runs_on_values_costs_multiplications() -> None:
    """Analog layers once, graded ones at every step, the readout after a non-linear operator once."""
    network = network_of(VALUES, analog=True)
    reading, simulation = measured(network, feeds_of(network))
    assert {r.name: (r.driven_by, r.macs, r.snn_macs) for r in reading.layers} == {
        "m1": ("analog", 12, 12.0),
        "m2": ("spikes", 16, 0.0),
        "m3": ("graded", 16, 16.0 * T),
        "y": ("readout", 8, 8.0),
    }
    assert operations(reading)["m2"] == simulation.spikes["r1"].sum() * 4


def test_encoded_values_cost_a_synaptic_operation_for_each_spike_of_either_sign() -> None:
    network = network_of(VALUES)
    reading, simulation = measured(network, feeds_of(network))
    assert {r.name: r.driven_by for r in reading.layers} == {
        "m1": "analog",
        "m2": "spikes",
        "m3": "spikes",
        "y": "readout",
    }
    assert simulation.spikes["m2.neuron"].min() >= 0
    assert operations(reading)["m3"] == simulation.spikes["m2.neuron"].sum() * 4
