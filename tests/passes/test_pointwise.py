"""Activations written out as several operators, in the spellings of several exporters, against what they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf
from small_networks import parse

from snncc.graph import import_graph, infer_shapes
from snncc.passes.pointwise import KNOWN, Pointwise, classify, decomposed_activations

CONSTANTS = """float zero = {0}, float half = {0.5}, float one = {1}, float three = {3}, float six = {6},
    float root = {1.4142135}, float tenth = {0.1}, float cube = {3}, float a = {0.044715}, float b = {0.7978845608},
    float q = {1.702}, float[1,1] sixth = {0.16666667}, float minus = {-1}"""

SPELLINGS = [
    ("silu", "s = Sigmoid (x) y = Mul (x, s)"),
    ("silu", "n = Neg (x) e = Exp (n) d = Add (one, e) y = Div (x, d)"),
    ("quick_gelu", "k = Mul (x, q) s = Sigmoid (k) y = Mul (s, x)"),
    ("gelu", "d = Div (x, root) e = Erf (d) p = Add (e, one) m = Mul (x, p) y = Mul (m, half)"),
    ("gelu", "d = Div (x, root) e = Erf (d) p = Add (e, one) h = Mul (half, x) y = Mul (h, p)"),
    (
        "gelu",
        "p = Pow (x, cube) k = Mul (p, a) s = Add (x, k) r = Mul (s, b) t = Tanh (r) u = Add (t, one) "
        "h = Mul (x, half) y = Mul (h, u)",
    ),
    ("hardswish", "p = Add (x, three) c = Clip (p, zero, six) d = Div (c, six) y = Mul (x, d)"),
    ("hardswish", "p = Add (x, three) c = Clip (p, zero, six) m = Mul (x, c) y = Mul (m, sixth)"),
    ("hardswish", "h = HardSigmoid <alpha = 0.16666667> (x) y = Mul (x, h)"),
    ("mish", "s = Softplus (x) t = Tanh (s) y = Mul (x, t)"),
    ("leaky_relu", "k = Mul (x, tenth) y = Max (x, k)"),
    ("leaky_relu", "p = Relu (x) n = Neg (x) r = Relu (n) k = Mul (r, tenth) y = Sub (p, k)"),
    ("relu", "y = Max (x, zero)"),
    ("softsign", "v = Abs (x) p = Add (v, one) y = Div (x, p)"),
    ("elu", "e = Exp (x) m = Sub (e, one) g = Greater (x, zero) y = Where (g, x, m)"),
    ("abs", "n = Neg (x) y = Max (x, n)"),
]


def found(body: str, size: str = "[N,4]") -> list[Pointwise]:
    graph = import_graph(parse(f"g (float{size} x) => (float{size} y) <{CONSTANTS}> {{ {body} }}"))
    infer_shapes(graph)
    return decomposed_activations(graph)


@pytest.mark.parametrize(("kind", "body"), SPELLINGS)
def test_spellings(kind: str, body: str) -> None:
    (match,) = found(body)
    assert (match.kind, match.source, match.output) == (kind, "x", "y")


@pytest.mark.parametrize(
    "body",
    [
        "y = Mul (x, x)",
        "s = Sigmoid (x) y = Add (x, s)",
        "m = Mul (x, half) y = Add (x, m)",
        "y = Max (x, one)",
        "s = Tanh (x) y = Mul (x, s)",
        "m = ReduceMean <axes = [1]> (x) y = Max (x, m)",
        "y = Sigmoid (x)",
    ],
)
def test_what_is_none(body: str) -> None:
    assert [m for m in found(body) if m.output == "y"] == []


def test_a_gate_from_elsewhere_is_no_activation() -> None:
    """A product of two branches that went through a sum over the channels, as squeeze-and-excite has it."""
    assert found("m = ReduceMean <axes = [1]> (x) s = Sigmoid (m) y = Mul (x, s)") == []


def test_the_largest_match_counts() -> None:
    """The tanh form of GELU holds x³ as products, and the match covers everything between x and y."""
    body = (
        "x2 = Mul (x, x) x3 = Mul (x2, x) k = Mul (x3, a) s = Add (x, k) r = Mul (s, b) t = Tanh (r) u = Add (t, one) "
        "h = Mul (x, half) y = Mul (h, u)"
    )
    (match,) = found(body)
    assert (match.kind, len(match.nodes)) == ("gelu", 9)


def test_an_activation_of_an_activation() -> None:
    first, second = found("s = Sigmoid (x) h = Mul (x, s) k = Mul (h, tenth) y = Max (h, k)")
    assert [(m.kind, m.source, m.output) for m in (first, second)] == [("silu", "x", "h"), ("leaky_relu", "h", "y")]


def test_constants_per_channel_are_left_alone() -> None:
    graph = import_graph(parse("g (float[N,4] x, float[4] w_1) => (float[N,4] y) { k = Mul (x, w_1) y = Max (x, k) }"))
    infer_shapes(graph)
    assert decomposed_activations(graph) == []


@pytest.mark.parametrize("kind", KNOWN)
def test_known_functions_are_told_apart(kind: str) -> None:
    assert classify(lambda x: 2.5 * KNOWN[kind](x)) == kind
    assert classify(lambda x: -KNOWN[kind](x)) != kind


def test_functions_that_are_not_known() -> None:
    for function in (np.sin, np.square, lambda x: x, lambda x: 0 * x, lambda x: x / 0.0, lambda x: erf(x) * x):
        with np.errstate(all="ignore"):
            assert classify(function) is None
