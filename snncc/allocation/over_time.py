"""The search over T: one target of accuracy, and the cheapest T, ψ and τ that meet it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from snncc.allocation.result import Budget, SearchResult, UnmetError
from snncc.allocation.run import load_calibration, search
from snncc.config import Config, checked_config
from snncc.errors import UsageError
from snncc.loader import LoadedModel
from snncc.sources import Source, read_ann


def search_timesteps(
    model: Source | LoadedModel,
    timesteps: Sequence[int],
    *,
    calibration: Any,
    budget: Budget,
    config: Config | None = None,
    tell: Callable[[int, SearchResult | UnmetError], None] | None = None,
    **options: Any,
) -> SearchResult:
    """Search T too: the cheapest choice of T, ψ and τ, of those that were simulated, that agrees as well as wanted.

    Args:
        model: as `search` takes it.
        timesteps: T to try.
        calibration: as `search` takes it.
        budget: of the kind "agreement", which means the same at any T.
        config: options of the compile, but for T.
        tell: told the result for each T, or why there is none.
        **options: the other arguments of `search`.

    Returns:
        The result for the T that was chosen; its `config` holds it.

    Raises:
        SnnccError: what `search` raises; `UsageError` if no T gives that agreement, or the budget is of another kind.
    """
    if not isinstance(timesteps, Sequence):
        raise UsageError(f"timesteps is {timesteps!r}: it must be a sequence of whole numbers")
    if not isinstance(budget, Budget) or budget.kind != "agreement" or not len(timesteps):
        raise UsageError("a search over timesteps needs some of them and one target for all: give --min-agreement")
    base = checked_config(config)
    configs = tuple(dict.fromkeys(_at(base, steps) for steps in timesteps))
    loaded = read_ann(model)
    # Frames are read for the first T, and held anew for every other one.
    data = load_calibration(calibration, loaded, replace(configs[0], reset_after=None))
    best: tuple[float, SearchResult] | None = None
    reason: UnmetError | None = None
    for own in configs:
        steps = own.timesteps
        try:
            result = search(loaded, calibration=data, config=own, budget=budget, **options)
        except UnmetError as error:
            reason = error
            if tell is not None:
                tell(steps, error)
            continue
        if tell is not None:
            tell(steps, result)
        chosen = result.measurement(result.assignment)
        cost = float("inf") if chosen is None else chosen.cost(budget.counted)
        if best is None or cost < best[0]:
            best = cost, result
    if best is None:
        raise UsageError(f"at none of the timesteps {', '.join(map(str, timesteps))}: {reason}")
    return best[1]


def _at(config: Config, timesteps: int) -> Config:
    """Return options for another T; "never start anew" stays what it is."""
    never = config.reset_after == config.timesteps
    return replace(config, timesteps=timesteps, reset_after=timesteps if never else config.reset_after)
