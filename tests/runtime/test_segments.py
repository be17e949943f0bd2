"""Cutting a network at its neurons: every node once, in an order that can be run, with the right ends."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from small_networks import NETWORKS, inputs_of, parse, run

from snncc.analysis import Analysis, Domain
from snncc.graph import import_graph, infer_shapes
from snncc.passes.analyse import analyse
from snncc.runtime.buffers import BufferPool
from snncc.runtime.segments import Segment, SegmentRunner, plan


def cut(text: str, op: str = "Relu") -> tuple[gs.Graph, Analysis, list[Segment | gs.Node]]:
    graph = import_graph(parse(text))
    infer_shapes(graph)
    analysis = analyse(graph)
    return graph, analysis, plan(graph, analysis, lambda node: node.op == op)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_node_runs_once_and_after_what_it_reads(name: str) -> None:
    graph, analysis, steps = cut(NETWORKS[name].text)
    known = {t.name for t in graph.inputs}
    ran: list[str] = []
    for step in steps:
        nodes = step.nodes if isinstance(step, Segment) else (step,)
        reads = [t.name for t in (step.inputs if isinstance(step, Segment) else step.inputs[:1])]
        assert known.issuperset(reads)
        known.update(t.name for t in step.outputs)
        ran += [n.name for n in nodes]
        if isinstance(step, Segment):
            assert {analysis.domains[n.name] for n in nodes} == {step.domain}
    assert sorted(ran) == sorted(n.name for n in graph.nodes)
    assert known.issuperset(t.name for t in graph.outputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_segments_together_compute_the_network(name: str) -> None:
    graph, analysis, steps = cut(NETWORKS[name].text)
    model = NETWORKS[name].model()
    feeds = inputs_of(model, 2)
    batch = graph.inputs[0].shape[0]
    values = {k: v[:batch] if isinstance(batch, int) else v for k, v in feeds.items()}
    expected = run(model, values)
    for step in steps:
        if isinstance(step, Segment):
            values.update(SegmentRunner(graph, step, analysis, threads=1).run(values))
        else:
            values[step.outputs[0].name] = np.maximum(values[step.inputs[0].name], 0)
    for output, want in expected.items():
        np.testing.assert_allclose(values[output], want, rtol=1e-4, atol=1e-5)


def test_static_nodes_run_apart_from_temporal_ones() -> None:
    _, _, steps = cut(NETWORKS["static_branch"].text)
    shown = [(s.domain.value, [n.name for n in s.nodes]) if isinstance(s, Segment) else s.name for s in steps]
    assert shown == [
        ("static", ["c1"]),
        "r1",
        ("static", ["c3", "side"]),
        ("temporal", ["c2", "s"]),
        "r2",
        ("static", ["e", "q"]),
        ("readout", ["p", "d", "f", "y"]),
    ]


@pytest.mark.parametrize("buffers", [None, BufferPool()], ids=["fresh", "used"])
@pytest.mark.parametrize("name", ["static_branch", "samples_moved", "channels_last", "residual"])
def test_over_time_is_step_by_step(name: str, buffers: BufferPool | None) -> None:
    """Folded into the batch axis or one by one: the same as running each step on its own."""
    if buffers is not None:
        buffers.give(np.full(5000, np.nan, np.float32))
    graph, analysis, steps = cut(NETWORKS[name].text)
    temporal = [s for s in steps if isinstance(s, Segment) and s.domain is Domain.TEMPORAL]
    assert temporal
    rng = np.random.default_rng(0)
    for segment in temporal:
        runner = SegmentRunner(graph, segment, analysis, threads=1, buffers=buffers)
        varying = {t.name for t in segment.inputs if analysis.tensors[t.name] is Domain.TEMPORAL}
        feeds = {}
        for tensor in segment.inputs:
            shape = [d if isinstance(d, int) else 2 for d in tensor.shape]
            lead = [3] if tensor.name in varying else []
            feeds[tensor.name] = rng.standard_normal([*lead, *shape]).astype(np.float32)
        result = runner.run_over_time(feeds, varying, 3)
        for t in range(3):
            alone = runner.run({k: v[t] if k in varying else v for k, v in feeds.items()})
            for output, want in alone.items():
                np.testing.assert_allclose(result[output][t], want, rtol=1e-5, atol=1e-6)
