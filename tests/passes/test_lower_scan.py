"""The attributes of MaxPool with defaults written out: the same pooling; and what a Scan refuses.

What the Scan computes is tested together with the fold, in test_lower.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from small_networks import NETWORKS, compiled, inputs_of, parse, run

from snncc.errors import UnsupportedModelError
from snncc.evaluate import evaluate
from snncc.graph import export_model, import_graph, infer_shapes
from snncc.passes.lower_scan import pool_attributes

NAMES = {"kernel_shape", "strides", "pads", "dilations", "ceil_mode"}


@pytest.mark.parametrize(
    "attributes",
    [
        "kernel_shape = [2]",
        "kernel_shape = [3], strides = [2]",
        "kernel_shape = [3], strides = [2], ceil_mode = 1",
        "kernel_shape = [3], strides = [2], pads = [1,1]",
        "kernel_shape = [2], strides = [3], pads = [1,0], ceil_mode = 1",
        "kernel_shape = [2], dilations = [3]",
        'kernel_shape = [3], strides = [2], auto_pad = "VALID"',
        'kernel_shape = [2], auto_pad = "NOTSET"',
        *(
            f'kernel_shape = [{k}], strides = [{s}], auto_pad = "{mode}"'
            for k, s, mode in itertools.product((2, 3, 4), (1, 2), ("SAME_UPPER", "SAME_LOWER"))
        ),
    ],
)
@pytest.mark.parametrize("size", [7, 8])
def test_pooling_is_the_same_with_every_default_written_out(attributes: str, size: int) -> None:
    model = parse(f"g (float[N,2,{size}] x) => (float[N,2,L] y) {{ y = MaxPool <{attributes}> (x) }}")
    graph = import_graph(model)
    infer_shapes(graph)
    node = graph.nodes[0]
    node.attrs = pool_attributes(node)
    assert node.attrs.keys() == NAMES
    x = {"x": np.random.default_rng(0).standard_normal((2, 2, size)).astype(np.float32) - 3}
    np.testing.assert_array_equal(run(export_model(graph), x)["y"], run(model, x)["y"])


@pytest.mark.parametrize(("kernel", "stride", "size"), [*itertools.product((2, 3), (1, 2), (7, 8))])
def test_same_padding_of_a_dilated_window_is_that_of_the_standard(kernel: int, stride: int, size: int) -> None:
    """The output has ceil(size / stride) elements. (onnxruntime 1.32 overlooks the dilation here.)"""
    attributes = f'kernel_shape = [{kernel}], strides = [{stride}], dilations = [2], auto_pad = "SAME_UPPER"'
    graph = import_graph(parse(f"g (float[N,2,{size}] x) => (float[N,2,L] y) {{ y = MaxPool <{attributes}> (x) }}"))
    infer_shapes(graph)
    graph.nodes[0].attrs = pool_attributes(graph.nodes[0])
    x = {"x": np.ones((1, 2, size), np.float32)}
    assert run(export_model(graph), x)["y"].shape == (1, 2, -(-size // stride))


def test_same_padding_needs_a_size() -> None:
    text = 'g (float[N,2,L] x) => (float[N,2,M] y) { y = MaxPool <kernel_shape = [2], auto_pad = "SAME_UPPER"> (x) }'
    graph = import_graph(parse(text))
    infer_shapes(graph)
    with pytest.raises(UnsupportedModelError, match="SAME_UPPER depends on an input size that isn't fixed"):
        pool_attributes(graph.nodes[0])


def test_states_start_at_their_shape() -> None:
    """Of a fixed batch: constants. The initial membrane potential is the layer's v0, in units of the threshold."""
    network = compiled(NETWORKS["samples_moved_late"].model(), timesteps=2, v_init=0.25, neuron="burst")
    scan = next(n for n in network.model.graph.node if n.op_type == "Scan")
    states = [n for n in network.model.graph.node if n.op_type == "Expand"]
    assert len(states) == 4  # three neurons, one MaxPool
    values = {t.name: onnx.numpy_helper.to_array(t).tolist() for t in network.model.graph.initializer}
    found = sorted((values[n.input[0]], values[n.input[1]]) for n in states)
    zeroth, first, second = (layer.v_init for layer in network.record.layers)
    assert found == sorted([(0.0, [1, 6, 5]), (zeroth, [1, 6, 5]), (first, [1, 6, 5]), (second, [6, 1, 4])])
    assert values[scan.input[len(states)]] == [1.0, 2.0]


MIXED = """g (float[N,4,6] x, float[6,5] w_1, float[5] b_1, float[5,3] w_2) => (float[4,N,3] y) {
    r = Relu (x) t = Transpose <perm = [1,0,2]> (r) m = MatMul (t, w_1) a = Add (m, b_1) s = Softmax (a)
    h = MatMul (s, w_2) k = Tanh (h) y = Relu (k)
}"""


@pytest.mark.parametrize("samples", [1, 3])
def test_states_of_open_size_take_their_shape_from_a_copy(samples: int) -> None:
    """The batch moves to another axis, so its size at the states isn't known; any number of samples runs."""
    model = parse(MIXED)
    network = compiled(model, samples=40, timesteps=128, batch_size=40)
    assert network.record.network["lowering"] == "scan"
    feeds = inputs_of(model, samples, seed=4)
    expected = run(model, feeds)["y"]
    for backend in ("ort", "numpy", "fused"):
        got = network.run(feeds, backend=backend)["y"]
        assert got.shape == expected.shape
        assert np.linalg.norm(got - expected) < 0.02 * np.linalg.norm(expected)
    names = [n.name for n in network.network.nodes]
    assert not [n for n in names if "shape_only" in n]  # nothing of the copy is left without time


def test_evaluation_where_samples_cannot_be_told_apart() -> None:
    """Activity is summed run by run: the runs get one size, and the sums are those of all samples."""
    model = parse(MIXED)
    network = compiled(model, samples=8, timesteps=4)
    feeds = inputs_of(model, 9, seed=4)
    reading = evaluate(network, feeds, batch_size=6).reading
    single = network.simulator().run({"x": feeds["x"][:1]})
    assert {n.name: n.neurons for n in reading.neurons} == {name: v.size for name, v in single.spikes.items()}
    total = sum(sum(s.sum() for s in network.simulator().run({"x": x[None]}).spikes.values()) for x in feeds["x"])
    assert reading.spikes == pytest.approx(total / 9, rel=1e-3)


def test_warning_says_which_node_is_in_the_way() -> None:
    warnings = compiled(NETWORKS["samples_moved"].model(), timesteps=2).record.warnings
    assert any("node 't' (Transpose)" in w and "Scan" in w for w in warnings)
