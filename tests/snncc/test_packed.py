"""Models larger than a message: the same networks with a limit so low that their weights don't fit."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto
from small_networks import NETWORKS, compiled, inputs_of, parse, run

import snncc
from snncc import packed
from snncc.allocation.deferred import DeferredSession
from snncc.config import Config
from snncc.errors import ArtifactError
from snncc.evaluate import evaluate
from snncc.loader import load_model
from snncc.packed import outer_tensors, pack, stub, write
from snncc.pipeline import Hook
from snncc.runtime.session import Session

NET = parse(
    """g (float[N,64] x, float[64,64] w_1, float[64,64] w_2, float[64,10] w_3) => (float[N,10] y)
    { a = MatMul (x, w_1) b = Relu (a) c = MatMul (b, w_2) d = Relu (c) y = MatMul (d, w_3) }"""
)
SCANNED = parse(
    """g (float[2,64] x, float[64,64] w_1, float[32,32] w_2) => (float[4,32] y) <int64[2] shape = {4, 32}>
    { a = MatMul (x, w_1) b = Relu (a) c = Reshape (b, shape) d = MatMul (c, w_2) y = Relu (d) }"""
)


def lower(monkeypatch: pytest.MonkeyPatch, limit: int = 4000, elements: int = 100) -> None:
    monkeypatch.setattr(packed, "MAX_INLINE_BYTES", limit)
    monkeypatch.setattr(packed, "COPIED_BYTES", limit)
    monkeypatch.setattr("snncc.protos.LARGE_ELEMENTS", elements)


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch)


def test_most_models_are_messages() -> None:
    assert outer_tensors(NET) == {}
    assert pack(NET).weights == {}
    assert stub(NET, {}) is NET


@pytest.mark.usefixtures("low")
def test_large_weights_stand_beside_the_message() -> None:
    parts = pack(NET)
    assert set(parts.weights) == {"w_1", "w_2", "w_3"}
    assert len(parts.message) < 2000
    x = inputs_of(NET, 3)
    np.testing.assert_array_equal(Session(NET, "it").run(x)["y"], run(NET, x)["y"])


@pytest.mark.usefixtures("low")
def test_data_in_a_field_of_their_type_and_as_defaults_of_inputs() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(NET)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).ravel().tolist()
        tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, tensor.data_type, tensor.dims, values))
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert set(pack(model).weights) == {"w_1", "w_2", "w_3"}
    x = inputs_of(NET, 3)
    feeds = {**x, **{t.name: onnx.numpy_helper.to_array(t) for t in NET.graph.initializer}}
    np.testing.assert_array_equal(Session(model, "it").run(feeds)["y"], run(NET, x)["y"])


@pytest.mark.usefixtures("low")
def test_types_that_numpy_lacks_and_shared_names_stay_inside() -> None:
    tensors = [
        onnx.helper.make_tensor("text", TensorProto.STRING, [200], ["x"] * 200),
        onnx.helper.make_tensor("nibbles", TensorProto.INT4, [200], [1] * 200),
        onnx.numpy_helper.from_array(np.ones(4000, np.float16), "half"),
        onnx.numpy_helper.from_array(np.ones(200, np.float32), "twice"),
    ]
    inner = onnx.helper.make_graph([], "inner", [], [], [tensors[3]])
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=onnx.GraphProto())
    readers = [onnx.helper.make_node("Identity", [t.name], [f"{t.name}.read"]) for t in tensors]
    model = onnx.helper.make_model(onnx.helper.make_graph([node, *readers], "g", [], [], tensors))
    assert list(outer_tensors(model)) == ["half"]


def beside(path: Path) -> list[Path]:
    """The files with the weights of the model of that name."""
    return sorted(path.parent.glob(f"{path.name}.*.data"))


@pytest.mark.usefixtures("low")
def test_written_files_are_read_by_the_stock_runtime_and_by_us(tmp_path: Path) -> None:
    files = write(NET, tmp_path / "net.onnx")
    assert files == [tmp_path / "net.onnx", *beside(tmp_path / "net.onnx")]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert files[0].stat().st_size < 2000
    x = inputs_of(NET, 3)
    stock = ort.InferenceSession(files[0], providers=["CPUExecutionProvider"]).run(None, x)[0]
    np.testing.assert_array_equal(stock, run(NET, x)["y"])
    loaded = load_model(files[0])
    for tensor, original in zip(loaded.model.graph.initializer, NET.graph.initializer, strict=True):
        assert tensor.name == original.name
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), onnx.numpy_helper.to_array(original))
    onnx.checker.check_model(str(files[0]), full_check=True)


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize("name", ["a:b.onnx", "\\lead.onnx", "sp ace.onnx", "ü.onnx"])
def test_odd_names_are_read_again(tmp_path: Path, name: str) -> None:
    files = write(NET, tmp_path / name)
    assert load_model(files[0]).name == Path(name).stem


def test_files_of_others_stay_and_the_replaced_models_own_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "net.onnx", onnx.ModelProto()
    other.CopyFrom(NET)
    other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w_1"))
    foreign = [tmp_path / "net.onnx.data", tmp_path / "net.onnx.0123456789abcdef.data"]
    for file in foreign:
        file.write_bytes(b"precious")
    lower(monkeypatch)
    first = write(NET, path)[1]
    assert write(NET, path)[1] == first
    second = write(other, path)[1]
    assert not first.exists()
    assert second.exists()
    monkeypatch.undo()
    assert write(NET, path) == [path]
    assert [file.read_bytes() for file in foreign] == [b"precious"] * 2
    assert sorted(tmp_path.iterdir()) == sorted([path, *foreign])


def test_weights_of_the_source_stay_when_their_models_name_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source's message has another name, but its weights bear the one of the target."""
    lower(monkeypatch)
    write(NET, tmp_path / "out.onnx")
    (tmp_path / "out.onnx").rename(tmp_path / "source.onnx")
    (tmp_path / "out.onnx").write_bytes(b"something else")
    network = snncc.compile(tmp_path / "source.onnx", calibration=inputs_of(NET, 4))
    network.save(tmp_path / "out.onnx")
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(load_model(tmp_path / "source.onnx").model.graph.initializer[0]),
        onnx.numpy_helper.to_array(NET.graph.initializer[0]),
    )


@pytest.mark.usefixtures("low")
def test_a_crash_between_the_two_files_leaves_the_old_model_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(NET, tmp_path / "net.onnx")[0]
    other = onnx.ModelProto()
    other.CopyFrom(NET)
    other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w_1"))
    replace = Path.replace

    def fails(self: Path, target: Path) -> Path:
        if target == path:
            raise OSError("the power is gone")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="the power is gone"):
        write(other, path)
    first = load_model(path).model.graph.initializer[0]
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(first), onnx.numpy_helper.to_array(NET.graph.initializer[0])
    )


@pytest.mark.usefixtures("low")
def test_what_nobody_reads_stays_inside() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(NET)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "left_over"))
    assert "left_over" not in pack(model).weights
    x = inputs_of(NET, 3)
    np.testing.assert_array_equal(Session(model, "it").run(x)["y"], run(NET, x)["y"])


BRANCHES = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,64] x, bool c{inputs}) => (float[2,64] y) {{
    y = If (c) <then_branch = t () => (float[2,64] {out}) <float[2,64] w> {{ p = Neg (w) }},
                else_branch = e () => (float[2,64] q) {{ q = Abs (x) }}> }}"""


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize(
    ("out", "inputs", "outer"),
    [("p", "", {"w", "v"}), ("w", "", {"v"}), ("p", ", float[2,64] w", {"v"})],
    ids=["read", "returned", "named as an input"],
)
def test_weights_of_branches(monkeypatch: pytest.MonkeyPatch, out: str, inputs: str, outer: set[str]) -> None:
    model = onnx.parser.parse_model(BRANCHES.format(out=out, inputs=inputs).replace("<float[2,64] w>", ""))
    branch = model.graph.node[0].attribute[0].g
    branch.initializer.append(onnx.numpy_helper.from_array(np.full((2, 64), 3, np.float32), "w"))
    if out == "w":
        del branch.node[:]
    model.graph.node[0].output[0] = "z"
    model.graph.node.append(onnx.helper.make_node("MatMul", ["z", "v"], ["y"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(64, dtype=np.float32), "v"))
    lower(monkeypatch, 100)
    assert set(outer_tensors(model)) == outer
    load_model(model)
    feeds = {"x": np.ones((2, 64), np.float32), "c": np.array(True), "w": np.full((2, 64), 9, np.float32)}
    session = Session(model, "it")
    expected = 3.0 if out == "w" else -3.0
    assert (session.run({name: feeds[name] for name in session.inputs})["y"] == expected).all()


@pytest.mark.usefixtures("low")
def test_failure_while_writing_leaves_both_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(NET, tmp_path / "net.onnx")
    before = [file.read_bytes() for file in files]

    def fails(_: onnx.TensorProto) -> None:
        raise OSError("No space left on device")

    network = compiled(NET)
    monkeypatch.setattr(onnx.numpy_helper, "to_array", fails)
    with pytest.raises(ArtifactError, match="No space left on device"):
        network.save(files[0])
    assert [file.read_bytes() for file in files] == before
    assert sorted(tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize("model", [NET, SCANNED], ids=["batch", "scan"])
def test_compiled_and_run_as_any_other(model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = inputs_of(model, 8)
    plain = snncc.compile(model, calibration=data, config=Config(timesteps=4))
    expected = {backend: plain.run(data, backend=backend)["y"] for backend in ("fused", "ort", "numpy")}
    lower(monkeypatch)
    source = write(model, tmp_path / "net.onnx")[0]
    assert beside(source)
    network = snncc.compile(source, calibration=data, config=Config(timesteps=4))
    files = network.save(tmp_path / "net.snn.onnx")
    assert len(files) == 2
    again = snncc.load(files[0])
    for made in (network, again):
        for backend, values in expected.items():
            np.testing.assert_array_equal(made.run(data, backend=backend)["y"], values, err_msg=backend)
    session = ort.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    first = {name: array[: session.get_inputs()[0].shape[0] if model is SCANNED else 8] for name, array in data.items()}
    stock = session.run(None, first)[0]
    np.testing.assert_array_equal(stock, expected["ort"][: len(stock)])
    assert evaluate(again, data, ann=source).reading.spikes > 0


def test_searched_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = inputs_of(NET, 8)
    usual = snncc.search(NET, calibration=data, config=Config(timesteps=4), simulate=1, cache=False)
    lower(monkeypatch)
    source = write(NET, tmp_path / "net.onnx")[0]
    found = snncc.search(source, calibration=data, config=Config(timesteps=4), simulate=1, cache=False)
    assert found.assignment == usual.assignment


@pytest.mark.usefixtures("low")
def test_in_memory_as_well(tmp_path: Path) -> None:
    data = inputs_of(NET, 8)
    loaded = load_model(NET)
    whole = b"".join(onnx.numpy_helper.to_array(tensor).tobytes() for tensor in NET.graph.initializer)
    message = stub(NET, outer_tensors(NET)).SerializeToString(deterministic=True)
    assert loaded.sha256 == hashlib.sha256(message + whole).hexdigest()
    hook = Hook(verify=True, dump=tmp_path)
    snncc.compile(NET, calibration=data, hook=hook)
    dumped = sorted(tmp_path.glob("*.onnx"))
    assert len(dumped) == len(hook.timings)
    for file in dumped[:3]:  # before the first neuron
        np.testing.assert_allclose(
            run(onnx.load(file), data)["y"], run(NET, data)["y"], rtol=1e-5, atol=1e-5, err_msg=file.name
        )


@pytest.mark.usefixtures("low")
def test_a_job_that_travels_takes_its_weights_along() -> None:
    job = pickle.loads(pickle.dumps(DeferredSession(NET, "a job")))
    x = inputs_of(NET, 3)
    np.testing.assert_array_equal(job.run(x)["y"], run(NET, x)["y"])


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_kind_of_network_survives(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, 0, 9)
    model = NETWORKS[name].model()
    network = compiled(model, timesteps=2)
    files = network.save(tmp_path / "net.snn.onnx")
    again = snncc.load(files[0])
    data = inputs_of(model, 2)
    ours, theirs = network.run(data), again.run(data)
    for output, values in ours.items():
        np.testing.assert_array_equal(theirs[output], values, err_msg=output)
    assert again.record == network.record
