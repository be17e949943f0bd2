"""The rules by which data becomes the model's dtype, and the check that no value is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from snncc.data.spec import InputSpec
from snncc.errors import DataError

CHUNK_BYTES = 16 * 2**20
"""Arrays are checked and hashed in pieces of about this size, so that a memory-mapped file stays on disk."""


def chunks(shape: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    """Yield windows over axis 0 that cover an array in pieces of at most `CHUNK_BYTES` (at least one sample)."""
    sample_bytes = max(1, int(np.prod(shape[1:], dtype=np.int64)) * itemsize)
    step = max(1, CHUNK_BYTES // sample_bytes)
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def to_model(window: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return samples as a C-contiguous array of the model's dtype, in native byte order; no copy where none is due."""
    return np.ascontiguousarray(window, dtype=dtype.newbyteorder("="))


def as_array(value: object, where: str) -> NDArray[Any]:
    """Return an array-like as an array, without a copy where it is one already.

    Raises:
        DataError: it is ragged, can't be read as an array, or holds Python objects.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{where} is no array ({error}); pass a NumPy array or something np.asarray accepts") from error
    if array.dtype.hasobject:
        refuse_objects(where)
    return array


def refuse_objects(where: str) -> NoReturn:
    """Raise the error for data that would need pickle.

    Raises:
        DataError: always.
    """
    raise DataError(
        f"{where} holds Python objects: pickled data is refused, since loading it can run code; "
        "save it as an array of numbers, e.g. array.astype(np.float32)"
    )


def check_dtype(spec: InputSpec, dtype: np.dtype[Any], where: str) -> None:
    """Check that data of a dtype may be cast to an input's dtype at all.

    Raises:
        DataError: the data aren't numbers, or are fractions where the model wants integers.
    """
    if dtype.kind not in "fiub":
        raise DataError(
            f"{where} is of dtype {dtype}, which can't be fed to model input '{spec.name}' ({spec.dtype}); "
            "convert it to real numbers"
        )
    if dtype.kind == "f" and spec.dtype.kind != "f":
        raise DataError(
            f"{where} is of dtype {dtype} but model input '{spec.name}' wants {spec.dtype}: fractions would be cut; "
            f"round and convert the data with array.astype(np.{spec.dtype}) if that is what you mean"
        )


def check_values(spec: InputSpec, array: NDArray[Any], where: str) -> None:
    """Check in one streaming read that each value survives the cast to the input's dtype.

    Args:
        spec: the input.
        array: data [N, ...] whose dtype passed `check_dtype`.
        where: source and key of the array, for the message.

    Raises:
        DataError: NaN or Inf, or a value outside the range of the input's dtype; the message has the first index.
    """
    source, target = array.dtype, spec.dtype
    if source.kind != "f" and (np.can_cast(source, target) or (target.kind == "f" and target.itemsize >= 4)):
        return
    for window in chunks(array.shape, max(source.itemsize, target.itemsize)):
        chunk = np.asarray(array[window])
        if source.kind == "f":
            index = _first(~np.isfinite(chunk), window.start)
            if index is not None:
                kind = "NaN" if np.isnan(array[index]) else "Inf"
                raise DataError(
                    f"{where} holds {kind} at index {list(index)}: such a sample would spoil every figure it enters; "
                    "remove it or replace the value"
                )
        index = None if np.can_cast(source, target) else _first(_out_of_range(chunk, target), window.start)
        if index is not None:
            raise DataError(
                f"{where} holds {array[index]} at index {list(index)}, which doesn't fit {target}, the dtype of model "
                f"input '{spec.name}'; rescale the data to that range"
            )


def _out_of_range(chunk: NDArray[Any], target: np.dtype[Any]) -> NDArray[np.bool_]:
    """Return where a value would be changed by more than rounding when it is cast to `target`."""
    if target.kind == "f":
        with np.errstate(over="ignore"):
            bad: NDArray[np.bool_] = ~np.isfinite(chunk.astype(target))
    elif target.kind == "b":
        bad = np.logical_and(chunk != 0, chunk != 1)
    else:
        # The limits are Python integers: NumPy compares those exactly, also when uint64 meets a signed range.
        limits = np.iinfo(target)
        bad = np.logical_or(chunk < int(limits.min), chunk > int(limits.max))
    return bad


def _first(bad: NDArray[np.bool_], offset: int) -> tuple[int, ...] | None:
    """Return the index of the first True, with `offset` added on axis 0, or None."""
    if not bad.any():
        return None
    row, *rest = np.unravel_index(int(np.argmax(bad)), bad.shape)
    return (int(row) + offset, *(int(axis) for axis in rest))
