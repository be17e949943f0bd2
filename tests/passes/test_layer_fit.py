"""The sums that calibration rests on, against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from snncc.activations import Activation
from snncc.analysis import NeuronSite
from snncc.config import Config
from snncc.passes.chunk_pool import ChunkPool
from snncc.passes.error_parts import layer_error
from snncc.passes.frontier import Entry
from snncc.passes.layer import Layer
from snncc.passes.layer_fit import LayerFit, match
from snncc.passes.layer_sums import Sums, along, sums, total
from snncc.passes.scaled import Scaled


def chunks(sizes: tuple[int, ...], offset: float = 0.3) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(5)
    spread, middle = np.array([1.0, 0.2, 7.0])[:, None], np.array([0.0, 1.0, -2.0])[:, None]
    drawn = ((middle + spread * rng.normal(size=(n, 3, 11))).astype(np.float32) for n in sizes)
    noise = np.random.default_rng(6)
    return [(a, (0.8 * a + offset + noise.normal(0, 1e-4, a.shape)).astype(np.float32)) for a in drawn]


def joined(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    ann, snn = (np.concatenate(part).astype(np.float64) for part in zip(*pairs, strict=True))
    return ann, snn


@pytest.mark.parametrize("sizes", [(1,), (31, 32, 33), (500,), (64, 1, 100)])
def test_sums_are_those_of_double_precision(sizes: tuple[int, ...]) -> None:
    pairs = chunks(sizes)
    found = total([sums(ann, snn[None], 1) for ann, snn in pairs])
    ann, snn = joined(pairs)
    assert found.count == sum(sizes) * 11
    for got, values in (
        (found.ann, ann),
        (found.snn, snn),
        (found.ann_squared, np.square(ann)),
        (found.snn_squared, np.square(snn)),
        (found.product, ann * snn),
    ):
        limit = 1e-12 * np.abs(values).sum(axis=(0, 2))
        assert (np.abs(got - values.sum(axis=(0, 2))) <= limit).all()


def test_many_samples_do_not_drown_in_single_precision() -> None:
    """A running float32 sum of 0.1 would be off by 1e-3 here."""
    values = np.full((200_000, 1, 1), 0.1, np.float32)
    assert sums(values, values[None], 1).ann[0] == pytest.approx(200_000 * float(np.float32(0.1)), rel=1e-6)


@pytest.mark.parametrize("gain", [True, False])
def test_matched_values_have_the_mean_and_the_deviation_of_the_ann(gain: bool) -> None:
    pairs = chunks((40, 23))
    correction = match(total([sums(ann, snn[None], 1) for ann, snn in pairs]), gain=gain)
    gain_, shift = along(correction.gain, 1, 3), along(correction.shift, 1, 3)
    ann, snn = joined([(ann, Scaled(snn[None], gain_, shift).decode()[0]) for ann, snn in pairs])
    np.testing.assert_allclose(snn.mean(axis=(0, 2)), ann.mean(axis=(0, 2)), atol=1e-5)
    deviation = snn.std(axis=(0, 2)) / ann.std(axis=(0, 2))
    np.testing.assert_allclose(deviation, 1.0 if gain else deviation, rtol=1e-4)
    assert gain or (correction.gain == 1).all()


def test_a_gain_from_few_values_is_drawn_to_one_by_its_standard_error() -> None:
    """What is left of its logarithm: 1 - (2/ln g)²·(1 - r²)/(n - 1); without that, the error is as said, to 10 %."""
    rng, shape = np.random.default_rng(1), (300, 16)
    ann = rng.normal(size=shape)
    snn = ann + 0.3 * rng.normal(size=shape)
    correlation = np.array([np.corrcoef(a, s)[0, 1] for a, s in zip(ann, snn, strict=True)])
    error = np.log(ann.std(axis=1) / snn.std(axis=1))
    chance = (1 - correlation**2) / (shape[1] - 1)
    assert error.std() == pytest.approx(float(np.sqrt(chance.mean())), rel=0.1)
    values = [v.T[:, :, None].astype(np.float32) for v in (ann, snn)]
    found = np.log(match(sums(values[0], values[1][None], 1), gain=True).gain)
    expected = error * np.maximum(0, 1 - 4 * chance / np.square(error))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0 < np.count_nonzero(expected) < len(expected) / 2


def sampled(rng: np.random.Generator, channels: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` samples with 50 positions each; how much the SNN damps a sample varies from one to the next."""
    ann = rng.normal(size=(count, channels, 50)).astype(np.float32)
    damping = np.exp(-0.1 + 0.2 * rng.normal(size=(count, channels, 1)))
    return ann, (damping * ann).astype(np.float32)


def each_sample(ann: np.ndarray, snn: np.ndarray) -> list[Sums]:
    return [sums(ann[i : i + 1], snn[None, i : i + 1], 1) for i in range(len(ann))]


def test_with_few_samples_a_gain_is_drawn_to_one_by_how_much_samples_differ() -> None:
    """The positions of a sample agree on its damping, so 300 values don't tell more than six samples do."""
    ann, snn = sampled(np.random.default_rng(3), 400, 6)
    parts = each_sample(ann, snn)
    naive = np.log(match(total(parts), gain=True).gain)
    found = np.log(match(total(parts), gain=True, samples=parts).gain)
    others = sampled(np.random.default_rng(4), 400, 200)
    truth = np.log(others[0].std(axis=(0, 2)) / others[1].std(axis=(0, 2)))
    assert (np.abs(found) <= np.abs(naive) + 1e-6).all()
    assert np.square(found - truth).mean() < 0.75 * np.square(naive - truth).mean()


def test_what_many_samples_agree_on_is_a_gain() -> None:
    ann = np.random.default_rng(0).normal(size=(20, 30, 50)).astype(np.float32)
    snn = (0.7 * ann).astype(np.float32)
    parts = each_sample(ann, snn)
    np.testing.assert_allclose(match(total(parts), gain=True, samples=parts).gain, 1 / 0.7, rtol=1e-3)


def test_one_sample_says_nothing_of_the_gain_of_others() -> None:
    ann, snn = sampled(np.random.default_rng(1), 5, 1)
    parts = each_sample(ann, snn)
    assert match(total(parts), gain=True, samples=parts).gain.tolist() == [1.0] * 5


def test_a_channel_that_does_not_vary_keeps_its_factor() -> None:
    constant = np.full((8, 1, 5), 3.0, np.float32)
    moving = np.random.default_rng(0).normal(size=(8, 1, 5)).astype(np.float32)
    for ann, snn in ((constant, moving), (moving, constant), (constant, constant)):
        assert match(sums(ann, snn[None], 1), gain=True).gain.tolist() == [1.0]


@pytest.mark.parametrize("kind", ["relu", "encode"])
def test_what_is_likely_comes_from_all_currents(kind: str) -> None:
    """Three deviations above the mean, and for values of both signs as many below it; to double precision.

    Each channel has few values of each sign: of others nobody asks what is likely.
    """
    rng, middle = np.random.default_rng(4), np.array([0.0, -1.0, -9.0])[:, None]
    ann = [(middle + rng.normal(size=(n, 3, 11))).astype(np.float32) for n in (2, 1)]
    upper = 1.5 if kind == "relu" else float("inf")
    site = NeuronSite("n", "x", "y", Activation(kind, upper), False, 1, 3, 3, (3, 11))
    with ChunkPool(2) as pool:
        layer = Layer(site, Entry([*ann]), Config(), pool)
        positive, negative = layer.positive.likely, layer.negative.likely
    values = np.concatenate(ann).astype(np.float64)
    mean, deviation = values.mean(axis=(0, 2)), values.std(axis=(0, 2))
    assert positive == pytest.approx(np.clip(mean + 3 * deviation, 0, upper), rel=1e-9)
    assert positive[2] == 0
    assert negative == pytest.approx(3 * deviation - mean if kind == "encode" else np.zeros(3), rel=1e-9)


@pytest.mark.parametrize("kind", ["relu", "encode"])
def test_histograms_do_not_depend_on_the_number_of_threads(kind: str) -> None:
    rng = np.random.default_rng(5)
    sizes = ((5, 1), (4, 1e-32), (4, 9), (1, 0.1), (3, 2), (2, 1e-38))
    ann = [(size * rng.normal(size=(n, 3, 11))).astype(np.float32) for n, size in sizes]
    site = NeuronSite("n", "x", "y", Activation(kind, float("inf")), False, 1, 3, 3, (3, 11))
    found = []
    for cores in (1, 2, 3):
        with ChunkPool(len(ann), cores) as pool:
            layer = Layer(site, Entry([*ann]), Config(), pool)
            found.append((layer.positive, layer.negative))
    values = np.concatenate(ann)
    for positive, negative in found:
        assert positive.counts.sum() == (values > 1e-30).sum()
        assert negative.counts.sum() == ((values < -1e-30).sum() if kind == "encode" else 0)
        for one, two in ((positive, found[0][0]), (negative, found[0][1])):
            np.testing.assert_array_equal(one.counts, two.counts)
            np.testing.assert_array_equal(one.width, two.width)


def test_currents_that_miss_the_anns_mean_are_moved_there() -> None:
    """Ten thresholds below, no neuron fires, so the error of the output alone would never bring them back."""
    config, rng = Config(timesteps=8, max_burst=4), np.random.default_rng(2)
    site = NeuronSite("n", "x", "y", Activation("relu", float("inf")), False, 1, 3, 3, (3, 11))
    ann = [rng.normal(size=(n, 3, 11)).astype(np.float32) for n in (40, 9)]
    snn = [np.broadcast_to(a - 10, (8, *a.shape)) for a in ann]
    with ChunkPool(2) as pool:
        layer = Layer(site, Entry([*ann], [*snn]), config, pool)
        fit = LayerFit(layer)
        theta = fit.thresholds
        shift, responses = fit.correct()
        found = layer_error(layer, responses, theta, shift, signed=False)
    error, mean_error, rate = found.squared, found.mean, found.firing_rate
    counts = [response.counts for response in responses]
    np.testing.assert_allclose(shift, 10, atol=0.2)  # and what is left of the mean error, part of a threshold
    output = np.concatenate([c.mean(axis=0) for c in counts]) * theta[:, None]
    active = np.maximum(np.concatenate(ann), 0)
    residual = output - active
    assert error == pytest.approx(np.square(residual).sum() / np.square(active).sum(), rel=1e-5)
    assert mean_error == pytest.approx(residual.sum() / active.sum(), abs=1e-6)
    assert rate == pytest.approx(np.concatenate(counts, axis=1).mean(), rel=1e-6)
    assert abs(mean_error) < 0.01
