"""ψ and τ of single layers: in the artifact, in the thresholds, and in what the neurons do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_networks import NETWORKS, compiled, inputs_of

import snncc
from snncc.errors import UsageError
from snncc.graph import constant
from snncc.ops import Role, spec_of


def settings(network: snncc.SpikingNetwork) -> dict[str, tuple[int, float]]:
    """ψ and τ as the nodes say them."""
    return {
        n.name: (n.attrs["max_burst"], n.attrs["threshold_ratio"])
        for n in network.network.nodes
        if spec_of(n).role is Role.NEURON
    }


def test_layers_have_their_own_values_and_the_rest_the_configurations() -> None:
    model = NETWORKS["residual"].model()
    names = [layer.name for layer in compiled(model).record.layers]
    chosen = {names[0]: (2, 1.5), names[-1]: (7, 1.0)}
    network = snncc.compile(
        model, calibration=inputs_of(model, 16), config=snncc.Config(max_burst=3), assignment=chosen
    )
    expected = {name: chosen.get(name, (3, 1.0)) for name in names}
    assert settings(network) == expected
    assert {r.name: (r.max_burst, r.threshold_ratio) for r in network.record.layers} == expected


@pytest.mark.parametrize("bias_correction", [True, False])
def test_a_uniform_assignment_is_the_configuration(bias_correction: bool) -> None:
    model = NETWORKS["mobile"].model()
    data = inputs_of(model, 16)
    options: dict[str, Any] = {"timesteps": 4, "bias_correction": bias_correction}
    uniform = snncc.compile(model, calibration=data, config=snncc.Config(max_burst=2, threshold_ratio=1.5, **options))
    assigned = snncc.compile(
        model,
        calibration=data,
        config=snncc.Config(max_burst=9, **options),
        assignment={layer.name: (2, 1.5) for layer in uniform.record.layers},
    )
    assert assigned.model.graph == uniform.model.graph


@pytest.mark.parametrize("data", [True, False])
@pytest.mark.parametrize("choice", [(1, 1.0), (3, 2.0), (8, 1.5)])
def test_clipped_neurons_saturate_at_their_bound_or_below(data: bool, choice: tuple[int, float]) -> None:
    model = NETWORKS["mobile"].model()
    names = [layer.name for layer in compiled(model).record.layers if layer.activation == "clip"]
    assert names
    network = snncc.compile(
        model, calibration=inputs_of(model, 16) if data else None, assignment=dict.fromkeys(names, choice)
    )
    for node in network.network.nodes:
        if node.name in names:
            theta = np.asarray(constant(node.inputs[1]))
            if node.op.startswith("SignedBurstClip"):
                assert node.attrs["upper"] == 6.0
            else:
                assert (theta * choice[0] * choice[1] <= 6.0 * (1 + 1e-6)).all()


def test_what_does_not_fit_is_refused() -> None:
    model = NETWORKS["residual"].model()
    name = compiled(model).record.layers[0].name
    with pytest.raises(UsageError, match=f"names '{name}x', which is no layer.*nearest name is '{name}'"):
        snncc.compile(model, assignment={f"{name}x": (4, 1.0)})
    with pytest.raises(UsageError, match=f"layer '{name}': max_burst is 0"):
        snncc.compile(model, assignment={name: (0, 1.0)})
    with pytest.raises(UsageError, match=f"layer '{name}': threshold_ratio is 0.5"):
        snncc.compile(model, assignment={name: (4, 0.5)})
    with pytest.raises(UsageError, match=f"layer '{name}': threshold_ratio is 1000"):
        snncc.compile(model, assignment={name: (4, 10**400)})
    for other in (4, None, (4,), (4, 1.0, 2)):
        with pytest.raises(UsageError, match=rf"layer '{name}' is no pair \(ψ, τ\), but"):
            snncc.compile(model, assignment={name: other})  # type: ignore[dict-item]
    for key in (1, None):
        with pytest.raises(UsageError, match=f"names '{key}', which is no layer"):
            snncc.compile(model, assignment={key: (4, 1.0)})  # type: ignore[dict-item]
    for whole in (5, "r1", [(name, (4, 1.0))]):
        with pytest.raises(UsageError, match="it must map names of layers to pairs"):
            snncc.compile(model, assignment=whole)  # type: ignore[arg-type]
    for config in ({"timesteps": 2}, "x"):
        with pytest.raises(UsageError, match="config is"):
            snncc.compile(model, config=config)  # type: ignore[arg-type]
