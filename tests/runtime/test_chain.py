"""Chains of layers: pools, what is kept between blocks, and threads that share the parts."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from snncc.runtime import chain, conv_neurons
from snncc.runtime.carried import Carried
from snncc.runtime.chain import Chain, Job
from snncc.runtime.coded import CodedNeurons
from snncc.runtime.conv_neurons import ConvNeurons, PoolOverTime
from snncc.runtime.int8_conv import Coded
from snncc.runtime.parameters import NeuronParameters
from snncc.runtime.spike_conv import SpikeConv, vector_width

pytestmark = pytest.mark.skipif(not vector_width(), reason="the processor lacks the instructions")

T, N, C = 6, 3, 5
SIZE = (17, 15)
BLOCKS = [[6], [1, 1, 1, 1, 1, 1], [2, 3, 1], [1, 5]]


def counts_of(values: np.ndarray, offset: int, unit: float = 0.5) -> Coded:
    channels = values.shape[-1]
    zero, none = np.full(channels, offset, np.float32), np.zeros(channels, np.float32)
    return Coded(
        (values + offset).astype(np.uint8), np.full(channels, unit, np.float32), zero, none, int(values.max()) + offset
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("blocks", BLOCKS)
def test_pools_carry_their_state_from_block_to_block(
    blocks: list[int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the largest sum of each window, found by hand; what is beyond the border counts for nothing."""
    monkeypatch.setattr(conv_neurons, "_WORK", 0)
    monkeypatch.setattr(chain, "_WORK", 0)
    spikes = np.random.default_rng(6).integers(-3, 4, (T, N, *SIZE, C))
    sums = np.cumsum(spikes, axis=0)
    padded = np.pad(sums.astype(float), [(0, 0), (0, 0), (1, 1), (0, 1), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), axis=(2, 3))[:, :, ::2, ::2]
    wanted = np.diff(windows.max(axis=(-2, -1)), axis=0, prepend=0)
    alone = Chain([Job("pool", PoolOverTime((3, 2), (2, 2), (1, 0, 1, 1)), ("x",), "y")], {"y"})
    carried: Carried = {}
    found, passed, done = [], np.zeros(()), 0
    with ThreadPoolExecutor(threads) as pool:
        for length in blocks:
            given = {"x": counts_of(spikes[done : done + length], 3)}
            program = alone.take(given, length, threads)
            passed = passed + program.run(given, {"pool": carried}, done, pool)["pool"]
            found.append(program.outputs["y"].values.copy())
            alone.give(program)
            done += length
    np.testing.assert_array_equal(np.concatenate(found).astype(int) - 3, wanted)
    np.testing.assert_array_equal(passed, 0.5 * np.moveaxis(np.abs(wanted).sum(axis=(0, 1)), -1, 0))
    np.testing.assert_array_equal(carried["sum"], sums[-1])


def test_a_pool_accounts_for_rows_that_no_window_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of one element three apart, in parts of a row each: the sums of all elements are kept."""
    monkeypatch.setattr(conv_neurons, "_WORK", 0)
    spikes = np.random.default_rng(7).integers(0, 4, (T, N, 12, 9, C))
    alone = Chain([Job("pool", PoolOverTime((1, 1), (3, 3), (0, 0, 0, 0)), ("x",), "y")], {"y"})
    carried: Carried = {}
    given = {"x": counts_of(spikes, 0)}
    program = alone.take(given, T, 4)
    program.run(given, {"pool": carried}, 0)
    np.testing.assert_array_equal(program.outputs["y"].values, spikes[:, :, ::3, ::3])
    np.testing.assert_array_equal(carried["sum"], spikes.sum(axis=0))


def layers_of(count: int) -> Chain:
    """Return a residual network: each layer reads the one before, and adds what that one read."""
    rng, jobs = np.random.default_rng(8), []
    for k in range(count):
        weight = rng.normal(0, 0.3, (20, 20, 3, 3)).astype(np.float32)
        inputs = [gs.Variable("x"), gs.Constant("w", weight), gs.Constant("b", np.zeros(20, np.float32))]
        conv = SpikeConv(gs.Node("Conv", attrs={"pads": [1] * 4}, inputs=inputs, outputs=[gs.Variable("y")]))
        theta = np.full((1, 20, 1, 1), 0.5, np.float32)
        neurons = CodedNeurons(NeuronParameters("BurstIF", theta, np.float32(0.5), 3, np.float32(np.inf)), 20)
        reads = (f"t{k}",) if k == 0 else (f"t{k}", f"t{k - 1}")
        jobs.append(Job(f"layer{k}", ConvNeurons(neurons, [conv]), reads, f"t{k + 1}"))
    return Chain(jobs, {f"t{count}"})


def test_threads_that_share_the_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many short layers, again and again, with more threads than cores and switches at any time."""
    monkeypatch.setattr(conv_neurons, "_WORK", 0)
    monkeypatch.setattr(chain, "_WORK", 0)
    given: dict[str, Any] = {"t0": counts_of(np.random.default_rng(9).integers(0, 4, (T, 1, 9, 8, 20)), 0)}
    network = layers_of(12)
    nothing = {job.name: None for job in network.jobs}
    first = network.take(given, T, 1)
    wanted, spikes = first.run(given, nothing, 0), first.outputs["t12"].values.copy()
    assert 0 < spikes.mean() < 3
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(50):
                program = network.take(given, T, 4)
                found = program.run(given, nothing, 0, pool)
                np.testing.assert_array_equal(program.outputs["t12"].values, spikes)
                for name, value in wanted.items():
                    np.testing.assert_array_equal(found[name], value)
                network.give(program)
    finally:
        sys.setswitchinterval(before)


def test_programs_are_used_again_for_the_same_shapes() -> None:
    network = layers_of(2)

    def given(samples: int) -> dict[str, Any]:
        return {"t0": counts_of(np.zeros((T, samples, 9, 8, 20), np.int64), 0)}

    program = network.take(given(1), T, 1)
    assert network.take(given(1), T, 1) is not program
    network.give(program)
    assert network.take(given(2), T, 1) is not program
    assert network.take(given(1), T, 1) is program
    for samples in range(1, 30):
        network.give(network.take(given(samples), T, 1))
    assert len(network._idle) == chain._IDLE
