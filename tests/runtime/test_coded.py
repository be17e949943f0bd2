"""Neurons and pools on codes against those on floats, at once and in blocks of timesteps."""

from __future__ import annotations

import numpy as np
import pytest

from snncc.runtime.carried import Carried
from snncc.runtime.coded import CodedNeurons, channels_last, decode, encode
from snncc.runtime.fused_neurons import FusedNeurons
from snncc.runtime.int8_conv import Coded
from snncc.runtime.parameters import NeuronParameters

T, N, C = 6, 3, 5
SIZE = (17, 15)
"""So that a sample has several blocks of elements, the last one not full."""
OPS = ["BurstIF", "SignedBurstRelu", "SignedBurstClip"]
BLOCKS = [[6], [1, 1, 1, 1, 1, 1], [2, 3, 1], [1, 5]]


def neurons_of(op: str) -> NeuronParameters:
    theta = np.random.default_rng(1).uniform(0.2, 1.0, (1, C, 1, 1)).astype(np.float32)
    return NeuronParameters(op, theta, np.float32(0.5), 3, np.float32(1.2 if op == "SignedBurstClip" else np.inf))


def codes(seed: int) -> Coded:
    """Return currents in codes: each channel has a step, a zero and a shift."""
    rng = np.random.default_rng(seed)
    step, shift = rng.uniform(0.005, 0.02, C).astype(np.float32), rng.normal(0, 0.1, C).astype(np.float32)
    zero = rng.integers(80, 130, C).astype(np.float32)
    return Coded(rng.integers(0, 256, (T, N, *SIZE, C), dtype=np.uint8), step, zero, shift)


def dense(coded: Coded) -> np.ndarray:
    out = np.empty(coded.shape, np.float32)
    decode(coded, out)
    return out


def part(coded: Coded, steps: slice) -> Coded:
    return Coded(coded.values[steps], coded.step, coded.zero, coded.shift, coded.most)


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("op", OPS)
def test_neurons_carry_their_state_from_block_to_block(op: str, blocks: list[int]) -> None:
    """Spikes and states are those of the neurons on floats, bit for bit, with samples that go on in another order."""
    parameters, one, two = neurons_of(op), codes(2), codes(3)
    currents, wanted = dense(one) + dense(two), np.empty((T, N, C, *SIZE), np.float32)
    emitted = FusedNeurons(parameters).fire(currents, wanted)
    neuron, fired, found = CodedNeurons(parameters, C), np.zeros(emitted.shape), []
    carried: Carried = {}
    plain: Carried = {}
    done, order = 0, np.arange(N)
    for length in blocks:
        steps = slice(done, done + length)
        counts = np.empty((length, N, *SIZE, C), np.uint8)
        terms: list[Coded | np.ndarray] = [
            Coded(np.ascontiguousarray(x.values[steps][:, order]), x.step, x.zero, x.shift) for x in (one, two)
        ]
        fired += neuron.fire(terms, counts, carried, done)
        FusedNeurons(parameters).fire(currents[steps][:, order].copy(), np.empty_like(wanted[steps]), plain, done)
        assert carried.keys() == plain.keys()
        for name, state in plain.items():
            np.testing.assert_array_equal(carried[name], state)
        found.append(dense(neuron.coded(counts))[:, np.argsort(order)])
        turned = np.roll(np.arange(N), 1)
        carried, plain = ({n: v[turned] for n, v in c.items()} for c in (carried, plain))
        order, done = order[turned], done + length
    np.testing.assert_array_equal(np.concatenate(found), wanted)
    np.testing.assert_array_equal(fired, emitted)


@pytest.mark.parametrize("op", OPS)
def test_a_block_goes_on_from_a_state_of_neurons_on_floats(op: str) -> None:
    """A state that was kept where the kernel can't run is one here."""
    parameters, current = neurons_of(op), codes(4)
    wanted = np.empty((T, N, C, *SIZE), np.float32)
    FusedNeurons(parameters).fire(dense(current), wanted)
    carried: Carried = {}
    FusedNeurons(parameters).fire(dense(part(current, slice(0, 2))), np.empty_like(wanted[:2]), carried)
    neuron, counts = CodedNeurons(parameters, C), np.empty((T - 2, N, *SIZE, C), np.uint8)
    neuron.fire([part(current, slice(2, T))], counts, carried, 2)
    np.testing.assert_array_equal(dense(neuron.coded(counts)), wanted[2:])


def test_a_current_that_stays_the_same_is_given_once() -> None:
    parameters, current = neurons_of("BurstIF"), dense(codes(5))[:1]
    wanted = np.empty((T, N, C, *SIZE), np.float32)
    FusedNeurons(parameters).fire(current, wanted)
    neuron, counts = CodedNeurons(parameters, C), np.empty((T, N, *SIZE, C), np.uint8)
    neuron.fire([channels_last(current)], counts)
    np.testing.assert_array_equal(dense(neuron.coded(counts)), wanted)


def test_spikes_are_encoded_as_counts() -> None:
    neuron = CodedNeurons(neurons_of("SignedBurstRelu"), C)
    counts = np.random.default_rng(7).integers(0, 7, (T, N, *SIZE, C), dtype=np.uint8)
    spikes = dense(neuron.coded(counts))
    np.testing.assert_array_equal(encode(spikes, neuron.theta, neuron.offset), counts)
