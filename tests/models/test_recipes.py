"""The parts of the recipes that are quick to check: reading, drawing and augmenting images, counting operations."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from snncc import models
from snncc.errors import DataError
from snncc.models.recipes import fashion_mnist, prepare_data


def _write_idx(file: Path, values: np.ndarray, type_code: int = 8) -> None:
    header = bytes((0, 0, type_code, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    file.write_bytes(gzip.compress(header + values.tobytes()))


def _write_split(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    _write_idx(folder / "t10k-images-idx3-ubyte.gz", images)
    _write_idx(folder / "t10k-labels-idx1-ubyte.gz", labels)


def test_idx_files_are_read_back(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    labels = np.array([7, 0, 9], dtype=np.uint8)
    _write_split(tmp_path, images, labels)
    read_images, read_labels = fashion_mnist.load(tmp_path, "test")
    np.testing.assert_array_equal(read_images, images[:, None])
    np.testing.assert_array_equal(read_labels, labels)


def test_missing_file_names_the_debian_package(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Debian package dataset-fashion-mnist"):
        fashion_mnist.load(tmp_path, "train")


def test_file_of_another_type_is_refused(tmp_path: Path) -> None:
    _write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.zeros((1, 28, 28), np.float32), type_code=13)
    with pytest.raises(DataError, match="no IDX file of unsigned bytes"):
        fashion_mnist.load(tmp_path, "test")


def test_shortened_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    _write_idx(file, np.zeros((2, 28, 28), np.uint8))
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-1]))
    with pytest.raises(DataError, match="damaged"):
        fashion_mnist.load(tmp_path, "test")


def test_drawn_images_are_distinct_and_balanced() -> None:
    labels = np.random.default_rng(1).integers(0, 10, 2000).astype(np.uint8)
    indices = prepare_data.balanced_indices(labels, 64, seed=3)
    assert len(set(indices.tolist())) == 64
    assert sorted(np.bincount(labels[indices]).tolist()) == [6] * 6 + [7] * 4
    np.testing.assert_array_equal(indices, prepare_data.balanced_indices(labels, 64, seed=3))


def test_data_recipe_without_data_fails_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare_data", "--data", str(tmp_path)])
    assert prepare_data.main() == 1
    assert "dataset-fashion-mnist" in capsys.readouterr().err


@pytest.mark.skipif(not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_calibration_images_are_the_recipes_training_images() -> None:
    images, labels = fashion_mnist.load(fashion_mnist.DEBIAN_FOLDER, "train")
    chosen = prepare_data.balanced_indices(labels, prepare_data.CALIBRATION_IMAGES, prepare_data.SEED)
    np.testing.assert_array_equal(models.calibration_set()[0], images[chosen])
    np.testing.assert_array_equal(models.calibration_set()[1], labels[chosen])


def test_augmented_images_are_crops_of_the_padded_ones() -> None:
    torch = pytest.importorskip("torch")
    from snncc.models.recipes import train

    side, padding = train.SIDE, train.PADDING
    images = torch.randint(0, 256, (16, 1, side, side), dtype=torch.uint8)
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    result = train.augment(padded, torch.Generator().manual_seed(0)).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(padded[:, 0].numpy(), (side, side), axis=(1, 2))
    flips = 0
    for crop, candidates in zip(result[:, 0], windows, strict=True):
        straight = (candidates == crop).all((2, 3)).any()
        mirrored = (candidates[..., ::-1] == crop).all((2, 3)).any()
        assert straight != mirrored
        flips += int(mirrored)
    assert 0 < flips < len(images)


def test_depthwise_filters_and_vectors_have_no_weight_decay() -> None:
    torch = pytest.importorskip("torch")
    from snncc.models.recipes import train

    layers = (torch.nn.Conv2d(4, 4, 3, groups=4), torch.nn.Conv2d(4, 8, 3), torch.nn.BatchNorm2d(8))
    decayed, others = train.parameter_groups(torch.nn.Sequential(*layers, torch.nn.Linear(8, 2)), 1e-3)
    assert [tuple(p.shape) for p in decayed["params"]] == [(8, 4, 3, 3), (2, 8)]
    assert [tuple(p.shape) for p in others["params"]] == [(4, 1, 3, 3), (4,), (8,), (8,), (8,), (2,)]
    assert (decayed["weight_decay"], others["weight_decay"]) == (1e-3, 0.0)


def test_macs_of_a_small_graph(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from snncc.models.recipes import export

    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        small (float[N,4,6,6] x) => (float[N,5] y)
        {
            c = Conv <group = 2, strides = [2, 2], kernel_shape = [3, 3]> (x, w)
            f = Flatten (c)
            y = Gemm <transB = 1> (f, g)
        }
    """)
    for name, shape in (("w", (8, 2, 3, 3)), ("g", (5, 32))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name))
    onnx.save(model, tmp_path / "small.onnx")
    # Two groups, each of 4 outputs from 2 inputs with 3x3 filters, at 2x2 positions; then 32 to 5.
    assert export.macs(tmp_path / "small.onnx") == 2 * (4 * 2 * 9) * 4 + 32 * 5
