"""The public objects: compile, load, run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_networks import NETWORKS, compiled, inputs_of, parse, run

import snncc
from snncc.data import load as load_data
from snncc.errors import DataError, UnsupportedModelError, UsageError
from snncc.network import SpikingNetwork
from snncc.sources import default_output, input_specs, resolve, resolve_data


@pytest.fixture(scope="module")
def network() -> SpikingNetwork:
    return compiled(NETWORKS["two_inputs"].model(), timesteps=3)


@pytest.mark.parametrize("backend", ["ort", "numpy", "fused"])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_run_in_batches(network: SpikingNetwork, backend: str, batch_size: int) -> None:
    feeds = inputs_of(network.model, 7)
    seen: list[tuple[int, int]] = []
    outputs = network.run(
        feeds, backend=backend, batch_size=batch_size, progress=lambda done, of: seen.append((done, of))
    )
    np.testing.assert_allclose(outputs["y"], run(network.model, feeds)["y"], atol=1e-5)
    count = -(-7 // batch_size)
    assert seen == [(i, count) for i in range(1, count + 1)]


@pytest.mark.parametrize(("timesteps", "size"), [(1, 32), (16, 32), (64, 8), (256, 2), (600, 1)])
def test_many_timesteps_run_fewer_samples_at_a_time(timesteps: int, size: int) -> None:
    """The artifact holds all timesteps of a run at once: 512 rows, one sample at least; the fused executor does not."""
    network = compiled(NETWORKS["two_inputs"].model(), timesteps=timesteps)
    for backend, expected in (("ort", size), ("fused", 32)):
        seen: list[tuple[int, int]] = []
        network.run(inputs_of(network.model, 40), backend=backend, progress=lambda *now, to=seen: to.append(now))
        assert seen[-1] == (-(-40 // expected),) * 2


@pytest.mark.parametrize("name", ["batch_of_one", "samples_mixed"])
@pytest.mark.parametrize("backend", ["ort", "numpy", "fused"])
def test_run_with_a_fixed_batch(name: str, backend: str) -> None:
    """The batch size of the network counts, whatever is asked for."""
    model = NETWORKS[name].model()
    network = compiled(model, timesteps=3)
    feeds = inputs_of(model, 6)
    np.testing.assert_allclose(network.run(feeds, backend=backend)["y"], run(network.model, feeds)["y"], atol=1e-5)


def test_inputs_as_array_mapping_or_dataset() -> None:
    network = compiled(NETWORKS["plain"].model(), timesteps=2)
    x = inputs_of(network.model, 4)["x"]
    want = network.run(x)["y"]
    for inputs in ({"x": x}, {"anything": x}, [x[:2], x[2:]], load_data(x, network.inputs)):
        np.testing.assert_array_equal(network.run(inputs)["y"], want)


def test_what_does_not_fit_is_refused(network: SpikingNetwork) -> None:
    feeds = inputs_of(network.model, 3)
    with pytest.raises(UsageError, match="backend is 'cuda': it must be one of fused, ort, numpy"):
        network.run(feeds, backend="cuda")
    with pytest.raises(DataError, match="'z'"):
        network.run({"x": feeds["x"]})
    with pytest.raises(DataError):
        network.run({**feeds, "z": feeds["z"][:, :3]})


def test_scalar_outputs_are_stacked() -> None:
    """An output without a sample axis: one value for each batch."""
    model = parse("g (float[N,3] x) => (float y) { r = Relu (x) y = ReduceMean <keepdims = 0> (r) }")
    network = compiled(model, timesteps=64)
    x = inputs_of(model, 6)["x"]
    outputs = network.run(x, batch_size=2)["y"]
    assert outputs.shape == (3,)
    np.testing.assert_allclose(outputs, np.maximum(x, 0).reshape(3, -1).mean(axis=1), atol=0.02)


def test_network_is_made_once(network: SpikingNetwork) -> None:
    assert network.network is network.network


def test_compile_from_a_path_gives_the_same_network(tmp_path: Path) -> None:
    model = NETWORKS["plain"].model()
    onnx.save(model, str(tmp_path / "net.onnx"))
    x = inputs_of(model, 4)
    a = snncc.compile(tmp_path / "net.onnx", calibration=x)
    b = snncc.compile(str(tmp_path / "net.onnx"), calibration=x)
    c = snncc.compile(model, calibration=x)
    assert a.model.SerializeToString(deterministic=True) == b.model.SerializeToString(deterministic=True)
    assert a.model.graph == c.model.graph
    assert a.record.source["name"] == "net"


def test_compile_leaves_the_model_alone() -> None:
    model = NETWORKS["mobile"].model()
    before = model.SerializeToString(deterministic=True)
    compiled(model, timesteps=2)
    assert model.SerializeToString(deterministic=True) == before


def test_calibration_in_every_form(tmp_path: Path) -> None:
    model = NETWORKS["plain"].model()
    x = inputs_of(model, 6)["x"]
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    want = snncc.compile(model, calibration=x).model.SerializeToString(deterministic=True)
    for form in (
        tmp_path / "x.npy",
        str(tmp_path / "x.npz"),
        {"x": x},
        [x[:4], x[4:]],
        load_data(x, input_specs(model)),
    ):
        assert snncc.compile(model, calibration=form).model.SerializeToString(deterministic=True) == want


def test_every_obstacle_is_in_the_error() -> None:
    model = parse(
        "g (float[N,4] x) => (float[N,4] y) "
        "{ a = Relu (x) b = RandomNormalLike (a) c = Relu (b) d = Bernoulli (c) y = Relu (d) }"
    )
    with pytest.raises(UnsupportedModelError) as caught:
        snncc.compile(model)
    assert [(o.node, o.op) for o in caught.value.obstacles] == [("b", "RandomNormalLike"), ("d", "Bernoulli")]


def test_names_of_the_zoo() -> None:
    assert resolve("net.onnx") == "net.onnx"
    assert Path(resolve("zoo:fashion_resnet20")).name == "fashion_resnet20.onnx"  # type: ignore[arg-type]
    assert Path(resolve_data("zoo:test")).exists()
    assert resolve_data("zoo:events_calibration")["events"].shape == (256, 8, 2, 34, 34)
    assert resolve_data(None) is None
    with pytest.raises(UsageError):
        resolve("zoo:nothing")
    with pytest.raises(UsageError):
        resolve_data("zoo:nothing")


def test_default_output() -> None:
    assert default_output("folder/net.onnx") == Path("net.snn.onnx")
    assert default_output("zoo:fashion_resnet20") == Path("fashion_resnet20.snn.onnx")
    assert default_output(NETWORKS["plain"].model()) == Path("g.snn.onnx")


def test_input_specs_leave_initializers_out() -> None:
    model = NETWORKS["two_inputs"].model()
    model.graph.input.append(onnx.helper.make_tensor_value_info("w_1", onnx.TensorProto.FLOAT, [4, 2, 3, 3]))
    found = input_specs(model)
    assert [(s.name, s.shape) for s in found] == [("x", ("N", 2, 5, 5)), ("z", ("N", 7))]
