"""How sure a network must be before a sample leaves: found on calibration data, for a given loss of agreement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.errors import UsageError
from snncc.runtime.early_exit import EarlyExit, class_output, confidence
from snncc.runtime.fused import FusedExecutor
from snncc.runtime.session import Array

_CANDIDATES = 1000


@dataclass(frozen=True)
class ExitThreshold:
    """A threshold that was found.

    Attributes:
        rule: when a sample leaves.
        samples: number of samples that it was found on.
        mean_timesteps: timesteps that they take.
        disagreement: share of them of which another class is said than after all timesteps.
    """

    rule: EarlyExit
    samples: int
    mean_timesteps: float
    disagreement: float


def find_threshold(
    executor: FusedExecutor,
    batches: Iterable[Mapping[str, Array]],
    max_drop: float,
    measure: str = "margin",
    output: str | None = None,
) -> ExitThreshold:
    """Return the lowest confidence at which, and above which, samples still get the class of a full run.

    Args:
        executor: what runs the network.
        batches: samples, by input name [N, ...].
        max_drop: share of the samples of which another class may be said, e.g. 0.002.
        measure: see `EarlyExit`.
        output: the same.

    Raises:
        UsageError: an option is out of range, or no output holds class scores.
    """
    EarlyExit(1.0, measure)
    if not 0 <= max_drop <= 1:
        raise UsageError(f"max_drop is {100 * max_drop:g} points: it must be from 0 to 100")
    sure: list[NDArray[np.float64]] = []
    said: list[NDArray[np.int64]] = []
    for batch in batches:
        found = executor.run(batch, trace=True)
        output = output or class_output(found.outputs, found.samples)
        sure.append(confidence(found.trace[output], measure))
        said.append(found.trace[output].argmax(axis=-1))
    if not executor.route.splits:  # a batch leaves together
        sure = [np.broadcast_to(part.min(axis=1, keepdims=True), part.shape) for part in sure]
    chosen = choose(np.concatenate(sure, axis=1), np.concatenate(said, axis=1), max_drop)
    rule = EarlyExit(chosen[0], measure, output)
    return ExitThreshold(rule, sum(part.shape[1] for part in said), chosen[1], chosen[2])


def choose(sure: NDArray[np.float64], said: NDArray[np.int64], max_drop: float) -> tuple[float, float, float]:
    """Choose a threshold.

    Args:
        sure: confidence after each timestep, [T, N].
        said: the class that is said then, [T, N].
        max_drop: share of the samples of which another class may be said than after T.

    Returns:
        The threshold, the mean number of timesteps, and the share of samples with another class.
    """
    early = sure[:-1].reshape(-1)
    candidates = np.unique(np.quantile(early, np.linspace(0, 1, _CANDIDATES), method="higher")) if early.size else early
    candidates = candidates[candidates > 0][::-1]
    best = (float(np.nextafter(max(early.max(initial=0.0), 1.0), 2.0)), float(len(sure)), 0.0)
    for threshold in candidates:
        steps, other = outcome(sure, said, float(threshold))
        if other > max_drop + 1e-12:
            break
        best = (float(threshold), steps, other)
    return best


def outcome(sure: NDArray[np.float64], said: NDArray[np.int64], threshold: float) -> tuple[float, float]:
    """Return the mean number of timesteps at a threshold, and the share of samples with another class than after T."""
    leaves = sure >= threshold
    leaves[-1] = True
    exits = leaves.argmax(axis=0)
    classes = np.take_along_axis(said, exits[None], axis=0)[0]
    return float(exits.mean()) + 1.0, float((classes != said[-1]).mean())


def to_dict(found: ExitThreshold) -> dict[str, Any]:
    """Return what was found as plain values, for JSON."""
    return {"samples": found.samples, "mean_timesteps": found.mean_timesteps, "disagreement": found.disagreement}
