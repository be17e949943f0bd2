"""The saccade camera against a slow one that asks every pixel every microsecond."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from snncc.errors import DataError, UsageError
from snncc.events.camera import STEP, SaccadeCamera
from snncc.events.container import Events
from snncc.events.firing import events_of, log_levels

SMALL = SaccadeCamera(width=9, height=8, saccade=10_000, mismatch=0.2, noise=200.0, refractory=300, seed=3)


@pytest.fixture
def image() -> np.ndarray:
    picture = np.random.default_rng(0).integers(0, 256, (5, 6), dtype=np.uint8)
    picture[1:3, 2] = 0
    return picture


def slow_levels(camera: SaccadeCamera, image: np.ndarray) -> np.ndarray:
    """Brightness by SciPy's interpolation: [K, height, width]."""
    whole = np.zeros((camera.height, camera.width))
    whole[: image.shape[0], : image.shape[1]] = image / 255
    # One pixel of black around: at the edges SciPy's constant mode doesn't mix with what is outside.
    padded = np.pad(whole, 12)
    moved = [ndimage.shift(padded, shift, order=1) for shift in camera.shifts(*image.shape)]
    return np.log(camera.black + (1 - camera.black) * np.stack(moved)[:, 12:-12, 12:-12])


def slow_events(camera: SaccadeCamera, image: np.ndarray, seed: int) -> list[tuple[int, int, int, bool]]:
    """Events (t, y, x, p) of a camera that is stepped by microseconds."""
    knots = slow_levels(camera, image).reshape(camera.duration // STEP + 1, -1)
    bounds, noise_t, noise_p = camera._noise(seed)
    noise = {
        (int(noise_t[i]), pixel): bool(noise_p[i])
        for pixel in range(knots.shape[1])
        for i in reversed(range(bounds[pixel], bounds[pixel + 1]))  # the first of several is the one that counts
    }
    reference, free = knots[0].copy(), np.zeros(knots.shape[1], int)
    events = []
    for now in range(camera.duration + 1):
        k = min(now // STEP, len(knots) - 2)
        level = knots[k] + (knots[k + 1] - knots[k]) * (now - k * STEP) / STEP
        reference = np.where(free == now, level, reference)
        change = level - reference
        off, on = change <= -camera.thresholds[:, 0], change >= camera.thresholds[:, 1]
        for pixel in np.flatnonzero(free <= now):
            struck = (now, int(pixel)) in noise
            if not (struck or on[pixel] or off[pixel]):
                continue
            contrast = bool(on[pixel] or off[pixel])
            polarity = bool(on[pixel]) if contrast else noise[now, int(pixel)]
            events.append((now, int(pixel) // camera.width, int(pixel) % camera.width, polarity))
            free[pixel] = now + camera.refractory
    return events


def columns(events: Events) -> list[tuple[int, int, int, bool]]:
    return list(zip(events.t.tolist(), events.y.tolist(), events.x.tolist(), events.p.tolist(), strict=True))


def test_events_are_those_of_the_camera_stepped_by_microseconds(image: np.ndarray) -> None:
    fast, slow = columns(SMALL.record(image, seed=5)), slow_events(SMALL, image, seed=5)
    assert len(slow) > 300
    assert fast == slow


def test_the_same_seeds_give_the_same_events_whatever_was_recorded_before(image: np.ndarray) -> None:
    first = columns(SMALL.record(image, seed=1))
    other = columns(SMALL.record(image, seed=2))
    assert columns(replace(SMALL).record(image, seed=1)) == first
    assert other != first
    assert columns(replace(SMALL, seed=4).record(image, seed=1)) != first


def test_without_noise_a_recording_depends_on_the_camera_alone(image: np.ndarray) -> None:
    silent = replace(SMALL, noise=0.0)
    assert columns(silent.record(image, seed=1)) == columns(silent.record(image, seed=2))
    assert columns(silent.record(image, seed=1)) != columns(replace(silent, seed=4).record(image, seed=1))


def test_a_pixel_waits_for_its_refractory_time(image: np.ndarray) -> None:
    # So much noise strikes every moment, the first free microsecond among them.
    events = replace(SMALL, noise=5000.0).record(image, seed=1)
    place = events.y.astype(int) * SMALL.width + events.x
    gaps = [np.diff(events.t[place == pixel]).min(initial=10**9) for pixel in np.unique(place)]
    assert min(gaps) == SMALL.refractory


def test_noise_has_the_rate_that_was_asked_for() -> None:
    camera = SaccadeCamera(width=40, height=40, noise=50.0, refractory=0)
    events = camera.record(np.zeros((28, 28), np.uint8), seed=0)
    expected = 50 * 40 * 40 * 0.3
    # Poisson numbers: five standard deviations.
    assert len(events) == pytest.approx(expected, abs=5 * expected**0.5)
    assert events.p.mean() == pytest.approx(0.5, abs=5 * 0.5 / expected**0.5)


def test_a_bright_edge_gives_on_events_before_it_and_off_events_behind() -> None:
    camera = SaccadeCamera(width=12, height=10, noise=0.0)
    image = np.zeros((8, 10), np.uint8)
    image[2:6, 3:7] = 255
    events = camera.record(image, seed=0)
    first = events.between(0, camera.saccade)  # down and to the right
    assert first.y[first.p].mean() > first.y[~first.p].mean() + 1
    assert first.x[first.p].mean() > first.x[~first.p].mean()
    assert camera.duration == 300_000


def test_mismatch_spreads_the_thresholds() -> None:
    camera = SaccadeCamera(width=100, height=100, mismatch=0.2)
    factors = camera.thresholds / camera.threshold
    assert factors.mean() == pytest.approx(1, abs=5 * 0.2 / 20_000**0.5)
    assert factors.std() == pytest.approx(0.2, rel=0.03)
    assert factors.min() >= 0.1
    assert (SaccadeCamera(mismatch=0.0).thresholds == 0.4).all()


def test_events_beyond_the_first_buffer_are_there_too(image: np.ndarray) -> None:
    levels = log_levels(image / 255.0, SMALL.shifts(*image.shape), SMALL.height, SMALL.width, SMALL.black)
    arguments = (levels, STEP, SMALL.refractory, SMALL.thresholds, SMALL._noise(1))
    np.testing.assert_array_equal(events_of(*arguments, capacity=7), events_of(*arguments))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width is 0: it must be from 1 to"),
        ({"threshold": 0.0}, "threshold is 0.0: it must be positive"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"mismatch": 1.0}, "mismatch is 1.0: it must be at least 0 and less than 1"),
        ({"refractory": -1}, "refractory is -1"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"black": 0.0}, "black is 0.0: it must be more than 0"),
        ({"saccade": 7_000}, "saccade is 7000: it must be a multiple of 5000"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_values_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SaccadeCamera(**options)  # type: ignore[arg-type]


def test_images_that_do_not_suit() -> None:
    camera = SaccadeCamera(noise=0.0)
    with pytest.raises(DataError, match="image of 40x28 pixels doesn't fit a sensor of 34x34"):
        camera.record(np.zeros((28, 40), np.uint8), 0)
    with pytest.raises(DataError, match="image is float64"):
        camera.record(np.zeros((28, 28)), 0)
    with pytest.raises(DataError, match="recording 3 holds no events"):
        camera.record(np.zeros((28, 28), np.uint8), 3)
