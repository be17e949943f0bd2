"""The analysis of small networks against what a reader finds by hand: domains, traffic, obstacles, fold blockers."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from small_networks import NETWORKS, parse

from snncc.analysis import Analysis, Domain, Form, Traffic
from snncc.config import Config
from snncc.context import Context
from snncc.graph import export_model, import_graph, infer_shapes
from snncc.passes.analyse import Analyse, analyse

S, T, R = Domain.STATIC, Domain.TEMPORAL, Domain.READOUT
DENSE = "float[4,4] w_1, float[4] b_1, float[4,4] w_2, float[4] b_2"


def graph_of(text: str, opset: int = 17) -> gs.Graph:
    graph = import_graph(parse(text, opset=opset, check="float[] y" not in text))
    infer_shapes(graph)
    return graph


def analysed(text: str, opset: int = 17) -> Analysis:
    return analyse(graph_of(text, opset))


def between(body: str, inputs: str = "", constants: str = "", size: str = "[N,4,6]") -> Analysis:
    """Analyse nodes between two neurons: `h` is the first one's output, `k` the second one's current."""
    constants = f"<{constants}>" if constants else ""
    return analysed(f"g (float{size} x{inputs}) => (float[] y) {constants} {{ h = Relu (x) {body} y = Relu (k) }}")


def lines(obstacles: Analysis) -> list[str]:
    return [f"{o.node}:{o.op}" for o in obstacles.obstacles]


# --- domains --------------------------------------------------------------------------------------------------------


def test_domains_of_a_plain_network() -> None:
    found = analysed(NETWORKS["plain"].text)
    assert found.domains == {"c1": S, "r1": T, "c2": T, "r2": T, "p": R, "f": R, "y": R}
    assert found.tensors["x"] is S
    assert found.tensors["r2"] is T
    assert [(n.node, n.static_input) for n in found.neurons] == [("r1", True), ("r2", False)]
    assert found.obstacles == found.fold_blockers == found.readout_blockers == []
    assert found.foldable


def test_residual_add_is_temporal_and_the_last_neuron_an_output() -> None:
    found = analysed(NETWORKS["residual"].text)
    assert found.domains["s1"] is found.domains["y"] is T
    assert R not in found.domains.values()


def test_static_branch_that_joins_later_stays_static() -> None:
    found = analysed(NETWORKS["static_branch"].text)
    assert {n for n, d in found.domains.items() if d is S} == {"c1", "c3", "side", "e", "q"}
    assert {n for n, d in found.domains.items() if d is R} == {"p", "d", "f", "y"}
    assert found.tensors["side"] is S
    assert found.foldable


def test_relu_on_the_input_and_relu_as_output() -> None:
    found = analysed("g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }")
    assert found.domains == {"y": T}
    site = found.neurons[0]
    assert (site.static_input, site.input, site.output, site.dims, site.rank) == (True, "x", "y", (4,), 2)
    assert (site.channel_axis, site.channels) == (1, 4)


def test_two_inputs_and_two_outputs() -> None:
    found = analysed(
        f"""g (float[N,4] x, float[N,4] z, {DENSE}) => (float[N,4] y, float[N,4] e) {{
            g1 = Gemm (x, w_1, b_1) r1 = Relu (g1)
            g2 = Gemm (z, w_2, b_2) r2 = Relu (g2)
            y = Add (r1, r2)
            e = Exp (r1)
        }}"""
    )
    assert found.domains == {"g1": S, "r1": T, "g2": S, "r2": T, "y": R, "e": R}
    assert found.traffic["y"] is Traffic.SPIKES
    assert found.traffic["e"] is Traffic.READOUT
    assert found.batched == {"x", "z", "g1", "r1", "g2", "r2", "y", "e"}


def test_neuron_output_that_is_a_graph_output_too_stays_temporal() -> None:
    found = analysed(NETWORKS["neurons_are_outputs"].text)
    assert found.domains == {"g1": S, "r1": T, "g2": T, "r2": T, "y": R}


def test_activation_of_constants_is_no_neuron() -> None:
    found = analysed("g (float[N,4] x, float[4] b_1) => (float[N,4] y) { c = Relu (b_1) a = Add (x, c) y = Relu (a) }")
    assert [n.node for n in found.neurons] == ["y"]
    assert found.domains["c"] is S


def test_activation_of_integers_is_no_neuron() -> None:
    found = analysed(
        """g (float[N,4] x) => (float[N,4] y) <int64 zero = {0}, int64 six = {6}> {
            s = Shape (x) c = Clip (s, zero, six) t = ConstantOfShape (c) r = Relu (x) y = Add (r, t)
        }"""
    )
    assert [n.node for n in found.neurons] == ["r"]
    assert found.domains["c"] is S


def test_the_graph_is_left_alone_and_the_context_filled() -> None:
    graph = graph_of(NETWORKS["residual"].text)
    before = export_model(graph).SerializeToString(deterministic=True)
    ctx = Context(Config())
    assert Analyse().run(graph, ctx) is False
    assert export_model(graph).SerializeToString(deterministic=True) == before
    assert len(ctx.analysis.neurons) == 4


def test_clip_with_other_bounds_is_no_neuron() -> None:
    for bounds in ("low, six", "zero, low", ", six", "zero, zero"):
        found = analysed(
            f"g (float[N,4] x) => (float[N,4] y) <float zero = {{0}}, float six = {{6}}, float low = {{-1}}> {{ "
            f"r = Relu (x) c = Clip (r, {bounds}) y = Relu (c) }}"
        )
        assert [n.node for n in found.neurons] == ["r", "y"]
        assert found.modes["c"] is Form.MEAN


def test_clip_without_an_upper_bound_is_relu() -> None:
    found = analysed("g (float[N,4] x) => (float[N,4] y) <float zero = {0}> { y = Clip (x, zero) }")
    assert found.neurons[0].activation.kind == "relu"
    found = analysed("g (float[N,4] x) => (float[N,4] y) <float z = {0}, float a = {2}> { y = Clip (x, z, a) }")
    assert (found.neurons[0].activation.kind, found.neurons[0].activation.upper) == ("clip", 2.0)


# --- obstacles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "k = Sigmoid (h)",
        "k = Softmax (h)",
        "k = Mul (h, h)",
        "s = Neg (h) k = MatMul (h, s)",
        "k = Div (x, h)",
        "k, i = MaxPool <kernel_shape = [2]> (h)",
        "i = ArgMax <axis = 1> (h) f = Cast <to = 1> (i) k = Add (f, x)",
        'v = ReduceMean <keepdims = 0> (h) k = Pad <mode = "constant"> (h, pads, v)',
        "k = Where (c, h, x)",
        "i = ArgMax <axis = 1, keepdims = 0> (h) k = GatherElements <axis = 1> (h, i)",
    ],
)
def test_what_is_not_linear_between_neurons_works_on_means(body: str) -> None:
    constants = "int64[6] pads = {0, 0, 0, 0, 0, 1}, bool c = {1}"
    if "GatherElements" in body:
        body = body.replace("keepdims = 0", "keepdims = 1")
    found = between(body, constants=constants, size="[2,4,4]")
    assert found.obstacles == []
    assert found.modes["k"] is Form.MEAN
    assert found.forms["k"] is Form.MEAN
    assert found.modes["y"] is Form.STEP
    assert found.traffic["k"] is Traffic.GRADED


def test_linear_nodes_stay_in_the_form_that_arrives() -> None:
    found = between("s = Sigmoid (h) n = Neg (s) m = MatMul (n, w_1) k = Add (m, h)", ", float[6,6] w_1")
    assert {n: found.modes[n] for n in "snmk"} == {"s": Form.MEAN, "n": Form.MEAN, "m": Form.MEAN, "k": Form.STEP}
    assert found.needs_conversion("m", Form.STEP, np.float32)
    assert not found.needs_conversion("h", Form.STEP, np.float32)
    assert not found.needs_conversion("x", Form.MEAN, np.float32)


def test_neurons_that_encode_take_means_and_give_spikes() -> None:
    graph = graph_of(
        "g (float[N,4] x) => (float[N,4] y) { h = Relu (x) k = Sigmoid (h) e = Identity (k) y = Relu (e) }"
    )
    node = next(n for n in graph.nodes if n.name == "e")
    node.op, node.domain, node.attrs = "Encode", "snncc", {"activation": "sigmoid"}
    found = analyse(graph)
    assert [(n.node, n.activation.kind, n.form) for n in found.neurons] == [
        ("h", "relu", Form.STEP),
        ("e", "sigmoid", Form.MEAN),
        ("y", "relu", Form.STEP),
    ]
    assert found.forms["e"] is Form.STEP
    assert found.traffic["e"] is Traffic.SPIKES


def test_the_same_operators_before_the_first_and_after_the_last_neuron_are_none() -> None:
    found = analysed(
        """g (float[N,4] x) => (float[N,4] y) {
            s = Sigmoid (x) p = Mul (s, x) r = Relu (p) q = Mul (r, r) t = Tanh (q) y = Softmax (t)
        }"""
    )
    assert found.obstacles == []
    assert {n: d for n, d in found.domains.items() if d is not T} == {"s": S, "p": S, "q": R, "t": R, "y": R}
    assert found.traffic["q"] is found.traffic["y"] is Traffic.READOUT


def test_product_with_a_static_tensor_is_linear() -> None:
    assert between("s = Sigmoid (x) k = Mul (s, h)").obstacles == []


def test_every_obstacle_is_listed() -> None:
    found = between("a = RandomNormalLike (h) b = Add (a, h) k = Bernoulli (b)")
    assert lines(found) == ["a:RandomNormalLike", "k:Bernoulli"]
    assert "in every run" in found.obstacles[0].reason


def test_network_without_neurons_is_refused_as_a_whole() -> None:
    found = analysed("g (float[N,4] x) => (float[N,4] y) { y = Sigmoid (x) }")
    assert lines(found) == ["g:graph"]


def test_control_flow_between_neurons_works_on_means_as_a_whole() -> None:
    found = analysed(
        """g (float[4] x, bool c) => (float[4] y) {
            h = Relu (x)
            k = If (c) <then_branch = a () => (float[4] p) { p = Neg (h) },
                        else_branch = b () => (float[4] q) { q = Exp (h) }>
            y = Relu (k)
        }"""
    )
    assert found.obstacles == []
    assert found.modes["k"] is Form.MEAN
    assert not found.foldable


def test_foreign_operator_works_on_means_and_cannot_be_folded() -> None:
    graph = graph_of("g (float[3,4] x) => (float[3,4] y) { h = Relu (x) k = Neg (h) y = Relu (k) }")
    node = next(n for n in graph.nodes if n.name == "k")
    node.op, node.domain = "Fancy", "com.example"
    found = analyse(graph)
    assert found.modes["k"] is Form.MEAN
    assert not found.foldable


def test_arithmetic_on_the_shape_of_a_temporal_tensor_is_no_obstacle_but_cannot_be_folded() -> None:
    found = between(
        """s = Shape (h) f = Gather (s, first) t = Concat <axis = 0> (f, rest) k = Reshape (h, t)""",
        constants="int64[1] first = {0}, int64[2] rest = {6, 4}",
        size="[2,4,6]",
    )
    assert found.obstacles == []
    assert {line.split("'")[1] for line in found.fold_blockers} >= {"s", "f", "t"}
    assert found.traffic["s"] is Traffic.ANALOG


def test_scan_whose_state_has_no_known_size_is_no_obstacle() -> None:
    found = between("k = Transpose <perm = [1,0,2]> (h)")
    assert found.obstacles == []
    assert not found.foldable
    assert not found.separable


def test_same_padding_of_an_unknown_size_is_refused_at_once() -> None:
    body = 'k = MaxPool <kernel_shape = [3], auto_pad = "SAME_UPPER"> (h)'
    assert lines(between(body, size="[N,4,L]")) == ["k:MaxPool"]
    assert between(body).obstacles == []


# --- traffic --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "carried"),
    [
        ("k = Transpose <perm = [0,2,1]> (h)", Traffic.SPIKES),
        ("k = MaxPool <kernel_shape = [2]> (h)", Traffic.SPIKES),
        ("k = AveragePool <kernel_shape = [2]> (h)", Traffic.SPIKES),
        ("k = Concat <axis = 1> (h, h)", Traffic.SPIKES),
        ("k = Concat <axis = 1> (h, x)", Traffic.GRADED),
        ("k = Add (h, h)", Traffic.SPIKES),
        ("k = Add (h, x)", Traffic.GRADED),
        ("k = Add (h, b_1)", Traffic.GRADED),
        ("k = Mul (h, b_1)", Traffic.SPIKES),
        ("k = Mul (h, x)", Traffic.GRADED),
        ("k = MatMul (h, w_1)", Traffic.GRADED),
        ("k = Conv (h, w_2)", Traffic.GRADED),
        ("c = Conv (h, w_2) k = MaxPool <kernel_shape = [2]> (c)", Traffic.GRADED),
        ("k = Neg (x)", Traffic.ANALOG),
    ],
    ids=str,
)
def test_what_a_tensor_carries(body: str, carried: Traffic) -> None:
    found = between(body, ", float[6,6] w_1, float[6] b_1, float[3,4,1] w_2")
    assert found.traffic["k"] is carried
    assert found.traffic["h"] is Traffic.SPIKES
    assert found.traffic["x"] is Traffic.ANALOG


def test_what_drives_the_weighted_layers() -> None:
    found = analysed(
        """g (float[N,2,4,4] x, float[4,2,3,3] w_1, float[4,4,1,1] w_2, float[4,4,1,1] w_3, float[16,5] w_4,
            float[5,3] w_5, float[3,2] w_6) => (float[N,2] y) {
            c1 = Conv (x, w_1)
            r1 = Relu (c1)
            c2 = Conv (r1, w_2)
            c3 = Conv (c2, w_3)
            r3 = Relu (c3)
            f = Flatten (r3)
            m4 = MatMul (f, w_4)
            m5 = MatMul (m4, w_5)
            s = Softmax (m5)
            y = MatMul (s, w_6)
        }"""
    )
    drivers = {layer.node: layer.driven_by for layer in found.layers}
    assert drivers == {
        "c1": Traffic.ANALOG,
        "c2": Traffic.SPIKES,
        "c3": Traffic.GRADED,
        "m4": Traffic.SPIKES,
        "m5": Traffic.READOUT,  # once, on the mean over time
        "y": Traffic.READOUT,
    }
    assert found.macs() == {
        "analog": 4 * 2 * 2 * 2 * 9,
        "spikes": 4 * 2 * 2 * 4 + 16 * 5,
        "graded": 4 * 2 * 2 * 4,
        "readout": 5 * 3 + 3 * 2,
        "total": 288 + 64 + 80 + 64 + 15 + 6,
    }


# --- the sample axis ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("k = Reshape (h, t)", "int64[3] t = {6, 2, 4}"),
        ("k = Reshape (h, t)", "int64[3] t = {-1, 2, 6}"),
        ("k = Reshape (h, t)", "int64[3] t = {2, 6, 4}"),  # until FreeBatch has opened it
        ("k = Transpose <perm = [1,0,2]> (h)", ""),
        ("k = Transpose (h)", ""),
        ("k = Concat <axis = 0> (h, h)", ""),
        ("k = Concat <axis = -3> (h, h)", ""),
        ("s = Slice (h, a, b) k = Identity (s)", "int64[1] a = {0}, int64[1] b = {1}"),
        ("k = Slice (h, a, b, a)", "int64[1] a = {0}, int64[1] b = {1}"),
        ("k = Add (h, c)", "float[2,1,1] c = {1, 2}"),
        ("k = Mul (h, c)", "float[1,2,1,1] c = {1, 2}"),
        ("k = Gather <axis = 0> (h, a)", "int64[1] a = {0}"),
        ("k = ReduceMean <axes = [0]> (h)", ""),
        ("k = ReduceMean (h)", ""),
        ("k = Pad (h, p)", "int64[6] p = {1, 0, 0, 0, 0, 0}"),
        ("a, b = Split <axis = 0> (h) k = Add (a, b)", ""),
        ("k = Unsqueeze (h, a)", "int64[1] a = {0}"),
        ("k = Flatten <axis = 2> (h)", ""),
        ("k = Resize (h, , , s)", "int64[3] s = {2, 4, 12}"),
    ],
    ids=str,
)
def test_what_does_not_keep_the_samples_apart_blocks_the_fold(body: str, constants: str) -> None:
    found = between(body, constants=constants, size="[2,4,6]")
    assert found.fold_blockers
    assert not found.foldable


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("k = Reshape (h, t)", "int64[3] t = {-1, 6, 4}"),
        ("k = Reshape (h, t)", "int64[3] t = {0, 8, 3}"),
        ("k = Reshape (h, t)", "int64[3] t = {0, -1, 1}"),
        ("k = Transpose <perm = [0,2,1]> (h)", ""),
        ("k = Concat <axis = -1> (h, x)", ""),
        ("k = Slice (h, a, b, c)", "int64[1] a = {0}, int64[1] b = {1}, int64[1] c = {-1}"),
        ("k = Add (h, c)", "float[1,1,6] c = {1, 2, 3, 4, 5, 6}"),
        ("k = Add (c, h)", "float[6] c = {1, 2, 3, 4, 5, 6}"),
        ("k = Gather <axis = 2> (h, a)", "int64[2] a = {0, 3}"),
        ("k = ReduceMean <axes = [-1]> (h)", ""),
        ("k = Pad (h, p)", "int64[6] p = {0, 0, 1, 0, 1, 0}"),
        ("a, b = Split <axis = 1> (h) k = Sub (a, b)", ""),
        ("u = Unsqueeze (h, a) k = Squeeze (u, a)", "int64[1] a = {2}"),
        ("k = Resize (h, , s)", "float[3] s = {1, 1, 2}"),
        ("k = BatchNormalization (h, s, s, s, s)", "float[4] s = {1, 2, 3, 4}"),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", ["N", "2"])
def test_what_keeps_the_samples_apart_can_be_folded(body: str, constants: str, batch: str) -> None:
    found = between(body, constants=constants, size=f"[{batch},4,6]")
    assert found.fold_blockers == []
    assert "k" in found.batched


def test_lookup_by_temporal_or_sample_indices_is_not_taken_for_samples() -> None:
    found = analysed(
        """g (int64[N,3] i, float[N,5] x, float[5,4,2] w_table) => (float[5,N,3,2] y) {
            e = Gather <axis = 1> (w_table, i) y = Relu (e)
        }"""
    )
    assert "e" not in found.batched
    assert not found.foldable


def test_inputs_share_the_sample_axis_only_where_they_say_so() -> None:
    found = analysed("g (float[N,4] x, float[M,4] z, float[N,4] w) => (float[N,4] y) { s = Sum (x, w) y = Relu (s) }")
    assert found.batched == {"x", "w", "s", "y"}


def test_readout_blockers_are_apart() -> None:
    found = analysed("g (float[N,4] x) => (float[4,N] y) { r = Relu (x) y = Transpose <perm = [1,0]> (r) }")
    assert found.foldable
    assert [line.split("'")[1] for line in found.readout_blockers] == ["y"]


# --- neurons --------------------------------------------------------------------------------------------------------


def test_channels_of_neurons() -> None:
    found = analysed(NETWORKS["channels_last"].text)
    assert [(n.channel_axis, n.channels, n.dims) for n in found.neurons] == [(3, 4, (6, 6, 4)), (3, 5, (4, 4, 5))]
    found = analysed(NETWORKS["sequence"].text)
    assert [(n.channel_axis, n.channels, n.dims) for n in found.neurons] == [(2, 8, (5, 8)), (2, 7, (5, 7))]


def test_axis_of_samples_never_counts_as_channels() -> None:
    found = between("k = Transpose <perm = [1,0,2]> (h)", size="[3,4,6]")
    assert [n.channels for n in found.neurons] == [4, None]


@pytest.mark.parametrize(("batch", "dims"), [(1, (4, 1, 6)), (3, None)])
def test_size_of_a_neuron_layer_whose_samples_are_mixed(batch: int, dims: tuple[int, ...] | None) -> None:
    found = between("k = Transpose <perm = [1,0,2]> (h)", size=f"[{batch},4,6]")
    assert [n.dims for n in found.neurons] == [(4, 6), dims]
    assert found.batch == batch
    assert not found.separable


def test_neuron_on_a_vector_has_one_threshold() -> None:
    found = analysed("g (float[N] x) => (float[N] y) { y = Relu (x) }")
    assert (found.neurons[0].channel_axis, found.neurons[0].channels, found.neurons[0].dims) == (0, None, ())


def test_multiply_accumulates_of_mixed_samples_are_per_sample() -> None:
    found = analysed(NETWORKS["samples_mixed"].text)
    assert {layer.node: layer.macs for layer in found.layers} == {"g1": 64, "g2": 4 * 4 * 6 // 2, "y": 24 * 5 // 2}


def test_analysis_of_neurons_is_that_of_activations() -> None:
    graph = graph_of(NETWORKS["mobile"].text)
    before = analyse(graph)
    for node in graph.nodes:
        if node.op == "Clip":
            theta = gs.Constant(f"{node.name}.theta", np.ones((1, 1, 1, 1), np.float32))
            start = gs.Constant(f"{node.name}.start", np.array(0.5, np.float32))
            node.op, node.domain, node.inputs = "BurstIF", "snncc", [node.inputs[0], theta, start]
            node.attrs = {"timesteps": 4, "max_burst": 2, "threshold_ratio": 1.0}
    infer_shapes(graph)
    after = analyse(graph)
    assert after.domains == before.domains
    assert after.traffic == before.traffic
    assert after.batched == before.batched
    assert [n.dims for n in after.neurons] == [n.dims for n in before.neurons]


def test_a_scalar_of_all_samples_is_no_neuron() -> None:
    found = analysed(
        """g (float[N,6] x, float[6,8] w_1) => (float y, float[N,8] r)
        { l = ReduceMax <keepdims = 0> (x) y = Relu (l) h = MatMul (x, w_1) r = Relu (h) }"""
    )
    assert [site.node for site in found.neurons] == ["r"]
    assert found.domains["y"] is S
