"""External data: read as ONNX writes it, and nothing outside the model's folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from loading import WEIGHTED, message, parse, save

from snncc.loader import load_model


def external(tmp_path: Path, location: str = "w.bin", **entries: str) -> Path:
    """Save a model whose weights are external; the data itself isn't written."""
    model = parse(WEIGHTED)
    tensor = model.graph.initializer[0]
    tensor.Clear()
    tensor.name, tensor.data_type = "w", onnx.TensorProto.FLOAT
    tensor.dims.append(3)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return save(tmp_path / "net.onnx", model)


DATA = np.array([4, 5, 6], np.float32).tobytes()


@pytest.mark.parametrize(
    ("entries", "content"),
    [({}, DATA), ({"offset": "0", "length": "12"}, DATA), ({"offset": "4096", "length": "12"}, bytes(4096) + DATA)],
)
def test_external_data_is_loaded(tmp_path: Path, entries: dict[str, str], content: bytes) -> None:
    path = external(tmp_path, **entries)
    (tmp_path / "w.bin").write_bytes(content)
    loaded = load_model(path)
    tensor = loaded.model.graph.initializer[0]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), [4, 5, 6])
    assert tensor.data_location == onnx.TensorProto.DEFAULT
    assert loaded.sha256 == hashlib.sha256(path.read_bytes() + content).hexdigest()
    onnx.checker.check_model(loaded.model, full_check=True)


def test_external_data_as_onnx_writes_it(tmp_path: Path) -> None:
    model = parse(WEIGHTED)
    weights = np.random.default_rng(0).standard_normal(3).astype(np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    loaded = load_model(tmp_path / "net.onnx")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(loaded.model.graph.initializer[0]), weights)


def test_external_data_in_a_subfolder_and_through_a_link_inside(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(DATA)
    load_model(external(tmp_path, "sub/w.bin"))
    load_model(external(tmp_path, "sub/../sub/w.bin"))
    (tmp_path / "link.bin").symlink_to(tmp_path / "sub" / "w.bin")
    load_model(external(tmp_path, "link.bin"))


def test_external_data_outside_is_refused_unread(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(DATA)
    assert "is an absolute path, which is refused" in message(external(folder, str(secret)))
    assert "is an absolute path, which is refused" in message(external(folder, "C:\\secret.bin"))
    assert "is an absolute path, which is refused" in message(external(folder, "\\\\host\\share"))
    assert "lies outside the model's folder" in message(external(folder, "../secret.bin"))
    (folder / "link.bin").symlink_to(secret)
    assert "lies outside the model's folder" in message(external(folder, "link.bin"))
    (folder / "sub").symlink_to(tmp_path)
    assert "lies outside the model's folder" in message(external(folder, "sub/secret.bin"))
    # A folder whose name begins like the model's.
    (tmp_path / "model2").mkdir()
    (tmp_path / "model2" / "w.bin").write_bytes(DATA)
    assert "lies outside the model's folder" in message(external(folder, "../model2/w.bin"))


@pytest.mark.parametrize(
    ("entries", "content", "reason"),
    [
        ({}, None, "is missing"),
        ({}, DATA[:-1], "is cut short"),
        ({"offset": "4"}, DATA, "is cut short: bytes 4 to 16 are needed, the file has 12"),
        ({"length": "8"}, DATA, "is 8 bytes long, its type and shape take 12"),
        ({"length": "99999999999"}, DATA, "its type and shape take 12"),
        ({"offset": "-4"}, DATA, "offset '-4', which is no whole number"),
        ({"length": "many"}, DATA, "length 'many', which is no whole number"),
        ({"offset": "9" * 30}, DATA, "which is no whole number"),
    ],
)
def test_damaged_external_data(tmp_path: Path, entries: dict[str, str], content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "w.bin").write_bytes(content)
    text = message(external(tmp_path, **entries))
    assert reason in text
    assert "tensor 'w'" in text


def test_external_data_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "is no regular file" in message(external(tmp_path, "folder"))
    assert "names no file" in message(external(tmp_path, ""))
    (tmp_path / "loop").symlink_to("loop")
    assert "tensor 'w'" in message(external(tmp_path, "loop"))


def test_a_file_larger_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.bin").write_bytes(DATA)
    monkeypatch.setattr("snncc.external_data.MAX_TOTAL_BYTES", 11)
    assert "the most that is accepted; export a smaller network" in message(external(tmp_path))


def test_more_external_data_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.bin").write_bytes(DATA)
    path = external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    again = model.graph.initializer.add()
    again.CopyFrom(model.graph.initializer[0])
    again.name = "again"
    save(path, model)
    monkeypatch.setattr("snncc.external_data.MAX_TOTAL_BYTES", 23)
    assert "in all, which is refused" in message(path)


def test_external_data_of_a_model_in_memory(tmp_path: Path) -> None:
    model = onnx.load(external(tmp_path), load_external_data=False)
    assert "give the model's path instead" in message(model)
