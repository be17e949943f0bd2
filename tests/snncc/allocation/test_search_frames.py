"""The search on sequences: predictions against simulations, several T, every sensitivity and method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_network import SHAPE, ann_outputs, small_model

import snncc
from snncc.allocation.file import read, write
from snncc.allocation.over_time import search_timesteps
from snncc.allocation.result import Budget
from snncc.allocation.run import SENSITIVITIES, search
from snncc.errors import DataError
from snncc.evaluate import evaluate
from snncc.presets import compile_preset
from snncc.runtime.meter import CMOS_45NM

MODEL = small_model()
RNG = np.random.default_rng(1)
FRAMES = (2 * RNG.standard_normal((48, 1, *SHAPE)) + RNG.standard_normal((48, 2, *SHAPE))).astype(np.float32)
CONFIG = snncc.Config(timesteps=4, max_burst=3, input_coding="frames")
GRID = [(b, 1.0) for b in (1, 2, 3, 5)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("reset_after", [2, 4])
@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_predictions_are_near_what_is_simulated(sensitivity: str, reset_after: int) -> None:
    """Spikes of the uniform configuration: of one layer by the closed form, of the whole network by simulation."""
    config = replace(CONFIG, reset_after=reset_after)
    result = search(MODEL, calibration=FRAMES, config=config, candidates=GRID, sensitivity=sensitivity, simulate=1)
    predicted = np.array([layer.scores[0].spikes for layer in result.layers])
    simulated = np.array(result.measured[0].spikes)
    # The closed form knows no unevenness, and signed neurons take spikes back: far less than the factor of T/R = 2.
    np.testing.assert_allclose(predicted, simulated, rtol=0.35)


@pytest.mark.parametrize("reset_after", [2, 4])
def test_a_simulation_is_what_the_evaluation_finds(reset_after: int) -> None:
    config = replace(CONFIG, reset_after=reset_after)
    result = search(MODEL, calibration=FRAMES, config=config, candidates=GRID, simulate=2)
    chosen = result.measurement(result.assignment)
    assert chosen is not None
    network = snncc.compile(MODEL, calibration=FRAMES, config=result.config, assignment=result.assignment)
    found = evaluate(network, FRAMES, ann=MODEL)
    assert chosen.agreement == pytest.approx(found.agreement)
    assert sum(chosen.spikes) == pytest.approx(found.reading.spikes)
    assert chosen.cost("energy") == pytest.approx(found.reading.energy(CMOS_45NM)[1])


def test_the_file_keeps_the_input_coding(tmp_path: Path) -> None:
    result = search(MODEL, calibration=FRAMES, config=CONFIG, candidates=GRID, simulate=0)
    write(result, tmp_path / "front.json")
    assert read(tmp_path / "front.json").config == result.config
    assert result.config.reset_after in (2, 4)


def test_several_timesteps_hold_the_frames_longer() -> None:
    told: dict[int, object] = {}
    result = search_timesteps(
        MODEL,
        [2, 4],
        calibration=FRAMES,
        config=CONFIG,
        budget=Budget("agreement", 50.0),
        candidates=GRID,
        tell=told.__setitem__,
    )
    assert told.keys() == {2, 4}
    assert result.config.has_frames
    with pytest.raises(DataError, match="2 frames per sample, the spiking network takes 3"):
        search_timesteps(MODEL, [2, 3], calibration=FRAMES, config=CONFIG, budget=Budget("agreement", 50.0))


@pytest.mark.parametrize("name", ["bs+bsr+ssc", "best"])
def test_presets_take_sequences(name: str) -> None:
    options = {"timesteps": 4, "max_burst": 8, "input_coding": "frames", "reset_after": 2}
    network = compile_preset(name, MODEL, calibration=FRAMES, **options)
    wanted = np.mean([ann_outputs(MODEL, FRAMES[:, k]) for k in range(2)], axis=0).argmax(axis=1)
    assert (network.run(FRAMES)["logits"].argmax(axis=1) == wanted).mean() > 0.85
