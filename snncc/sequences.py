"""Inputs that present a frame at each timestep: which they are, and how frames, samples and periods lie in arrays.

A data set holds a sequence of frames per sample, [N, frames, ...]. Where it has fewer frames than timesteps, each is
held for T/frames timesteps, and the network is fed with [T, N, ...].

All neurons start anew after each period of R timesteps, a divisor of T. A sample is thus T/R presentations that know
nothing of each other, and its output is the mean over all timesteps. Within a network, each presentation is a sample of
its own: tensors are [R, (T/R)·N, ...], presentation by presentation. What a period does is what a network with a
constant input does in R timesteps, so the ANN that the figures are compared with sees the mean of its frames:

    R = T                 one presentation: the ANN's output on the mean frame
    R = T/frames          a presentation per frame of the data: the mean of the ANN's outputs on each frame

`snncc.period` chooses between these two where the caller doesn't say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from snncc.config import Config
from snncc.data.spec import InputSpec
from snncc.errors import UsageError
from snncc.runtime.session import Array, Session


def frame_inputs(inputs: Sequence[InputSpec]) -> list[str]:
    """Return the names of the inputs that present frames: those of floating-point numbers with a sample axis.

    Integers and booleans (indices, masks) have no mean over time, and what has no sample axis belongs to all samples:
    they stay the same at every timestep. The sample axis is that of the first input, as everywhere.
    """
    first = inputs[0].shape[:1] if inputs else ()
    return [spec.name for spec in inputs if spec.dtype.kind == "f" and spec.shape and spec.shape[:1] == first]


def with_frames(inputs: Sequence[InputSpec], config: Config) -> list[InputSpec]:
    """Return the inputs of an ANN as those of the spiking network: with `timesteps` where they present frames.

    Raises:
        UsageError: no input can present frames.
    """
    if not config.has_frames:
        return list(inputs)
    names = frame_inputs(inputs)
    if not names:
        raise UsageError(
            "no input can present frames: only inputs of floating-point numbers with the samples on axis 0 can; export "
            "the network with such an input, or compile with the input coding constant"
        )
    return [replace(spec, timesteps=config.timesteps if spec.name in names else None) for spec in inputs]


def per_period(values: Array, period: int) -> Array:
    """Return what is presented [T, N, ...] as [R, (T/R)·N, ...], always a new array."""
    count = len(values) // period
    apart = values.reshape(count, period, *values.shape[1:])
    moved = np.array(np.moveaxis(apart, 1, 0), order="C")
    return moved.reshape(period, count * values.shape[1], *values.shape[2:])


def in_order(values: Array, count: int) -> Array:
    """Undo `per_period`: [R, K·N, ...] as [T, N, ...]."""
    if count == 1:
        return values
    period, rows = values.shape[:2]
    apart = values.reshape(period, count, rows // count, *values.shape[2:])
    return np.ascontiguousarray(np.moveaxis(apart, 1, 0)).reshape(period * count, rows // count, *values.shape[2:])


def mean_over(values: Array, count: int) -> Array:
    """Return the mean over the presentations of each sample: [K·N, ...] as [N, ...]; the last where it is no number."""
    if count == 1:
        return values
    apart = values.reshape(count, len(values) // count, *values.shape[1:])
    return (
        np.asarray(apart.mean(axis=0, dtype=np.float64).astype(values.dtype)) if values.dtype.kind == "f" else apart[-1]
    )


def running_over(means: Array, count: int) -> Array:
    """Return the means over all timesteps so far [T, N, ...] of the means within each period [R, K·N, ...]."""
    if count == 1 or means.dtype.kind != "f":
        return in_order(means, count)
    period = len(means)
    numbers = np.arange(1, period + 1).reshape(-1, *[1] * (means.ndim - 1))
    sums = in_order(means * numbers, count)
    apart = sums.reshape(count, period, *sums.shape[1:])
    before = np.concatenate([np.zeros_like(apart[:1, -1]), np.cumsum(apart[:-1, -1], axis=0)])
    steps = np.arange(1, len(sums) + 1).reshape(-1, *[1] * (sums.ndim - 1))
    return np.asarray(((apart + before[:, None]).reshape(sums.shape) / steps).astype(means.dtype))


def repeated(values: Array, count: int) -> Array:
    """Return what is the same at all timesteps, [N, ...], for each presentation: [K·N, ...]."""
    return values if count == 1 else np.tile(values, (count,) + (1,) * (values.ndim - 1))


def mean_frame(values: Array, period: int) -> Array:
    """Return the mean frame of each presentation: [T, N, ...] as [(T/R)·N, ...].

    Sums of a few thousand float32 are exact in double precision, so the mean of equal frames is that frame.
    """
    apart = values.reshape(len(values) // period, period, *values.shape[1:])
    mean = apart.mean(axis=1, dtype=np.float64).astype(values.dtype)
    return np.asarray(mean.reshape(-1, *values.shape[2:]))


def ann_feeds(feeds: Mapping[str, Array], inputs: Iterable[InputSpec], period: int) -> dict[str, Array]:
    """Return what the ANN sees of a batch for the spiking network, with each presentation as a sample.

    Args:
        feeds: by input name, [T, N, ...] where frames are presented, else [N, ...].
        inputs: the spiking network's inputs.
        period: R.
    """
    specs = list(inputs)
    steps = next((s.timesteps for s in specs if s.timesteps is not None), None)
    if steps is None:
        return dict(feeds)
    count, sample_axis = steps // period, specs[0].shape[:1]
    result = {}
    for spec in specs:
        value = feeds[spec.name]
        if spec.timesteps is not None:
            result[spec.name] = mean_frame(value, period)
        else:
            result[spec.name] = repeated(value, count) if spec.shape[:1] == sample_axis else value
    return result


def run_ann(
    session: Session, feeds: Mapping[str, Array], inputs: Sequence[InputSpec], period: int, wanted: Sequence[str] | None
) -> dict[str, Array]:
    """Run an ANN on a batch for the spiking network.

    Where its batch is fixed, the presentations of a sample go through it one after the other.

    Args:
        session: the ANN.
        feeds: as for `ann_feeds`.
        inputs: the spiking network's inputs.
        period: R.
        wanted: the outputs to return; None: all.

    Returns:
        The outputs by name; of several presentations, the mean.
    """
    steps = next((s.timesteps for s in inputs if s.timesteps is not None), period)
    count, seen = steps // period, ann_feeds(feeds, inputs, period)
    if count == 1:
        return session.run(seen, wanted)
    sample_axis = inputs[0].shape[:1]
    per_sample = [s.name for s in inputs if s.shape[:1] == sample_axis]
    parts = []
    for number in range(count):
        rows = {n: slice(number * len(v) // count, (number + 1) * len(v) // count) for n, v in seen.items()}
        parts.append(session.run({n: v[rows[n]] if n in per_sample else v for n, v in seen.items()}, wanted))
    return {name: mean_over(np.stack([p[name] for p in parts]), count)[0] for name in parts[0]}


def samples_of(feeds: Mapping[str, Array], names: Iterable[str]) -> int:
    """Return the number of samples of a batch.

    Args:
        feeds: the batch for the spiking network.
        names: the inputs that present frames.
    """
    framed = set(names)
    name, value = next(iter(feeds.items()))
    return int(value.shape[1] if name in framed else value.shape[0])


def counterpart(config: Mapping[str, Any]) -> str | None:
    """Say what of the ANN a network with these options stands for; None for constant inputs."""
    if config.get("input_coding", "constant") != "frames":
        return None
    timesteps, period = int(config["timesteps"]), int(config.get("reset_after") or config["timesteps"])
    if period == timesteps:
        return "its output on the mean frame"
    each = "each frame" if period == 1 else f"the mean frame of every {period} timesteps"
    return f"the mean of its outputs on {each}"
