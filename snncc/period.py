"""Whether neurons start anew with each frame: what the network of the caller asks for, by what its ANN says.

An ANN that was trained on single frames may say anything on the mean of several, and one that was trained on such means
anything on a single one. Nothing in the file tells which it is, but the calibration data does: with labels, the reading
is taken of which the ANN is right more often; without, the frames are taken one by one unless both readings agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from snncc.config import Config
from snncc.data import Dataset
from snncc.loader import LoadedModel
from snncc.runtime.scores import class_outputs
from snncc.runtime.session import Array, Session
from snncc.sequences import run_ann

SAMPLES = 512
"""So many calibration samples decide, from the first one on."""
AGREE = 0.95
"""Share of samples with the same class, or 1 minus the relative error of the outputs, from which readings agree."""


def settled(config: Config, data: Dataset | None, ann: LoadedModel) -> tuple[Config, str | None]:
    """Return the options with a period, and what the user should know about how it was chosen.

    Args:
        config: the options; those that say it themselves, or have constant inputs, come back as they are.
        data: the calibration data for these options, None if there is none: neurons then never start anew.
        ann: the network.
    """
    if not config.has_frames or config.reset_after is not None:
        return config, None
    never, counts = replace(config, reset_after=config.timesteps), [] if data is None else frame_counts(data)
    if data is None or max(counts, default=1) == 1:
        return never, None
    each = replace(config, reset_after=config.timesteps // max(counts))
    readings = _Readings(data, ann, each.period)
    if readings.right is not None:
        return (never if readings.right[0] >= readings.right[1] else each), None
    if readings.agreement >= AGREE:
        return never, None
    return each, (
        f"neurons start anew with each frame (every {each.period} timesteps), because the ANN says something else on "
        f"the mean of a sample's frames than on its frames on average (they agree to {readings.agreement:.0%}). If it "
        f"was trained on means of frames, compile with --reset-after {config.timesteps}; labels in the calibration "
        "data would tell"
    )


def frame_counts(data: Dataset) -> list[int]:
    """Return the number of frames of each sample, for each input that presents some."""
    return [int(data.arrays[spec.name].shape[1]) for spec in data.inputs if spec.timesteps is not None]


class _Readings:
    """What the ANN says on the mean frame, and on each frame on average.

    Attributes:
        right: share of samples of which each reading is right; None without labels or class scores.
        agreement: share of samples of which both say the same class, or 1 minus their relative difference.
    """

    def __init__(self, data: Dataset, ann: LoadedModel, period: int) -> None:
        session = Session(ann.model, f"the ANN '{ann.name}'")
        steps = next(spec.timesteps for spec in data.inputs if spec.timesteps is not None) or 1
        size = data.inputs[0].batch or 32
        mean: list[dict[str, Array]] = []
        each: list[dict[str, Array]] = []
        for start in range(0, min(len(data), max(SAMPLES, size)), size):
            feeds = data.batch(start, start + size)
            for found, of_period in ((mean, steps), (each, period)):
                found.append(run_ann(session, feeds, data.inputs, of_period, None))
        samples = min(len(data), len(mean) * size)
        one, other = ({n: np.concatenate([p[n] for p in parts]) for n in _per_sample(parts)} for parts in (mean, each))
        self.right: tuple[float, float] | None = None
        classified = class_outputs(one, samples)
        if not classified:
            self.agreement = 1.0 - _difference(one, other)
            return
        scores = classified[0]
        classes = one[scores].argmax(axis=1), other[scores].argmax(axis=1)
        self.agreement = float((classes[0] == classes[1]).mean())
        labels = None if data.labels is None else data.labels[:samples]
        if labels is not None and labels.max() < one[scores].shape[1]:
            self.right = float((classes[0] == labels).mean()), float((classes[1] == labels).mean())


def _per_sample(parts: list[dict[str, Array]]) -> list[str]:
    return [name for name, value in parts[0].items() if value.ndim and value.dtype.kind == "f"]


def _difference(one: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    """Return the largest relative difference (L2) of an output; 0 where there is none to compare."""
    return max((_relative(np.asarray(other[name], np.float64), value) for name, value in one.items()), default=0.0)


def _relative(expected: NDArray[np.float64], found: Array) -> float:
    energy = float(np.square(expected).sum())
    return float(np.sqrt(np.square(found - expected).sum() / energy)) if energy else float(found.any())
