"""Hard-coded batch sizes: opened where that is provably the same, left alone elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from small_networks import parse, run

from snncc.config import Config
from snncc.context import Context
from snncc.graph import constant, export_model, import_graph, infer_shapes
from snncc.passes.analyse import analyse
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


# --- other operators: what has been freed runs on any number of samples as on each of them ---------------------------


def batched(graph: gs.Graph, samples: int) -> onnx.ModelProto:
    """Return the network with its one sample declared to be several."""
    model = export_model(graph)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = samples
    del model.graph.value_info[:]
    return model


def assert_free(text: str, ops: list[str], samples: int = 3) -> None:
    """Check one sample as `freed` does, then several at once against each alone; every node keeps them apart."""
    graph, modified = freed(text)
    assert modified
    assert [n.op for n in graph.nodes] == ops
    assert not analyse(graph).fold_blockers
    shape = [samples, *graph.inputs[0].shape[1:]]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    together = run(batched(graph, samples), {"x": x})["y"]
    alone = [run(parse(text), {"x": x[i : i + 1]})["y"] for i in range(samples)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-6, atol=1e-6)  # kernels differ with the size


@pytest.mark.parametrize(
    "attributes",
    [
        'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
        'mode = "nearest"',
        'mode = "linear"',
        'mode = "linear", coordinate_transformation_mode = "align_corners"',
        'mode = "cubic", coordinate_transformation_mode = "pytorch_half_pixel"',
    ],
)
@pytest.mark.parametrize("sizes", ["8, 12", "5, 3", "10, 20"])
def test_resize_to_sizes(attributes: str, sizes: str) -> None:
    text = f"""g (float[1,2,4,6] x) => (float[1,2,a,b] y) <int64[4] s = {{1, 2, {sizes}}}> {{
        r = Relu (x) z = Resize <{attributes}> (r, , , s) y = Relu (z) }}"""
    assert_free(text.replace("a,b", sizes), ["Relu", "Resize", "Relu"])


def test_sizes_that_scales_cannot_give() -> None:
    # In float32, 47 · (8 / 47) is less than 8.
    text = """g (float[1,1,47,1] x) => (float[1,1,8,1] y) <int64[4] s = {1, 1, 8, 1}> { y = Resize (x, , , s) }"""
    assert not freed(text)[1]


def test_samples_that_are_resized() -> None:
    text = "g (float[2,1,4,4] x) => (float[4,1,4,4] y) <int64[4] s = {4, 1, 4, 4}> { y = Resize (x, , , s) }"
    assert not freed(text)[1]


def test_a_constant_beside_the_samples() -> None:
    text = """g (float[1,3,4] x, float[1,1,4] w_token, float[1,2,4] w_more) => (float[1,9,4] y) {
        r = Relu (x) k = Concat <axis = 1> (w_token, r, x, w_more) y = Relu (k) }"""
    assert_free(text, ["Relu", "Concat", "Pad", "Add", "Relu"])


def test_a_constant_expanded_to_the_samples() -> None:
    text = """g (float[N,3,4] x, float[1,1,4] w_token) => (float[N,4,4] y)
        <int64[1] zero = {0}, int64[2] rest = {1, 4}> {
        r = Relu (x) s = Shape (x) n = Gather (s, zero) t = Concat <axis = 0> (n, rest) e = Expand (w_token, t)
        k = Concat <axis = -2> (e, r) y = Relu (k) }"""
    graph, modified = freed(text)
    assert modified
    assert not analyse(graph).fold_blockers
    assert [n.op for n in graph.nodes][-3:] == ["Pad", "Add", "Relu"]


@pytest.mark.parametrize(
    "body",
    [
        "r = Relu (x) k = Concat <axis = 1> (r, w_c, r)",  # between samples
        "r = Relu (x) k = Concat <axis = 0> (r, w_c)",
    ],
)
def test_constants_that_stay(body: str) -> None:
    text = f"g (float[1,3,4] x, float[1,3,4] w_c) => (float[] y) {{ {body} y = Relu (k) }}"
    assert not freed(text)[1]


def test_expansion_for_the_samples_there_are() -> None:
    text = """g (float[2,3,1] x) => (float[2,3,5] y) <int64[3] t = {2, 3, 5}> {
        r = Relu (x) e = Expand (r, t) y = Relu (e) }"""
    graph, modified = freed(text)
    assert modified
    assert not analyse(graph).fold_blockers


ATTENTION = """g (float[1,5,8] x, float[8,24] w_q) => (float[1,5,8] y)
    <int64[5] split = {{1, 5, 3, 2, 4}}, int64[3] join = {{1, 5, 8}}, int64[1] first = {{0}}, int64 zero = {{0}},
     int64 one = {{1}}, int64 two = {{2}}, int64[3] ones = {{1, 1, 1}}, int64[1] b = {{1}}, int64[1] c = {{2}},
     int64[1] d = {{3}}> {{
    p = MatMul (x, w_q) z = Relu (p) h = Reshape (z, split) t = Transpose <perm = [2,0,3,1,4]> (h)
    {take}
    kt = Transpose <perm = [0,1,3,2]> (k) a = MatMul (q, kt) m = MatMul (a, v)
    mt = Transpose <perm = [0,2,1,3]> (m) j = Reshape (mt, join) y = Relu (j) }}"""


@pytest.mark.parametrize(
    "take",
    [
        "q = Gather (t, zero) k = Gather (t, one) v = Gather (t, two)",
        "q1, k1, v1 = Split (t, ones) q = Squeeze (q1, first) k = Squeeze (k1, first) v = Squeeze (v1, first)",
        "q1 = Slice (t, first, b, first) k1 = Slice (t, b, c, first) v1 = Slice (t, c, d, first)"
        " q = Squeeze (q1, first) k = Squeeze (k1, first) v = Squeeze (v1, first)",
        "q1 = Gather (t, first) k1 = Gather (t, b) v1 = Gather (t, c)"
        " q = Squeeze (q1, first) k = Squeeze (k1, first) v = Squeeze (v1, first)",
    ],
    ids=["Gather", "Split", "Slice", "Gather of a list"],
)
def test_attention_with_the_samples_moved_away(take: str) -> None:
    text = ATTENTION.format(take=take)
    graph, modified = freed(text)
    assert modified
    graph.cleanup()
    assert not analyse(graph).fold_blockers
    x = np.random.default_rng(1).standard_normal((3, 5, 8)).astype(np.float32)
    together = run(batched(graph, 3), {"x": x})["y"]
    alone = [run(parse(text), {"x": x[i : i + 1]})["y"] for i in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-5)
