"""Hard-coded batch sizes: opened where that is provably the same, left alone elsewhere."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from small_networks import parse, run

from snncc.config import Config
from snncc.context import Context
from snncc.graph import constant, export_model, import_graph, infer_shapes
from snncc.passes.free_batch import FreeBatch


def freed(text: str) -> tuple[gs.Graph, bool]:
    """Run the pass and check that the network computes the same as before, and that a second run changes nothing."""
    model = parse(text, check="float[]" not in text)
    graph = import_graph(model)
    infer_shapes(graph)
    modified = FreeBatch().run(graph, Context(Config()))
    infer_shapes(graph)
    assert FreeBatch().run(graph, Context(Config())) is False
    shape = [d if isinstance(d, int) else 3 for d in graph.inputs[0].shape]
    x = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    np.testing.assert_array_equal(run(export_model(graph), x)["y"], run(model, x)["y"])
    return graph, modified


def target_of(graph: gs.Graph) -> list[int] | None:
    value = constant(next(n for n in graph.nodes if n.op == "Reshape").inputs[1])
    return None if value is None else [int(v) for v in value]


@pytest.mark.parametrize(
    ("size", "constants", "body", "target"),
    [
        ("[1,4,3,3]", "int64[2] t = {1, 36}", "y = Reshape (x, t)", [-1, 36]),
        ("[1,4,3,3]", "int64[2] t = {1, -1}", "y = Reshape (x, t)", [-1, 36]),
        ("[2,4,3,3]", "int64[3] t = {2, 9, 4}", "y = Reshape (x, t)", [-1, 9, 4]),
        ("[5,36]", "int64[4] t = {5, 4, -1, 3}", "y = Reshape (x, t)", [-1, 4, 3, 3]),
        ("[1,36]", "int64[4] t = {1, 4, 3, 3}", "y = Reshape <allowzero = 1> (x, t)", [-1, 4, 3, 3]),
        (
            "[N,4,3,3]",
            "int64[1] zero = {0}, int64[1] rest = {36}",
            "s = Shape (x) n = Gather <axis = 0> (s, zero) t = Concat <axis = 0> (n, rest) y = Reshape (x, t)",
            [-1, 36],
        ),
    ],
    ids=str,
)
def test_opened(size: str, constants: str, body: str, target: list[int]) -> None:
    graph, modified = freed(f"g (float{size} x) => (float[] y) <{constants}> {{ {body} }}")
    assert modified
    assert target_of(graph) == target


@pytest.mark.parametrize(
    ("size", "constants", "body"),
    [
        ("[N,4,3,3]", "int64[2] t = {-1, 36}", "y = Reshape (x, t)"),
        ("[N,4,3,3]", "int64[2] t = {0, 36}", "y = Reshape (x, t)"),
        ("[4,9]", "int64[2] t = {2, 18}", "y = Reshape (x, t)"),  # samples would be mixed
        ("[4,9]", "int64[2] t = {12, 3}", "y = Reshape (x, t)"),
        ("[1,9]", "int64[1] t = {9}", "y = Reshape (x, t)"),
        ("[2,9]", "int64[1] t = {-1}", "y = Reshape (x, t)"),
        (
            "[N,M,3]",
            "int64[1] zero = {0}, int64[1] rest = {-1}",
            "s = Shape (x) n = Gather <axis = 0> (s, zero) t = Concat <axis = 0> (n, rest) y = Reshape (x, t)",
        ),
    ],
    ids=str,
)
def test_left_alone(size: str, constants: str, body: str) -> None:
    _, modified = freed(f"g (float{size} x) => (float[] y) <{constants}> {{ {body} }}")
    assert not modified
