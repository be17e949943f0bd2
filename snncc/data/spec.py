"""What a model declares about its inputs, and whether an array's shape fits it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from snncc.errors import DataError, UsageError

Dim = int | str | None
SAMPLE_AXIS = 0


@dataclass(frozen=True)
class InputSpec:
    """One input as the model declares it.

    Attributes:
        name: the input's name in the graph.
        dtype: dtype that the model wants; numbers or bool.
        shape: one entry per axis: a fixed size, or a name or None where it is open. Axis 0 is the sample axis.
        timesteps: None, or T where the input presents a frame of that shape at each timestep. Data then has an axis
            more, [N, frames, ...], and the network is fed with [T, N, ...].
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dim, ...]
    timesteps: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        object.__setattr__(self, "shape", tuple(self.shape))

    @property
    def batch(self) -> int | None:
        """The fixed number of samples per run, or None where axis 0 is open."""
        return fixed(self.shape[SAMPLE_AXIS])


def fixed(dim: Dim) -> int | None:
    """Return the size of an axis, or None where the model leaves it open."""
    return int(dim) if isinstance(dim, int | np.integer) else None


def format_shape(shape: Sequence[Dim]) -> str:
    """Return a shape for messages, e.g. `[N, 3, ?, 32]`."""
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"


def check_inputs(inputs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """Check that data can be fed to these inputs at all.

    Raises:
        UsageError: no inputs, or two of one name.
        DataError: an input without a sample axis, of a dtype that no data source holds, or with another fixed batch
            size than its neighbour.
    """
    specs = tuple(inputs)
    names = [spec.name for spec in specs]
    if not specs or len(set(names)) != len(names):
        raise UsageError(f"inputs are {names}: data needs one or more inputs of different names")
    for spec in specs:
        if not spec.shape:
            raise DataError(
                f"model input '{spec.name}' is a scalar: it has no sample axis, so samples can't be fed to it; "
                "export the model with the batch as axis 0 of each input"
            )
        if spec.dtype.kind not in "fiub":
            raise DataError(
                f"model input '{spec.name}' is of dtype {spec.dtype}: only float16/32/64, integer and bool inputs can "
                "be fed; export the model with such an input"
            )
    batches = {spec.name: spec.batch for spec in specs if spec.batch is not None}
    if len(set(batches.values())) > 1:
        declared = ", ".join(f"'{name}': {batch}" for name, batch in batches.items())
        raise DataError(
            f"the model's inputs declare different batch sizes ({declared}): axis 0 must be the same sample axis for "
            "all; export the model with one batch size or an open one"
        )
    return specs


def fits(shape: Sequence[int], declared: Sequence[Dim]) -> bool:
    """Return whether ranks and fixed sizes agree on all axes but the sample axis."""
    if len(shape) != len(declared):
        return False
    return all(fixed(want) in (None, got) for got, want in zip(shape[1:], declared[1:], strict=True))


def check_shape(spec: InputSpec, shape: tuple[int, ...], where: str) -> None:
    """Check an array's shape against an input's; nothing is ever reshaped in silence.

    Args:
        spec: the input.
        shape: the array's shape, samples on axis 0 and frames, where the input presents some, on axis 1.
        where: source and key of the array, for the message.

    Raises:
        DataError: the shape doesn't fit; the message says how to reshape the array where there is a likely way.
    """
    if spec.timesteps is not None:
        _check_sequence(spec, spec.timesteps, shape, where)
        return
    if fits(shape, spec.shape):
        return
    hints = _hints(shape, spec.shape)
    remedy = " or ".join(hints) if hints else "reshape or re-export the data so that all axes but the first agree"
    raise DataError(
        f"{where} has shape {format_shape(shape)} but model input '{spec.name}' wants {format_shape(spec.shape)} "
        f"(axis 0 counts the samples); {remedy}"
    )


def _check_sequence(spec: InputSpec, timesteps: int, shape: tuple[int, ...], where: str) -> None:
    """Check the shape of a sequence of frames per sample; as many as there are timesteps, or a divisor of that."""
    wanted = format_shape([spec.shape[0], "frames", *spec.shape[1:]])
    if len(shape) != len(spec.shape) + 1 or not fits((shape[0], *shape[2:]), spec.shape):
        if fits(shape, spec.shape):
            remedy = (
                "it has no axis for the frames: if each sample is one frame, add it with np.expand_dims(array, 1), or "
                "compile with the input coding constant; recordings become sequences with `snncc events --bins N -o`"
            )
        elif len(shape) == len(spec.shape) + 1 and fits((shape[1], *shape[2:]), spec.shape) and shape[0] == timesteps:
            remedy = "if its frames are on axis 0, use np.moveaxis(array, 0, 1)"
        else:
            remedy = "reshape or re-export the data so that all axes but the first two agree"
        raise DataError(
            f"{where} has shape {format_shape(shape)} but the spiking network's input '{spec.name}' takes sequences "
            f"{wanted} (axis 0 counts the samples, axis 1 their frames); {remedy}"
        )
    if shape[1] < 1 or timesteps % shape[1]:
        raise DataError(
            f"{where} has {shape[1]} frames per sample, the spiking network takes {timesteps}, one at each timestep: "
            f"the number of frames must be {timesteps} or divide it (each is then held); cut the recordings with "
            f"`snncc events --bins {timesteps}`, or compile for a multiple of {shape[1] or 1} timesteps"
        )


def _hints(shape: tuple[int, ...], declared: tuple[Dim, ...]) -> list[str]:
    """Return how the array could be made to fit, for the likely mistakes."""
    hints = []
    if len(shape) == len(declared) - 1:
        if fits((1, *shape), declared):
            hints.append("if it is a single sample, add the sample axis with array[np.newaxis]")
        hints += [
            f"if only the axis of size 1 is missing, add it with np.expand_dims(array, {axis})"
            for axis in range(1, len(declared))
            if fixed(declared[axis]) == 1 and fits((*shape[:axis], 1, *shape[axis:]), declared)
        ]
    if len(shape) == len(declared) + 1 and fits((shape[0], *shape[2:]), declared):
        hints.append(
            f"if axis 1 holds the {shape[1]} frames of a recording, compile with --input-coding frames (in Python: "
            "input_coding='frames'), or take one frame of each"
        )
    if len(shape) == len(declared) == 4:
        hints += [
            f"it looks like {layout}: use np.transpose(array, {axes})"
            for layout, axes in (("NHWC", (0, 3, 1, 2)), ("NCHW", (0, 2, 3, 1)))
            if fits(tuple(shape[axis] for axis in axes), declared)
        ]
    sizes = [fixed(dim) for dim in declared[1:]]
    known = [size for size in sizes if size is not None]
    if not hints and len(known) == len(sizes) and len(shape) > 1 and math.prod(known) == math.prod(shape[1:]):
        target = ", ".join(str(size) for size in (-1, *known))
        hints.append(f"if its values are in the same order, use array.reshape({target})")
    return hints
