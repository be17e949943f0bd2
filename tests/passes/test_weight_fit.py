"""Weight calibration: its patches against ONNX Runtime, its equations against scipy, its guard against noise."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper
from scipy.linalg import lstsq
from small_networks import NETWORKS, compiled, inputs_of, parse, run

import snncc
from snncc import compiling as compiling_module
from snncc.graph import import_graph
from snncc.passes import weight_fit
from snncc.passes.weight_fit import Equations, Layout, error, fit, fitted_weight, held_back, presentations_held_back

LAYERS = [
    ("float[N,4,7,6] x, float[6,2,3,3] w_1", "y = Conv <group = 2, pads = [1,0,2,1], strides = [2,1]> (x, w_1)"),
    ("float[N,4,7,6] x, float[4,1,3,3] w_1", "y = Conv <group = 4, dilations = [2,1]> (x, w_1)"),
    ("float[N,4,7,6] x, float[3,4,3,2] w_1", 'y = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (x, w_1)'),
    ("float[N,4,7,6] x, float[3,4,2,2] w_1", 'y = Conv <auto_pad = "SAME_LOWER"> (x, w_1)'),
    ("float[N,4,9] x, float[5,4,3] w_1, float[5] b_1", "y = Conv <pads = [1,1]> (x, w_1, b_1)"),
    ("float[N,2,5,4,3] x, float[3,2,3,2,2] w_1", "y = Conv (x, w_1)"),
    ("float[N,5] x, float[5,3] w_1", "y = Gemm <alpha = 0.5> (x, w_1)"),
    ("float[N,5] x, float[3,5] w_1, float[3] b_1", "y = Gemm <transB = 1> (x, w_1, b_1)"),
    ("float[N,4,5] x, float[5,3] w_1", "y = MatMul (x, w_1)"),
]


@pytest.mark.parametrize(("inputs", "body"), LAYERS, ids=lambda v: v if "=" in v else "")
@pytest.mark.parametrize("most", [1000, 3])
def test_rows_times_weights_are_what_the_layer_computes(inputs: str, body: str, most: int) -> None:
    """To float32 rounding of sums of at most 36 products; a bias is the same in all rows."""
    model = parse(f"g ({inputs}) => (float[N] y) {{ {body} }}", check=False)
    feeds = inputs_of(model, 5)
    node = import_graph(model).nodes[0]
    layout = Layout.of(node)
    assert layout is not None
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    output = run(model, feeds)["y"]
    x, y = layout.rows(feeds["x"], output, 0, most)
    assert x.shape[1] == min(most, output[0].size // (x.shape[2] * y.shape[3]))
    rest = y - np.einsum("nmgf,gfc->nmgc", x, layout.matrix)
    np.testing.assert_allclose(rest, np.broadcast_to(rest[:1, :1], rest.shape), atol=2e-6 * np.abs(y).max())
    np.testing.assert_array_equal(layout.weights(layout.matrix), layout.weight.astype(np.float32))


def test_rows_depend_on_the_sample_not_on_the_chunk() -> None:
    node = import_graph(parse(f"g ({LAYERS[0][0]}) => (float[N,6,4,5] y) {{ {LAYERS[0][1]} }}")).nodes[0]
    layout = Layout.of(node)
    assert layout is not None
    rng = np.random.default_rng(0)
    value, output = rng.random((6, 4, 7, 6), np.float32), rng.random((6, 6, 4, 5), np.float32)
    whole = layout.rows(value, output, 0, 4)
    for got, want in zip(layout.rows(value[2:], output[2:], 2, 4), whole, strict=True):
        np.testing.assert_array_equal(got, want[2:])


def test_rows_are_bounded_but_every_sample_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    node = import_graph(parse(f"g ({LAYERS[0][0]}) => (float[N,6,4,5] y) {{ {LAYERS[0][1]} }}")).nodes[0]
    layout = Layout.of(node)
    assert layout is not None
    assert layout.positions(100) == weight_fit.ROWS // 100
    assert layout.positions(10**6) == 1
    monkeypatch.setattr(weight_fit, "VALUES", 36 * 500)  # a row of both groups has 36 values
    assert layout.positions(100) == 5


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        ("float[N,4,7,6] x, float[4,3,2,2] w_1", "y = ConvTranspose (x, w_1)"),
        ("float[N,5,3] x, float[4,5] w_1", "y = MatMul (w_1, x)"),
        ("float[N,2,5,3] x, float[2,3,4] w_1", "y = MatMul (x, w_1)"),
        ("float[5,N] x, float[5,3] w_1", "y = Gemm <transA = 1> (x, w_1)"),
    ],
)
def test_layers_that_are_left_alone(inputs: str, body: str) -> None:
    node = import_graph(parse(f"g ({inputs}) => (float[N] y) {{ {body} }}", check=False)).nodes[0]
    assert Layout.of(node) is None


def test_equations_and_ridge_against_a_least_squares_solver() -> None:
    """The ridge about W0 is plain least squares with √λ (W - W0) as further rows; the error is what its rows leave."""
    rng = np.random.default_rng(0)
    x, y, start = rng.standard_normal((200, 2, 7)), rng.standard_normal((200, 2, 3)), rng.standard_normal((2, 7, 3))
    y += np.einsum("rgf,gfc->rgc", x, start + 0.3 * rng.standard_normal(start.shape)) + 5.0
    equations = Equations.of(x.astype(np.float32), y.astype(np.float32))
    best = fit(equations, equations, start)  # held-back rows that are the fitted ones want the smallest λ
    assert best is not None
    for g in range(2):
        a, b = x[:, g] - x[:, g].mean(0), y[:, g] - y[:, g].mean(0)
        ridge = np.sqrt(weight_fit.RIDGES[0] * np.square(a).sum() / 7)
        expected = lstsq(np.vstack([a, ridge * np.eye(7)]), np.vstack([b, ridge * start[g]]))[0]
        np.testing.assert_allclose(best[g], expected, atol=1e-5)
        np.testing.assert_allclose(error(equations, best)[g], np.square(b - a @ best[g]).sum(0), rtol=1e-5)


def test_noise_is_not_learned() -> None:
    """More weights than samples and an output that the weights already explain: held-back samples say no."""
    rng = np.random.default_rng(0)
    node = import_graph(parse("g (float[N,50] x, float[50,2] w_1) => (float[N,2] y) { y = Gemm (x, w_1) }")).nodes[0]
    layout = Layout.of(node)
    assert layout is not None
    x = rng.standard_normal((40, 1, 1, 50)).astype(np.float32)
    y = (x @ layout.matrix[0] + rng.standard_normal((40, 1, 1, 2))).astype(np.float32)
    assert fitted_weight(layout, [(x, y)]) is None
    assert fitted_weight(layout, [(x[:3], y[:3])]) is None  # nothing is held back


def test_what_is_held_back_depends_on_the_number_of_the_sample() -> None:
    chooses, judges = held_back(0, 19)
    assert chooses.tolist() == [i % 4 == 3 for i in range(19)]
    assert judges.tolist() == [i % 8 == 4 for i in range(19)]
    for part, whole in enumerate((chooses, judges)):
        np.testing.assert_array_equal(np.concatenate([held_back(0, 5)[part], held_back(5, 14)[part]]), whole)


@pytest.mark.parametrize("name", ["residual", "mobile", "sequence"])
def test_it_lowers_the_error_of_the_output(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On samples that calibration did not see, at T=1 where rounding errs most; without the guard.

    Inputs are white noise, in which neighbours say nothing of each other: a few per cent is what can be had.
    """
    monkeypatch.setattr(compiling_module, "is_better", lambda *_: True)
    model = NETWORKS[name].model()
    data, unseen = inputs_of(model, 256), inputs_of(model, 128, seed=9)
    expected = run(model, unseen)["y"]
    options = {"timesteps": 1, "max_burst": 4, "neuron": "burst"}
    errors = [
        np.square(run(network.model, unseen)["y"] - expected).sum()
        for network in (compiled(model, data=data, weight_calibration=w, **options) for w in (True, False))
    ]
    assert errors[0] < 0.98 * errors[1]


@pytest.mark.parametrize("helps", [True, False])
def test_it_is_left_out_where_it_does_not_help(helps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling_module, "is_better", lambda *_: helps)
    model = NETWORKS["residual"].model()
    feeds = inputs_of(model, 256)
    fitted, plain = (compiled(model, data=feeds, timesteps=2, weight_calibration=w) for w in (True, False))
    one, two = ([t.raw_data for t in network.model.graph.initializer] for network in (fitted, plain))
    same = one == two
    assert same is not helps
    assert any("weight calibration was left out" in w for w in fitted.record.warnings) is not helps
    assert fitted.record.config["weight_calibration"] is True


@pytest.mark.parametrize("exponent", [90, -90])
def test_the_unit_of_the_values_is_no_matter(exponent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaled by a power of two, a network gets the same weights; whether they help is judged by its class scores."""
    monkeypatch.setattr(compiling_module, "is_better", lambda *_: True)
    scale = np.float32(2.0**exponent)
    plain, scaled = NETWORKS["plain"].model(), NETWORKS["plain"].model()
    for tensor in scaled.graph.initializer:
        if tensor.name.startswith("b_") or tensor.name == "w_1":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * scale, tensor.name))
    one, other = (compiled(model, weight_calibration=True) for model in (plain, scaled))
    feeds = inputs_of(plain, 5, seed=2)
    expected = run(one.model, feeds)["y"]
    np.testing.assert_array_equal(run(other.model, feeds)["y"], expected * scale)
    assert not np.array_equal(expected, run(compiled(plain).model, feeds)["y"])


def test_progress_goes_through_once_over_both_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling_module, "is_better", lambda *_: True)
    model, steps = NETWORKS["residual"].model(), []
    config = snncc.Config(timesteps=2, weight_calibration=True)
    snncc.compile(model, calibration=inputs_of(model, 64), config=config, progress=lambda *step: steps.append(step))
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert {total for _, total in steps} == {len(steps)}


def test_batch_size_is_no_matter_of_the_weights() -> None:
    """To 1e-3: what is upstream may round otherwise, and the layer with it."""
    model = NETWORKS["mobile"].model()
    feeds = inputs_of(model, 64)
    one, two = (
        compiled(model, data=feeds, timesteps=2, weight_calibration=True, batch_size=size).model for size in (64, 7)
    )
    for x, y in zip(one.graph.initializer, two.graph.initializer, strict=True):
        a, b = (np.frombuffer(t.raw_data, np.float32) for t in (x, y) if t.data_type == 1)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * max(1.0, float(np.abs(a).max())))


def test_all_presentations_of_a_sample_are_held_back_together() -> None:
    """Rows of a chunk are presentation by presentation; samples are numbered through all chunks."""
    chooses, judges = presentations_held_back([3 * 10, 3 * 7], 3)
    samples = np.concatenate([np.tile(np.arange(10), 3), np.tile(np.arange(10, 17), 3)])
    for found, wanted in zip((chooses, judges), held_back(0, 17), strict=True):
        np.testing.assert_array_equal(found, wanted[samples])
        assert found.any()
