"""Presets: what each sets, that the caller's options win, and that they search where they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_network import SHAPE, ann_outputs, small_model

import snncc
from snncc.errors import UsageError
from snncc.graph import constant
from snncc.presets import PRESETS, compile_preset, preset

MODEL = small_model()
IMAGES = 2 * np.random.default_rng(1).standard_normal((96, *SHAPE)).astype(np.float32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))


def compiled(name: str, **options: object) -> snncc.SpikingNetwork:
    return compile_preset(name, MODEL, calibration=IMAGES, **{"timesteps": 4, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_compiles_a_network_that_resembles_the_ann(name: str) -> None:
    network = compiled(name, timesteps=16)  # single spikes from a maximum need some time
    agreement = (network.run(IMAGES)["logits"].argmax(1) == ann_outputs(MODEL, IMAGES).argmax(1)).mean()
    assert agreement > 0.5  # four classes
    bursts = {layer.max_burst for layer in network.record.layers}
    ratios = {layer.threshold_ratio for layer in network.record.layers}
    if name in ("opt", "percentile", "calibration"):
        assert (bursts, ratios) == ({1}, {1.0})
    elif name == "bs":
        assert (bursts, ratios) == ({4}, {1.0})


@pytest.mark.parametrize(
    ("name", "method"), [("bs+bsr", "bsr"), ("bs+ssc", "ssc"), ("bs+bsr+ssc", "bsr+ssc"), ("best", "joint")]
)
def test_presets_that_search_use_what_the_search_found(name: str, method: str) -> None:
    chosen = PRESETS[name]
    network = compiled(name, max_burst=2)
    found = snncc.search(
        MODEL,
        calibration=IMAGES,
        config=snncc.Config(**{**chosen.options, "timesteps": 4, "max_burst": 2}),
        method=method,
        sensitivity=chosen.sensitivity,
        budget=chosen.budget,
        simulate=chosen.simulate,
    )
    expected = {name: tuple(candidate) for name, candidate in found.assignment.items()}
    assert {layer.name: (layer.max_burst, layer.threshold_ratio) for layer in network.record.layers} == expected
    if name == "best":  # with two bursts and three layers there may be nothing better than the same everywhere
        assert len(set(expected.values())) > 1


def test_opt_puts_the_threshold_at_the_maximum() -> None:
    network = compiled("opt")
    node = next(n for n in network.network.nodes if n.name == "relu1")
    theta = np.asarray(constant(node.inputs[1]))
    assert theta.size == 1
    copy = small_model()
    copy.graph.output.append(onnx.helper.make_tensor_value_info("a1", onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    # The first layer's current is the ANN's.
    assert float(theta.max()) == pytest.approx(float(session.run(["a1"], {"image": IMAGES})[0].max()), rel=2e-3)


def test_options_of_the_caller_win() -> None:
    assert preset("calibration").config(max_burst=3).max_burst == 3
    assert preset("bs").config(v_init=0.25, timesteps=2).v_init == 0.25
    assert {layer.max_burst for layer in compiled("opt", max_burst=2).record.layers} == {2}


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match="there is no preset 'magic': choose one of opt, percentile"):
        preset("magic")
    with pytest.raises(UsageError, match="there is no option 'speed'"):
        preset("bs").config(speed=3)
    with pytest.raises(UsageError, match="needs calibration data"):
        compile_preset("best", MODEL, calibration=None)
    for name in (["x"], None, 5):
        with pytest.raises(UsageError, match="there is no preset"):
            compile_preset(name, MODEL, calibration=None)  # type: ignore[arg-type]
