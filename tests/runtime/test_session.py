"""Sessions: what onnxruntime raises becomes one line that says which network it was."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_networks import parse

from snncc.errors import ModelError, ResourceError
from snncc.loader import load_model
from snncc.runtime.session import Session

MODEL = parse("g (float[N,3] x, float[N,3] z) => (float[N,3] y, float[N,3] d) { y = Add (x, z) d = Sub (x, z) }")


def test_runs_by_name() -> None:
    session = Session(MODEL, "the network", threads=1)
    assert (session.inputs, session.outputs) == (["x", "z"], ["y", "d"])
    x, z = np.ones((2, 3), np.float32), np.full((3, 2), 2, np.float32).T  # z isn't contiguous
    result = session.run({"z": z, "x": x, "other": x})
    assert {k: v.tolist() for k, v in result.items()} == {"y": [[3.0] * 3] * 2, "d": [[-1.0] * 3] * 2}
    assert list(session.run({"x": x, "z": z}, ["d"])) == ["d"]


def test_what_cannot_be_loaded_or_run_is_named() -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(MODEL)
    broken.graph.node[0].op_type = "Nonsense"
    with pytest.raises(ModelError, match=r"^the network: ONNX Runtime can't load it: ") as caught:
        Session(broken, "the network")
    assert "\n" not in str(caught.value)
    x = np.ones((2, 4), np.float32)
    with pytest.raises(ModelError, match=r"^the network: ONNX Runtime failed: ") as caught:
        Session(MODEL, "the network").run({"x": x, "z": x})
    assert "\n" not in str(caught.value)


def test_writes_into_arrays_of_the_caller() -> None:
    session = Session(MODEL, "the network", threads=1)
    x, z = np.ones((2, 3), np.float32), np.full((3, 2), 2, np.float32).T  # z isn't contiguous
    results = {name: np.full((2, 3), np.nan, np.float32) for name in ("y", "d")}
    session.run_into({"x": x, "z": z}, results)
    assert {k: v.tolist() for k, v in results.items()} == {"y": [[3.0] * 3] * 2, "d": [[-1.0] * 3] * 2}


def test_arrays_of_another_shape_are_refused() -> None:
    x = np.ones((2, 3), np.float32)
    results = {"y": np.empty((2, 3), np.float32), "d": np.empty((3, 3), np.float32)}
    with pytest.raises(ModelError, match=r"^the network: ONNX Runtime failed: "):
        Session(MODEL, "the network").run_into({"x": x, "z": x}, results)


def test_too_little_memory_is_no_fault_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(ort, "InferenceSession", fails)
        with pytest.raises(ResourceError, match="the network: not enough memory to load it"):
            Session(MODEL, "the network")
    monkeypatch.setattr(onnx.checker, "check_model", fails)
    with pytest.raises(ResourceError, match="model in memory: not enough memory to read it"):
        load_model(MODEL)
