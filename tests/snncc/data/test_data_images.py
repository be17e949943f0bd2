"""Pictures become tensors: layout, size, pixel values, and what Pillow can't or mustn't read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from snncc.data import ImageOptions, InputSpec, load
from snncc.data.spec import Dim
from snncc.errors import DataError, UsageError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 5), dtype=np.uint8)


def spec(*shape: Dim, dtype: str = "float32") -> InputSpec:
    return InputSpec("x", np.dtype(dtype), shape)


def fed(folder: Path, inputs: InputSpec, **options: Any) -> NDArray[Any]:
    sample: NDArray[Any] = load(folder, [inputs], image=ImageOptions(**options)).batch(0, 1)["x"][0]
    return sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    return tmp_path


def test_channels_first_and_last(folder: Path) -> None:
    want = RGB.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(fed(folder, spec("N", 3, 6, 5)), want.transpose(2, 0, 1))
    np.testing.assert_array_equal(fed(folder, spec("N", 6, 5, 3)), want)
    np.testing.assert_array_equal(fed(folder, spec(1, 3, "h", "w")), want.transpose(2, 0, 1))
    np.testing.assert_array_equal(fed(folder, spec(1, None, None, 3)), want)


def test_pixels_are_scaled_then_normalised(folder: Path) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    want = ((RGB / 255 - np.array(mean)) / np.array(std)).transpose(2, 0, 1)
    got = fed(folder, spec("N", 3, 6, 5), mean=mean, std=std)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-7)  # float32 rounds values of up to 2.7
    raw = fed(folder, spec("N", 3, 6, 5), mean=(127.5,), std=(2.0,), pixel_max=255.0)
    np.testing.assert_array_equal(raw, (RGB.transpose(2, 0, 1) - 127.5) / 2)


def test_integer_inputs_take_whole_values_only(folder: Path) -> None:
    got = fed(folder, spec("N", 6, 5, 3, dtype="uint8"), pixel_max=255.0)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, RGB)
    shifted = fed(folder, spec("N", 6, 5, 3, dtype="int8"), pixel_max=255.0, mean=(128.0,))
    np.testing.assert_array_equal(shifted, RGB.astype(int) - 128)
    for options in ({}, {"pixel_max": 255.0, "mean": (1.0,)}):
        with pytest.raises(UsageError, match=r"'x' wants uint8 but the image options give fractions.*--pixel-max 255"):
            fed(folder, spec("N", 6, 5, 3, dtype="uint8"), **options)


def test_colour_follows_the_number_of_channels(tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    Image.fromarray(GREY).save(tmp_path / "grey" / "a.png")
    three = fed(tmp_path / "grey", spec("N", 3, 6, 5), pixel_max=255.0)
    np.testing.assert_array_equal(three, np.stack([GREY] * 3))
    Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "grey" / "a.png").unlink()
    one = fed(tmp_path, spec("N", 1, 6, 5), pixel_max=255.0)
    luma = RGB @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, as Pillow documents for mode L
    np.testing.assert_allclose(one[0], luma, atol=1.0)  # Pillow rounds to whole values
    four = fed(tmp_path, spec("N", 4, 6, 5), pixel_max=255.0)
    np.testing.assert_array_equal(four[:3], RGB.transpose(2, 0, 1))
    assert (four[3] == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_of_up_to_eight_bits_are_read(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    image.save(tmp_path / ("a.tiff" if mode == "CMYK" else "a.png"))
    got = fed(tmp_path, spec("N", 3, 6, 5), pixel_max=255.0)
    np.testing.assert_array_equal(got, np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    np.testing.assert_array_equal(
        fed(tmp_path, spec("N", 3, 6, 5), pixel_max=255.0), np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    )


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tiff", "tif", "PNG"])
def test_lossless_formats_keep_the_pixels(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(fed(tmp_path, spec("N", 6, 5, 3), pixel_max=255.0), RGB)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp", "gif", "pgm"])
def test_the_other_formats_are_read(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(np.full((6, 5), 200, np.uint8))
    image.save(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(fed(tmp_path, spec("N", 1, 6, 5), pixel_max=255.0), 200, atol=2)  # lossy ones


def test_the_size_comes_from_the_model_or_the_option(folder: Path) -> None:
    want = np.asarray(Image.fromarray(RGB).resize((4, 3), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(fed(folder, spec("N", None, "w", 3), pixel_max=255.0, size=(3, 4)), want)
    np.testing.assert_array_equal(fed(folder, spec("N", 3, "w", 3), pixel_max=255.0, size=(3, 4), layout="NHWC"), want)
    want = np.asarray(Image.fromarray(RGB).resize((9, 7), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(fed(folder, spec("N", 7, 9, 3), pixel_max=255.0), want)


def test_a_size_against_the_model_is_wrong_usage(folder: Path) -> None:
    with pytest.raises(
        UsageError, match=r"size \[6, 6\] contradicts model input 'x' \[N, 3, 6, 5\].*leave --size away"
    ):
        fed(folder, spec("N", 3, 6, 5), size=(6, 6))
    with pytest.raises(UsageError, match=r"contradicts .*height and width are \[6, \?\]"):
        fed(folder, spec("N", 3, 6, None), size=(5, 5))


def test_an_open_size_needs_images_of_one_size(folder: Path) -> None:
    Image.fromarray(GREY[:4]).save(folder / "b.png")
    with pytest.raises(UsageError, match=r"b\.png is 4x5 \(height x width\) where 'a\.png' is 6x5; give --size"):
        fed(folder, spec("N", 3, None, None))
    with pytest.raises(UsageError, match=r"a\.png is 6x5 .* where the input fixes another size; give --size"):
        fed(folder, spec("N", 3, None, 9))
    assert fed(folder, spec("N", 3, None, None), size=(2, 2)).shape == (3, 2, 2)


@pytest.mark.parametrize("shape", [("N", 3, 8, 3), ("N", 1, "h", 3), ("N", 8, 8, 8), ("N", None, None, None)])
def test_an_unclear_layout_asks_for_the_option(folder: Path, shape: tuple[Dim, ...]) -> None:
    with pytest.raises(UsageError, match=r"model input 'x' .* can't be inferred; give --layout NCHW or --layout NHWC"):
        fed(folder, spec(*shape))


def test_a_given_layout_settles_it(folder: Path) -> None:
    assert fed(folder, spec("N", 3, 8, 3), layout="NCHW").shape == (3, 8, 3)
    first = fed(folder, spec("N", 3, 8, 3), layout="NHWC")
    want = np.asarray(Image.fromarray(RGB).resize((8, 3), Image.Resampling.BILINEAR)).astype(np.float32) / np.float32(
        255
    )
    np.testing.assert_array_equal(first, want)


@pytest.mark.parametrize("shape", [("N", 6, 5, 3), ("N", None, 6, 5)])
def test_a_layout_against_the_model_is_wrong_usage(folder: Path, shape: tuple[Dim, ...]) -> None:
    with pytest.raises(UsageError, match=r"layout NCHW makes axis 1 of model input 'x' .*choose the other --layout"):
        fed(folder, spec(*shape), layout="NCHW")


@pytest.mark.parametrize("shape", [("N", 90), ("N", 6, 5), ("N", 1, 3, 6, 5)])
def test_inputs_that_are_no_images(folder: Path, shape: tuple[Dim, ...]) -> None:
    with pytest.raises(DataError, match=r"'x' is .*images need an input of four axes.*\.npz or \.npy"):
        fed(folder, spec(*shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": (0.0,)}, "image std is .*other than 0"),
        ({"std": (1.0, 0.0, 1.0)}, "image std is .*other than 0"),
        ({"std": (float("nan"),)}, "image std is"),
        ({"std": ()}, "image std is"),
        ({"mean": (float("inf"),)}, "image mean is .*finite"),
        ({"mean": ()}, "image mean is .*one or more"),
        ({"layout": "CHWN"}, "image layout is 'CHWN': it must be NCHW or NHWC"),
        ({"size": (0, 4)}, "image size is .*at least 1"),
        ({"size": (4,)}, "image size is .*a height and a width"),
        ({"pixel_max": 0.0}, "image pixel_max is 0.0: .*above 0"),
        ({"pixel_max": float("inf")}, "image pixel_max is inf"),
    ],
)
def test_options_out_of_range_are_wrong_usage(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ImageOptions(**options)


def test_normalisation_that_overflows_is_wrong_usage(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"pixels that float32 can't hold .*choose a larger std"):
        fed(folder, spec("N", 3, 6, 5), std=(1e-39,))
    with pytest.raises(UsageError, match="pixels that float16 can't hold"):
        fed(folder, spec("N", 3, 6, 5, dtype="float16"), pixel_max=1e5)


def test_values_per_channel_must_match_the_channels(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"image mean has 3 values but model input 'x' has 1 channel\(s\)"):
        fed(folder, spec("N", 1, 6, 5), mean=(0.1, 0.2, 0.3))
    with pytest.raises(UsageError, match=r"image std has 2 values .* give one value or one per channel"):
        fed(folder, spec("N", 3, 6, 5), std=(0.1, 0.2))


@pytest.mark.parametrize("content", [b"", b"text, not a picture", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_a_file_that_is_no_image(folder: Path, content: bytes) -> None:
    (folder / "b.png").write_bytes(content)
    with pytest.raises(DataError, match=r"b\.png (is named as an image but is none|can't be decoded).*replace it"):
        fed(folder, spec("N", 3, 6, 5))


def test_only_the_listed_formats_are_recognised(folder: Path) -> None:
    """Pillow hands PostScript to an external program, whatever the file's name."""
    Image.fromarray(RGB).save(folder / "picture.eps")
    (folder / "picture.eps").rename(folder / "b.png")
    with pytest.raises(DataError, match=r"b\.png is named as an image but is none that can be read \(PNG, JPEG"):
        fed(folder, spec("N", 3, 6, 5))


@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.tiff", "b.bmp"])
def test_a_truncated_image_is_found_when_it_is_decoded(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    data = load(tmp_path, [spec("N", 3, 40, 40)])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=rf"{name}.*replace it"):
        data.batch(0, 1)


def test_a_decompression_bomb_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (20, 10):  # 30 pixels: Pillow warns above the limit and raises above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=r"a\.png is suspiciously large .*remove it or scale it down"):
            fed(folder, spec("N", 3, 6, 5))


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_more_than_eight_bits_are_never_cut_off(tmp_path: Path, dtype: str) -> None:
    Image.fromarray(np.full((6, 5), 300, dtype)).save(tmp_path / "deep.tiff")
    with pytest.raises(DataError, match=r"deep\.tiff has more than 8 bits per channel .*convert it to 8 bits"):
        fed(tmp_path, spec("N", 1, 6, 5))
