"""`load`: from a path, arrays or an iterable to a checked dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from snncc.data.archive import NpzArchive, open_npy
from snncc.data.convert import check_dtype, check_values
from snncc.data.dataset import Column, Dataset, check_batch, first
from snncc.data.folder import ImageArray, open_folder
from snncc.data.images import ImageOptions
from snncc.data.memory import from_array, from_iterable, from_mapping
from snncc.data.spec import InputSpec, check_inputs, check_shape
from snncc.errors import DataError, UsageError

ACCEPTED = "an .npz archive, a .npy file or a folder of images"

Source = str | Path | NDArray[Any] | Mapping[str, Any] | Iterable[Any]


def load(
    source: Source,
    inputs: Sequence[InputSpec],
    *,
    labels: str | None = None,
    image: ImageOptions | None = None,
    limit: int | None = None,
) -> Dataset:
    """Open calibration or evaluation data and check that it can be fed to a model.

    Each value is read once and checked; a `.npy` file stays on disk, and images are decoded batch by batch.

    Args:
        source: one of
            a path to an `.npz` archive, whose keys are input names (a one-input model takes the only array there is);
            a path to a `.npy` file, for a one-input model;
            a path to a folder of images, flat or with one subfolder per class, for a one-input model;
            an array; a dict of arrays by input name;
            an iterable of batches: arrays, dicts of arrays, or pairs of one of these and labels, consumed once.
        inputs: the model's inputs.
        labels: key of the class labels, integers [N] or one-hot rows [N, K]; None tries the customary keys.
        image: how images are decoded; only for folders.
        limit: most samples taken, from the first one on.

    Returns:
        At least one sample, with labels where there are any.

    Raises:
        DataError: the data can't be read, or don't fit the model.
        UsageError: an option is out of range or has no meaning for this source.
    """
    specs = check_inputs(inputs)
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}: it must be at least 1")
    if isinstance(source, str | Path):
        return _from_path(_existing(source), specs, labels, image, limit)
    _refuse_image_options(image, "data in memory")
    if isinstance(source, Mapping):
        arrays, indices = from_mapping(source, specs, labels, "dict of arrays")
        return _finish(Dataset(specs, dict(arrays), indices, source="dict of arrays"), limit)
    if hasattr(source, "__array__"):
        _refuse_labels_key(labels, "an array")
        return _finish(Dataset(specs, dict(from_array(source, specs, "array")), source="array"), limit)
    if isinstance(source, Iterable) and not isinstance(source, bytes | bytearray | memoryview):
        arrays, indices = from_iterable(source, specs, labels, limit, "iterable")
        return _finish(Dataset(specs, dict(arrays), indices, source="iterable"), limit)
    raise UsageError(
        f"data of type {type(source).__name__} can't be used; pass {ACCEPTED}, an array, a dict of arrays or an "
        "iterable of batches"
    )


def _from_path(
    path: Path, specs: tuple[InputSpec, ...], labels: str | None, image: ImageOptions | None, limit: int | None
) -> Dataset:
    if path.is_dir():
        _refuse_labels_key(labels, f"the folder {path} (its subfolders are the classes)")
        found = open_folder(path, specs, image or ImageOptions(), limit)
        arrays: dict[str, Column] = {specs[0].name: found.images}
        return _finish(Dataset(specs, arrays, found.labels, found.class_names, str(path)), limit)
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".npy"):
        raise DataError(f"{path} is of an unknown kind ('{suffix}'); accepted are {ACCEPTED}")
    _refuse_image_options(image, str(path))
    if suffix == ".npz":
        members, indices = from_mapping(NpzArchive(path), specs, labels, str(path))
        return _finish(Dataset(specs, dict(members), indices, source=str(path)), limit)
    _refuse_labels_key(labels, f"{path} (a .npy file; put data and labels into an .npz)")
    return _finish(Dataset(specs, dict(from_array(open_npy(path), specs, str(path))), source=str(path)), limit)


def _existing(source: str | Path) -> Path:
    try:
        found = bool(str(source)) and Path(source).exists()
    except (OSError, ValueError) as error:
        raise DataError(f"{source} can't be opened ({error}); give the path of {ACCEPTED}") from error
    if not found:
        raise DataError(f"'{source}' doesn't exist; give the path of {ACCEPTED}")
    return Path(source)


def _refuse_labels_key(labels: str | None, what: str) -> None:
    if labels is not None:
        raise UsageError(f"labels key '{labels}' is given but there are no keys in {what}; leave it away")


def _refuse_image_options(image: ImageOptions | None, what: str) -> None:
    if image not in (None, ImageOptions()):
        raise UsageError(
            f"image options are given but {what} holds no image files: they would be without effect; leave them away "
            "and store the data as the model wants it"
        )


def _finish(data: Dataset, limit: int | None) -> Dataset:
    """Check shapes, counts and values, in this order, and cut the data to `limit` before values are read.

    Raises:
        DataError: something doesn't fit.
    """
    where = {spec.name: f"{data.source}: array for input '{spec.name}'" for spec in data.inputs}
    for spec in data.inputs:
        column = data.arrays[spec.name]
        check_shape(spec, column.shape, where[spec.name])
        check_dtype(spec, column.dtype, where[spec.name])
    _check_counts(data)
    arrays = {name: first(column, limit) for name, column in data.arrays.items()}
    labels = data.labels if data.labels is None or limit is None else data.labels[:limit]
    checked = Dataset(data.inputs, arrays, labels, data.class_names, data.source)
    check_batch(checked.inputs, len(checked), checked.source)
    for spec in checked.inputs:
        column = arrays[spec.name]
        if not isinstance(column, ImageArray):  # the pixel table of images has been checked
            check_values(spec, column, where[spec.name])
    return checked


def _check_counts(data: Dataset) -> None:
    counts = {name: len(column) for name, column in data.arrays.items()}
    empty = [name for name, column in data.arrays.items() if 0 in column.shape]
    if empty:
        raise DataError(
            f"{data.source}: array for input '{empty[0]}' is empty (shape {list(data.arrays[empty[0]].shape)}); "
            "give at least one sample"
        )
    if data.labels is not None:
        counts["labels"] = len(data.labels)
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"'{name}': {count}" for name, count in counts.items())
        raise DataError(
            f"{data.source}: numbers of samples differ ({listed}); give the same number for every input and the labels"
        )
