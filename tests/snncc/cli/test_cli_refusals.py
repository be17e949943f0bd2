"""What can't be converted is refused on one screen: node, operator, reason and remedy, for each kind of refusal."""

from __future__ import annotations

import onnx
import pytest
from graph_checks import parse

LAYER = "float[4,4] w, float[4,4] v"
LINEAR = f"g (float[N,4] x, {LAYER}) => (float[N,4] y) {{ [a] h = MatMul(x, w) [b] y = MatMul(h, v) }}"
RANDOM = f"""g (float[N,4] x, {LAYER}) => (float[N,4] y) {{ h = MatMul(x, w) r = Relu(h) [noise] n = RandomNormalLike(r)
    s = Add(r, n) c = MatMul(s, v) y = Relu(c) }}"""
SEQUENCE = f"""g (float[N,4] x, {LAYER}) => (float[N,4] y, float[N,8] z) {{ h = MatMul(x, w) r = Relu(h)
    [pack] s = SequenceConstruct(r, h) [join] z = ConcatFromSequence <axis=1> (s)
    m = ConcatFromSequence <axis=0> (s) c = MatMul(m, v) q = Relu(c) y = MatMul(q, v) }}"""
PADDING = """g (float[N,3,H,W] x, float[4,3,3,3] k, float[4,4,3,3] l) => (float[N,4,P,Q] y) {
    a = Conv(x, k) b = Relu(a) c = Conv(b, l) r = Relu(c)
    [pool] p = MaxPool <kernel_shape=[2,2], strides=[2,2], auto_pad="SAME_UPPER"> (r) d = Conv(p, l) y = Relu(d) }"""
STATE = """g (float[2,H] x, float[1] w, float[1] v) => (float[2,P] y) { h = Mul(x, w) r = Relu(h)
    s = ReduceSum <keepdims=0> (r) zero = Constant <value=float {0.0}> () up = Greater(s, zero)
    [branch] b = If (up) <then_branch = t () => (float[2,K] o) { o = Exp(r) },
                          else_branch = e () => (float[2,L] o) { o = Neg(r) }> y = Relu(b) }"""
RANK = f"""g (float[N,4,1] x, {LAYER}) => (float[N,4] y) {{ [drop] q = Squeeze(x) h = MatMul(q, w) [act] r = Relu(h)
    c = MatMul(r, v) y = Relu(c) }}"""
PICKED = f"""g (float[2,4] x, {LAYER}) => (float[2,4] y) {{ h = MatMul(x, w) r = Relu(h) [pick] u = Unique <axis=0> (r)
    c = MatMul(u, v) y = Relu(c) }}"""
LOSS = f"""g (float[1,4] x, {LAYER}) => (float y) {{ h = MatMul(x, w) r = Relu(h) c = MatMul(r, v)
    target = Constant <value=int64[1,1] {{0}}> () [loss] y = SoftmaxCrossEntropyLoss(c, target) }}"""
SOFT = f"""g (float[N,4] x, {LAYER}) => (float[N,4] y) {{ h = MatMul(x, w) r = Relu(h) [soft] s = Softmax(r)
    [out] c = MatMul(s, v) y = Relu(c) }}"""
MIXED = f"""g (float[N,4] x, {LAYER}) => (float[M] y) {{ h = MatMul(x, w) r = Relu(h) c = MatMul(r, v)
    zero = Constant <value=int64[1] {{0}}> () [sum] y = ReduceSum <keepdims=0> (c, zero) }}"""

REFUSALS = {
    "nothing spikes": (LINEAR, [], "node 'g' (graph): nothing in it would spike", "run it as it is"),
    "random": (RANDOM, [], "node 'noise' (RandomNormalLike): it gives other values", "without random operators"),
    "no tensor": (SEQUENCE, [], "node 'pack' (SequenceConstruct): its output 's' is no tensor", "without sequences"),
    "padding": (PADDING, [], "node 'pool' (MaxPool): its padding SAME_UPPER depends on", "fixed image size"),
    "state": (STATE, [], "node 'branch' (If): the network must step through a Scan", "with fixed sizes"),
    "rank": (RANK, [], "node 'act' (Relu): the network must step through a Scan, and the rank", "with fixed sizes"),
    "size": (
        PICKED,
        [],
        "node 'pick' (Unique): how much comes out depends on the values",
        "export the network without it",
    ),
    "strict, no neuron": (SOFT, ["--strict"], "node 'soft' (Softmax): it isn't linear", "compile without --strict"),
    "strict, graded": (
        SOFT,
        ["--strict", "--analog"],
        "node 'out' (MatMul): graded values, not spikes, drive its weights",
        "compile without --analog",
    ),
    "trace": (MIXED, ["--trace"], "(trace): node 'sum' (ReduceSum) does not treat the samples", "without --trace"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_one_screen_says_what_why_and_what_to_do(tmp_path, monkeypatch, invoke, kind):
    monkeypatch.chdir(tmp_path)
    text, options, start, remedy = REFUSALS[kind]
    onnx.save(parse(text, [i for i in ("w", "v", "k", "l") if f" {i}" in text.split("=>")[0]]), "bad.onnx")
    result = invoke("compile", "bad.onnx", *options)
    assert result.exit_code == 1, result.output
    first, *lines = result.stderr.splitlines()
    assert first.startswith("snncc: error: cannot convert this network")
    assert len(lines) < 10
    named = [line for line in lines if start in line]
    assert len(named) == 1, result.stderr
    assert remedy in named[0]
    assert not list(tmp_path.glob("*.snn.onnx"))


def test_many_obstacles_still_fit_on_one_screen(tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    noisy = " ".join(f"n{i} = RandomNormalLike(a{i}) a{i + 1} = Add(a{i}, n{i})" for i in range(30))
    text = f"g (float[N,4] x, {LAYER}) => (float[N,4] y) {{ h = MatMul(x, w) a0 = Relu(h) {noisy} y = Relu(a30) }}"
    onnx.save(parse(text, ("w", "v")), "bad.onnx")
    lines = invoke("compile", "bad.onnx").stderr.splitlines()
    assert "30 obstacle(s)" in lines[0]
    assert len(lines) <= 10
    assert "22 more" in lines[-1]


def test_what_the_runtime_does_not_load_is_no_network(tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    onnx.save(parse(LOSS, ("w", "v")), "bad.onnx")
    result = invoke("compile", "bad.onnx")
    assert result.exit_code == 1
    assert result.stderr.startswith("snncc: error: 'bad': ONNX Runtime can't load it: ")
    assert result.stderr.rstrip().endswith("; export it again")
    assert not list(tmp_path.glob("*.snn.onnx"))
