"""The whole sequence on networks as exporters leave them, and the loop in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest
from graph_checks import ROUNDING, assert_same, parse

from snncc.config import Config
from snncc.context import Context
from snncc.graph import export_model, import_graph, shape_of
from snncc.passes.base import Pass
from snncc.passes.fixpoint import Fixpoint
from snncc.passes.normalise import NORMALISE
from snncc.passes.upgrade_opset import upgrade_opset


def normalise(model: onnx.ModelProto, tolerance: float = ROUNDING) -> gs.Graph:
    upgraded, _ = upgrade_opset(model)
    graph, ctx = import_graph(upgraded), Context(Config())
    for step in NORMALISE:
        step.run(graph, ctx)
    after = export_model(graph)
    onnx.checker.check_model(after, full_check=True)
    assert_same(model, after, tolerance)
    assert not any(step.run(graph, ctx) for step in NORMALISE)
    return graph


TORCH_STYLE = """g (float[N,2,6,6] x, float[4,2,3,3] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var,
    float[64,5] v, float[5] b) => (float[N,5] y) {
    c = Conv<pads=[0,0,0,0]>(x, w)
    n = BatchNormalization(c, gamma, beta, mean, var)
    r = Relu(n)
    s = Shape(r)
    zero = Constant<value: tensor = int64 {0}>()
    batch = Gather<axis=0>(s, zero)
    axis = Constant<value: tensor = int64[1] {0}>()
    rows = Unsqueeze(batch, axis)
    rest = Constant<value: tensor = int64[1] {-1}>()
    target = Concat<axis=0>(rows, rest)
    f = Reshape(r, target)
    d = Dropout(f)
    m = MatMul(d, v)
    p = Add(m, b)
    y = Identity(p) }"""


def test_a_network_as_torch_leaves_it() -> None:
    graph = normalise(parse(TORCH_STYLE, ("w", "gamma", "beta", "mean", "var", "v", "b")))
    ops = [node.op for node in graph.nodes]
    assert ops[:2] == ["Conv", "Relu"]
    assert ops[-2:] == ["Reshape", "Gemm"]
    assert not {"BatchNormalization", "Dropout", "Identity", "Constant", "Add"} & set(ops)
    assert all(shape_of(t) is not None and t.dtype is not None for t in graph.tensors().values())


def test_with_a_static_batch_the_shape_arithmetic_goes() -> None:
    text = TORCH_STYLE.replace("float[N,2,6,6]", "float[3,2,6,6]").replace("float[N,5]", "float[3,5]")
    graph = normalise(parse(text, ("w", "gamma", "beta", "mean", "var", "v", "b")))
    assert [node.op for node in graph.nodes] == ["Conv", "Relu", "Reshape", "Gemm"]
    target = graph.nodes[2].inputs[1].values
    np.testing.assert_array_equal(target, [3, -1])


def test_float16_with_batchnorm() -> None:
    text = """g (float16[N,4] x, float16[4,4] w, float16[4] gamma, float16[4] beta, float16[4] mean, float16[4] var)
        => (float16[N,4] y) {
        c = Gemm(x, w)
        f = Cast<to=1>(c)
        h = Cast<to=10>(f)
        n = Mul(h, gamma)
        y = Relu(n) }"""
    graph = normalise(parse(text, ("w", "gamma", "beta", "mean", "var")), tolerance=1e-2)  # float16 rounds to 2^-11
    assert [node.op for node in graph.nodes] == ["Cast", "Gemm", "Relu", "Cast"]


@pytest.mark.parametrize("opset", [9, 12])
def test_an_old_opset(opset: int) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 4, opset_import: ["" : {opset}]>
        g (float[2,3,4,4] x) => (float[2,3,8,8] y) {{
        s = Constant<value: tensor = float[4] {{1,1,2,2}}>()
        a = Relu(x)
        y = {"Upsample(a, s)" if opset == 9 else "Resize(a, e, s)"} }}"""
    )
    if opset > 9:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(0, np.float32), "e"))
    assert [node.op for node in normalise(model).nodes] == ["Relu", "Resize"]


@dataclass(frozen=True)
class Countdown(Pass):
    """Change the graph's name `start` times."""

    start: int

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        done = len(graph.doc_string)
        graph.doc_string += "." if done < self.start else ""
        return done < self.start


@pytest.mark.parametrize(("start", "rounds", "steps"), [(0, 16, 0), (3, 16, 3), (99, 4, 4)])
def test_fixpoint_ends(start: int, rounds: int, steps: int) -> None:
    graph = gs.Graph()
    loop = Fixpoint((Countdown(start),), max_rounds=rounds)
    assert loop.run(graph, Context(Config())) == (steps > 0)
    assert len(graph.doc_string) == steps
    assert loop.name == "Fixpoint(Countdown)"
