"""What can't be negative by the operators that make it."""

from __future__ import annotations

import pytest
from graph_checks import parse

from snncc.graph import import_graph
from snncc.passes.nonnegative import nonnegative

CASES = [
    ("y = Relu(x)", True),
    ("y = Neg(x)", False),
    ("y = Identity(x)", False),
    ("y = Clip(x, zero, six)", True),
    ("y = Clip(x, minus)", False),
    ("y = Clip(x, , six)", False),
    ("r = Relu(x) y = Clip(r, minus)", True),
    ("r = Relu(x) s = Sigmoid(x) y = Add(r, s)", True),
    ("r = Relu(x) y = Add(r, x)", False),
    ("r = Relu(x) y = Mul(r, six)", True),
    ("r = Relu(x) y = Mul(r, minus)", False),
    ("r = Relu(x) y = Sub(r, six)", False),
    ("y = Mul(x, x)", True),
    ("s = Identity(x) y = Mul(x, s)", False),
    ("y = Pow(x, six)", True),
    ("y = Pow(x, minus)", False),
    ("y = Pow(six, x)", False),
    ("r = Relu(x) p = MaxPool<kernel_shape = [2, 2]>(r) y = Transpose(p)", True),
    ("r = Relu(x) y = Conv(r, w)", False),
    ('r = Relu(x) y = Resize<mode = "cubic">(r, , scales)', False),
    ('r = Relu(x) y = Resize<mode = "linear">(r, , scales)', True),
]
TEXT = """g (float[1,2,4,4] x, float[2,2,1,1] w) => (float[a,b,c,d] y)
<float zero = {{0}}, float six = {{6}}, float minus = {{-1}}, float[4] scales = {{1, 1, 2, 2}}> {{ {body} }}"""


@pytest.mark.parametrize(("body", "expected"), CASES)
def test_nonnegative(body: str, expected: bool) -> None:
    graph = import_graph(parse(TEXT.format(body=body), ("w",)))
    assert nonnegative(graph.outputs[0]) is expected


def test_inputs_may_be_taken_for_granted() -> None:
    graph = import_graph(parse(TEXT.format(body="s = Div(x, six) y = Transpose(s)"), ("w",)))
    assert not nonnegative(graph.outputs[0])
    assert nonnegative(graph.outputs[0], inputs=True)
    graph = import_graph(parse(TEXT.format(body="s = Sub(x, six) y = Transpose(s)"), ("w",)))
    assert not nonnegative(graph.outputs[0], inputs=True)
