"""How far outputs are from the ANN's, against the formulas over all samples at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from snncc.allocation.metric import Distance, Metric
from snncc.allocation.run import search
from snncc.errors import UsageError

RNG = np.random.default_rng(0)
ANN = {"scores": (3 * RNG.standard_normal((12, 5))).astype(np.float32), "other": RNG.standard_normal((12, 2, 2))}
SNN = {
    "scores": ANN["scores"] + RNG.standard_normal((3, 12, 5)).astype(np.float32),
    "other": ANN["other"] + RNG.standard_normal((3, 12, 2, 2)),
}


def added(metric: Metric, ann: dict[str, np.ndarray], snn: dict[str, np.ndarray]) -> Distance:
    """In two chunks of samples, and the candidates in two parts."""
    distance = Distance(metric, 3)
    for rows in (slice(0, 7), slice(7, 12)):
        for which in (slice(0, 2), slice(2, 3)):
            distance.add({n: v[rows] for n, v in ann.items()}, {n: v[which, rows] for n, v in snn.items()}, which)
    return distance


def centred(scores: np.ndarray) -> np.ndarray:
    return scores - scores.mean(axis=-1, keepdims=True)


@pytest.mark.parametrize("probabilities", [False, True])
def test_squared_error_of_classes_knows_only_differences_between_them(probabilities: bool) -> None:
    distance = added(
        Metric("scores"),
        {"scores": softmax(ANN["scores"], axis=-1) if probabilities else ANN["scores"]},
        {"scores": softmax(SNN["scores"], axis=-1) if probabilities else SNN["scores"] + 7},
    )
    squares = np.square(centred(SNN["scores"].astype(np.float64)) - centred(ANN["scores"])).sum(axis=(1, 2))
    # Float32 probabilities say their logarithm to about 1e-5.
    expected = squares / np.square(centred(ANN["scores"])).sum()
    np.testing.assert_allclose(distance.loss(), expected, rtol=1e-4 if probabilities else 1e-5)
    same = (SNN["scores"].argmax(-1) == ANN["scores"].argmax(-1)).mean(axis=1)
    np.testing.assert_allclose(distance.agreement(), same)


def test_divergence_of_classes() -> None:
    distance = added(Metric("scores", kl=True), ANN, SNN)
    p, q = (log_softmax(v["scores"].astype(np.float64), axis=-1) for v in (ANN, SNN))
    np.testing.assert_allclose(distance.loss(), ((np.exp(p) - np.exp(q)) * (p - q)).sum(-1).mean(1), rtol=1e-6)


def test_without_classes_the_outputs_count_alike() -> None:
    distance = added(Metric(kl=True), ANN, SNN)
    parts = [
        np.square(SNN[n] - ANN[n], dtype=np.float64).sum(axis=tuple(range(1, SNN[n].ndim))) / np.square(ANN[n]).sum()
        for n in ANN
    ]
    np.testing.assert_allclose(distance.loss(), np.mean(parts, axis=0), rtol=1e-5)
    assert distance.agreement() is None


@pytest.mark.parametrize("kl", [False, True])
def test_an_output_that_no_candidate_reaches_is_that_of_the_ann(kl: bool) -> None:
    distance = added(Metric("scores", kl=kl), ANN, {})
    assert distance.loss().tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_array_equal(distance.agreement(), np.ones(3))


def test_names_and_what_there_is_not() -> None:
    assert [m.name for m in (Metric("y", kl=True), Metric("y"), Metric(None, kl=True))] == [
        "symmetric_kl",
        "relative_squared_error",
        "relative_squared_error",
    ]
    with pytest.raises(UsageError, match="metric is 'cosine': it must be one of squared, kl"):
        search("zoo:fashion_vgg", calibration="zoo:calibration", metric="cosine")
