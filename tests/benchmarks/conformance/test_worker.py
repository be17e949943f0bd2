"""The whole way through one small network each, in this process: compiled, refused, without reference, crashed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conformance import compare
from conformance.compare import Request, last_message
from conformance.row import COMPILED, CRASHED, FAILED, LIMIT, MEMORY, NO_REFERENCE, REFUSED, Row
from conformance.survey import VALUE, Weight, tensor_sizes
from conformance.worker import Worker
from small_network import small_model

import snncc
from snncc.errors import ModelError, PassError
from snncc.loader import load_model


def measure(folder: Path, model: onnx.ModelProto, **options: Any) -> Row:
    path = folder / "model.onnx"
    onnx.save(model, path)
    values = {"timesteps": [4, 64], "samples": 4, "calibration": 8, "memory": 4, **options}
    Worker(folder, Request(str(path), **values)).run()
    row = Row("net")
    for line in (folder / "records.jsonl").read_text().splitlines():
        row.add(json.loads(line))
    return row


def test_network_is_compiled_and_compared(tmp_path: Path) -> None:
    row = measure(tmp_path, small_model(batch=1))
    assert (row.status, row.loads, row.keeps_signature) == (COMPILED, True, True)
    assert (row.neuron_layers, row.samples, row.calibration) == (3, 4, 8)
    assert [step.timesteps for step in row.steps] == [4, 64]
    assert row.steps[1].worst < row.steps[0].worst < 0.5
    assert row.variation["logits"] > 0.1


def test_refused_file_is_named_without_its_folder(tmp_path: Path) -> None:
    model = small_model()
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    worker = Worker(tmp_path, Request(str(path), [4], 4, 8, 4))
    worker.stage, worker._measure = "read", lambda: load_model(path)
    worker.run()
    (record,) = map(json.loads, (tmp_path / "records.jsonl").read_text().splitlines())
    assert record["status"] == REFUSED
    assert record["reasons"][0].startswith("read: 'model.onnx': input or output 'image' is bfloat16")


def test_given_data_is_used(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", image=np.zeros((12, 2, 8, 8), np.float32))
    row = measure(tmp_path, small_model(), timesteps=[4], data=str(tmp_path / "data.npz"))
    assert row.variation == {"logits": 0.0}


def test_artifact_of_another_signature_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_right = snncc.compile

    def compile_wrong(*arguments: Any, **options: Any) -> snncc.SpikingNetwork:
        network = compile_right(*arguments, **options)
        network.model.graph.output[0].type.tensor_type.shape.dim[1].dim_value += 1
        return network

    monkeypatch.setattr(snncc, "compile", compile_wrong)
    row = measure(tmp_path, small_model(), timesteps=[4])
    assert row.keeps_signature is False


def test_refusal_names_node_and_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from snncc.errors import Obstacle, UnsupportedModelError

    obstacles = [Obstacle(f"n{i}", "Odd", "it is odd", "make it even") for i in range(4)]

    def refuse(*arguments: Any, **options: Any) -> None:
        raise UnsupportedModelError(obstacles)

    monkeypatch.setattr(snncc, "compile", refuse)
    row = measure(tmp_path, small_model())
    assert (row.status, row.reasons) == (REFUSED, ["Odd 'n0', 'n1' and 2 more: it is odd"])


@pytest.mark.parametrize(
    ("error", "status"), [(PassError("pass x failed"), FAILED), (ZeroDivisionError("no"), CRASHED)]
)
def test_error_of_the_compiler_is_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(snncc, "compile", fail)
    row = measure(tmp_path, small_model())
    assert row.status == status
    assert row.reasons[0].startswith("compile T=4: ")
    assert "Traceback" in row.details


@pytest.mark.parametrize(
    "error", [MemoryError(), ModelError("ONNX Runtime failed: Failed to allocate memory for requested buffer")]
)
def test_shortage_of_memory_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(snncc, "compile", fail)
    row = measure(tmp_path, small_model())
    assert (row.status, row.reasons) == (MEMORY, ["compile T=4: needs more than 4 GiB"])


def test_network_that_does_not_run_has_no_reference(tmp_path: Path) -> None:
    model = small_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    row = measure(tmp_path, model)
    assert row.status == NO_REFERENCE
    assert "NoSuchOperator" in row.reasons[0]


def test_message_of_several_lines_is_told_whole() -> None:
    stderr = """a warning
Traceback (most recent call last):
  File "stock.py", line 1, in <module>
    session.run(None, part)
onnxruntime.capi.onnxruntime_pybind11_state.Fail: [ONNXRuntimeError] : 1 : FAIL : index: 0 Got: 2
 Please fix it.
"""
    assert last_message(stderr) == "Fail: [ONNXRuntimeError] : 1 : FAIL : index: 0 Got: 2 Please fix it."
    assert last_message("") == "it says nothing"


def test_inputs_seen_are_run_only_if_the_others_are_off_in_the_end(tmp_path: Path) -> None:
    coarse, fine = measure(tmp_path, small_model(), timesteps=[1, 1024]).steps
    assert coarse.worst > LIMIT > fine.worst
    assert (coarse.seen, fine.seen) == ({}, {})
    (tmp_path / "records.jsonl").unlink()
    (last,) = measure(tmp_path, small_model(), timesteps=[1]).steps
    assert last.seen.keys() == last.errors.keys()


def test_artifact_too_large_to_run_at_once_runs_layer_by_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = measure(tmp_path, small_model(batch=1), timesteps=[4])
    execute = compare.execute

    def run_out(model: str | Path, *arguments: Any) -> Any:
        if "artifact" in Path(model).name:
            raise MemoryError("Failed to allocate memory")
        return execute(model, *arguments)

    monkeypatch.setattr(compare, "execute", run_out)
    (tmp_path / "records.jsonl").unlink()
    row = measure(tmp_path, small_model(batch=1), timesteps=[4])
    assert (row.status, row.loads, row.steps[0].backend) == (COMPILED, True, "fused")
    # The same spikes; what differs is the order of sums.
    assert row.steps[0].errors == pytest.approx(expected.steps[0].errors, rel=1e-3)
    assert any("T=4: loads in ONNX Runtime, but ran in snncc's fused executor" in text for text in row.remarks())


def test_model_that_does_not_load_is_found_out_without_running_it(tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "fine.onnx")
    compare.load(tmp_path / "fine.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(compare.StockError, match="Protobuf parsing failed"):
        compare.load(tmp_path / "broken.onnx")


def test_large_networks_take_fewer_samples() -> None:
    assert Weight(macs=0, values=1).calibration(32, 256) == 32
    assert Weight(macs=10**9, values=0).calibration(32, 99) == 10
    assert Weight(macs=0, values=10**9 // VALUE).calibration(32, 99) == 10
    assert Weight(macs=10**12, values=1).calibration(32, 256) == 4
    assert Weight(macs=10**12, values=1).calibration(3, 256) == 3
    assert Weight(macs=5 * 10**8, values=0).evaluation(32, 99) == 5
    assert Weight(macs=10**12, values=1).evaluation(32, 256) == 2


def test_tensor_sizes_are_those_of_one_sample() -> None:
    # conv1 keeps 8x8 and is the largest: its channels decide.
    model = small_model(batch=4)
    channels = next(tensor.dims[0] for tensor in model.graph.initializer if tensor.name == "w1")
    sizes = tensor_sizes(model, 16)
    assert max(sizes) == channels * 64
    described = small_model()
    weight = onnx.numpy_helper.from_array(np.zeros((channels, 2, 999), np.float32), "unused")
    described.graph.initializer.append(weight)
    described.graph.value_info.append(onnx.helper.make_tensor_value_info("unused", onnx.TensorProto.FLOAT, weight.dims))
    assert tensor_sizes(described, 16) == sizes
