"""What early exit gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from snncc.exit_threshold import ExitThreshold, to_dict
from snncc.report.text import NONE, bar, count, facts, percent, plural, shown_steps, si, table
from snncc.runtime.early_exit import EarlyExit
from snncc.runtime.meter import EnergyProfile
from snncc.tally import Evaluation


def exit_facts(rule: EarlyExit, found: ExitThreshold | None) -> Table:
    """Return when samples leave, and how that was found."""
    calibrated = None
    if found is not None:
        calibrated = (
            f"on {plural(found.samples, 'sample')}, which take {found.mean_timesteps:.2f} timesteps; "
            f"{percent(found.disagreement)} get another class than after all"
        )
    return facts({"early exit": f"{rule.measure} of {rule.confidence:.4g} or more", "calibrated": calibrated})


def exit_values(rule: EarlyExit, found: ExitThreshold | None, exits: Sequence[int]) -> dict[str, Any]:
    """Return the same and the histogram as plain values, for JSON."""
    return {
        "confidence": rule.confidence,
        "measure": rule.measure,
        "output": rule.output,
        "calibration": None if found is None else to_dict(found),
        "mean_timesteps": mean_timesteps(exits),
        "histogram": [int(n) for n in exits],
    }


def mean_timesteps(exits: Sequence[int]) -> float:
    """Return the mean number of timesteps, given the number of samples that left after each."""
    return sum(t * n for t, n in enumerate(exits, 1)) / max(sum(exits), 1)


def histogram(exits: Sequence[int]) -> Table:
    """Return how many samples left after each timestep, with bars; many timesteps are put together."""
    made = table("left after t", "samples", "share", "", right=("left after t", "samples", "share"))
    total, before = max(sum(exits), 1), 0
    for step in shown_steps(len(exits)):
        number = sum(exits[before:step])
        span = str(step) if step == before + 1 else f"{before + 1} to {step}"
        share = number / total
        made.add_row(span, count(number), percent(share, 1), Text(bar(share), style="cyan"))
        before = step
    return made


def saving_table(early: Evaluation, full: Evaluation, profile: EnergyProfile) -> Table:
    """Return early exit and all timesteps side by side; operations and energy are per sample."""
    made = table("", "all timesteps", "early exit", "", right=("all timesteps", "early exit"))

    def compare(name: str, before: float, after: float, shown: tuple[str, str]) -> None:
        saved = f"{percent(1 - after / before, 0)} saved" if before else ""
        made.add_row(name, *shown, saved)

    for name, a, b in (
        ("accuracy", full.snn_accuracy, early.snn_accuracy),
        ("agreement", full.agreement, early.agreement),
    ):
        if a is not None and b is not None:
            made.add_row(name, percent(a), percent(b), f"{100 * (b - a):+.2f} points")
    before, after = full.reading, early.reading
    mean = mean_timesteps(early.exits or ())
    compare("timesteps", full.timesteps, mean, (str(full.timesteps), f"{mean:.2f}"))
    compare("spikes", before.spikes, after.spikes, (count(before.spikes), count(after.spikes)))
    pair = (before.synaptic_operations, after.synaptic_operations)
    compare("synaptic operations", *pair, (si(pair[0]) or NONE, si(pair[1]) or NONE))
    energy = (before.energy(profile)[1], after.energy(profile)[1])
    compare(f"energy ({profile.name})", *energy, (si(energy[0], "J"), si(energy[1], "J", like=energy[0])))
    return made
