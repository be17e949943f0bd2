"""Multiply-accumulates of layers with their samples on another axis, against those counted by hand."""

from __future__ import annotations

import onnx
from graph_checks import parse

from snncc.config import Config
from snncc.context import Context
from snncc.graph import export_model, import_graph, infer_shapes
from snncc.passes.analyse import Analyse, analyse
from snncc.passes.sample_size import count_one_sample

BODY = """t = Transpose <perm=[1,0,2]> (x) [first] h = MatMul(t, w) r = Relu(h) [second] c = MatMul(r, v) q = Relu(c)
    y = Transpose <perm=[1,0,2]> (q)"""


def sequence_first(batch: str, length: str) -> onnx.ModelProto:
    """Return a network of two layers of 4·6 and 6·3 weights at each step of the sequence."""
    text = f"g (float[{batch},{length},4] x, float[4,6] w, float[6,3] v) => (float[{batch},{length},3] y) {{ {BODY} }}"
    return parse(text, ("w", "v"))


def macs(model: onnx.ModelProto) -> dict[str, int | None]:
    graph, ctx = import_graph(model), Context(Config())
    infer_shapes(graph)
    before = export_model(graph)
    Analyse().run(graph, ctx)
    assert export_model(graph) == before
    return {layer.node: layer.macs for layer in ctx.analysis.layers}


def test_samples_on_another_axis() -> None:
    assert macs(sequence_first("N", "5")) == {"first": 5 * 24, "second": 5 * 18}
    assert macs(sequence_first("2", "5")) == {"first": 5 * 24, "second": 5 * 18}


def test_without_the_copy_they_are_not_known() -> None:
    graph = import_graph(sequence_first("N", "5"))
    infer_shapes(graph)
    analysis = analyse(graph)
    assert [layer.macs for layer in analysis.layers] == [None, None]
    count_one_sample(graph, analysis)
    assert [layer.macs for layer in analysis.layers] == [120, 90]


def test_another_open_size_stays_open() -> None:
    assert macs(sequence_first("N", "L")) == {"first": None, "second": None}


def test_what_the_network_brings_itself_counts_too() -> None:
    text = """g (float[N,5,4] x, float[2,5,4] b, float[4,6] w) => (float[5,P,6] y) { s = Concat <axis=0> (x, b)
        t = Transpose <perm=[1,0,2]> (s) h = MatMul(t, w) y = Relu(h) }"""
    assert macs(parse(text, ("w", "b"))) == {"h": 5 * 3 * 24}


def test_a_network_that_takes_no_single_sample_stays_uncounted() -> None:
    text = """g (float[N,5,4] x, float[4,6] w) => (float[5,P,6] y) { [split] a, b = Split <axis=0, num_outputs=2> (x)
        d = Concat <axis=1> (a, b) k = Constant <value=int64[3] {5, -1, 4}> () e = Reshape(d, k) h = MatMul(e, w)
        y = Relu(h) }"""
    model = parse('<ir_version: 8, opset_import: ["" : 18]> ' + text, ("w",))
    assert macs(model) == {"h": None}
