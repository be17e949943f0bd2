"""Activations trained in steps, in the orders in which they are exported."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_checks import parse, run

from snncc.config import Config
from snncc.context import Context
from snncc.graph import constant, export_model, import_graph, infer_shapes
from snncc.neurons.quantised import QuantisedActivation
from snncc.passes.normalise import NORMALISE
from snncc.passes.quantised_activation import RecogniseQuantisedActivations

CONSTANTS = """float lam = {2.5}, float levels = {8}, float half = {0.5}, float zero = {0}, float one = {1},
    float step = {0.3125}, float many = {3.2}, float[1] also = {2.5}, float minus = {-4},
    float seven = {7}, float huge = {1e38}"""
QCFS = "d = Div(x, lam) c = Clip(d, zero, one) m = Mul(c, levels) a = Add(m, half)"
FORMS = {
    "QCFS": f"{QCFS} [act] f = Floor(a) e = Div(f, levels) y = Mul(e, lam)",
    "QCFS, factors swapped": (
        "d = Div(x, lam) c = Clip(d, zero, one) m = Mul(levels, c) a = Add(half, m) [act] f = Floor(a)"
        " e = Div(f, levels) y = Mul(lam, e)"
    ),
    "one-element constants": "d = Div(x, also) c = Clip(d, zero, one) m = Mul(c, levels) [act] f = Round(m)"
    " e = Div(f, levels) y = Mul(e, also)",
    "clip after the floor": "d = Mul(x, many) a = Add(d, half) [act] f = Floor(a) e = Div(f, levels)"
    " c = Clip(e, zero, one) y = Mul(e2, lam)".replace("e2", "c"),
    "clip in steps": "d = Div(x, step) [act] r = Round(d) c = Clip(r, zero, levels) y = Mul(c, step)",
    "clip of x": "c = Clip(x, zero, lam) d = Div(c, step) [act] r = Round(d) y = Mul(r, step)",
    "Relu and Min": "r = Relu(x) d = Div(r, lam) c = Min(d, one) m = Mul(c, levels) [act] f = Round(m)"
    " e = Div(f, levels) y = Mul(e, lam)",
    "Max and Min": "r = Max(x, zero) c = Min(r, lam) d = Div(c, step) [act] f = Round(d) y = Mul(f, step)",
    "steps from -4": "d = Div(x, step) s = Add(d, minus) [act] r = Round(s) c = Clip(r, minus, four) k = Sub(c, minus)"
    " y = Mul(k, step)",
    "an estimator around the rounding": "d = Div(x, step) c = Clip(d, zero, levels) [act] r = Round(c) s = Sub(r, c)"
    " t = Add(s, c) y = Mul(t, step)",
    "an estimator around all": "d = Div(x, step) [act] r = Round(d) c = Clip(r, zero, levels) q = Mul(c, step)"
    " s = Sub(q, x) y = Add(x, s)",
}
FLOOR = (
    "d = Div(x, lam) c = Clip(d, zero, one) m = Mul(c, levels) [act] f = Floor(m) e = Div(f, levels) y = Mul(e, lam)"
)


def model_of(body: str) -> onnx.ModelProto:
    text = f"g (float[2,99] x) => (float[2,99] y) <{CONSTANTS}, float four = {{4}}> {{ {body} }}"
    return parse(text)


def recognised(body: str) -> tuple[onnx.ModelProto, Context, list[str]]:
    graph, ctx = import_graph(model_of(body)), Context(Config())
    infer_shapes(graph)
    changed = RecogniseQuantisedActivations().run(graph, ctx)
    assert changed == bool(ctx.quantised)
    assert not RecogniseQuantisedActivations().run(graph, ctx)
    after = export_model(graph)
    onnx.checker.check_model(after, full_check=True)
    return after, ctx, [node.op for node in graph.nodes]


def in_steps(x: np.ndarray, found: QuantisedActivation) -> np.ndarray:
    """The definition: what a neuron gives for a constant current."""
    counts = np.clip(np.floor(x * found.levels / found.upper + found.v_init), 0, found.levels)
    return counts * found.upper / found.levels


def check(body: str, name: str, inputs: np.ndarray) -> QuantisedActivation:
    """Compare what was noted, and the Clip, with the pattern in ONNX Runtime."""
    after, ctx, _ = recognised(body)
    found = ctx.quantised[name]
    want = run(model_of(body), {"x": inputs})[0]
    np.testing.assert_allclose(in_steps(inputs, found), want, atol=1e-5)
    step = found.upper / found.levels
    assert np.abs(run(after, {"x": inputs})[0] - want).max() <= step + 1e-5
    return found


# No input lies on the edge of a step, where rounding decides.
INPUTS = np.linspace(-2, 6, 198, dtype=np.float32).reshape(2, 99) + np.float32(0.003)


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    found = check(FORMS[form], "act", INPUTS)
    assert found.levels == 8
    assert found.upper == pytest.approx(2.5)
    assert found.v_init == pytest.approx(0.5)
    assert recognised(FORMS[form])[2] == ["Clip"]


def test_without_a_shift() -> None:
    assert check(FLOOR, "act", INPUTS) == QuantisedActivation(pytest.approx(2.5), 8, 0.0)


def test_units_of_steps() -> None:
    """The scale may stand in the next layer's weights: then the steps are whole numbers."""
    found = check("[act] r = Round(x) y = Clip(r, zero, seven)", "act", 2 * INPUTS)
    assert found == QuantisedActivation(7.0, 7, 0.5)


def test_what_stands_before_and_after_stays() -> None:
    pattern = FORMS["QCFS"].replace("(x,", "(b,").replace("y =", "g =")
    _, ctx, ops = recognised(f"b = Add(x, half) {pattern} y = Neg(g)")
    assert ops == ["Add", "Clip", "Neg"]
    assert ctx.quantised["act"].v_init == pytest.approx(0.5)


@pytest.mark.parametrize(
    "body",
    [
        "y = Floor(x)",
        "y = Round(x)",
        "c = Clip(x, minus, four) y = Round(c)",  # steps below zero
        "c = Clip(x, zero, levels) n = Mul(c, minus) y = Round(n)",  # falls
        "c = Clip(x, zero, levels) m = Mul(c, half) y = Floor(m)",  # falls back to half of x
        "r = Round(x) c = Clip(r, zero, half) y = Neg(c)",  # bound between steps
    ],
)
def test_left_alone(body: str) -> None:
    _, ctx, _ = recognised(body)
    assert not ctx.quantised


@pytest.mark.parametrize(("to", "back"), [("Div", "Mul"), ("Mul", "Div")])
def test_steps_beyond_the_range_of_numbers_stay_in_units_of_steps(to: str, back: str) -> None:
    _, ctx, ops = recognised(f"d = {to}(x, huge) c = Clip(d, zero, levels) r = Round(c) y = {back}(r, huge)")
    assert list(ctx.quantised.values()) == [QuantisedActivation(8.0, 8, 0.5)]
    assert ops == [to, "Clip", back]


def test_a_step_with_other_readers_is_left_alone() -> None:
    text = f"""g (float[2,9] x) => (float[2,9] y, float[2,9] f) <{CONSTANTS}> {{ c = Clip(x, zero, levels) f = Round(c)
        y = Neg(f) }}"""
    graph, ctx = import_graph(parse(text)), Context(Config())
    infer_shapes(graph)
    RecogniseQuantisedActivations().run(graph, ctx)
    assert [n.op for n in graph.nodes] == ["Clip", "Neg"]  # up to the rounding, which is read twice
    assert {t.name for t in graph.outputs} == {"y", "f"}
    graph = import_graph(parse(text.replace("float[2,9] f)", "float[2,9] c)")))
    infer_shapes(graph)
    assert not RecogniseQuantisedActivations().run(graph, Context(Config()))


def test_one_bound_per_channel() -> None:
    text = """g (float[2,3] x) => (float[2,3] y) <float[3] s = {1, 2, 3}, float zero = {0}, float seven = {7}> {
        d = Div(x, s) r = Round(d) c = Clip(r, zero, seven) y = Mul(c, s) }"""
    graph, ctx = import_graph(parse(text)), Context(Config())
    infer_shapes(graph)
    RecogniseQuantisedActivations().run(graph, ctx)
    assert [n.op for n in graph.nodes] == ["Div", "Clip", "Mul"]  # in units of each channel's step
    assert list(ctx.quantised.values()) == [QuantisedActivation(7.0, 7, 0.5)]


def test_in_the_whole_sequence() -> None:
    """The layer before must not take in the division, nor the layer after it the product."""
    text = f"""g (float[2,4] x, float[4,6] w, float[6,3] v) => (float[2,3] y) <{CONSTANTS}> {{ h = MatMul(x, w)
        {QCFS.replace("(x,", "(h,")} [act] f = Floor(a) e = Div(f, levels) g = Mul(e, lam) y = MatMul(g, v) }}"""
    graph, ctx = import_graph(parse(text, ("w", "v"))), Context(Config())
    for step in NORMALISE:
        step.run(graph, ctx)
    assert [n.op for n in graph.nodes] == ["MatMul", "Clip", "MatMul"]
    assert float(constant(graph.nodes[1].inputs[2])) == pytest.approx(2.5)
    assert set(ctx.quantised) == {"act"}
