"""Pictures: pixels, boxes in the right place, and what can't be written."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from snncc.data import InputSpec, load
from snncc.errors import DataError
from snncc.tasks.boxes import Detections
from snncc.tasks.draw import Drawing

NONE = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))


def found(*rows) -> Detections:
    values = np.array(rows, float)
    return Detections(values[:, :4], values[:, 4], values[:, 5].astype(int))


def picture(folder, data, ann, snn) -> np.ndarray:
    Drawing(folder, data, 0.5, ["zero"])(0, ann, snn)
    (file,) = folder.iterdir()
    with Image.open(file) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


@pytest.fixture
def data():
    spec = InputSpec("x", np.dtype(np.float32), ("N", 1, 400, 400))
    return load(np.full((1, 1, 400, 400), 100, np.uint8), [spec])


def coloured(image: np.ndarray) -> np.ndarray:
    """Pixels that are neither grey nor black nor white."""
    return image.max(axis=2) - image.min(axis=2) > 60


def test_the_ann_is_left_and_the_snn_right(tmp_path, data):
    """A confident box on each side, and one that isn't confident, which is left out."""
    ann = found((50, 100, 150, 200, 0.9, 0), (300, 300, 350, 350, 0.4, 0))
    image = picture(tmp_path / "new" / "out", data, ann, found((200, 220, 380, 380, 0.8, 1)))
    assert image.shape == (400, 808, 3)
    assert image[10, 10].tolist() == [100, 100, 100]
    left, right = coloured(image[:, :400]), coloured(image[:, 408:])
    rows, columns = np.nonzero(left)
    assert (columns.min(), rows.max(), columns.max()) == (50, 200, 150)
    assert left[150, 50]
    assert not left[150, 100]
    rows, columns = np.nonzero(right)
    assert (columns.min(), rows.max(), columns.max()) == (200, 380, 380)
    assert set(map(tuple, image[:, :400][left])) != set(map(tuple, image[:, 408:][right]))  # classes differ


def test_boxes_outside_are_cut_and_without_ann_there_is_one_side(tmp_path, data):
    image = picture(tmp_path / "out", data, None, found((-50, -50, 900, 200, 0.9, 0)))
    assert image.shape == (400, 400, 3)
    assert coloured(image)[100, 399]
    assert coloured(image)[200, 200]


def test_values_are_stretched_and_small_images_magnified(tmp_path):
    spec = InputSpec("x", np.dtype(np.float32), ("N", 8, 8, 3))
    values = np.linspace(-2, 2, 192, dtype=np.float32).reshape(1, 8, 8, 3)
    image = picture(tmp_path / "out", load(values, [spec]), None, NONE)
    assert image.shape == (320, 320, 3)
    assert np.abs(image[20, 60] - 255 * (values[0, 0, 1] + 2) / 4).max() <= 0.5


def test_files_keep_their_pixels_and_names(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (400, 400), (10, 60, 200)).save(tmp_path / "in" / "photo.png")
    spec = InputSpec("x", np.dtype(np.float32), ("N", 3, 400, 400))
    image = picture(tmp_path / "out", load(tmp_path / "in", [spec]), None, NONE)
    assert image[10, 10].tolist() == [10, 60, 200]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["00000_photo.png"]


def test_a_folder_that_can_not_be_made(tmp_path, data):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/out.* can't be|can't make .*file/out"):
        Drawing(tmp_path / "file" / "out", data, 0.5)


def test_a_picture_that_can_not_be_written(tmp_path, data):
    drawing = Drawing(tmp_path / "out", data, 0.5)
    (tmp_path / "out" / "00000.png").mkdir()
    with pytest.raises(
        DataError, match=r"can't write '.*00000.png' \(Is a directory\): name another folder with --draw"
    ):
        drawing(0, None, NONE)
