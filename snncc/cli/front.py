"""How `snncc compile` takes what `snncc search` found."""

from __future__ import annotations

from snncc.allocation.file import FrontError, read
from snncc.allocation.result import Assignment, Budget
from snncc.config import Config
from snncc.errors import UsageError
from snncc.network import SpikingNetwork


def from_front(path: str, budget: Budget | None, sha256: str, model: str) -> tuple[Config, Assignment]:
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
    return result.config, chosen


def check_layers(path: str, assignment: Assignment, network: SpikingNetwork) -> None:
    """Check that the file of a search says something of every layer of a network, as each search does.

    Raises:
        FrontError: it leaves one out, which silently got the configuration's ψ and τ.
    """
    missing = [layer.name for layer in network.record.layers if layer.name not in assignment]
    if missing:
        name = network.record.source["name"]
        raise FrontError(
            f"'{path}' is damaged: it leaves out layer '{missing[0]}' of '{name}'; make it with `snncc search`"
        )
