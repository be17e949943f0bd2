"""Gain and shift of weighted layers: in the weights they do what a Mul and an Add behind the layer do."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from small_networks import parse, run

from snncc.config import Config
from snncc.context import Context, WeightCorrection
from snncc.graph import constant, export_model, import_graph, infer_shapes
from snncc.passes.calibration_walk import weighted_channel_axis
from snncc.passes.correct_weights import CorrectWeights
from snncc.passes.layer_sums import along


@pytest.mark.parametrize(
    ("inputs", "body", "outputs", "nodes"),
    [
        (
            "float[N,4,5,5] x, float[6,2,3,3] w_1, float[6] b_1",
            "y = Conv <group = 2> (x, w_1, b_1)",
            "float[N,6,3,3] y",
            1,
        ),
        ("float[N,4,5] x, float[6,4,3] w_1", "y = Conv (x, w_1)", "float[N,6,3] y", 1),
        ("float[N,4,3,3] x, float[4,3,2,2] w_1", "y = ConvTranspose <group = 2> (x, w_1)", "float[N,6,4,4] y", 1),
        (
            "float[N,4,3,3] x, float[4,3,2,2] w_1, float[3] b_1",
            "y = ConvTranspose (x, w_1, b_1)",
            "float[N,3,4,4] y",
            1,
        ),
        (
            "float[N,3] x, float[3,4] w_1, float[4] b_1",
            "y = Gemm <alpha = 0.5, beta = 0.25> (x, w_1, b_1)",
            "float[N,4] y",
            1,
        ),
        ("float[N,3] x, float[4,3] w_1, float[1,4] b_1", "y = Gemm <transB = 1> (x, w_1, b_1)", "float[N,4] y", 1),
        ("float[N,3] x, float[3,4] w_1, float b_1", "y = Gemm (x, w_1, b_1)", "float[N,4] y", 1),
        ("float[N,3] x, float[3,4] w_1, float[4] b_1", "y = Gemm <beta = 0.0> (x, w_1, b_1)", "float[N,4] y", 1),
        ("float[N,3] x, float[3,4] w_1", "y = MatMul (x, w_1)", "float[N,4] y", 2),
        ("float[N,5,3] x, float[3,4] w_1, float[4] b_1", "y = MatMul (x, w_1) z = Add (y, b_1)", "float[N,5,4] z", 2),
        (
            "float[N,5,3] x, float[3,4] w_1, float[4] b_1",
            "y = MatMul (x, w_1) z = Add (b_1, y) e = Neg (y)",
            "float[N,5,4] z, float[N,5,4] e",
            4,
        ),
        (
            "float[N,5,3] x, float[3,4] w_1, float b_1",
            "y = MatMul (x, w_1) z = Add (b_1, y)",
            "float[N,5,4] z, float[N,5,4] y",
            3,
        ),
        ("float[N,5,3] x, float[4,5] w_1", "y = MatMul (w_1, x)", "float[N,4,3] y", 2),
        ("float[N,5,3] x, float[3] w_1", "y = MatMul (x, w_1)", "float[N,5] y", 2),
        ("float[N,5,3] x, float[5] w_1", "y = MatMul (w_1, x)", "float[N,3] y", 2),
        ("float[5,3] x, float[4,5] w_1", "y = MatMul (w_1, x)", "float[4,3] y", 2),
        ("float[N,2,5,3] x, float[2,3,4] w_1", "y = MatMul (x, w_1)", "float[N,2,5,4] y", 2),
    ],
    ids=lambda v: v if isinstance(v, str) and "=" in v else "",
)
def test_corrected_weights_are_an_affine_layer_more(inputs: str, body: str, outputs: str, nodes: int) -> None:
    """Tolerance: rounding of the scaled weights, 1e-5 of the largest output."""
    before, after = (import_graph(parse(f"g ({inputs}) => ({outputs}) {{ {body} }}")) for _ in range(2))
    infer_shapes(after)
    node = after.nodes[0]
    rank = len(node.outputs[0].shape)
    axis = weighted_channel_axis(node, rank)
    channels = 1 if axis is None else int(node.outputs[0].shape[axis])
    rng = np.random.default_rng(0)
    gain, shift = rng.uniform(0.5, 2.0, (2, channels)).astype(np.float32)
    ctx = Context(Config())
    ctx.corrections[node.name] = WeightCorrection(gain, shift)
    assert CorrectWeights().run(after, ctx) is True
    assert len(after.nodes) == nodes
    original = before.nodes[0]
    raw, scaled = gs.Variable("raw", dtype=np.float32), gs.Variable("scaled", dtype=np.float32)
    output = original.outputs[0]
    original.outputs = [raw]
    before.nodes.insert(1, gs.Node("Mul", inputs=[raw, gs.Constant("gain", along(gain, axis, rank))], outputs=[scaled]))
    before.nodes.insert(
        2, gs.Node("Add", inputs=[scaled, gs.Constant("shift", along(shift, axis, rank))], outputs=[output])
    )
    feeds = {
        "x": rng.standard_normal([d if isinstance(d, int) else 3 for d in before.inputs[0].shape]).astype(np.float32)
    }
    got = run(export_model(after), feeds)
    for name, want in run(export_model(before), feeds).items():
        assert got[name].shape == want.shape
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_shared_weights_are_copied() -> None:
    body = "y = Gemm (x, w_1, b_1) z = Gemm (y, w_1, b_1)"
    graph = import_graph(parse(f"g (float[N,4] x, float[4,4] w_1, float[4] b_1) => (float[N,4] z) {{ {body} }}"))
    weight, bias = (np.array(constant(t)) for t in graph.nodes[1].inputs[1:])
    ctx = Context(Config())
    ctx.corrections["y"] = WeightCorrection(np.full(4, 2, np.float32), np.ones(4, np.float32))
    CorrectWeights().run(graph, ctx)
    np.testing.assert_array_equal(constant(graph.nodes[1].inputs[1]), weight)
    np.testing.assert_array_equal(constant(graph.nodes[1].inputs[2]), bias)
    np.testing.assert_allclose(constant(graph.nodes[0].inputs[1]), 2 * weight)
    np.testing.assert_allclose(constant(graph.nodes[0].inputs[2]), 2 * bias + 1)


def test_nothing_to_correct() -> None:
    graph = import_graph(parse("g (float[N,4] x, float[4,4] w_1) => (float[N,4] y) { y = Gemm (x, w_1) }"))
    assert CorrectWeights().run(graph, Context(Config())) is False
