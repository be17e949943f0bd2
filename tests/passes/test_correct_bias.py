"""Bias shifts: folding one is the same as adding it in front of the neuron, and nobody else sees it.

The neurons are still ReLU here: the pass looks for the current of a node, whatever the node is. Tolerance: float32
rounding of a bias that is added before or after a sum, 1e-5 of the largest output.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from small_networks import parse, run

from snncc.config import Config
from snncc.context import Context, LayerCalibration
from snncc.graph import constant, export_model, import_graph, infer_shapes
from snncc.passes.analyse import analyse
from snncc.passes.correct_bias import CorrectBias


def shifts(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).uniform(0.5, 1.5, channels).astype(np.float32)


def corrected(text: str, only: tuple[str, ...] | None = None) -> tuple[gs.Graph, gs.Graph, Context]:
    """Return the graph, the graph with folded shifts, and the context; `only`: the neurons that get a shift."""
    before, after = (import_graph(parse(text)) for _ in range(2))
    infer_shapes(before)
    infer_shapes(after)
    ctx = Context(Config())
    ctx.analysis = analyse(after)
    for site in ctx.analysis.neurons:
        shift = shifts(site.channels or 1) if only is None or site.node in only else None
        ctx.layers[site.node] = LayerCalibration(
            np.ones(1, np.float32), "data", 0.5, bias_shift=shift, max_burst=4, threshold_ratio=1.0
        )
    assert CorrectBias().run(after, ctx) is True
    return before, after, ctx


def explicitly(graph: gs.Graph, ctx: Context) -> gs.Graph:
    """The oracle: an Add in front of each neuron."""
    nodes = {n.name: n for n in graph.nodes}
    for site in ctx.analysis.neurons:
        shift = ctx.layers[site.node].bias_shift
        if shift is None:
            continue
        shape = [1] * site.rank
        shape[site.channel_axis] = len(shift)
        shifted = gs.Variable(f"{site.node}.oracle", dtype=np.float32)
        delta = gs.Constant(f"{site.node}.delta", shift.reshape(shape))
        node = nodes[site.node]
        graph.nodes.append(gs.Node("Add", inputs=[node.inputs[0], delta], outputs=[shifted]))
        node.inputs[0] = shifted
    return graph.toposort()


def check(text: str, adds: int, only: tuple[str, ...] | None = None) -> gs.Graph:
    """Compare with the oracle on random inputs; `adds`: how many shifts couldn't be folded."""
    before, after, ctx = corrected(text, only)
    count = sum(n.op == "Add" for n in before.nodes)
    assert sum(n.op == "Add" for n in after.nodes) - count == adds
    rng = np.random.default_rng(0)
    feeds = {
        t.name: rng.standard_normal([d if isinstance(d, int) else 3 for d in t.shape]).astype(np.float32)
        for t in before.inputs
    }
    got = run(export_model(after), feeds)
    for name, want in run(export_model(explicitly(before, ctx)), feeds).items():
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-5 * np.abs(want).max())
    return after


CONV = "float[N,3,5,5] x, float[4,3,3,3] w_1, float[4] b_1"


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        (CONV, "c = Conv (x, w_1, b_1) y = Relu (c)"),
        ("float[N,3,5,5] x, float[4,3,3,3] w_1", "c = Conv (x, w_1) y = Relu (c)"),
        ("float[N,3,5] x, float[6,1,3] w_1", "c = Conv <group = 3> (x, w_1) y = Relu (c)"),
        ("float[N,4,3,3] x, float[4,3,2,2] w_1", "c = ConvTranspose <group = 2> (x, w_1) y = Relu (c)"),
        ("float[N,4,3,3] x, float[4,3,2,2] w_1, float[3] b_1", "c = ConvTranspose (x, w_1, b_1) y = Relu (c)"),
        ("float[N,3] x, float[3,4] w_1, float[4] b_1", "c = Gemm (x, w_1, b_1) y = Relu (c)"),
        ("float[N,3] x, float[3,4] w_1", "c = Gemm <alpha = 0.5, beta = 0.25> (x, w_1) y = Relu (c)"),
        ("float[N,3] x, float[4,3] w_1, float[1] b_1", "c = Gemm <transB = 1, beta = 0.25> (x, w_1, b_1) y = Relu (c)"),
        ("float[N,3] x, float[3,4] w_1, float b_1", "c = Gemm (x, w_1, b_1) y = Relu (c)"),
        ("float[N,3] x, float[3,4] w_1, float[4] b_1", "m = MatMul (x, w_1) c = Add (m, b_1) y = Relu (c)"),
        ("float[N,5,3] x, float[3,4] w_1, float[4] b_1", "m = MatMul (x, w_1) c = Add (b_1, m) y = Relu (c)"),
        ("float[N,5,3] x, float[3,4] w_1, float b_1", "m = MatMul (x, w_1) c = Add (b_1, m) y = Relu (c)"),
        ("float[N,3,5,5] x, float[3,1,1] b_1", "c = Add (x, b_1) y = Relu (c)"),
        ("float[N,3,5,5] x, float[5,5] b_1", "c = Add (x, b_1) y = Relu (c)"),
        (CONV, "c = Conv (x, w_1, b_1) m = MaxPool <kernel_shape = [2,2]> (c) y = Relu (m)"),
        (CONV + ", float[N,4,3,3] z", "c = Conv (x, w_1, b_1) s = Add (z, c) y = Relu (s)"),
        (CONV + ", float[N,4,1,1] z", "c = Conv (x, w_1, b_1) s = Add (z, c) y = Relu (s)"),
        (CONV + ", float[N,4,3,3] z, float[N,4,3,3] v", "c = Conv (x, w_1) s = Add (z, c) t = Add (s, v) y = Relu (t)"),
    ],
    ids=lambda v: v if "=" in v else "",
)
def test_a_bias_takes_the_shift(inputs: str, body: str) -> None:
    rank = inputs.split("]")[0].count(",")
    check(f"g ({inputs}) => (float[N,{','.join('PQRS'[:rank])}] y) {{ {body} }}", adds=0)


@pytest.mark.parametrize(
    ("inputs", "body", "outputs"),
    [
        (CONV, "c = Conv (x, w_1, b_1) y = Relu (c) e = Exp (c)", "float[N,4,3,3] y, float[N,4,3,3] e"),
        (CONV, "c = Conv (x, w_1, b_1) y = Relu (c)", "float[N,4,3,3] y, float[N,4,3,3] c"),
        ("float[N,3,5,5] x", "y = Relu (x)", "float[N,3,5,5] y"),
        (CONV, "c = Conv (x, w_1, b_1) s = Sigmoid (c) y = Relu (s)", "float[N,4,3,3] y"),
        (CONV, "c = Conv (x, w_1, b_1) m = AveragePool <kernel_shape = [2,2]> (c) y = Relu (m)", "float[N,4,2,2] y"),
        (CONV, "c = Conv (x, w_1, b_1) t = Transpose <perm = [0,2,3,1]> (c) y = Relu (t)", "float[N,3,3,4] y"),
        # twice the same current: a bias in it would count twice
        (CONV, "c = Conv (x, w_1, b_1) s = Add (c, c) y = Relu (s)", "float[N,4,3,3] y"),
        # one feature that is broadcast along the channels of the other
        (
            "float[N,3,5,5] x, float[1,3,3,3] w_1, float[N,4,3,3] z",
            "c = Conv (x, w_1) s = Add (c, z) y = Relu (s)",
            "float[N,4,3,3] y",
        ),
        ("float[N,3] x, float[3,4] w_1, float[1,4] b_1", "c = Gemm (x, w_1, b_1) y = Relu (c)", "float[N,4] y"),
        (
            "float[N,3] x, float[3,4] w_1, float[4] b_1",
            "c = Gemm <beta = 0.0> (x, w_1, b_1) y = Relu (c)",
            "float[N,4] y",
        ),
        ("float[N,3] x, float[3,4] w_1, float[N,4] z", "c = Gemm (x, w_1, z) y = Relu (c)", "float[N,4] y"),
        ("float[N,3] x, float[3,4] w_1", "c = MatMul (x, w_1) y = Relu (c)", "float[N,4] y"),
    ],
    ids=lambda v: v if "=" in v else "",
)
def test_where_nothing_can_take_it_the_shift_is_added(inputs: str, body: str, outputs: str) -> None:
    check(f"g ({inputs}) => ({outputs}) {{ {body} }}", adds=1)


def test_shared_constants_are_left_alone() -> None:
    """Weights, biases and addends that two layers share: each neuron gets its own shift."""
    text = """g (float[N,3,5,5] x, float[3,3,3,3] w_1, float[3] b_1, float[3,1,1] b_2) => (float[N,3,1,1] y) {
        c1 = Conv (x, w_1, b_1) r1 = Relu (c1) c2 = Conv (r1, w_1, b_1) a = Add (c2, b_2) r2 = Relu (a)
        p = Add (r2, b_2) y = Relu (p)
    }"""
    after = check(text, adds=0)
    before = import_graph(parse(text))
    for name in ("w_1", "b_1", "b_2"):
        kept = after.tensors().get(name)
        assert kept is None or np.array_equal(constant(kept), constant(before.tensors()[name]))
    nodes = {n.name: n for n in after.nodes}
    assert nodes["c1"].inputs[1].name == nodes["c2"].inputs[1].name == "w_1"
    assert not np.array_equal(nodes["c1"].inputs[2].values, nodes["c2"].inputs[2].values) or (
        nodes["c2"].inputs[2].name == "b_1"  # the shift of r2 went into the addend
    )


def test_current_of_two_neurons_is_left_alone() -> None:
    text = f"g ({CONV}) => (float[N,4,3,3] y, float[N,4,3,3] z) {{ c = Conv (x, w_1, b_1) y = Relu (c) z = Relu (c) }}"
    check(text, adds=2)
    check(text, adds=1, only=("z",))


def test_no_shift_no_change() -> None:
    graph = import_graph(parse(f"g ({CONV}) => (float[N,4,3,3] y) {{ c = Conv (x, w_1, b_1) y = Relu (c) }}"))
    infer_shapes(graph)
    before = export_model(graph).SerializeToString(deterministic=True)
    ctx = Context(Config())
    ctx.analysis = analyse(graph)
    for shift in (None, np.zeros(4, np.float32)):
        ctx.layers["y"] = LayerCalibration(
            np.ones(4, np.float32), "data", 0.5, bias_shift=shift, max_burst=4, threshold_ratio=1.0
        )
        assert CorrectBias().run(graph, ctx) is False
    assert export_model(graph).SerializeToString(deterministic=True) == before
