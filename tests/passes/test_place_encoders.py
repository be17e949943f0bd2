"""Where encoders go: behind activations that reach weights, before weights that graded values reach, nowhere else."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from small_networks import compiled, inputs_of, parse, run

from snncc.config import Config
from snncc.context import Context
from snncc.graph import DOMAIN, import_graph, infer_shapes
from snncc.passes.place_encoders import PlaceEncoders

WEIGHTS = "float[4,6] w_1, float[6] b_1, float[6,6] w_2, float[6] b_2, float[6,3] w_3, float[3] b_3"


def placed(body: str, constants: str = "", **options: object) -> gs.Graph:
    constants = f"<{constants}>" if constants else ""
    graph = import_graph(parse(f"g (float[N,4] x, {WEIGHTS}) => (float[N,3] y) {constants} {{ {body} }}"))
    infer_shapes(graph)
    ctx = Context(Config(**options))  # type: ignore[arg-type]
    PlaceEncoders().run(graph, ctx)
    assert PlaceEncoders().run(graph, ctx) is False  # idempotent
    return graph


def encoders(graph: gs.Graph) -> dict[str, tuple[str, list[str]]]:
    """What is encoded -> the activation's name, and who reads the spikes."""
    return {
        n.inputs[0].name: (n.attrs["activation"], sorted(r.name for r in n.outputs[0].outputs))
        for n in graph.nodes
        if n.domain == DOMAIN
    }


def test_activations_become_neurons_for_everybody() -> None:
    graph = placed(
        "g1 = Gemm (x, w_1, b_1) s = Tanh (g1) g2 = Gemm (s, w_2, b_2) a = Add (g2, s) y = Gemm (a, w_3, b_3)"
    )
    assert encoders(graph) == {"s": ("tanh", ["a", "g2"])}


def test_activation_before_no_weights_is_readout() -> None:
    graph = placed("g1 = Gemm (x, w_1, b_1) r = Relu (g1) g3 = Gemm (r, w_3, b_3) y = Sigmoid (g3)")
    assert encoders(graph) == {}


def test_a_gate_is_not_encoded_but_the_product_is() -> None:
    graph = placed(
        "g1 = Gemm (x, w_1, b_1) r = Relu (g1) g2 = Gemm (r, w_2, b_2) s = Sigmoid (g2) m = Mul (r, s) "
        "h = Gemm (m, w_2, b_2) k = Relu (h) y = Gemm (k, w_3, b_3)"
    )
    assert encoders(graph) == {"m": ("mul", ["h"])}


def test_values_that_no_activation_makes_are_encoded_for_weights_alone() -> None:
    body = (
        "g1 = Gemm (x, w_1, b_1) r = Relu (g1) s = Softmax (r) h = Gemm (s, w_2, b_2) a = Add (h, s) k = Relu (a) "
        "y = Gemm (k, w_3, b_3)"
    )
    assert encoders(placed(body)) == {"s": ("softmax", ["h"])}
    assert encoders(placed(body, analog=True)) == {}


def test_a_layer_without_activation_is_encoded_once_for_all_of_its_readers() -> None:
    graph = placed(
        "g1 = Gemm (x, w_1, b_1) r = Relu (g1) g2 = Gemm (r, w_2, b_2) h = Gemm (g2, w_2, b_2) i = Gemm (g2, w_2, b_2) "
        "a = Add (h, i) k = Relu (a) y = Gemm (k, w_3, b_3)"
    )
    assert encoders(graph) == {"g2": ("gemm", ["h", "i"])}


def test_network_without_activations_is_encoded_behind_what_is_not_linear() -> None:
    graph = placed("g1 = Gemm (x, w_1, b_1) s = Softmax (g1) y = Gemm (s, w_3, b_3)")
    assert encoders(graph) == {"s": ("softmax", ["y"])}


def test_linear_network_gets_none() -> None:
    assert encoders(placed("g1 = Gemm (x, w_1, b_1) y = Gemm (g1, w_3, b_3)")) == {}


def test_relus_inside_an_activation_are_no_neurons() -> None:
    """Hard swish by way of ReLU6: one neuron behind it, and the function stays what it was."""
    text = f"""g (float[N,4] x, {WEIGHTS}) => (float[N,3] y)
    <float zero = {{0}}, float three = {{3}}, float six = {{6}}> {{
        g1 = Gemm (x, w_1, b_1) p = Add (g1, three) c = Clip (p, zero, six) d = Div (c, six) m = Mul (g1, d)
        y = Gemm (m, w_3, b_3)
    }}"""
    graph = import_graph(parse(text))
    infer_shapes(graph)
    PlaceEncoders().run(graph, Context(Config()))
    assert encoders(graph) == {"m": ("hardswish", ["y"])}
    assert "Clip" not in {n.op for n in graph.nodes}
    network = compiled(parse(text), samples=200, timesteps=256)
    feeds = inputs_of(parse(text), 50, seed=7)
    expected = run(parse(text), feeds)["y"]
    assert np.linalg.norm(network.run(feeds)["y"] - expected) < 0.01 * np.linalg.norm(expected)


def test_maximum_with_zero_is_a_relu() -> None:
    graph = placed("g1 = Gemm (x, w_1, b_1) m = Max (g1, zero) y = Gemm (m, w_3, b_3)", "float zero = {0}")
    assert [n.op for n in graph.nodes] == ["Gemm", "Relu", "Gemm"]
    assert encoders(graph) == {}


@pytest.mark.parametrize("op", ["Elu", "Softplus", "LeakyRelu", "HardSwish", "Abs"])
def test_every_activation(op: str) -> None:
    assert encoders(placed(f"g1 = Gemm (x, w_1, b_1) s = {op} (g1) y = Gemm (s, w_3, b_3)")) == {
        "s": (op.lower(), ["y"])
    }
