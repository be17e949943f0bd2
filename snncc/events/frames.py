"""Recordings as the array of samples that `snncc compile` and `snncc eval` read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.errors import DataError, UsageError
from snncc.events.container import Events
from snncc.events.representations import Slicing, count_frames, time_surface, voxel_grid

REPRESENTATIONS = ("counts", "voxel", "voxel-signed", "surface")
LAYOUTS = ("sequence", "samples", "channels")
KEY = "events"
"""Name of the array of samples; labels are under `label`."""


@dataclass(frozen=True)
class FrameOptions:
    """How a recording becomes a tensor.

    Attributes:
        slicing: how it is cut in time.
        representation: one of `REPRESENTATIONS`.
        layout: `sequence` [N, slices, C, H, W], `samples` [N·slices, C, H, W] with each label repeated, or `channels`
            [N, slices·C, H, W].
        tau: time constant of surfaces in microseconds.
    """

    slicing: Slicing
    representation: str = "counts"
    layout: str = "sequence"
    tau: float = 30_000.0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: an unknown name, or a voxel grid that isn't cut by bins.
        """
        for name, value, known in (
            ("representation", self.representation, REPRESENTATIONS),
            ("layout", self.layout, LAYOUTS),
        ):
            if value not in known:
                raise UsageError(f"{name} is '{value}': it must be one of {', '.join(known)}")
        if self.representation.startswith("voxel") and self.slicing.bins is None:
            raise UsageError("a voxel grid covers the whole recording: give the number of its bins")

    def tensor(self, events: Events) -> NDArray[np.float32]:
        """Return a recording as float32 [slices, C, H, W].

        Raises:
            DataError: it is shorter than a slice, or the tensor would be too large.
        """
        if self.representation == "counts":
            return count_frames(events, self.slicing)
        if self.representation == "surface":
            return time_surface(events, self.slicing, tau=self.tau)
        return voxel_grid(events, self.slicing.bins or 1, signed=self.representation == "voxel-signed")


@dataclass
class FrameCollector:
    """Gathers the tensors of recordings, which must all be of one shape."""

    options: FrameOptions
    tensors: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    _first: str = ""

    def add(self, tensor: NDArray[np.float32], label: int | None, source: str) -> None:
        """Add a recording's tensor [slices, C, H, W].

        Raises:
            DataError: it is of another size than those before.
        """
        if self.tensors:
            self._check(tensor, source)
        else:
            self._first = source
        self.tensors.append(tensor)
        if label is not None:
            self.labels.append(label)

    def _check(self, tensor: NDArray[np.float32], source: str) -> None:
        (slices, *pixels), (first_slices, *first_pixels) = tensor.shape, self.tensors[0].shape
        if pixels != first_pixels:
            raise DataError(
                f"{source} is of a sensor of {pixels[2]}x{pixels[1]} pixels, {self._first} of one of "
                f"{first_pixels[2]}x{first_pixels[1]}; give --sensor WIDTHxHEIGHT that holds all"
            )
        if slices != first_slices and self.options.layout != "samples":
            raise DataError(
                f"{source} gives {slices} slices, {self._first} {first_slices}: recordings of different length need "
                "--bins, or --layout samples"
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the samples, and the labels where there are any.

        Raises:
            DataError: no recording was added.
        """
        if not self.tensors:
            raise DataError("no recording gave a sample; see the reasons above")
        layout = self.options.layout
        samples = np.concatenate(self.tensors) if layout == "samples" else np.stack(self.tensors)
        if layout == "channels":
            count, slices, channels, height, width = samples.shape
            samples = samples.reshape(count, slices * channels, height, width)
        arrays: dict[str, NDArray[Any]] = {KEY: samples}
        if self.labels:
            labels = np.array(self.labels, np.int64)
            arrays["label"] = np.repeat(labels, [len(t) for t in self.tensors]) if layout == "samples" else labels
        return arrays
