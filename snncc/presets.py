"""Named settings: the methods of the literature that need no training, and ours, for side-by-side comparison.

A preset is configuration alone: options of the compile, and which search, if any, chooses ψ and τ per layer. Whatever
the caller sets stays as it was set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from snncc.allocation.result import Assignment, Budget, SearchResult, UnmetError
from snncc.allocation.run import SIMULATE, search
from snncc.compiling import compile
from snncc.config import Config
from snncc.errors import UsageError
from snncc.loader import LoadedModel
from snncc.network import SpikingNetwork
from snncc.passes.base import Progress
from snncc.sources import Source, read_ann


@dataclass(frozen=True)
class Preset:
    """One method.

    Attributes:
        summary: what it is, in a line.
        options: options of the compile that differ from the defaults.
        method: the search's method, None for one ψ and τ everywhere.
        sensitivity: the search's sensitivity.
        budget: the search's budget; the default is what the uniform configuration spends.
        simulate: points that the search simulates; 0: the sum of sensitivities alone decides.
    """

    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)
    method: str | None = None
    sensitivity: str = "isolated"
    budget: Budget = field(default_factory=Budget)
    simulate: int = SIMULATE

    def config(self, **given: Any) -> Config:
        """Return the options of the compile, with those given by the caller on top.

        Raises:
            UsageError: an option is unknown or out of range.
        """
        unknown = set(given) - {f.name for f in fields(Config)}
        if unknown:
            raise UsageError(f"there is no option '{min(unknown)}'")
        return Config(**{**self.options, **given})

    def assignment(
        self,
        model: Source | LoadedModel,
        calibration: Any,
        config: Config,
        *,
        cache: bool = True,
        progress: Progress | None = None,
    ) -> Assignment | None:
        """Search ψ and τ per layer as the preset says; None where it has one ψ and τ for all.

        Raises:
            SnnccError: what `snncc.search` raises.
        """
        method = self.method
        if method is None:
            return None

        def chosen(budget: Budget) -> SearchResult:
            return search(
                model,
                calibration=calibration,
                config=config,
                method=method,
                sensitivity=self.sensitivity,
                budget=budget,
                simulate=self.simulate,
                cache=cache,
                progress=progress,
            )

        if self.budget.kind != "loss" or self.budget.value >= 1:
            return chosen(self.budget).assignment
        found: SearchResult | None = None
        with contextlib.suppress(UnmetError):
            found = chosen(self.budget)
        if found is None or self._too_dear(found):  # what the same ψ and τ everywhere lose is little enough
            found = chosen(replace(self.budget, value=1.0))
        return found.assignment

    def _too_dear(self, found: SearchResult) -> bool:
        """Return whether less loss than that of the uniform configuration was only to be had for more."""
        kind, chosen = self.budget.counted, found.measurement(found.assignment)
        return chosen is not None and chosen.cost(kind) > found.measured[0].cost(kind)


_RANGE = {
    "neuron": "burst",
    "max_burst": 1,
    "per_channel": False,
    "bias_correction": False,
    "gain_correction": False,
}
# Equations 2-4 and 8 as printed: no initial potential, the mean error goes into the bias, and one τ for all channels.
_PAPER = {"neuron": "burst", "v_init": 0.0, "gain_correction": False, "ratio_per_channel": False}
# The fewest spikes at which the sum of sensitivities is no larger than that of the same ψ and τ everywhere.
_R_ONE = Budget("loss", 1.0)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # Deng & Gu add θ/2T to every current; half a threshold at the start gives the same mean output.
        "opt": Preset(
            "Deng & Gu 2021: threshold at the maximum, shifted by half a step", {**_RANGE, "threshold_method": "max"}
        ),
        "percentile": Preset(
            "Rueckauer et al. 2017, SpikingJelly: threshold at the 99.9th percentile, robust to outliers",
            {**_RANGE, "threshold_method": "percentile", "v_init": 0.0},
        ),
        "calibration": Preset(
            "Li et al. 2021: thresholds of least squared error, bias calibration, single spikes",
            {"neuron": "burst", "max_burst": 1, "gain_correction": False},
        ),
        "snm": Preset(
            "Wang et al. 2022: signed neurons with memory, threshold at the maximum, single spikes",
            {**_RANGE, "neuron": "signed", "threshold_method": "max"},
        ),
        "bs": Preset("Bursting Spikes: calibration with bursts", _PAPER),
        "bs+bsr": Preset(
            "bs with burst-spike reallocation: ψ per layer at the spikes of bs", _PAPER, "bsr", "in-context"
        ),
        "bs+ssc": Preset(
            "bs with sensitivity spike compression: τ per layer, r = 1", _PAPER, "ssc", "in-context", _R_ONE, simulate=0
        ),
        "bs+bsr+ssc": Preset(
            "bs+bsr with sensitivity spike compression: τ per layer, r = 1", _PAPER, "bsr+ssc", "in-context"
        ),
        "best": Preset(
            "ours: ψ and τ per layer at once, the fewest spikes that lose little in simulation, and calibrated weights",
            {"weight_calibration": True},
            method="joint",
            sensitivity="uneven",
            budget=Budget("loss", 0.95),
            simulate=6,
        ),
    }
)
"""The presets by name."""


def preset(name: str) -> Preset:
    """Return a preset.

    Raises:
        UsageError: there is none of this name.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise UsageError(f"there is no preset '{name}': choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def compile_preset(
    name: str,
    model: Source | LoadedModel,
    *,
    calibration: Any,
    progress: Progress | None = None,
    cache: bool = True,
    **given: Any,
) -> SpikingNetwork:
    """Compile a network with a preset.

    Args:
        name: the preset.
        model: as `snncc.compile` takes it.
        calibration: as `snncc.compile` takes it; a preset that searches needs some.
        progress: told about finished steps.
        cache: let a search remember what it measured in the user's cache folder.
        **given: options of the compile, e.g. `timesteps`; they win over the preset's.

    Raises:
        SnnccError: what `snncc.compile` and `snncc.search` raise.
    """
    chosen = preset(name)
    config = chosen.config(**given)
    loaded = read_ann(model)
    assignment = chosen.assignment(loaded, calibration, config, cache=cache, progress=progress)
    return compile(loaded, calibration=calibration, config=config, assignment=assignment, progress=progress)
