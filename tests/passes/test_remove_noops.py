"""Nodes that compute y = x go, and only they; the outputs keep their names. All comparisons are exact."""

from __future__ import annotations

import numpy as np
import pytest
from graph_checks import Transformed, parse, transform

from snncc.passes.remove_noops import RemoveNoOps, broadcasts_into, provably_equal


def remove(text: str, constants: object = (), **options: bool) -> Transformed:
    return transform(RemoveNoOps(), text, constants, **options)  # type: ignore[arg-type]


CONSTANTS = {
    "zero": np.zeros(()),
    "zeros3": np.zeros(3),
    "one": np.ones(()),
    "one11": np.ones((1, 1)),
    "ones3": np.ones(3),
    "ones123": np.ones((1, 2, 3)),
    "pads": np.zeros(4),
    "same": np.array([2, 3]),
    "keep": np.array([0, 3]),
    "once": np.array([1, 1]),
    "off": np.array(False),
    "ratio": np.array(0.5),
}
DECLARED = (
    "float zero, float[3] zeros3, float one, float[1,1] one11, float[3] ones3, float[1,2,3] ones123, int64[4] pads, "
    "int64[2] same, int64[2] keep, int64[2] once, bool off, float ratio"
)


@pytest.mark.parametrize(
    "call",
    [
        "Identity(a)",
        "Dropout(a)",
        "Dropout<seed=1>(a, ratio)",
        "Dropout(a, ratio, off)",
        "Cast<to=1>(a)",
        "CastLike(a, one)",
        "Transpose<perm=[0,1]>(a)",
        "Pad(a, pads)",
        "Reshape(a, same)",
        "Reshape(a, keep)",
        "Flatten<axis=1>(a)",
        "Expand(a, once)",
        "Tile(a, once)",
        "Mul(a, one)",
        "Mul(one11, a)",
        "Mul(a, ones3)",
        "Div(a, one)",
        "Add(a, zero)",
        "Add(zeros3, a)",
        "Sub(a, zero)",
        "Concat<axis=0>(a)",
        "Sum(a)",
        "Max(a)",
        "Min(a)",
        "Mean(a)",
    ],
)
def test_removed_between_two_nodes_and_before_an_output(call: str) -> None:
    text = f"g (float[2,3] x, {DECLARED}) => (float[2,3] y) {{ a = Relu(x) b = {call} y = Neg(b) }}"
    result = remove(text, CONSTANTS)
    assert result.ops == ["Relu", "Neg"]
    assert result.modified
    text = f"g (float[2,3] x, {DECLARED}) => (float[2,3] y) {{ a = Relu(x) y = {call} }}"
    assert remove(text, CONSTANTS).ops == ["Relu"]


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        ("Cast<to=11>(x)", "double[2,3] y"),
        ("Transpose(x)", "float[3,2] y"),
        ("Transpose<perm=[1,0]>(x)", "float[3,2] y"),
        ("Pad(x, pads1)", "float[3,3] y"),
        ("Reshape(x, turned)", "float[3,2] y"),
        ("Flatten<axis=0>(x)", "float[1,6] y"),
        ("Mul(x, two)", "float[2,3] y"),
        ("Mul(x, ones123)", "float[1,2,3] y"),
        ("Mul(x, mixed)", "float[2,3] y"),
        ("Add(x, one)", "float[2,3] y"),
        ("Div(one, x)", "float[2,3] y"),
        ("Sub(zero, x)", "float[2,3] y"),
        ("Sum(x, x)", "float[2,3] y"),
        ("Concat<axis=0>(x, x)", "float[4,3] y"),
        ("Tile(x, twice)", "float[2,6] y"),
    ],
)
def test_kept(call: str, shape: str) -> None:
    constants = CONSTANTS | {
        "pads1": np.array([1, 0, 0, 0]),
        "turned": np.array([3, 2]),
        "two": np.full((), 2.0),
        "mixed": np.array([1.0, 1.0, 2.0]),
        "twice": np.array([1, 2]),
    }
    text = f"""g (float[2,3] x, {DECLARED}, int64[4] pads1, int64[2] turned, float two, float[3] mixed,
        int64[2] twice) => ({shape}) {{ y = {call} }}"""
    assert not remove(text, constants).modified


def test_one_column_that_an_operand_widens_is_kept() -> None:
    text = "g (float[2,1] x, float[3] ones3, float[2,1] a) => (float[2,3] y) { y = Mul(x, ones3) }"
    assert not remove(text, CONSTANTS).modified


def test_training_dropout_is_kept() -> None:
    text = "g (float[2,3] x, float ratio, bool on) => (float[2,3] y) { y = Dropout(x, ratio, on) }"
    assert not remove(text, {"ratio": np.array(0.0), "on": np.array(True)}).modified
    assert not remove(text, {"ratio": np.array(0.0)}).modified


def test_dropout_with_its_mask_in_use_is_kept() -> None:
    text = "g (float[2,3] x) => (float[2,3] y, bool[2,3] m) { a = Relu(x) b, m = Dropout(a) y = Neg(b) }"
    assert not remove(text).modified
    text = "g (float[2,3] x) => (float[2,3] y, bool[2,3] k) { a = Relu(x) b, m = Dropout(a) y = Neg(b) k = Not(m) }"
    assert not remove(text).modified
    text = "g (float[2,3] x) => (float[2,3] y) { a = Relu(x) b, m = Dropout(a) y = Neg(b) }"
    assert remove(text).ops == ["Relu", "Neg"]


# --- shapes that are known in part ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "target", "gone"),
    [("N,3", [-1, 3], True), ("N,3,4", [0, 3, 4], True), ("N,3", [0, -1], True), ("N,6", [-1, 3], False)],
)
def test_reshape_of_a_batch(shape: str, target: list[int], gone: bool) -> None:
    out = ",".join("M" if d < 1 else str(d) for d in target) if not gone else shape
    text = f"""g (float[{shape}] x, int64[{len(target)}] s) => (float[{out}] y) {{
        a = Relu(x)
        b = Reshape(a, s)
        y = Neg(b) }}"""
    assert remove(text, {"s": np.array(target)}).ops == (["Relu", "Neg"] if gone else ["Relu", "Reshape", "Neg"])


@pytest.mark.parametrize(
    ("before", "after", "same_size", "equal"),
    [
        ((2, 3), (2, 3), False, True),
        (("N", 3), ("N", 3), False, True),
        (("N", 3), ("M", 3), False, False),
        (("N", 3), ("M", 3), True, True),
        ((None, 3), (None, 3), False, False),
        ((None, 3), (None, 3), True, True),
        ((None, "N"), (None, "N"), True, True),
        ((None, None), (None, None), True, False),
        ((None, 0), (None, 0), True, False),
        ((None, 3), (3, None), True, False),
        ((2, 3), (3, 2), True, False),
        ((2, 3), (2, 3, 1), True, False),
        (None, (2,), True, False),
    ],
)
def test_provably_equal(before: object, after: object, same_size: bool, equal: bool) -> None:
    assert provably_equal(before, after, same_size=same_size) is equal  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "into", "fits"),
    [
        ((), None, True),
        ((1,), None, False),
        ((1,), (None,), True),
        ((1, 1), ("N",), False),
        ((3,), ("N", 3), True),
        ((3,), ("N", None), False),
        ((3,), ("N", 1), False),
        ((2, 1), (2, 3), True),
    ],
)
def test_broadcasts_into(shape: tuple[int, ...], into: object, fits: bool) -> None:
    assert broadcasts_into(shape, into) is fits  # type: ignore[arg-type]


# --- outputs and subgraphs ------------------------------------------------------------------------------------------


def test_from_input_to_output_an_identity_is_left() -> None:
    result = remove("g (float[2] x) => (float[2] y) { y = Identity(x) }")
    assert (result.ops, result.modified) == (["Identity"], False)
    result = remove("g (float[2] x) => (float[2] y) { y = Dropout(x) }")
    assert (result.ops, result.modified) == (["Identity"], True)


def test_one_tensor_under_two_output_names() -> None:
    result = remove("g (float[2] x) => (float[2] y, float[2] z) { a = Relu(x) y = Identity(a) z = Identity(a) }")
    assert result.ops == ["Relu", "Identity"]
    result = remove("g (float[2] x) => (float[2] a, float[2] z) { a = Relu(x) z = Identity(a) }")
    assert (result.ops, result.modified) == (["Relu", "Identity"], False)


def test_constant_to_output() -> None:
    result = remove("g (float[2] x, float[2] c) => (float[2] y, float[2] z) { y = Identity(c) z = Relu(x) }", ("c",))
    assert not result.modified


def test_other_readers_follow_an_output_that_is_renamed() -> None:
    result = remove("g (float[2] x) => (float[2] y, float[2] z) { a = Relu(x) y = Identity(a) z = Neg(a) }")
    assert result.ops == ["Relu", "Neg"]


def test_chains_go_in_one_run() -> None:
    text = "g (float[2] x) => (float[2] y) { a = Identity(x) b = Relu(a) c = Identity(b) d = Sum(c) y = Identity(d) }"
    assert remove(text).ops == ["Relu"]


def test_one_of_several_outputs_is_renamed() -> None:
    text = "g (float[4] x) => (float[2] y, float[2] a) { a, b = Split<axis=0>(x) y = Identity(b) }"
    model = parse(text)
    result = transform(RemoveNoOps(), model, infer=False)
    assert [t.name for t in result.graph.nodes[0].outputs] == ["a", "y"]


def test_tensors_that_subgraphs_capture() -> None:
    result = remove(
        """g (float[2] x, bool cond) => (float[2] y, float[2] w) {
            a = Relu(x)
            b = Identity(a)
            w = Identity(a)
            y = If (cond) <
                then_branch = t () => (float[2] p) { p = Neg(b) },
                else_branch = e () => (float[2] q) { c = Identity(a) q = Abs(c) }> }"""
    )
    assert result.ops == ["Relu", "If"]


def test_an_identity_that_makes_the_output_of_a_subgraph_is_left() -> None:
    result = remove(
        """g (float[2] x, bool cond) => (float[2] y) {
            a = Relu(x)
            y = If (cond) <
                then_branch = t () => (float[2] p) { p = Identity(a) },
                else_branch = e () => (float[2] q) { r = Neg(a) q = Identity(r) }> }"""
    )
    branches = [a.g for a in result.model.graph.node[1].attribute]
    assert [[n.op_type for n in g.node] for g in branches] == [["Identity"], ["Neg"]]
    assert result.modified


def test_nothing_to_do() -> None:
    assert not remove("g (float[2] x) => (float[2] y) { y = Relu(x) }").modified
