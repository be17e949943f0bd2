"""Thresholds in the weights: with powers of two as thresholds nothing is rounded, so all outputs must be the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from small_networks import NETWORKS, compiled, inputs_of, run

from snncc.artifact import used_functions
from snncc.graph import DOMAIN, export_model, import_graph
from snncc.passes.fold_thresholds import FOLDABLE, fold_thresholds, unfold_thresholds, units

T = 4
BURST = f"snncc.BurstIF <timesteps = {T}, max_burst = 3, threshold_ratio = 2.0>"
SIGNED = f"snncc.SignedBurstRelu <timesteps = {T}, max_burst = 3, threshold_ratio = 2.0>"
CLIP = f"snncc.SignedBurstClip <timesteps = {T}, max_burst = 3, threshold_ratio = 2.0, upper = 1.5>"
REPEAT, DECODE = f"snncc.RepeatInput <timesteps = {T}>", f"snncc.RateDecode <timesteps = {T}>"
POOL = "<timesteps = 4, kernel_shape = [2,2], strides = [2,2], pads = [0,0,0,0], dilations = [1,1], ceil_mode = 0>"
SAME = "<pads = [1,1,1,1]>"
SHAPES = {
    "w_1": (4, 2, 3, 3),
    "w_2": (4, 4, 3, 3),
    "w_3": (4, 4, 3, 3),
    "b": (4,),
    "w_group": (4, 2, 3, 3),
    "w_turned": (4, 2, 3, 3),
    "w_dense": (64, 5),
    "w_turned_dense": (5, 64),
    "b_dense": (5,),
    "w_last": (5, 3),
    "added": (4, 1, 1),
    "one": (1, 4, 3, 3),
}

# What is behind `a`, the spikes of neurons with a threshold per channel, and how many stay with their thresholds.
LOWERED = {
    "plain": (f"c2 = Conv {SAME} (a, w_2, b) n2 = {BURST} (c2, t2, v) z = {DECODE} (n2) y = Conv (z, w_3)", 0, 0),
    "signed": (f"c2 = Conv {SAME} (a, w_2, b) n2 = {SIGNED} (c2, t2, v) z = {DECODE} (n2) y = Conv (z, w_3)", 0, 0),
    "clip": (f"c2 = Conv {SAME} (a, w_2, b) n2 = {CLIP} (c2, t2, v) z = {DECODE} (n2) y = Conv (z, w_3)", 0, 0),
    "residual": (
        f"c2 = Conv {SAME} (a, w_2, b) s = Add (c2, a) n2 = {BURST} (s, t2, v) z = {DECODE} (n2) y = Conv (z, w_3)",
        0,
        1,
    ),
    "addend": (
        f"c2 = Conv {SAME} (a, w_2) s = Add (c2, added) n2 = {BURST} (s, t2, v) z = {DECODE} (n2) y = Conv (z, w_3)",
        0,
        0,
    ),
    "broadcast_term": (
        f"c2 = Conv {SAME} (a, w_2) c3 = Conv {SAME} (a, one) s = Add (c2, c3) n2 = {BURST} (s, t2, v) "
        f"z = {DECODE} (n2) y = Conv (z, w_3)",
        0,
        1,
    ),
    "pools": (
        f"p = snncc.MaxPoolIncrement {POOL} (a) c2 = Conv {SAME} (p, w_2, b) "
        f"q = AveragePool <kernel_shape = [2,2]> (c2) n2 = {BURST} (q, t2, v) z = {DECODE} (n2) "
        f"y = Conv <pads = [1,1,1,1]> (z, w_3)",
        0,
        0,
    ),
    "groups": (
        f"c2 = Conv <pads = [1,1,1,1], group = 2> (a, w_group, b) n2 = {BURST} (c2, t2, v) z = {DECODE} (n2) "
        f"y = Conv (z, w_3)",
        0,
        0,
    ),
    "turned": (
        f"c2 = ConvTranspose <pads = [1,1,1,1], group = 2> (a, w_turned, b) n2 = {BURST} (c2, t2, v) "
        f"z = {DECODE} (n2) y = Conv (z, w_3)",
        0,
        0,
    ),
    "dense": (
        f"f = Flatten (a) c2 = Gemm (f, w_dense, b_dense) n2 = {BURST} (c2, t5, v) z = {DECODE} (n2) "
        "y = MatMul (z, w_last)",
        0,
        0,
    ),
    "dense_turned": (
        f"f = Reshape (a, flat) c2 = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (f, w_turned_dense, b_dense) "
        f"n2 = {BURST} (c2, t5, v) z = {DECODE} (n2) y = MatMul (z, w_last)",
        0,
        0,
    ),
    "two_sums": (f"s = Add (a, a) z = {DECODE} (s) y = Conv (z, w_3)", 1, 0),
    "shared": (
        f"c2 = Conv {SAME} (a, w_2, b) n2 = {BURST} (c2, t2, v) c3 = Conv {SAME} (n2, w_2, b) n3 = {BURST} (c3, t1, v) "
        f"z = {DECODE} (n3) y = Conv (z, w_3)",
        0,
        0,
    ),
    "nothing_takes_it": (f"s = Sigmoid (a) q = Tanh (a) m = Mul (s, q) y = {DECODE} (m)", 1, 0),
    "output": (f"c2 = Conv {SAME} (a, w_2, b) y = {BURST} (c2, t2, v)", 1, 0),
}


def lowered(name: str) -> onnx.ModelProto:
    """A network as lowering leaves it."""
    rng = np.random.default_rng(0)
    powers = 2.0 ** rng.integers(-3, 4, (2, 4))
    text = f"""<ir_version: 8, opset_import: ["" : 17, "snncc" : 1]> g (float[N,2,4,4] x) => (float[A,B,C,D] y)
    {{ c1 = Conv {SAME} (x, w_1, b) r = {REPEAT} (c1) a = {BURST} (r, t1, v) {LOWERED[name][0]} }}"""
    if "w_last" in text:
        text = text.replace("float[A,B,C,D] y", "float[A,B] y")
    model = onnx.parser.parse_model(text)
    values = {key: np.round(8 * rng.standard_normal(shape)) / 16 for key, shape in SHAPES.items()}
    values |= {"t1": powers[0].reshape(1, 4, 1, 1) / 4, "t2": powers[1].reshape(1, 4, 1, 1) / 4}
    values |= {"t5": np.array([[0.5, 2, 1, 0.25, 4]]), "v": np.array(0.5)}
    for key, value in values.items():
        if key in {name for node in model.graph.node for name in node.input}:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), key))
    if "flat" in text:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 64]), "flat"))
    return onnx.shape_inference.infer_shapes(with_functions(import_graph(model)), data_prop=True)


def with_functions(graph: gs.Graph) -> onnx.ModelProto:
    model = export_model(graph)
    model.functions.extend(used_functions(graph))
    return model


def opened(model: onnx.ModelProto) -> gs.Graph:
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.functions[:]
    return import_graph(bare)


def kinds(graph: gs.Graph) -> list[str]:
    return sorted(node.op for node in graph.nodes if node.domain == DOMAIN)


def weights(graph: gs.Graph) -> dict[tuple[str, int], np.ndarray]:
    found = {}
    for node in graph.nodes:
        for position, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant):
                found[node.name or node.outputs[0].name, position] = tensor.values
    return found


@pytest.mark.parametrize("name", LOWERED)
def test_outputs_stay_and_what_was_folded_comes_back(name: str) -> None:
    model, (_, kept, rescaled) = lowered(name), LOWERED[name]
    graph, before = opened(model), opened(model)
    x = {"x": np.random.default_rng(2).standard_normal((2, 2, 4, 4)).astype(np.float32)}
    x["x"] = np.round(x["x"] * 16) / 16  # so that sums are exact in any order
    expected = run(model, x)["y"]
    assert len(np.unique(expected)) >= 4
    total = sum(kind in FOLDABLE for kind in kinds(before))
    assert fold_thresholds(graph) is (kept < total)
    made = kinds(graph)
    assert sum(kind in FOLDABLE for kind in made) == kept
    assert made.count("Rescale") == rescaled
    assert ("RepeatInput" in made) is (made.count("BurstIFUnitConstant") == 0)
    np.testing.assert_array_equal(run(with_functions(graph), x)["y"], expected)
    unfold_thresholds(graph)
    assert kinds(graph) == kinds(before)
    old, new = weights(before), weights(graph)
    assert old.keys() == new.keys()
    for key, value in old.items():
        np.testing.assert_array_equal(new[key].reshape(value.shape), value)
    np.testing.assert_array_equal(run(with_functions(graph), x)["y"], expected)


def test_thresholds_that_would_overflow_stay() -> None:
    graph = opened(lowered("plain"))
    theta = next(node for node in graph.nodes if node.op == "BurstIF").inputs[1]
    theta.values = theta.values * np.float32(1e-31)
    assert fold_thresholds(graph)
    assert kinds(graph).count("BurstIFUnit") == 1
    graph = opened(lowered("plain"))
    for node in graph.nodes:
        if node.op == "Conv":
            node.inputs[1] = gs.Constant(f"{node.outputs[0].name}.w", node.inputs[1].values * np.float32(1e38))
    before = weights(graph)
    assert not fold_thresholds(graph)
    assert kinds(graph).count("BurstIF") == 2
    for key, value in weights(graph).items():
        np.testing.assert_array_equal(value, before[key])


FOLDED = [name for name, small in NETWORKS.items() if small.lowering == "batch"]


@pytest.mark.parametrize("name", FOLDED)
def test_an_artifact_gives_back_its_thresholds(name: str) -> None:
    """To a rounding of the weights; folded again it is the artifact."""
    model = NETWORKS[name].model()
    artifact = compiled(model, timesteps=T).model
    graph, again = opened(artifact), opened(artifact)
    unfold_thresholds(graph)
    assert not [kind for kind in kinds(graph) if "Unit" in kind or kind == "Rescale"]
    fold_thresholds(graph)
    assert kinds(graph) == kinds(again)
    old, new = weights(again), weights(graph)
    assert len(old) == len(new)
    for value, other in zip(old.values(), new.values(), strict=True):
        np.testing.assert_allclose(other, value, rtol=3e-7, atol=0)
    feeds = inputs_of(model, 2)
    for output, value in run(artifact, feeds).items():
        assert run(with_functions(graph), feeds)[output].shape == value.shape


def test_a_residual_block_needs_one_factor() -> None:
    """The identity's spikes are in another unit than those that leave; all else is in the weights."""
    artifact = compiled(NETWORKS["residual"].model(), timesteps=T, neuron="burst").model
    ops = [node.op_type for node in artifact.graph.node if node.domain == DOMAIN]
    assert ops.count("Rescale") == 1


def test_weights_of_8_bits_keep_their_units() -> None:
    artifact = compiled(NETWORKS["residual"].model(), timesteps=T, weights="int8").model
    assert not [n for n in artifact.graph.node if n.domain == DOMAIN and "Unit" in n.op_type]


def test_units_are_those_of_the_tensors_that_are_counts() -> None:
    graph = opened(lowered("pools"))
    neurons = [node for node in graph.nodes if node.op == "BurstIF"]
    theta = [node.inputs[1].values * node.attrs["threshold_ratio"] for node in neurons]
    assert units(graph) == {}
    fold_thresholds(graph)
    found = units(graph)
    first, second = (("c1", "a", "p"), ("c2", "q", "n2", "z"))
    assert set(found) == {*first, *second}
    for name, value in [*((n, theta[0]) for n in first), *((n, theta[1]) for n in second)]:
        np.testing.assert_array_equal(found[name], value)
