"""A simulated event camera that looks at an image in three saccades, as the cameras of N-MNIST and N-Caltech101 did.

Orchard, Jayawant, Cohen and Thakor, *Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades*,
Frontiers in Neuroscience 9:437, 2015: a camera on a pan-tilt unit turns along the sides of an isosceles triangle, in
100 ms each, before an image that stands still. Here the image moves over the sensor along such a triangle, at the same
speed on each side, through all the room that the sensor leaves.

Each pixel follows the logarithm of the brightness it sees and fires when that has moved by a threshold (Lichtsteiner,
Posch and Delbruck, *A 128x128 120 dB 15 µs Latency Asynchronous Temporal Contrast Vision Sensor*, IEEE JSSC 43, 2008).
Its thresholds for ON and OFF are its own and stay the same in all recordings; after an event it is blind for the
refractory time; and noise makes it fire now and then.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from snncc.errors import DataError, UsageError
from snncc.events.container import MAX_SIDE, Events
from snncc.events.firing import events_of, log_levels

STEP = 5_000
"""Microseconds between two positions at which the image is sampled; brightness is log-linear in between."""

_LEAST_THRESHOLD = 0.1
"""Smallest threshold of a pixel as a fraction of the mean one: mismatch makes no pixel fire all the time."""


@dataclass(frozen=True)
class SaccadeCamera:
    """What one camera is like. The same camera, image and seed of a recording give the same events.

    Attributes:
        width: columns of the sensor.
        height: rows of the sensor.
        threshold: change of the natural logarithm of brightness that makes a pixel fire.
        mismatch: standard deviation of the pixels' thresholds as a fraction of `threshold`.
        refractory: microseconds after an event in which a pixel is blind.
        noise: spontaneous events per second and pixel, ON and OFF alike.
        black: brightness of a black pixel of the image as a fraction of that of a white one.
        saccade: microseconds of each of the three saccades, a multiple of `STEP`.
        seed: draws the thresholds of the pixels, and the noise together with the seed of the recording.
    """

    width: int = 34
    height: int = 34
    threshold: float = 0.4
    mismatch: float = 0.05
    refractory: int = 1_000
    noise: float = 0.1
    black: float = 0.35
    saccade: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: one is out of range.
        """
        self._check("width", 0 < self.width <= MAX_SIDE, f"from 1 to {MAX_SIDE}")
        self._check("height", 0 < self.height <= MAX_SIDE, f"from 1 to {MAX_SIDE}")
        self._check("threshold", 0 < self.threshold < np.inf, "positive")
        self._check("mismatch", 0 <= self.mismatch < 1, "at least 0 and less than 1")
        self._check("refractory", 0 <= self.refractory <= 1_000_000, "from 0 to 1,000,000 (a second)")
        self._check("noise", 0 <= self.noise <= 1e4, "from 0 to 10,000")
        self._check("black", 0 < self.black < 1, "more than 0 and less than 1")
        whole = 0 < self.saccade <= 10_000_000 and self.saccade % STEP == 0
        self._check("saccade", whole, f"a multiple of {STEP}, at most 10,000,000 (10 s)")
        self._check("seed", self.seed >= 0, "at least 0")

    def _check(self, name: str, good: bool, must: str) -> None:
        if not good:
            raise UsageError(f"{name} is {getattr(self, name)}: it must be {must}")

    @property
    def duration(self) -> int:
        """Microseconds of a recording."""
        return 3 * self.saccade

    @cached_property
    def thresholds(self) -> NDArray[np.float64]:
        """Thresholds of the pixels in the order of rows, [height * width, 2]: OFF, ON."""
        random = np.random.default_rng([self.seed, 0])
        factors = 1 + self.mismatch * random.standard_normal((self.height * self.width, 2))
        return self.threshold * np.maximum(factors, _LEAST_THRESHOLD)

    def shifts(self, rows: int, columns: int) -> NDArray[np.float64]:
        """Return where an image of this size lies on the sensor, [K, 2] (down, right) in pixels, one every `STEP`.

        From the upper left it goes to the middle of the lower edge, to the upper right, and back.

        Raises:
            DataError: the image is larger than the sensor.
        """
        down, right = self.height - rows, self.width - columns
        if down < 0 or right < 0:
            raise DataError(
                f"image of {columns}x{rows} pixels doesn't fit a sensor of {self.width}x{self.height}; take a smaller "
                "one, or a larger sensor"
            )
        corners = np.array([(0, 0), (down, right / 2), (0, right), (0, 0)])
        steps = np.arange(self.duration // STEP + 1) * STEP
        at = np.arange(4) * self.saccade
        return np.stack([np.interp(steps, at, corners[:, axis]) for axis in (0, 1)], axis=1)

    def record(self, image: NDArray[np.uint8], seed: int) -> Events:
        """Return the events of a recording; times from 0 on.

        Args:
            image: uint8 [rows, columns], 0 black, 255 white, no larger than the sensor.
            seed: of the recording's noise: the number of the image, for instance.

        Raises:
            DataError: the image is of another kind or size, or nothing in it makes a pixel fire.
        """
        if image.ndim != 2 or image.dtype != np.uint8:
            raise DataError(f"image is {image.dtype} {list(image.shape)}: it must be uint8 [rows, columns]")
        levels = log_levels(image / 255.0, self.shifts(*image.shape), self.height, self.width, self.black)
        fired = events_of(levels, STEP, self.refractory, self.thresholds, self._noise(seed))
        # Stable, so that events of one microsecond stay in the order of pixels.
        place, t, p = fired[np.argsort(fired[:, 1], kind="stable")].T
        x, y = (place % self.width).astype(np.uint16), (place // self.width).astype(np.uint16)
        source = f"recording {seed}"
        return Events(x, y, t.copy(), p.astype(bool), self.width, self.height, source, "simulated")

    def _noise(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return bounds, times and polarities of the noise of all pixels; see `snncc.events.firing.fire`."""
        random = np.random.default_rng([self.seed, 1, seed])
        pixels = self.height * self.width
        count = int(random.poisson(self.noise * pixels * self.duration / 1e6))
        place, t = random.integers(0, pixels, count), random.integers(0, self.duration, count)
        polarity = random.random(count) < 0.5
        order = np.lexsort((t, place))
        return np.searchsorted(place[order], np.arange(pixels + 1)), t[order], polarity[order]
