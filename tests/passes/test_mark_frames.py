"""The mark behind inputs that present frames, and what the analysis makes of it."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from small_networks import NETWORKS, parse

from snncc.analysis import Domain, Form, Traffic
from snncc.compiling import analyse_network
from snncc.config import Config
from snncc.context import Context
from snncc.ops import is_frames
from snncc.passes.mark_frames import MarkFrames
from snncc.pipeline import Hook
from snncc.sources import read_ann


def analysed(text: str, **options: object) -> tuple[gs.Graph, Context]:
    ctx = Context(Config(input_coding="frames", **options))  # type: ignore[arg-type]
    return analyse_network(read_ann(parse(text)), ctx, Hook()), ctx


def test_the_mark_stands_behind_the_input_for_all_who_read_it() -> None:
    text = """g (float[N,6] x, float[6,6] w_1) => (float[N,6] y) { h = MatMul(x, w_1) r = Relu(h) y = Add(r, x) }"""
    graph, ctx = analysed(text)
    marks = [node for node in graph.nodes if is_frames(node)]
    assert [node.inputs[0].name for node in marks] == ["x"]
    assert marks[0].attrs == {"timesteps": 8, "period": 8}
    assert [node.op for node in graph.inputs[0].outputs] == ["Frames"]
    assert {node.op for node in marks[0].outputs[0].outputs} == {"MatMul", "Add"}
    assert ctx.analysis.tensors["x"] is Domain.TEMPORAL


def test_nothing_is_hoisted_and_the_first_layer_sees_frames() -> None:
    graph, ctx = analysed(NETWORKS["plain"].text)
    assert Domain.STATIC not in ctx.analysis.domains.values()
    assert ctx.analysis.layers[0].driven_by is Traffic.FRAMES
    assert ctx.analysis.macs()["frames"] == ctx.analysis.layers[0].macs
    assert not ctx.analysis.neurons[0].static_input
    assert ctx.analysis.obstacles == []
    assert graph.inputs[0].shape[0] == "N"  # one frame, until it is lowered


def test_what_is_not_linear_before_the_first_neuron_runs_on_means_without_an_encoder() -> None:
    text = """g (float[N,6] x, float[6,6] w_1) => (float[N,6] y)
    { s = Softmax(x) h = MatMul(s, w_1) y = Relu(h) }"""
    graph, ctx = analysed(text, strict=True)
    softmax = next(node for node in graph.nodes if node.op == "Softmax")
    assert ctx.analysis.modes[softmax.name] is Form.MEAN
    assert ctx.analysis.layers[0].driven_by is Traffic.FRAMES
    assert len(ctx.analysis.neurons) == 1


def test_constant_inputs_are_left_alone() -> None:
    ctx = Context(Config())
    graph = analyse_network(read_ann(NETWORKS["plain"].model()), ctx, Hook())
    assert not any(is_frames(node) for node in graph.nodes)
    assert MarkFrames().run(graph, ctx) is False
    assert "frames" not in ctx.analysis.macs()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cast_between_floating_point_types_is_linear(dtype: type) -> None:
    kind = {np.float32: "float", np.float64: "double"}[dtype]
    graph, ctx = analysed(
        f"""g ({kind}[N,6] x, float[6,6] w_1) => (float[N,6] y)
        {{ f = Cast <to = 1> (x) h = MatMul(f, w_1) y = Relu(h) }}"""
    )
    assert all(ctx.analysis.modes[node.name] is Form.STEP for node in graph.nodes)
