"""A folder of images as an array that is decoded window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.data.class_folders import scan
from snncc.data.images import ImageOptions, ImagePlan, decode, image_size, plan_images
from snncc.data.spec import InputSpec, format_shape
from snncc.errors import DataError, UsageError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True, eq=False)
class ImageArray:
    """Image files that look like an array [N, ...]; a slice decodes its files, `np.asarray` decodes all.

    Attributes:
        files: one image per sample.
        plan: how they are decoded.
        size: (height, width) of all samples.
    """

    files: tuple[Path, ...]
    plan: ImagePlan
    size: tuple[int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the samples: the model's."""
        return self.plan.table.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, channels, height, width] or [N, height, width, channels]."""
        if self.plan.layout == "NCHW":
            return (len(self.files), self.plan.channels, *self.size)
        return (len(self.files), *self.size, self.plan.channels)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, window: slice) -> NDArray[Any]:
        """Decode the files of a slice.

        Raises:
            DataError: a file can't be decoded.
        """
        files = self.files[window]
        samples = np.empty((len(files), *self.shape[1:]), self.dtype)
        for row, path in enumerate(files):
            samples[row] = self.plan.tensor(decode(path, self.plan.channels, self.size))
        return samples

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Decode all files; `copy` is of no effect, as the array is always new."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def head(self, n: int) -> ImageArray:
        """Return the first n images."""
        return replace(self, files=self.files[:n])


@dataclass(frozen=True)
class ImageFolder:
    """What a folder holds.

    Attributes:
        images: the samples.
        labels: class indices, int64 [N], where the images are in subfolders.
        class_names: the subfolders' names, sorted.
    """

    images: ImageArray
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None


def open_folder(folder: Path, specs: Sequence[InputSpec], options: ImageOptions, limit: int | None) -> ImageFolder:
    """Find the images of a folder and read their headers; pixels are decoded later.

    Args:
        folder: images, or one subfolder of images per class. Hidden files and files of other suffixes are ignored.
        specs: the model's inputs: one.
        options: how to decode.
        limit: most images taken, in the order of their relative paths.

    Raises:
        DataError: no images, images beside class folders, an unreadable file, or a model that takes no images.
        UsageError: the options don't fit, or a size is needed.
    """
    if len(specs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in specs)
        raise DataError(
            f"{folder} is a folder of images but the model has {len(specs)} inputs ({names}): images feed one-input "
            "models; prepare the data as .npz with one array per input"
        )
    plan = plan_images(specs[0], options)
    try:
        files, class_names = scan(folder, IMAGE_SUFFIXES, "images")
    except OSError as error:
        raise DataError(f"folder {folder} can't be read ({error}); check its permissions") from error
    files = files[:limit]
    images = ImageArray(files, plan, _common_size(files, plan, specs[0]))
    if class_names is None:
        return ImageFolder(images, None, None)
    index = {name: number for number, name in enumerate(class_names)}
    labels = [index[path.relative_to(folder).parts[0]] for path in files]
    return ImageFolder(images, np.asarray(labels, np.int64), class_names)


def _common_size(files: tuple[Path, ...], plan: ImagePlan, spec: InputSpec) -> tuple[int, int]:
    """Read all headers, so that a bad file is found before a long run; settle the size where the model leaves it open.

    Raises:
        DataError: an unreadable file.
        UsageError: images of different sizes, or another size than the input's fixed axis.
    """
    sizes = {path: image_size(path) for path in files}
    height, width = plan.size
    if height is not None and width is not None:
        return height, width
    first = sizes[files[0]]
    for path, size in sizes.items():
        if size != first or any(want not in (None, got) for want, got in zip(plan.size, size, strict=True)):
            other = f"'{files[0].name}' is {first[0]}x{first[1]}" if size != first else "the input fixes another size"
            raise UsageError(
                f"model input '{spec.name}' {format_shape(spec.shape)} leaves the image size open, and image {path} is "
                f"{size[0]}x{size[1]} (height x width) where {other}; give --size to resize all images"
            )
    return first
