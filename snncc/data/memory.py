"""Data handed over in memory: named arrays, and iterables of batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.data.convert import as_array
from snncc.data.labels import LABEL_KEYS, class_indices, find_labels, quoted
from snncc.data.spec import InputSpec
from snncc.errors import DataError, UsageError

Samples = tuple[dict[str, NDArray[Any]], NDArray[np.int64] | None]
"""Arrays by input name, and class indices."""


def from_mapping(
    arrays: Mapping[str, Any], specs: tuple[InputSpec, ...], requested: str | None, source: str
) -> Samples:
    """Pick the inputs and the labels from named arrays; only those are read.

    Args:
        arrays: arrays by key.
        specs: the model's inputs.
        requested: the key that holds the labels, or None to look for one.
        source: where the arrays come from, for messages.

    Raises:
        DataError: a key is missing, or an array can't be used.
        UsageError: the labels key is an input.
    """
    names = tuple(spec.name for spec in specs)
    labels = find_labels(arrays, names, requested, source)
    keys = dict(zip(names, names, strict=True))
    missing = [name for name in names if name not in arrays]
    if missing:
        others = [key for key in arrays if key not in (*LABEL_KEYS, requested)]
        if len(names) != 1 or len(others) != 1:
            raise DataError(
                f"{source}: there is no array for model input(s) {quoted(missing)}; it has {quoted(arrays)} and the "
                f"model wants {quoted(names)}: rename the arrays to the inputs' names"
            )
        keys = {names[0]: others[0]}
    return {name: as_array(arrays[key], f"{source}: array '{key}'") for name, key in keys.items()}, labels


def from_array(array: object, specs: tuple[InputSpec, ...], source: str) -> dict[str, NDArray[Any]]:
    """Take one array as the samples of a one-input model.

    Raises:
        DataError: the model has several inputs, or the array holds objects.
    """
    if len(specs) != 1:
        raise DataError(
            f"{source} is a single array but the model has {len(specs)} inputs "
            f"({quoted([spec.name for spec in specs])}): give one array per input, by name, as .npz or dict"
        )
    return {specs[0].name: as_array(array, source)}


def from_iterable(
    batches: Iterable[Any], specs: tuple[InputSpec, ...], requested: str | None, limit: int | None, source: str
) -> Samples:
    """Collect batches, each an array, a dict of arrays, or a pair of one of these and labels.

    The iterable is consumed once, and no further than `limit` samples need.

    Raises:
        DataError: an item is of another form, or items don't go together.
        UsageError: a labels key is requested but the items have no keys.
    """
    collected = _Collected()
    for number, item in enumerate(batches):
        where = f"{source}: item {number}"
        content, labels = _split(item)
        collected.keyed = isinstance(content, Mapping)
        arrays, rows = _named(content, specs, requested, where)
        collected.add(arrays, None if labels is None else _one_per_row(labels, rows, where), where)
        collected.count += rows
        if limit is not None and collected.count >= limit:
            break
    if not collected.count:
        raise DataError(f"{source} yields no samples; it may have been consumed before: make it anew")
    joined = {key: np.concatenate(arrays) for key, arrays in collected.parts.items()}
    if requested is not None and (collected.labels or not collected.keyed):
        raise UsageError(f"labels key '{requested}' is given but {source} yields no dicts with keys; leave it away")
    if collected.labels:
        return from_mapping(joined, specs, None, source)[0], np.concatenate(collected.labels)
    return from_mapping(joined, specs, requested, source)


@dataclass
class _Collected:
    """The batches of an iterable so far: by key, and their labels where the items are pairs."""

    parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    labels: list[NDArray[np.int64]] = field(default_factory=list)
    count: int = 0
    keyed: bool = False

    def add(self, arrays: dict[str, NDArray[Any]], labels: NDArray[np.int64] | None, where: str) -> None:
        """Append a batch that must be of the same form, dtypes and shapes (but for axis 0) as those before."""
        if self.parts and (set(self.parts) != set(arrays) or bool(self.labels) != (labels is not None)):
            raise DataError(
                f"{where} holds {quoted(arrays)} {'with' if labels is not None else 'without'} labels, unlike item 0; "
                "yield the same form each time"
            )
        for key, array in arrays.items():
            earlier = self.parts.setdefault(key, [])
            if earlier and (array.dtype != earlier[0].dtype or array.shape[1:] != earlier[0].shape[1:]):
                raise DataError(
                    f"{where}: array '{key}' is {array.dtype} {list(array.shape)} where item 0 is {earlier[0].dtype} "
                    f"{list(earlier[0].shape)}; yield one dtype, and one shape but for axis 0"
                )
            earlier.append(array.copy())  # the iterable may fill the same buffer again
        if labels is not None:
            self.labels.append(labels)


def _one_per_row(labels: object, rows: int, where: str) -> NDArray[np.int64]:
    indices = class_indices(labels, f"{where}: labels")
    if len(indices) != rows:
        raise DataError(f"{where} has {rows} sample(s) but {len(indices)} label(s); give one label per sample")
    return indices


def _split(item: Any) -> tuple[Any, Any]:
    """Return an item's samples and labels. PyTorch's loaders yield their pairs as lists of two arrays."""
    pair = isinstance(item, tuple) or (isinstance(item, list) and all(hasattr(part, "__array__") for part in item))
    return (item[0], item[1]) if pair and len(item) == 2 else (item, None)


def _named(
    content: Any, specs: tuple[InputSpec, ...], requested: str | None, where: str
) -> tuple[dict[str, NDArray[Any]], int]:
    """Return an item's arrays by key, and their number of samples."""
    if isinstance(content, tuple):
        raise DataError(f"{where} is a tuple of {len(content)}: yield an array, a dict of arrays, or (samples, labels)")
    if isinstance(content, Mapping):
        keys = _wanted(content, specs, requested)
        arrays = {key: as_array(content[key], f"{where}: array '{key}'") for key in keys}
    else:
        arrays = from_array(content, specs, where)
    rows = {key: array.shape[0] if array.ndim else 0 for key, array in arrays.items()}
    if not rows or len(set(rows.values())) != 1 or any(not array.ndim for array in arrays.values()):
        raise DataError(f"{where} has {rows} samples by array: yield arrays with the same number on axis 0")
    return arrays, next(iter(rows.values()))


def _wanted(content: Mapping[str, Any], specs: tuple[InputSpec, ...], requested: str | None) -> list[str]:
    """Return the keys to keep: inputs and labels, or all where one is missing, for the message or the guess."""
    names = [spec.name for spec in specs]
    if any(key not in content for key in [*names, *([] if requested is None else [requested])]):
        return list(content)
    return [key for key in content if key in (*names, *LABEL_KEYS, requested)]
