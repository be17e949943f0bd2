"""The parts of a layer's error against what each of them is by definition, and against a layer that has only one."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import NETWORKS, compiled, inputs_of, parse

from snncc.neurons.burst_if import closed_form


def test_parts_add_up_to_the_error() -> None:
    for neuron in ("burst", "signed", "auto"):
        network = compiled(NETWORKS["residual"].model(), timesteps=4, max_burst=2, neuron=neuron)
        for layer in network.record.layers:
            parts = (layer.clipping, layer.quantisation, layer.inherited, layer.unevenness)
            assert sum(part or 0.0 for part in parts) == pytest.approx(layer.error, abs=1e-6)
            assert layer.entering == pytest.approx((layer.error or 0) - (layer.inherited or 0), abs=1e-6)


def test_a_single_neuron_clips_and_quantises() -> None:
    """Nothing arrives unevenly or wrong: clipping and steps are those of the closed form at the threshold."""
    model = parse("g (float[N,1] x) => (float[N,1] y) { y = Relu (x) }")
    data = np.random.default_rng(0).exponential(1.0, (500, 1)).astype(np.float32)
    (layer,) = compiled(model, data=data, timesteps=3, max_burst=2, bias_correction=True).record.layers
    theta = np.float32(layer.theta_min)
    energy = np.square(data).sum()
    clipped = np.square(np.minimum(data, 2 * theta) - data).sum()
    steps = np.square(closed_form(data, np.asarray(theta), 3, 2, 0.5) - data).sum()
    assert layer.clipping == pytest.approx(clipped / energy, rel=1e-3)
    assert layer.quantisation == pytest.approx((steps - clipped) / energy, rel=1e-3)
    # The bias correction shifts the current by a little: that is all that is left.
    assert (layer.error or 0) <= 1.1 * steps / energy


def test_signed_neurons_have_no_unevenness_unless_bursts_are_held_back() -> None:
    model = NETWORKS["sequence"].model()
    feeds = inputs_of(model, 30)
    second = {}
    for neuron in ("burst", "signed"):
        network = compiled(model, data=feeds, timesteps=4, max_burst=8, neuron=neuron)
        second[neuron] = network.record.layers[1]
    assert second["signed"].unevenness == pytest.approx(0.0, abs=1e-4)
    assert (second["burst"].unevenness or 0) > 10 * abs(second["signed"].unevenness or 0)


def test_without_data_there_are_none() -> None:
    network = compiled(NETWORKS["plain"].model(), bias_correction=False)
    assert {layer.entering for layer in network.record.layers} == {None}
