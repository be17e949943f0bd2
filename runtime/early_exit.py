"""Early exit: each sample leaves when its running output is confident enough, and what is left goes on together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snncc.errors import UsageError
from snncc.runtime.fused import FusedExecutor
from snncc.runtime.reference import Simulation
from snncc.runtime.scores import class_outputs
from snncc.runtime.session import Array
from snncc.runtime.walk import Walk

_SAMPLES = 32
"""Samples that set out together: enough for the last ones to be worth a call."""


def _margin(p: NDArray[np.float64]) -> NDArray[np.float64]:
    second, first = np.partition(p, -2, axis=-1)[..., -2:].T
    return np.asarray((first - second).T)


def _largest(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(p.max(axis=-1))


def _certainty(p: NDArray[np.float64]) -> NDArray[np.float64]:
    surprise = p * np.log(np.maximum(p, np.finfo(np.float64).tiny))
    return np.asarray(1.0 + surprise.sum(axis=-1) / np.log(p.shape[-1]))


MEASURES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "margin": _margin,
    "max": _largest,
    "entropy": _certainty,
}
"""Confidence of class probabilities [..., K], from 0 (nothing is known) to 1: the largest minus the second largest, the
largest, and 1 minus the entropy relative to that of the uniform distribution."""


@dataclass(frozen=True)
class EarlyExit:
    """When a sample leaves.

    Attributes:
        confidence: as soon as the measure reaches this; 1 and more is reached by rounding only.
        measure: one of `MEASURES`.
        output: name of the output with the class scores [N, K]; None: the first of that shape.
    """

    confidence: float
    measure: str = "margin"
    output: str | None = None

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UsageError(f"exit measure is {self.measure!r}: it must be one of {', '.join(MEASURES)}")
        if not self.confidence > 0:
            raise UsageError(f"confidence is {self.confidence}: it must be above 0, where every sample leaves at once")


def confidence(scores: Array, measure: str) -> NDArray[np.float64]:
    """Return how sure class scores [..., K] are: probabilities as they are, anything else after a softmax."""
    values = scores.astype(np.float64)
    total = values.sum(axis=-1, keepdims=True)
    are = (values >= 0).all(axis=-1, keepdims=True) & (np.abs(total - 1.0) < 1e-3)
    softmax = np.exp(values - values.max(axis=-1, keepdims=True))
    softmax /= softmax.sum(axis=-1, keepdims=True)
    return MEASURES[measure](np.where(are, values, softmax))


def class_output(outputs: Mapping[str, Array], samples: int) -> str:
    """Return the name of the first output that holds class scores [N, K], K >= 2.

    Raises:
        UsageError: there is none.
    """
    found = class_outputs(outputs, samples)
    if found:
        return found[0]
    raise UsageError("early exit needs an output that holds class scores [N, K]; this network has none: run it without")


def run_early(
    executor: FusedExecutor, feeds: Mapping[str, Array], rule: EarlyExit, *, trace: bool = False
) -> Simulation:
    """Run one batch; each sample until it leaves, or to the last timestep.

    Where samples can't go apart, all of a batch leave when the least confident one may.

    Args:
        executor: what runs the network.
        feeds: by input name, [N, ...].
        rule: when a sample leaves.
        trace: also return the outputs after each timestep; those of a sample that left stay what they were.

    Returns:
        Outputs, spikes of the timesteps that were run, and in `exits` their number for each sample.

    Raises:
        UsageError: no output holds class scores.
    """
    samples = executor.presented.samples(feeds)

    def through(part: tuple[Walk, slice]) -> Simulation:
        walk, rows = part
        constant, frames = executor.presented.apart(feeds, rows)
        walk.present(constant)
        return _Leaving(walk, rows.stop - rows.start, rule, trace).run(executor.timesteps, frames)

    return executor.gather(through, executor.walks(samples, _SAMPLES), samples)


class _Leaving:
    """A walk that samples leave."""

    def __init__(self, walk: Walk, samples: int, rule: EarlyExit, trace: bool) -> None:
        self.walk, self.samples, self.rule, self.trace = walk, samples, rule, trace

    def run(self, timesteps: int, frames: Mapping[str, Array]) -> Simulation:
        staying, traced = np.arange(self.samples), []
        exits = np.full(self.samples, timesteps, np.int64)
        outputs: dict[str, Array] = {}
        for t in range(1, timesteps + 1):
            now_shown = {name: value[t - 1 : t, staying] for name, value in frames.items()}
            self.walk.advance(1, now_shown, last=t == timesteps)
            now = self.walk.outputs()
            for name, value in now.items():
                self._put(outputs, name, staying, value)
            leaving = self._confident(now, len(staying))
            if self.trace:
                traced.append({name: value.copy() for name, value in outputs.items()})
            exits[staying[leaving]] = t
            staying = staying[~leaving]
            if not len(staying):
                break
            if leaving.any() and t < timesteps:
                self.walk.select(np.flatnonzero(~leaving))
        result = self.walk.finish()
        result.outputs, result.samples, result.exits = outputs, self.samples, exits
        traced += traced[-1:] * (timesteps - len(traced))
        result.trace = {name: np.stack([step[name] for step in traced]) for name in outputs} if traced else {}
        return result

    def _put(self, outputs: dict[str, Array], name: str, rows: NDArray[np.int64], value: Array) -> None:
        if name not in outputs or not self.walk.route.splits:
            outputs[name] = value
        else:
            outputs[name][rows] = value

    def _confident(self, now: Mapping[str, Array], samples: int) -> NDArray[np.bool_]:
        name = self.rule.output or class_output(now, samples)
        sure = confidence(now[name], self.rule.measure) >= self.rule.confidence
        return sure if self.walk.route.splits else np.full(samples, bool(sure.all()))
