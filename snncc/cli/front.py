"""How `snncc compile` takes what `snncc search` found."""

from __future__ import annotations

from collections.abc import Mapping

from snncc.allocation.file import FrontError, read
from snncc.allocation.result import Budget
from snncc.compiling import analyse_network
from snncc.config import Config
from snncc.context import Context
from snncc.data import Dataset
from snncc.errors import UsageError
from snncc.loader import LoadedModel
from snncc.passes.analyse import analyse
from snncc.pipeline import Hook
from snncc.sources import sized_graph


def from_front(
    path: str, budget: Budget | None, sha256: str, model: str
) -> tuple[Config, dict[str, tuple[int, float]]]:
    """Return the options and the assignment that a file of `snncc search` gives for a budget.

    Args:
        path: the file.
        budget: the budget; None for the one that was searched for.
        sha256: of the model that is to be compiled.
        model: its name, for messages.

    Raises:
        SnnccError: the file can't be used, or no choice is within the budget.
    """
    result = read(path)
    if result.source["sha256"] != sha256:
        raise UsageError(
            f"'{path}' is a search of '{result.source['name']}' (SHA-256 {result.source['sha256'][:12]}...), which is "
            f"not '{model}' ({sha256[:12]}...): search that network"
        )
    chosen = result.assignment if budget is None else result.choose(budget)
    return result.config, {name: (c.max_burst, c.threshold_ratio) for name, c in chosen.items()}


def check_layers(
    path: str, assignment: Mapping[str, tuple[int, float]], loaded: LoadedModel, config: Config, data: Dataset | None
) -> None:
    """Check that the file of a search says something of every layer of a network, as each search does.

    Raises:
        FrontError: it leaves one out, which would silently get the configuration's ψ and τ.
    """
    ctx = Context(config)
    graph = analyse_network(loaded, ctx, Hook())
    neurons = ctx.analysis.neurons if data is None else analyse(sized_graph(graph, data), ctx.quantised).neurons
    missing = [site.node for site in neurons if site.node not in assignment]
    if missing:
        raise FrontError(
            f"'{path}' is damaged: it leaves out layer '{missing[0]}' of '{loaded.name}'; make it with `snncc search`"
        )
