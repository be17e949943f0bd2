"""The model-local functions at several opsets: valid, accepted by onnxruntime, and right.

Values are compared with NumPy. Where a function only moves values or takes differences of small whole numbers, the
result is exact; means are to float32's precision.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnxruntime as ort
import pytest

from snncc.neurons.functions import _SOURCES, MIN_OPSET, function, functions

T, N = 4, 2
POOL = "kernel_shape = [3,2], strides = [2,1], pads = [1,0,1,1], dilations = [1,2], ceil_mode = 1"


@functools.cache
def newest_opset() -> int:
    """The newest opset that this onnxruntime takes."""
    for opset in range(onnx.defs.onnx_opset_version(), MIN_OPSET, -1):
        model = model_of(opset, "float[N] x", "float[N] y", "y = Neg (x)")
        try:
            open_session(model)
        except Exception:  # noqa: BLE001,S112,RUF100 - onnxruntime raises its own types
            continue
        return opset
    raise AssertionError("onnxruntime takes no opset above the lowest")


def model_of(opset: int, inputs: str, outputs: str, body: str, used: tuple[str, ...] = ()) -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["" : {opset}, "snncc" : 1]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    model.functions.extend(functions(used, opset))
    return model


def open_session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def evaluate(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    """Check the model in every way and return its output, on which both runtimes must agree."""
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    result = np.asarray(open_session(model).run(None, feeds)[0])
    reference = onnx.reference.ReferenceEvaluator(model).run(None, feeds)[0]
    np.testing.assert_allclose(reference, result, rtol=1e-6, atol=1e-6)
    assert result.dtype == np.float32
    return result


def opsets() -> list[int]:
    return sorted({17, 18, 21, newest_opset()})


def folded(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[2:])


def values(*shape: int, seed: int = 0) -> np.ndarray:
    """Whole numbers: sums and differences of them are exact."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


@pytest.fixture(params=opsets(), ids=lambda opset: f"opset{opset}")
def opset(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_onnxruntime_takes_more_than_the_lowest_opset() -> None:
    assert newest_opset() >= 21


def test_every_function_is_tested_here() -> None:
    tested = {"BurstIF", "BurstIFStep"}  # in test_burst_if, and at each opset below
    tested |= {"MaxPoolIncrement", "MaxPoolIncrementStep", "RepeatInput", "RateDecode", "RunningMean", "LastStep"}
    tested |= {"Increment", "IncrementStep", "RunningMeanStep", "Finite", "UnfoldTime", "FoldTime", "InOrder"}
    tested |= {f"SignedBurst{kind}{step}" for kind in ("", "Relu", "Clip") for step in ("", "Step")}
    tested |= {"BurstIFUnit", "BurstIFUnitConstant", "SignedBurstReluUnit", "SignedBurstClipUnit"}
    tested |= {"Rescale"}
    tested |= {"Int8Conv", "Int8MatMul"}  # in tests/passes/test_int8_weights and tests/runtime/test_int8_conv
    assert set(_SOURCES) == tested


def test_functions_come_sorted_and_once() -> None:
    assert [f.name for f in functions(["RateDecode", "BurstIF", "RateDecode"], 17)] == ["BurstIF", "RateDecode"]


def test_function_says_what_it_does() -> None:
    made = function("BurstIF", 18)
    assert made.domain == "snncc"
    assert [(o.domain, o.version) for o in made.opset_import] == [("", 18)]
    assert "v_init" in made.doc_string
    assert list(made.attribute) == ["timesteps", "max_burst", "threshold_ratio"]


@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (3, 2, 2)], ids=lambda s: f"rank{len(s) + 1}")
def test_burst_if(opset: int, shape: tuple[int, ...]) -> None:
    """θe = 2, ψ = 2, v0 = 0.5, by hand for the first neuron; every rank that a layer may have."""
    dims = ",".join(["N", *map(str, shape)])
    body = f"y = snncc.BurstIF <timesteps = {T}, max_burst = 2, threshold_ratio = 2.0> (x, theta, v_init)"
    model = model_of(opset, f"float[{dims}] x, float theta, float v_init", f"float[{dims}] y", body, ("BurstIF",))
    x = np.broadcast_to(np.array([0.5, 0.75, 9.0, -5.0]).reshape(T, 1, *[1] * len(shape)), (T, N, *shape))
    y = evaluate(
        model,
        x=folded(np.ascontiguousarray(x, np.float32)),
        theta=np.array(1.0, np.float32),
        v_init=np.array(0.5, np.float32),
    )
    first = y.reshape(T, N, -1)[:, 0, 0]
    assert first.tolist() == [0.0, 2.0, 4.0, 0.0]  # u: 1.5, 2.25, 9.25, 0.25


@pytest.mark.parametrize("op", ["BurstIF", "SignedBurstRelu", "SignedBurstClip"])
@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)], ids=lambda s: f"rank{len(s) + 1}")
def test_unit_neurons_count(opset: int, op: str, shape: tuple[int, ...]) -> None:
    """In units of a threshold of two to the power of something, all that changes is the unit."""
    dims = ",".join(["N", *map(str, shape)])
    upper = ", upper = 0.75" if op == "SignedBurstClip" else ""
    attributes = f"<timesteps = {T}, max_burst = 2, threshold_ratio = 2.0{upper}>"
    given, made = f"float[{dims}] x, float theta, float v_init", f"float[{dims}] y"
    theta, v_init = np.array(0.25, np.float32), np.array(0.5, np.float32)
    x = folded(np.random.default_rng(1).normal(0.3, 1.0, (T, N, *shape)).astype(np.float32))
    plain = model_of(opset, given, made, f"y = snncc.{op} {attributes} (x, theta, v_init)", (op,))
    unit = model_of(opset, given, made, f"y = snncc.{op}Unit {attributes} (x, theta, v_init)", (f"{op}Unit",))
    expected = evaluate(plain, x=x, theta=theta, v_init=v_init) / (theta * 2)
    assert len(np.unique(expected)) >= 3
    np.testing.assert_array_equal(evaluate(unit, x=x / (theta * 2), theta=theta, v_init=v_init), expected)


def test_unit_neurons_of_a_constant_current(opset: int) -> None:
    attributes = f"<timesteps = {T}, max_burst = 2, threshold_ratio = 1.0>"
    given, made = "float[N,3,2,2] x, float theta, float v_init", "float[M,3,2,2] y"
    feeds = {"theta": np.array(1.0, np.float32), "v_init": np.array(0.5, np.float32)}
    x = np.random.default_rng(1).normal(0.3, 1.0, (N, 3, 2, 2)).astype(np.float32)
    over_time = model_of(opset, given, made, f"y = snncc.BurstIFUnit {attributes} (x, theta, v_init)", ("BurstIFUnit",))
    body = f"y = snncc.BurstIFUnitConstant {attributes} (x, theta, v_init)"
    constant = model_of(opset, given, made, body, ("BurstIFUnitConstant",))
    expected = evaluate(over_time, x=folded(np.stack([x] * T)), **feeds)
    np.testing.assert_array_equal(evaluate(constant, x=x, **feeds), expected)


def test_rescale(opset: int) -> None:
    model = model_of(
        opset, "float[N,3] x, float[1,3] gain", "float[N,3] y", "y = snncc.Rescale (x, gain)", ("Rescale",)
    )
    x, gain = values(N, 3), np.array([[1.0, 2.0, 0.5]], np.float32)
    np.testing.assert_array_equal(evaluate(model, x=x, gain=gain), x * gain)


def test_burst_if_step(opset: int) -> None:
    body = "y, v = snncc.BurstIFStep <max_burst = 2, threshold_ratio = 2.0> (x, theta, v_mem)"
    inputs = "float[N,3] x, float[1,3] theta, float[N,3] v_mem"
    feeds = {
        "x": np.array([[5.0, 1.0, 12.0]], np.float32),
        "theta": np.array([[1.0, 2.0, 1.0]], np.float32),
        "v_mem": np.array([[0.5, 0.5, -1.0]], np.float32),  # in units of θe
    }
    for output, expected in (("y", [[4.0, 0.0, 4.0]]), ("v", [[1.0, 0.75, 3.0]])):
        model = model_of(opset, inputs, f"float[N,3] {output}", body, ("BurstIFStep",))
        assert evaluate(model, **feeds).tolist() == expected


@pytest.mark.parametrize("timesteps", [1, T])
def test_max_pool_increment(opset: int, timesteps: int) -> None:
    x = values(timesteps, N, 3, 7, 5)
    plain = model_of(opset, "float[N,3,7,5] x", "float[N,C,H,W] y", f"y = MaxPool <{POOL}> (x)")
    body = f"y = snncc.MaxPoolIncrement <timesteps = {timesteps}, {POOL}> (x)"
    model = model_of(opset, "float[N,3,7,5] x", "float[N,C,H,W] y", body, ("MaxPoolIncrement",))
    y = evaluate(model, x=folded(x))
    total = evaluate(plain, x=folded(np.cumsum(x, axis=0))).reshape(timesteps, N, *y.shape[1:])
    np.testing.assert_array_equal(np.cumsum(y.reshape(total.shape), axis=0), total)


def test_max_pool_increment_step(opset: int) -> None:
    x, total = values(N, 3, 7, 5), values(N, 3, 7, 5, seed=1)
    plain = model_of(opset, "float[N,3,7,5] x", "float[N,C,H,W] y", f"y = MaxPool <{POOL}> (x)")
    body = f"y, after = snncc.MaxPoolIncrementStep <{POOL}> (x, total)"
    inputs = "float[N,3,7,5] x, float[N,3,7,5] total"
    model = model_of(opset, inputs, "float[N,C,H,W] y", body, ("MaxPoolIncrementStep",))
    expected = evaluate(plain, x=x + total) - evaluate(plain, x=total)
    np.testing.assert_array_equal(evaluate(model, x=x, total=total), expected)
    model = model_of(opset, inputs, "float[N,3,7,5] after", body, ("MaxPoolIncrementStep",))
    np.testing.assert_array_equal(evaluate(model, x=x, total=total), x + total)


@pytest.mark.parametrize("timesteps", [1, T])
@pytest.mark.parametrize("shape", [(), (3,), (3, 2, 2)], ids=lambda s: f"rank{len(s) + 1}")
@pytest.mark.parametrize("name", ["RepeatInput", "RateDecode", "RunningMean", "LastStep", "UnfoldTime"])
def test_what_carries_time(opset: int, name: str, shape: tuple[int, ...], timesteps: int) -> None:
    dims = ",".join(map(str, shape))
    lead = f"N{',' if dims else ''}{dims}"
    steps = values(timesteps, N, *shape)
    counts = np.arange(1, timesteps + 1).reshape(-1, *[1] * (steps.ndim - 1))
    given, expected = {
        "RepeatInput": (steps[0], folded(np.stack([steps[0]] * timesteps))),
        "RateDecode": (folded(steps), steps.mean(axis=0)),
        "RunningMean": (folded(steps), folded(np.cumsum(steps, axis=0) / counts)),
        "LastStep": (folded(steps), steps[-1]),
        "UnfoldTime": (folded(steps), steps),
    }[name]
    output = f"float[T,{lead}] y" if name == "UnfoldTime" else f"float[M{',' if dims else ''}{dims}] y"
    body = f"y = snncc.{name} <timesteps = {timesteps}> (x)"
    model = model_of(opset, f"float[{lead}] x", output, body, (name,))
    got = evaluate(model, x=given)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=0)


def signed_spikes(aims: np.ndarray, unit: float, max_burst: int, v_init: float) -> np.ndarray:
    """Spikes [T, ...] of a signed neuron for aims [T, ...], one timestep and one element at a time."""
    spikes = np.zeros_like(aims)
    for place in np.ndindex(aims.shape[1:]):
        emitted = 0.0
        for t in range(len(aims)):
            wanted = np.floor(aims[(t, *place)] / unit + v_init) - emitted
            spikes[(t, *place)] = min(max(wanted, -max_burst), max_burst)
            emitted += spikes[(t, *place)]
    return spikes


def signed_aims(kind: str, x: np.ndarray) -> np.ndarray:
    numbers = np.arange(1, len(x) + 1, dtype=np.float32).reshape(-1, *[1] * (x.ndim - 1))
    if kind == "":
        return x * numbers
    bound = 2.5 * numbers if kind == "Clip" else np.inf
    return np.clip(np.cumsum(x, axis=0), 0, bound)


SIGNED_INPUTS = {"v_threshold": np.array(1.5, np.float32), "v_init": np.array(0.5, np.float32)}


@pytest.mark.parametrize("timesteps", [1, T])
@pytest.mark.parametrize("shape", [(), (3,), (3, 2, 2)], ids=lambda s: f"rank{len(s) + 1}")
@pytest.mark.parametrize("kind", ["", "Relu", "Clip"])
def test_signed_burst(opset: int, kind: str, shape: tuple[int, ...], timesteps: int) -> None:
    """θe = 3, ψ = 2: large currents are held back by ψ, negative ones take spikes back."""
    x = values(timesteps, N, *shape)
    dims = ",".join(["N", *map(str, shape)])
    upper = ", upper = 2.5" if kind == "Clip" else ""
    attributes = f"timesteps = {timesteps}, max_burst = 2, threshold_ratio = 2.0{upper}"
    body = f"y = snncc.SignedBurst{kind} <{attributes}> (x, v_threshold, v_init)"
    inputs = f"float[{dims}] x, float v_threshold, float v_init"
    model = model_of(opset, inputs, f"float[{dims}] y", body, (f"SignedBurst{kind}",))
    y = evaluate(model, x=folded(x), **SIGNED_INPUTS)
    np.testing.assert_array_equal(y.reshape(x.shape), 3 * signed_spikes(signed_aims(kind, x), 3.0, 2, 0.5))


@pytest.mark.parametrize("kind", ["", "Relu", "Clip"])
def test_signed_burst_step_by_step(opset: int, kind: str) -> None:
    """The steps, with their states handed on, give what the function for all timesteps gives."""
    x = values(T, N, 3)
    name = f"SignedBurst{kind}Step"
    upper = ", upper = 2.5" if kind == "Clip" else ""
    states = ["count"] if kind == "" else ["total", "count"]
    numbered = [] if kind == "Relu" else ["t"]
    given = ["x", "v_threshold", "v_init", *numbered, *states]
    made = ["y", *(f"{s}_next" for s in states)]
    shapes = {"x": "[N,3]", **dict.fromkeys(states, "[N,3]")}
    inputs = ", ".join(f"float{shapes.get(g, '')} {g}" for g in given)
    body = f"{', '.join(made)} = snncc.{name} <max_burst = 2, threshold_ratio = 2.0{upper}> ({', '.join(given)})"
    feeds = {**SIGNED_INPUTS, **{s: np.zeros((N, 3), np.float32) for s in states}}
    expected = 3 * signed_spikes(signed_aims(kind, x), 3.0, 2, 0.5)
    for t in range(T):
        feeds |= {"x": x[t]} | ({"t": np.array(t + 1, np.float32)} if numbered else {})
        got = {m: evaluate(model_of(opset, inputs, f"float[N,3] {m}", body, (name,)), **feeds) for m in made}
        np.testing.assert_array_equal(got["y"], expected[t])
        feeds |= {s: got[f"{s}_next"] for s in states}


@pytest.mark.parametrize("timesteps", [1, T])
def test_increment_undoes_the_running_mean(opset: int, timesteps: int) -> None:
    x = values(timesteps, N, 3, 2)
    numbers = np.arange(1, timesteps + 1, dtype=np.float32).reshape(-1, 1, 1, 1)
    means = np.cumsum(x, axis=0) / numbers
    body = f"y = snncc.Increment <timesteps = {timesteps}> (x)"
    model = model_of(opset, "float[N,3,2] x", "float[N,3,2] y", body, ("Increment",))
    np.testing.assert_allclose(evaluate(model, x=folded(means)).reshape(x.shape), x, atol=1e-5)


def test_forms_step_by_step(opset: int) -> None:
    """A running mean and what it gains, each with its state, at the second and third timestep by hand."""
    x, total = np.array([[6.0]], np.float32), np.array([[4.0]], np.float32)
    inputs = "float[N,1] x, float t, float[N,1] state"
    for name, outputs in (("RunningMeanStep", (5.0, 10.0)), ("IncrementStep", (8.0, 12.0))):
        for output, expected in zip(("y", "after"), outputs, strict=True):
            model = model_of(opset, inputs, f"float[N,1] {output}", f"y, after = snncc.{name} (x, t, state)", (name,))
            assert evaluate(model, x=x, t=np.array(2, np.float32), state=total).tolist() == [[expected]]


def test_finite(opset: int) -> None:
    model = model_of(opset, "float[N] x", "float[N] y", "y = snncc.Finite (x)", ("Finite",))
    x = np.array([1.5, np.nan, np.inf, -np.inf, -2.0], np.float32)
    assert evaluate(model, x=x).tolist() == [1.5, 0.0, 0.0, 0.0, -2.0]


@pytest.mark.parametrize("period", [1, 2, 4])
def test_frames_are_folded_period_by_period(opset: int, period: int) -> None:
    x = values(T, N, 3, 2)
    attributes = f"timesteps = {T}, period = {period}"
    body = f"y = snncc.FoldTime <{attributes}> (x)"
    found = evaluate(model_of(opset, f"float[{T},N,3,2] x", "float[M,3,2] y", body, ("FoldTime",)), x=x)
    rows = [x[k * period + r, n] for r in range(period) for k in range(T // period) for n in range(N)]
    np.testing.assert_array_equal(found, np.stack(rows))


@pytest.mark.parametrize("period", [1, 2, 4])
def test_periods_are_brought_into_order(opset: int, period: int) -> None:
    x = values(T, N, 3, 2)
    rows = [x[k * period + r, n] for r in range(period) for k in range(T // period) for n in range(N)]
    body = f"y = snncc.InOrder <timesteps = {T}, period = {period}> (x)"
    found = evaluate(model_of(opset, "float[M,3,2] x", "float[M,3,2] y", body, ("InOrder",)), x=np.stack(rows))
    np.testing.assert_array_equal(found, folded(x))
