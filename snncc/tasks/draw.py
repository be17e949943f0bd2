"""Pictures of what two networks find: the ANN's boxes on the left, the SNN's on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from snncc.data import Dataset
from snncc.data.folder import ImageArray
from snncc.data.images import decode
from snncc.errors import DataError
from snncc.graph import first_line
from snncc.tasks.boxes import Detections
from snncc.tasks.detection import is_channels_last

_LEAST_SIDE = 320
"""Smaller images are magnified to this many pixels, so that names can be read."""
_GAP = 8
# Ten colours that can be told apart on grey photographs; classes take them in turn.
_COLOURS = (
    "#e6194b",
    "#3cb44b",
    "#ffe119",
    "#4a8bff",
    "#f58231",
    "#c354e6",
    "#46f0f0",
    "#f032e6",
    "#bcf60c",
    "#fabebe",
)


@dataclass(frozen=True)
class Drawing:
    """Draws samples of a dataset into a folder.

    Attributes:
        folder: where the pictures go.
        data: the samples.
        confidence: boxes of lower scores are left out.
        names: names of the classes; None or too few: their numbers.
    """

    folder: Path
    data: Dataset
    confidence: float
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"can't make {self.folder} ({error.strerror or first_line(error)}): name another folder with --draw"
            ) from error

    def __call__(self, sample: int, ann: Detections | None, snn: Detections) -> None:
        """Draw one sample.

        Raises:
            DataError: the picture can't be written.
        """
        pixels = Image.fromarray(self._pixels(sample)).convert("RGB")
        factor = max(1, -(-_LEAST_SIDE // max(pixels.size)))
        pixels = pixels.resize((pixels.width * factor, pixels.height * factor), Image.Resampling.NEAREST)
        parts = [("ANN", ann)] if ann is not None else []
        parts.append(("SNN", snn))
        picture = Image.new("RGB", (len(parts) * (pixels.width + _GAP) - _GAP, pixels.height), "white")
        for number, (title, found) in enumerate(parts):
            picture.paste(self._drawn(pixels, title, found, factor), (number * (pixels.width + _GAP), 0))
        target = self.folder / f"{self._name(sample)}.png"
        try:
            picture.save(target)
        except OSError as error:
            raise DataError(
                f"can't write '{target}' ({error.strerror or first_line(error)}): name another folder with --draw"
            ) from error

    def _drawn(self, pixels: Image.Image, title: str, found: Detections, factor: int) -> Image.Image:
        made = pixels.copy()
        pen = ImageDraw.Draw(made)
        chosen = found.above(self.confidence)
        limit = [made.width - 1, made.height - 1] * 2
        for box, score, label in zip(chosen.boxes * factor, chosen.scores, chosen.classes, strict=True):
            left, top, right, bottom = (float(min(max(v, 0.0), most)) for v, most in zip(box, limit, strict=True))
            colour = _COLOURS[int(label) % len(_COLOURS)]
            pen.rectangle((left, top, right, bottom), outline=colour, width=2)
            _write(pen, (left + 2, max(top - 11, 0)), f"{self._class(int(label))} {100 * score:.0f}", colour)
        _write(pen, (2, made.height - 13), title, "white")
        return made

    def _class(self, label: int) -> str:
        return str(label) if self.names is None or label >= len(self.names) else self.names[label]

    def _name(self, sample: int) -> str:
        column = self.data.arrays[self.data.inputs[0].name]
        return f"{sample:05d}" + (f"_{column.files[sample].stem}" if isinstance(column, ImageArray) else "")

    def _pixels(self, sample: int) -> NDArray[np.uint8]:
        """Return a sample, grey [H, W] or colour [H, W, 3]: the file's pixels, else values from black to white."""
        column = self.data.arrays[self.data.inputs[0].name]
        if isinstance(column, ImageArray):
            return _plain(decode(column.files[sample], column.plan.channels, column.size))
        values: NDArray[Any] = np.asarray(column[sample : sample + 1])
        image = values[0] if is_channels_last(column.shape) else values[0].transpose(1, 2, 0)
        if image.dtype == np.uint8:
            return _plain(image)
        image = image.astype(np.float64)
        low, high = float(image.min()), float(image.max())
        return _plain(np.rint(255.0 * (image - low) / (high - low or 1.0)).astype(np.uint8))


def _plain(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image[:, :, :3] if image.shape[2] >= 3 else image[:, :, 0]


def _write(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: str) -> None:
    pen.rectangle(pen.textbbox(place, text), fill="black")
    pen.text(place, text, fill=colour)
