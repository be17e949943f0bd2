"""Class labels: which array holds them, and how they become class indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.data.convert import as_array
from snncc.errors import DataError, UsageError

LABEL_KEYS = ("label", "labels", "y", "targets", "target")
"""Keys that are tried in this order where the caller names none."""


def find_labels(
    arrays: Mapping[str, Any], input_names: tuple[str, ...], requested: str | None, source: str
) -> NDArray[np.int64] | None:
    """Return the labels that accompany named arrays.

    Args:
        arrays: arrays by key; only the ones looked at are read.
        input_names: the model's inputs, which are never taken for labels.
        requested: the key that must hold labels, or None to try `LABEL_KEYS`.
        source: where the arrays come from, for messages.

    Returns:
        Class indices, int64 [N], or None where no key was requested and none holds class labels.

    Raises:
        UsageError: the requested key is an input of the model.
        DataError: the requested key doesn't exist or holds no class labels.
    """
    if requested is not None:
        if requested in input_names:
            raise UsageError(f"labels key '{requested}' is an input of the model; name the key that holds the labels")
        if requested not in arrays:
            raise DataError(
                f"{source}: there is no labels key '{requested}'; it has {quoted(arrays)}: name one of these"
            )
        return class_indices(arrays[requested], f"{source}: labels '{requested}'")
    for key in LABEL_KEYS:
        if key in arrays and key not in input_names:
            labels = _indices_or_none(as_array(arrays[key], f"{source}: array '{key}'"))
            if labels is not None:
                return labels
    return None


def class_indices(labels: object, where: str) -> NDArray[np.int64]:
    """Return labels as class indices, int64 [N], from integers [N] or one-hot rows [N, K].

    Raises:
        DataError: the labels are neither, or don't fit int64.
    """
    array = as_array(labels, where)
    indices = _indices_or_none(array)
    if indices is None:
        hint = "; reshape them with array.reshape(-1)" if array.ndim == 2 and array.shape[1] == 1 else ""
        raise DataError(
            f"{where} are {array.dtype} {list(array.shape)}: labels must be integer class indices [N] or one-hot "
            f"rows [N, K]{hint or '; convert them, e.g. with array.astype(np.int64)'}"
        )
    return indices


def quoted(names: Mapping[str, Any] | tuple[str, ...] | list[str]) -> str:
    """Return names for a message, e.g. `'x', 'y'`."""
    return ", ".join(f"'{name}'" for name in names) or "nothing"


def _indices_or_none(array: NDArray[Any]) -> NDArray[np.int64] | None:
    if array.ndim == 1 and array.dtype.kind in "iu":
        if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
            return None
        return array.astype(np.int64)
    if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "fiub":
        one_hot = ((array == 0) | (array == 1)).all() and ((array == 1).sum(axis=1) == 1).all()
        return array.argmax(axis=1).astype(np.int64) if one_hot else None
    return None
