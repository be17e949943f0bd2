"""Functions with a bounded domain behind the last neuron get no value beyond it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_networks import inputs_of, parse, run

import snncc
from snncc.config import Config

NET = """g (float[N,6] x, float[6,8] w_1, float[8,4] w_2) => (float[N,4] y)
<float low = {{-1}}, float high = {{1}}, float one = {{1}}, float three = {{3}},
 float ten = {{10}}, float tiny = {{1e-12}}> {{
    h = MatMul (x, w_1) r = Relu (h) m = MatMul (r, w_2) s = Tanh (m) {body} }}"""
# Each is defined for s in (-1, 1), at whose ends a Tanh of large values lies.
BODIES = {
    "Acos": "k = Mul (s, one) y = Acos (k)",
    "Asin": "k = Mul (s, one) y = Asin (k)",
    "Atanh": "k = Mul (m, three) y = Atanh (s)",
    "Acosh": "k = Add (s, one) l = Add (k, one) y = Acosh (l)",
    "Log": "k = Add (s, one) y = Log (k)",
    "Sqrt": "k = Add (s, one) y = Sqrt (k)",
}


def compiled(body: str, timesteps: int = 2) -> tuple[snncc.SpikingNetwork, onnx.ModelProto, dict[str, np.ndarray]]:
    model = parse(NET.format(body=body))
    data = inputs_of(model, 64)
    return snncc.compile(model, calibration=data, config=Config(timesteps=timesteps)), model, data


@pytest.mark.parametrize("op", sorted(BODIES))
def test_bounds_stand_before_the_function(op: str) -> None:
    network, model, data = compiled(BODIES[op])
    makers = {name: node for node in network.model.graph.node for name in node.output}
    function = next(node for node in network.model.graph.node if node.op_type == op)
    assert makers[function.input[0]].op_type in ("Max", "Min")
    for backend in ("fused", "ort", "numpy"):
        assert np.isfinite(network.run(data, backend=backend)["y"]).all()
    assert np.isfinite(run(model, data)["y"]).any()


@pytest.mark.parametrize(
    ("op", "body", "beyond"),
    [("Atanh", "k = Mul (m, three) y = Atanh (k)", 1.0), ("Log", "y = Log (m)", 0.0), ("Sqrt", "y = Sqrt (m)", 0.0)],
)
def test_an_approximation_beyond_the_domain_is_brought_back(op: str, body: str, beyond: float) -> None:
    """Of a network whose values cross the bound, so that some approximations are beyond it."""
    network, _, data = compiled(body)
    values = network.run(data)["y"]
    assert np.isfinite(values).all()
    one, zero = np.float32(1), np.float32(0)
    value = {"Atanh": np.arctanh(np.nextafter(one, zero)), "Log": np.log(np.finfo(np.float32).tiny), "Sqrt": 0.0}[op]
    assert np.isclose(np.abs(values), abs(value), rtol=1e-5).any()


@pytest.mark.parametrize(
    "body",
    [
        "k = Div (s, three) y = Atanh (k)",
        "p = Softmax (m) y = Log (p)",
        "t = Mul (m, ten) p = Softmax (t) e = Add (p, tiny) y = Log (e)",  # down to -27
        "t = Tanh (m) y = Atanh (t)",
    ],
)
def test_nothing_is_lost_within_the_domain(body: str) -> None:
    network, model, data = compiled(body, timesteps=256)
    expected = run(model, data)["y"]
    assert np.linalg.norm(network.run(data)["y"] - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("body", ["k = Mul (m, m) y = Sqrt (k)", "k = Abs (m) y = Sqrt (k)", "y = Exp (m)"])
def test_what_cannot_leave_the_domain_stays(body: str) -> None:
    network, _, _ = compiled(body)
    assert not {"Max", "Min"} & {node.op_type for node in network.model.graph.node}


def test_before_the_neurons_and_among_them_nothing_changes() -> None:
    model = parse(
        """g (float[N,6] x, float[6,8] w_1, float[8,4] w_2) => (float[N,4] y)
        { a = Abs (x) e = Sqrt (a) l = Log (e) h = MatMul (l, w_1) r = Relu (h) m = MatMul (r, w_2) y = Relu (m) }"""
    )
    network = snncc.compile(model, calibration=inputs_of(model, 8))
    assert not {"Max", "Min"} & {node.op_type for node in network.model.graph.node}
