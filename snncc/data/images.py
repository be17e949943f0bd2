"""How a picture becomes a tensor: options, the plan they make with the model's input, and decoding with Pillow."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from snncc.data.spec import InputSpec, fixed, format_shape
from snncc.errors import DataError, UsageError

Layout = Literal["NCHW", "NHWC"]
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for a number of channels."""

_AXES: dict[Layout, tuple[int, int, int]] = {"NCHW": (1, 2, 3), "NHWC": (3, 1, 2)}  # of channels, height, width
# Pillow's other decoders are left out: some of them start external programs.
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP", "TIFF", "GIF")
_UNREADABLE = (OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError, struct.error, zlib.error)


@dataclass(frozen=True)
class ImageOptions:
    """How pixels become numbers: `(pixel / 255 * pixel_max - mean) / std`, per channel.

    Attributes:
        mean: one value per channel or one for all, in the units of `pixel_max`.
        std: as `mean`; not 0.
        layout: order of the tensor's axes, or None to infer it from the model's input.
        size: (height, width) that images are resized to, or None to take the model's or, where that is open, the
            images' own.
        pixel_max: what a white pixel is mapped to before `mean` and `std`: 1 for [0, 1], 255 for raw bytes.

    Raises:
        UsageError: an option is out of range.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout | None = None
    size: tuple[int, int] | None = None
    pixel_max: float = 1.0

    def __post_init__(self) -> None:
        if not self.mean or not all(math.isfinite(value) for value in self.mean):
            raise UsageError(f"image mean is {self.mean}: it must be one or more finite numbers")
        if not self.std or not all(math.isfinite(value) and value != 0 for value in self.std):
            raise UsageError(f"image std is {self.std}: it must be one or more finite numbers other than 0")
        if self.layout not in (None, *_AXES):
            raise UsageError(f"image layout is {self.layout!r}: it must be NCHW or NHWC")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise UsageError(f"image size is {self.size}: it must be a height and a width of at least 1")
        if not math.isfinite(self.pixel_max) or self.pixel_max <= 0:
            raise UsageError(f"image pixel_max is {self.pixel_max}: it must be a finite number above 0")


@dataclass(frozen=True, eq=False)
class ImagePlan:
    """What every image of a folder goes through.

    Attributes:
        layout: order of the tensor's axes.
        size: (height, width) of the tensor; an open size is None until the images have been looked at.
        table: what each pixel value becomes, [channels, 256] in the model's dtype. It holds every number that can
            reach the model, so that checking it checks all images.
    """

    layout: Layout
    size: tuple[int | None, int | None]
    table: NDArray[Any]

    @property
    def channels(self) -> int:
        """Number of channels: 1, 3 or 4."""
        return int(self.table.shape[0])

    def tensor(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Return pixels [height, width, channels] as one sample in the model's dtype and layout."""
        values = self.table[np.arange(self.channels), pixels]
        return values.transpose(2, 0, 1) if self.layout == "NCHW" else values


def plan_images(spec: InputSpec, options: ImageOptions) -> ImagePlan:
    """Work out layout, size and pixel values for an input of a model.

    Raises:
        DataError: the input takes no images.
        UsageError: the options don't fit the input, or leave the layout open.
    """
    if len(spec.shape) != 4:
        raise DataError(
            f"model input '{spec.name}' is {format_shape(spec.shape)}: images need an input of four axes "
            "(samples, channels, height, width); prepare the data as .npz or .npy"
        )
    layout = options.layout or _infer_layout(spec)
    channel_axis, *size_axes = _AXES[layout]
    channels = fixed(spec.shape[channel_axis])
    if channels not in MODES:
        raise UsageError(
            f"layout {layout} makes axis {channel_axis} of model input '{spec.name}' {format_shape(spec.shape)} the "
            "channels, which must be fixed at 1, 3 or 4 for images; choose the other --layout or prepare the data as "
            ".npz"
        )
    declared = fixed(spec.shape[size_axes[0]]), fixed(spec.shape[size_axes[1]])
    if options.size is not None:
        if any(want not in (None, got) for want, got in zip(declared, options.size, strict=True)):
            raise UsageError(
                f"image size {list(options.size)} contradicts model input '{spec.name}' {format_shape(spec.shape)}, "
                f"whose height and width are {format_shape(declared)}; leave --size away"
            )
        declared = options.size
    return ImagePlan(layout, declared, _table(spec, options, channels))


def _infer_layout(spec: InputSpec) -> Layout:
    candidates = [layout for layout, axes in _AXES.items() if fixed(spec.shape[axes[0]]) in MODES]
    if len(candidates) != 1:
        why = "fits both NCHW and NHWC" if candidates else "has no axis of 1, 3 or 4 channels"
        raise UsageError(
            f"model input '{spec.name}' {format_shape(spec.shape)} {why}: the layout of images can't be inferred; "
            "give --layout NCHW or --layout NHWC"
        )
    return candidates[0]


def _table(spec: InputSpec, options: ImageOptions, channels: int) -> NDArray[Any]:
    for name, values in (("mean", options.mean), ("std", options.std)):
        if len(values) not in (1, channels):
            raise UsageError(
                f"image {name} has {len(values)} values but model input '{spec.name}' has {channels} channel(s); "
                "give one value or one per channel"
            )
    mean = np.broadcast_to(np.asarray(options.mean, np.float64), channels)[:, np.newaxis]
    std = np.broadcast_to(np.asarray(options.std, np.float64), channels)[:, np.newaxis]
    with np.errstate(over="ignore", invalid="ignore"):
        exact = (np.arange(256) * options.pixel_max / 255 - mean) / std
        table = exact.astype(spec.dtype)
    if not np.isfinite(table).all():
        raise UsageError(
            f"image mean {options.mean}, std {options.std} and pixel_max {options.pixel_max:g} give pixels that "
            f"{spec.dtype} can't hold (Inf or NaN); choose a larger std"
        )
    if spec.dtype.kind != "f" and not np.array_equal(table, exact):
        raise UsageError(
            f"model input '{spec.name}' wants {spec.dtype} but the image options give fractions or values outside its "
            "range; for raw bytes give --pixel-max 255 and no mean or std"
        )
    return table


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image, and turn all that Pillow raises while it is read into a `DataError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"image {path} is suspiciously large ({error}); remove it or scale it down beforehand"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path} is named as an image but is none that can be read ({', '.join(_FORMATS)}); remove or replace it"
        ) from error
    except _UNREADABLE as error:
        raise DataError(f"image {path} can't be decoded ({error}): it may be truncated; replace it") from error


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) from an image's header.

    Raises:
        DataError: the file is no image, too large, or has more than 8 bits per channel.
    """
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise DataError(
                f"image {path} has more than 8 bits per channel (mode {image.mode}), which would be cut off; "
                "convert it to 8 bits or prepare the data as .npz"
            )
        return image.height, image.width


def decode(path: Path, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode an image (its first frame; EXIF orientation isn't applied, alpha is dropped unless 4 channels are wanted).

    Args:
        path: image file.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        size: (height, width) to resize to, bilinear with Pillow's antialiasing.

    Returns:
        uint8 [height, width, channels].

    Raises:
        DataError: the file can't be decoded.
    """
    height, width = size
    with _opened(path) as image:
        # A palette's transparency has to become alpha first: Pillow warns about the direct way.
        plain = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
        plain = plain.convert(MODES[channels])
        if plain.size != (width, height):
            plain = plain.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(plain, dtype=np.uint8).reshape(height, width, channels)
