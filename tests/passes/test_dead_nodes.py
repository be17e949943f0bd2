"""What no output depends on goes; the signature stays."""

from __future__ import annotations

from graph_checks import transform

from snncc.passes.dead_nodes import RemoveDeadNodes


def test_dead_chain_and_its_initializer() -> None:
    result = transform(
        RemoveDeadNodes(),
        """g (float[2] x, float[2] w) => (float[2] y) {
            y = Relu(x)
            a = Mul(x, w)
            b = Neg(a) }""",
        ("w",),
    )
    assert result.ops == ["Relu"]
    assert result.modified
    assert not result.model.graph.initializer


def test_unused_inputs_stay() -> None:
    text = "g (float[2] x, float[3] unused) => (float[2] y) { y = Relu(x) z = Abs(unused) }"
    result = transform(RemoveDeadNodes(), text)
    assert [t.name for t in result.graph.inputs] == ["x", "unused"]
    assert result.ops == ["Relu"]


def test_what_a_subgraph_captures_is_alive_and_its_own_dead_nodes_go() -> None:
    result = transform(
        RemoveDeadNodes(),
        """g (float[2] x, float[2] w, bool cond) => (float[2] y) {
            a = Mul(x, w)
            b = Neg(w)
            y = If (cond) <
                then_branch = t () => (float[2] p) { d = Abs(a) p = Neg(a) },
                else_branch = e () => (float[2] q) { q = Identity(b) }> }""",
        ("w",),
    )
    assert result.modified
    assert result.ops == ["Mul", "Neg", "If"]
    branches = [a.g for a in result.model.graph.node[2].attribute]
    assert [[n.op_type for n in g.node] for g in branches] == [["Neg"], ["Identity"]]


def test_what_only_a_nested_subgraph_captures_is_alive() -> None:
    result = transform(
        RemoveDeadNodes(),
        """g (float[2] x, bool cond) => (float[2] y) {
            a = Neg(x)
            y = If (cond) <
                then_branch = t () => (float[2] p) {
                    p = If (cond) <then_branch = tt () => (float[2] r) { r = Abs(a) },
                                   else_branch = te () => (float[2] s) { s = Neg(x) }> },
                else_branch = e () => (float[2] q) { q = Identity(x) }> }""",
    )
    assert (result.ops, result.modified) == (["Neg", "If"], False)


def test_one_used_output_of_several_keeps_the_node() -> None:
    result = transform(
        RemoveDeadNodes(),
        "g (float[4] x) => (float[2] b) { a, b = Split<axis=0>(x) }",
        infer=False,
    )
    assert (result.ops, result.modified) == (["Split"], False)
