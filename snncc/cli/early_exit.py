"""Options of `snncc run` and `snncc eval` for samples that leave before the last timestep."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from snncc.cli.files import open_data
from snncc.data import ImageOptions
from snncc.errors import UsageError
from snncc.exit_threshold import ExitThreshold
from snncc.network import SpikingNetwork
from snncc.runtime.early_exit import MEASURES, EarlyExit


@dataclass(frozen=True)
class ExitChoice:
    """What was asked for: a confidence, or a loss of agreement and the data that the confidence is found on."""

    confidence: float | None
    max_drop: float | None
    calib: str | None
    measure: str

    def rule(
        self, network: SpikingNetwork, image: ImageOptions | None, threads: int, output: str | None = None
    ) -> tuple[EarlyExit, ExitThreshold | None]:
        """Return when samples leave, and how that was found."""
        if self.confidence is not None:
            return EarlyExit(self.confidence, self.measure, output), None
        data = open_data(str(self.calib), network.inputs, image=image)
        found = network.exit_rule(data, self.max_drop or 0.0, measure=self.measure, output=output, threads=threads)
        return found.rule, found


def check_backend(backend: str) -> None:
    """Raise `UsageError` where samples can't leave early."""
    if backend != "fused":
        raise UsageError(f"early exit with --backend {backend}: only fused runs timestep by timestep; leave it out")


def exit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets `early`, None where samples stay to the last timestep."""

    @click.option(
        "--early-exit",
        "confidence",
        type=click.FloatRange(0, min_open=True),
        metavar="CONFIDENCE",
        help="A sample leaves as soon as its running output is so sure of its class, from 0 to 1.",
    )
    @click.option(
        "--max-drop",
        type=click.FloatRange(0, 100),
        metavar="POINTS",
        help="Instead: find the confidence at which this many percentage points of the samples of --calib get another "
        "class than after all timesteps.",
    )
    @click.option("--calib", metavar="DATA", help="With --max-drop: samples; or zoo:calibration.")
    @click.option(
        "--exit-measure",
        "measure",
        type=click.Choice(list(MEASURES)),
        help="What is compared with the confidence: the largest probability less the second (the default), the "
        "largest, or 1 less the entropy as a share of its maximum.",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        confidence: float | None,
        max_drop: float | None,
        calib: str | None,
        measure: str | None,
        **kwargs: Any,
    ) -> Any:
        if confidence is not None and max_drop is not None:
            raise UsageError("--early-exit gives the confidence and --max-drop finds it: give one of them")
        if (max_drop is None) != (calib is None):
            raise UsageError("--max-drop and --calib go together: the confidence is found on data of its own")
        if measure is not None and confidence is None and max_drop is None:
            raise UsageError("--exit-measure without early exit: add --early-exit, or --max-drop and --calib")
        asked = confidence is not None or max_drop is not None
        early = ExitChoice(confidence, max_drop, calib, measure or "margin") if asked else None
        return command(*args, early=early, **kwargs)

    return wrapped
