"""Samples as they are fed to a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.data.convert import chunks, to_model
from snncc.data.folder import ImageArray
from snncc.data.spec import InputSpec
from snncc.errors import DataError, UsageError

Column = NDArray[Any] | ImageArray
"""The samples of one input: an array, a memory map, or images that are decoded on demand."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Samples of a model's inputs, as `snncc.data.load` found and checked them.

    Attributes:
        inputs: the model's inputs.
        arrays: by input name, [N, ...] in the source's dtype; they must not be written to.
        labels: class indices, int64 [N], or None.
        class_names: name of each class index, or None.
        source: where the samples come from, for messages and records.
    """

    inputs: tuple[InputSpec, ...]
    arrays: dict[str, Column]
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None
    source: str = "array"

    def __len__(self) -> int:
        return len(self.arrays[self.inputs[0].name])

    def __repr__(self) -> str:
        return f"Dataset(source={self.source!r}, samples={len(self)}, labels={self.labels is not None})"

    def batch(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return samples start to stop - 1 (or to the last one, if that is earlier).

        Returns:
            By input name a C-contiguous array [stop - start, ...] in the model's dtype; [T, stop - start, ...] where
            the input presents frames. It may share memory with `arrays`, so it must not be written to.

        Raises:
            UsageError: the range is empty or begins outside the data.
            DataError: an image can't be decoded.
        """
        if not 0 <= start < min(stop, len(self)):
            raise UsageError(f"batch {start}:{stop} of {self.source} is empty: it has {len(self)} samples")
        return {spec.name: _fed(self.arrays[spec.name][start:stop], spec) for spec in self.inputs}

    def batches(self, size: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Return an iterator over all samples in batches of `size`, the last one possibly smaller; see `batch`.

        Raises:
            UsageError: the size is less than 1.
        """
        if size < 1:
            raise UsageError(f"batch size is {size}: it must be at least 1")
        return (self.batch(start, start + size) for start in range(0, len(self), size))

    def head(self, n: int) -> Dataset:
        """Return the first n samples (all, if there are fewer) without copying them.

        Raises:
            UsageError: n is less than 1.
            DataError: the model's fixed batch size doesn't divide what is left.
        """
        if n < 1:
            raise UsageError(f"number of samples is {n}: it must be at least 1")
        check_batch(self.inputs, min(n, len(self)), self.source)
        return replace(
            self,
            arrays={name: first(column, n) for name, column in self.arrays.items()},
            labels=None if self.labels is None else self.labels[:n],
        )

    def fingerprint(self) -> str:
        """Return the SHA-256, in hex, of all input tensors as fed to the model, whatever source they came from.

        Per input, in the order of their names, a line of JSON [name, dtype, shape] and the values in C order and
        little-endian byte order are hashed. Labels don't count: they never reach the model.

        Raises:
            DataError: an image can't be decoded.
        """
        digest = hashlib.sha256()
        for spec in sorted(self.inputs, key=lambda spec: spec.name):
            column = self.arrays[spec.name]
            digest.update(json.dumps([spec.name, spec.dtype.name, list(column.shape)]).encode() + b"\n")
            for window in chunks(column.shape, max(column.dtype.itemsize, spec.dtype.itemsize)):
                digest.update(np.ascontiguousarray(column[window], dtype=spec.dtype.newbyteorder("<")).data)
        return digest.hexdigest()


def _fed(window: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """Return samples as they are fed to an input."""
    values = to_model(window, spec.dtype)
    if spec.timesteps is None:
        return values
    held = np.repeat(values, spec.timesteps // values.shape[1], axis=1)
    return np.ascontiguousarray(np.moveaxis(held, 1, 0))


def first(column: Column, n: int | None) -> Column:
    """Return the first n samples of an input without reading them; all where n is None."""
    if n is None:
        return column
    return column.head(n) if isinstance(column, ImageArray) else column[:n]


def check_batch(inputs: tuple[InputSpec, ...], count: int, source: str) -> None:
    """Check that samples fill the batches of a model whose batch size is fixed.

    Raises:
        DataError: they don't.
    """
    for spec in inputs:
        if spec.batch is not None and spec.batch > 1 and count % spec.batch:
            raise DataError(
                f"{source} gives {count} sample(s), but model input '{spec.name}' takes {spec.batch} at a time: the "
                f"number must be a multiple of {spec.batch}; add or drop samples (e.g. with --limit), or export the "
                "model with an open batch axis"
            )
