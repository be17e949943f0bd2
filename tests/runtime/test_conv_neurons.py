"""Neurons with the float32 convolutions in front of them, against the convolution and the neurons one by one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from apart import is_apart, run_apart
from numpy.lib.stride_tricks import sliding_window_view

from snncc.graph import DOMAIN, INT8_CONV
from snncc.runtime import chain, conv_neurons, spike_conv
from snncc.runtime.carried import Carried
from snncc.runtime.chain import Chain, Job
from snncc.runtime.coded import CodedNeurons, channels_last, decode
from snncc.runtime.conv_neurons import ConvNeurons
from snncc.runtime.fused_neurons import FusedNeurons
from snncc.runtime.int8_conv import Coded
from snncc.runtime.parameters import NeuronParameters
from snncc.runtime.spike_conv import SpikeConv, packed, runs_in_float, vector_width

pytestmark = pytest.mark.skipif(not vector_width(), reason="the processor lacks the instructions")

T, N = 5, 2
OPS = ["BurstIF", "SignedBurstRelu", "SignedBurstClip"]


def node_of(weight: np.ndarray, bias: np.ndarray, **attributes: Any) -> gs.Node:
    inputs = [gs.Variable("x"), gs.Constant("w", weight), gs.Constant("b", bias)]
    return gs.Node("Conv", attrs=attributes, inputs=inputs, outputs=[gs.Variable("y")])


def node(features: int, channels: int, kernel: tuple[int, int], seed: int = 0, **attributes: Any) -> gs.Node:
    """Return a convolution whose weights and biases are eighths: sums of products with spikes of halves are exact."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(-3, 4, (features, channels // int(attributes.get("group", 1)), *kernel)) / 8
    return node_of(weight.astype(np.float32), (rng.integers(-4, 5, features) / 8).astype(np.float32), **attributes)


def counts_of(channels: int, size: tuple[int, int], offset: int, seed: int = 1) -> Coded:
    """Return spikes whose size is ½, or 1 on every second channel."""
    values = np.random.default_rng(seed).integers(0, 4 + offset, (T, N, *size, channels), dtype=np.uint8)
    unit = np.where(np.arange(channels) % 2, 1.0, 0.5).astype(np.float32)
    return Coded(values, unit, np.full(channels, offset, np.float32), np.zeros(channels, np.float32), 3 + offset)


def dense(coded: Coded) -> np.ndarray:
    out = np.empty(coded.shape, np.float32)
    decode(coded, out)
    return out


def convolved(of: gs.Node, x: np.ndarray) -> np.ndarray:
    """Convolve [T, N, C, H, W] in float64."""
    weight, bias = of.inputs[1].values.astype(np.float64), of.inputs[2].values.astype(np.float64)
    strides, dilations = of.attrs.get("strides", (1, 1)), of.attrs.get("dilations", (1, 1))
    top, left, bottom, right = of.attrs.get("pads", (0, 0, 0, 0))
    padded = np.pad(x.astype(np.float64), [(0, 0)] * 3 + [(top, bottom), (left, right)])
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
    windows = sliding_window_view(padded, reach, axis=(3, 4))
    windows = windows[:, :, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    sums = "tncyxij,cij->tncyx" if int(of.attrs.get("group", 1)) > 1 else "tncyxij,ocij->tnoyx"
    return np.einsum(sums, windows, weight[:, 0] if "o" not in sums else weight) + bias[:, None, None]


def neurons_of(op: str, channels: int) -> CodedNeurons:
    """Return neurons with thresholds that are no powers of two."""
    theta = np.random.default_rng(2).uniform(0.7, 3.0, (1, channels, 1, 1)).astype(np.float32)
    upper = np.float32(2.5 if op == "SignedBurstClip" else np.inf)
    return CodedNeurons(NeuronParameters(op, theta, np.float32(0.5), 3, upper), channels)


def fire(
    layer: ConvNeurons,
    terms: list[Any],
    timesteps: int,
    carried: Carried | None = None,
    done: int = 0,
    threads: int = 1,
) -> tuple[Coded, np.ndarray]:
    """Run a layer alone."""
    names = [f"term{k}" for k in range(len(terms))]
    alone = Chain([Job("layer", layer, tuple(names), "out")], {"out"})
    given = {n: t if isinstance(t, Coded) else channels_last(t) for n, t in zip(names, terms, strict=True)}
    program = alone.take(given, timesteps, threads)
    with ThreadPoolExecutor(threads) as pool:
        fired = program.run(given, {"layer": carried}, done, pool)
    return program.outputs["out"], fired["layer"]


def check(op: str, nodes: list[gs.Node], terms: list[Any], threads: int = 1) -> None:
    """The sums are exact in any order, so that spikes are equal."""
    compare(op, nodes, terms, sum(convolved(n, dense(x)) for n, x in zip(nodes, terms, strict=False)), threads)


def compare(op: str, nodes: list[gs.Node], terms: list[Any], currents: Any, threads: int = 1) -> None:
    """Compare spikes with those of the currents that the convolutions give; in blocks of timesteps, the same again."""
    for other in terms[len(nodes) :]:
        currents = currents + (dense(other) if isinstance(other, Coded) else other)
    currents = np.broadcast_to(currents, (T, *np.shape(currents)[1:])).astype(np.float32)
    neurons = neurons_of(op, currents.shape[2])
    wanted = np.empty(currents.shape, np.float32)
    emitted = FusedNeurons(neurons.parameters).fire(currents, wanted)
    layer = ConvNeurons(neurons, [SpikeConv(n) for n in nodes])
    found, fired = fire(layer, terms, T, threads=threads)
    np.testing.assert_array_equal(dense(found), wanted)
    np.testing.assert_array_equal(fired, emitted)

    def part(term: Any, steps: slice) -> Any:
        if isinstance(term, Coded):
            return Coded(np.ascontiguousarray(term.values[steps]), term.step, term.zero, term.shift, term.most)
        return term[steps] if len(term) > 1 else term

    carried: Carried = {}
    plain: Carried = {}
    done, total = 0, np.zeros(emitted.shape)
    for length in (2, 1, 2):
        steps = slice(done, done + length)
        block, some = fire(layer, [part(t, steps) for t in terms], length, carried, done, threads)
        FusedNeurons(neurons.parameters).fire(currents[steps], np.empty_like(wanted[steps]), plain, done)
        np.testing.assert_array_equal(dense(block), wanted[steps])
        assert carried.keys() == plain.keys()
        for name, state in plain.items():
            np.testing.assert_array_equal(carried[name], state)
        total, done = total + some, done + length
    np.testing.assert_array_equal(total, emitted)


GEOMETRIES = [
    (4, 16, (3, 3), {"pads": [1, 1, 1, 1]}),
    (3, 5, (3, 3), {"pads": [1, 1, 1, 1]}),
    (6, 17, (2, 3), {"strides": [2, 3], "pads": [0, 2, 1, 0]}),
    (5, 33, (3, 2), {"strides": [1, 2], "dilations": [2, 3], "pads": [2, 0, 1, 3]}),
    (64, 32, (1, 1), {"strides": [2, 2]}),
    (5, 16, (2, 2), {"pads": [3, 40, 2, 1], "strides": [1, 2]}),
    (8, 96, (3, 3), {"pads": [1, 1, 1, 1]}),
    (1, 1, (1, 1), {}),
    (20, 20, (3, 3), {"group": 20, "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    (32, 32, (3, 3), {"group": 32, "pads": [1, 1, 1, 1]}),
]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_convolution(geometry: Any, op: str) -> None:
    channels, features, kernel, attributes = geometry
    check(
        op, [node(features, channels, kernel, **attributes)], [counts_of(channels, (13, 22), 0 if op == OPS[0] else 3)]
    )


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("channels", "attributes"),
    [
        (20, {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        (32, {"pads": [1, 1, 1, 1]}),
        (17, {"dilations": [2, 1], "pads": [0, 2, 3, 0], "strides": [1, 2]}),
    ],
)
def test_8_bit_weights_of_each_channel_apart(channels: int, attributes: Any, op: str) -> None:
    """Rounded as QLinearConv does it, with sums that reach either bound of a byte, and ties."""
    rng, offset = np.random.default_rng(9), 0 if op == OPS[0] else 3
    counts = counts_of(channels, (13, 22), offset)
    weight = rng.integers(-127, 128, (channels, 1, 3, 3)).astype(np.int8)
    bias = rng.integers(-900, 4000, channels).astype(np.int32)
    scale, step = np.full(channels, 1 / 16, np.float32), rng.uniform(0.02, 0.2, channels).astype(np.float32)
    zero = rng.integers(0, 200, channels).astype(np.uint8)
    values = [weight, bias, counts.step, np.array(offset, np.uint8), scale, step, zero]
    inputs = [gs.Variable("x"), *(gs.Constant(str(i), v) for i, v in enumerate(values))]
    attributes = {"strides": [1, 1], "dilations": [1, 1], "group": channels, **attributes}
    rounded = gs.Node(INT8_CONV, attrs=attributes, inputs=inputs, outputs=[gs.Variable("y")], domain=DOMAIN)
    spikes = counts.values.astype(np.float64) - offset
    sums = convolved(node_of(weight.astype(np.float32), bias, **attributes), np.moveaxis(spikes, -1, 2))
    codes = np.clip(np.rint(sums / 16), 0, 255)
    assert (codes == 0).any()
    assert (codes == 255).any()
    assert (sums / 16 % 1 == 0.5).any()
    along = (channels, 1, 1)
    currents = (codes.astype(np.float32) - zero.reshape(along)) * step.reshape(along)
    assert runs_in_float(rounded)
    compare(op, [rounded], [counts], currents)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("pixels", [4, 40, 4000])
@pytest.mark.parametrize("features", [20, 64])
def test_two_convolutions_in_any_parts(
    features: int, pixels: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A convolution and a projection with strides, of different spikes."""
    monkeypatch.setattr(conv_neurons, "_PIXELS", pixels)
    monkeypatch.setattr(conv_neurons, "_WORK", 0)
    monkeypatch.setattr(chain, "_WORK", 0)
    nodes = [
        node(features, 12, (3, 3), pads=[1, 1, 1, 1]),
        node(features, 8, (1, 1), seed=5, strides=[2, 2]),
    ]
    terms = [counts_of(12, (7, 9), 2), counts_of(8, (14, 17), 0, seed=6)]
    check("SignedBurstRelu", nodes, terms, threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["counts", "currents", "constant"])
@pytest.mark.parametrize("features", [20, 32])
def test_what_is_added(features: int, kind: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_neurons, "_WORK", 0)
    monkeypatch.setattr(chain, "_WORK", 0)
    other: Any = counts_of(features, (9, 8), 3, seed=7)
    if kind != "counts":
        other = (np.random.default_rng(8).integers(-8, 9, (T, N, features, 9, 8)) / 8).astype(np.float32)
        other = other[:1] if kind == "constant" else other
    check("BurstIF", [node(features, 6, (3, 3), pads=[1, 1, 1, 1])], [counts_of(6, (9, 8), 0), other], threads)
    check("SignedBurstRelu", [], [other], threads)


def test_a_sum_is_the_same_wherever_its_pixel_stands() -> None:
    """Bit for bit, with weights whose sums are rounded: samples alone, together, and moved within the image."""
    rng = np.random.default_rng(3)
    weight = rng.normal(0, 0.2, (32, 16, 3, 3)).astype(np.float32)
    layer = ConvNeurons(neurons_of("BurstIF", 32), [SpikeConv(node_of(weight, np.zeros(32, np.float32)))])
    counts = counts_of(16, (15, 31), 0)

    def state(values: np.ndarray) -> np.ndarray:
        carried: Carried = {}
        term = Coded(np.ascontiguousarray(values), counts.step, counts.zero, counts.shift, counts.most)
        fire(layer, [term], len(values), carried)
        return np.asarray(carried["v_mem"])

    whole = state(counts.values)
    for n in range(N):
        np.testing.assert_array_equal(state(counts.values[:, n : n + 1])[0], whole[n])
    np.testing.assert_array_equal(state(counts.values[:, :, 3:, 5:]), whole[:, :, 3:, 5:])
    order = np.arange(N)[::-1]
    np.testing.assert_array_equal(state(counts.values[:, order]), whole[order])


def test_what_runs_here() -> None:
    assert runs_in_float(node(8, 4, (3, 3)))
    assert runs_in_float(node(8, 8, (3, 3), group=8))
    assert not runs_in_float(node(8, 8, (3, 3), group=2))
    assert not runs_in_float(node(8, 4, (3, 3), auto_pad="SAME_UPPER"))
    free = node(8, 4, (3, 3))
    free.inputs[1] = gs.Variable("w")
    assert not runs_in_float(free)


def test_nothing_runs_here_where_the_processor_lacks_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spike_conv, "vector_width", lambda: 0)
    assert not runs_in_float(node(8, 4, (3, 3)))


def test_weights_are_packed_in_blocks_of_output_channels() -> None:
    weight = np.arange(1, 20 * 3 * 2 + 1, dtype=np.float32).reshape(20, 3, 1, 2)
    found = packed(weight, False, 8)
    assert found.shape == (2, 6, 16)
    for output in range(20):
        for channel in range(3):
            for column in range(2):
                assert found[output // 16, column * 3 + channel, output % 16] == weight[output, channel, 0, column]
    assert np.count_nonzero(found) == weight.size
    assert packed(weight[:, :, :, :1], False, 16).shape == (1, 3, 32)
    assert packed(weight[:16], False, 16).shape == (1, 6, 16)
    assert packed(weight[:, :1], True, 16).shape == (1, 2, 32)


@pytest.mark.skipif(vector_width() != 16 or is_apart(), reason="vectors are short here")
def test_with_shorter_vectors(tmp_path: Path) -> None:
    """What a processor with AVX2 alone would run."""
    patch = "from snncc.runtime import spike_conv; spike_conv.vector_width = lambda: 8"
    run_apart(patch, __file__, "convolution or parts", tmp_path)
