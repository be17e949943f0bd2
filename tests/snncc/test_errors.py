"""The tree of errors: exit codes, and what a list of obstacles says."""

from __future__ import annotations

import pytest

from snncc import errors
from snncc.errors import Obstacle, SnnccError, UnsupportedModelError, UsageError


def test_one_tree_and_its_exit_codes() -> None:
    found = {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)}
    assert all(issubclass(error, SnnccError) for error in found)
    assert {error.exit_code for error in found - {UsageError}} == {1}
    assert UsageError.exit_code == 2


def test_obstacle_says_node_op_reason_and_remedy() -> None:
    text = str(Obstacle("act", "Sigmoid", "it is not linear", "use ReLU"))
    assert text == "node 'act' (Sigmoid): it is not linear; use ReLU"


@pytest.mark.parametrize(("count", "lines"), [(1, 2), (8, 9), (9, 10), (20, 10)])
def test_every_obstacle_is_kept_and_the_first_ones_are_shown(count: int, lines: int) -> None:
    obstacles = [Obstacle(f"n{i}", "Erf", "reason", "remedy") for i in range(count)]
    error = UnsupportedModelError(obstacles)
    assert error.obstacles == tuple(obstacles)
    shown = str(error).splitlines()
    assert len(shown) == lines
    assert shown[0] == f"cannot convert this network: {count} obstacle(s)"
    assert ("more" in shown[-1]) is (count > 8)
