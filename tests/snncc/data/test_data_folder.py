"""Folders of images: which files, in which order, of which class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snncc.data import ImageOptions, InputSpec, load
from snncc.errors import DataError

SPEC = InputSpec("x", np.dtype("uint8"), ("N", 1, 2, 2))
RAW = ImageOptions(pixel_max=255.0)


def put(root: Path, name: str, value: int) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 2), value, np.uint8)).save(path)


def values(root: Path, limit: int | None = None) -> list[int]:
    data = load(root, [SPEC], image=RAW, limit=limit)
    return [int(sample[0, 0, 0]) for sample in data.batch(0, len(data))["x"]]


def test_a_flat_folder_is_sorted_and_has_no_labels(tmp_path: Path) -> None:
    for name, value in [("b.png", 2), ("c.bmp", 3), ("a.PNG", 1)]:
        put(tmp_path, name, value)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden.png").write_bytes(b"")
    data = load(tmp_path, [SPEC], image=RAW)
    assert values(tmp_path) == [1, 2, 3]
    assert data.labels is None
    assert data.class_names is None
    assert data.source == str(tmp_path)


def test_subfolders_are_classes(tmp_path: Path) -> None:
    for name, value in [("dog/1.png", 20), ("cat/z.png", 11), ("cat/deep/a.png", 10), ("cat-big/0.png", 15)]:
        put(tmp_path, name, value)
    (tmp_path / "ant").mkdir()
    put(tmp_path, ".cache/0.png", 99)
    put(tmp_path, "dog/.thumbs/0.png", 99)
    data = load(tmp_path, [SPEC], image=RAW)
    assert values(tmp_path) == [10, 11, 15, 20]
    assert data.class_names == ("ant", "cat", "cat-big", "dog")  # an empty class keeps its index
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [1, 1, 2, 3]


def test_a_limit_keeps_the_classes_and_reads_no_further(tmp_path: Path) -> None:
    put(tmp_path, "a/0.png", 1)
    put(tmp_path, "b/0.png", 2)
    (tmp_path / "b" / "1.png").write_bytes(b"broken")
    data = load(tmp_path, [SPEC], image=RAW, limit=2)
    assert len(data) == 2
    assert data.class_names == ("a", "b")
    head = data.head(1)
    assert head.labels is not None
    assert head.labels.tolist() == [0]
    assert len(head.arrays["x"]) == 1
    with pytest.raises(DataError, match=r"1\.png"):
        load(tmp_path, [SPEC], image=RAW)


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.png", 1)
    put(tmp_path, "dog/a.png", 2)
    with pytest.raises(DataError, match=r"holds images \('a\.png'\) beside subfolders of images \('dog'\).*move all"):
        load(tmp_path, [SPEC], image=RAW)


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"holds no images; accepted are \.png, \.jpg.*in one subfolder per class"):
        load(tmp_path, [SPEC], image=RAW)


def test_an_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> None:
        raise PermissionError("denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DataError, match=r"can't be read \(denied\); check its permissions"):
        load(tmp_path, [SPEC], image=RAW)


def test_images_feed_one_input(tmp_path: Path) -> None:
    put(tmp_path, "a.png", 1)
    with pytest.raises(DataError, match=r"folder of images but the model has 2 inputs \('x', 'z'\).*\.npz"):
        load(tmp_path, [SPEC, InputSpec("z", np.dtype("uint8"), ("N", 1))], image=RAW)


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/a.png", 7)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "seven").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    data = load(tmp_path / "root", [SPEC], image=RAW)
    assert data.class_names == ("seven",)
    assert values(tmp_path / "root") == [7]


def test_images_are_decoded_on_demand_and_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        put(tmp_path, f"{number}.png", number)
    data = load(tmp_path, [SPEC], image=RAW)
    decoded: list[int] = []
    monkeypatch.setattr(Image.Image, "convert", _counting(decoded))
    data.batch(1, 3)
    assert len(decoded) == 2
    whole = np.asarray(data.arrays["x"])
    assert whole.shape == data.arrays["x"].shape == (5, 1, 2, 2)
    assert np.asarray(data.arrays["x"], np.float32).dtype == np.float32
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in data.batches(2)]), whole)


def _counting(calls: list[int]) -> object:
    original = Image.Image.convert

    def convert(self: Image.Image, mode: str) -> Image.Image:
        calls.append(1)
        return original(self, mode)

    return convert


def test_the_fingerprint_is_that_of_the_same_tensors(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, f"{number}.png", number * 100)
    spec = InputSpec("x", np.dtype("float32"), ("N", 1, 2, 2))
    images = load(tmp_path, [spec])
    arrays = np.stack([np.full((1, 2, 2), number * 100) for number in range(3)]).astype(np.float32) / np.float32(255)
    assert images.fingerprint() == load(arrays, [spec]).fingerprint()


def test_a_fixed_batch_holds_for_images(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, f"{number}.png", number)
    spec = InputSpec("x", np.dtype("uint8"), (2, 1, 2, 2))
    with pytest.raises(DataError, match=r"gives 3 sample\(s\).*multiple of 2"):
        load(tmp_path, [spec], image=RAW)
    assert len(load(tmp_path, [spec], image=RAW, limit=2)) == 2
