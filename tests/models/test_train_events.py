"""The training loop of the event network on recordings that are easily told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from snncc.events import Events
from snncc.models.recordings import TICK, Recordings

torch = pytest.importorskip("torch")


@pytest.fixture
def recordings() -> Recordings:
    """Class 0 has its events in a small square, class 1 in a large one."""
    random = np.random.default_rng(0)
    label = random.integers(0, 2, 192).astype(np.uint8)
    made = []
    for size in np.where(label, 20, 8):
        x, y = (random.integers(17 - size // 2, 17 + size // 2, (2, 60))).astype(np.uint16)
        made.append(Events(x, y, np.sort(random.integers(0, 240, 60)) * TICK, random.random(60) < 0.5, 34, 34))
    return Recordings.of(made, label)


def test_windows_lie_within_a_recording() -> None:
    from snncc.models.recipes.train_events import BINS, WINDOWS, draw_windows

    windows = draw_windows(3000, np.random.default_rng(0))
    assert (windows[:, 0] == [0, BINS]).all()
    first, last = windows[:, 1].T
    assert (first.min(), last.max()) == (0, BINS)
    lengths, counts = np.unique(last - first, return_counts=True)
    assert lengths.tolist() == list(WINDOWS)
    assert counts == pytest.approx(1000, abs=130)  # binomial, five standard deviations
    assert np.unique(first[last - first == 1]).tolist() == list(range(BINS))


def test_training_learns_and_an_interrupted_run_goes_on_where_it_was(
    recordings: Recordings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from snncc.models.recipes import train_events
    from snncc.models.recipes.networks import EventsResNet

    recipe = train_events.Recipe(batch=32, peak_rate=0.05)

    def trained(checkpoint: Path) -> dict[str, object]:
        torch.manual_seed(0)
        network = EventsResNet()
        train_events.train(network, recordings, recipe, 3, 1, checkpoint)
        return dict(network.state_dict())

    save = train_events.save

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    straight = trained(tmp_path / "a")
    whole = capsys.readouterr().out.splitlines()
    assert "epoch 3/3" in whole[-1]
    assert float(whole[-1].split("accuracy ")[1].split()[0]) > 0.9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_events, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "b")
    resumed = trained(tmp_path / "b")
    for name, values in straight.items():
        torch.testing.assert_close(resumed[name], values, rtol=0, atol=0)
