"""Every form of an image becomes the same pixels; what is no image is named."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from slimdet.errors import ConfigError, ImageError
from slimdet.images.resizing import Sides
from slimdet.runtime.preprocessing import is_one, read

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
SIDES = Sides(75, 100)
CHW = torch.from_numpy(RGB).permute(2, 0, 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    "tensor",
    [
        CHW,
        CHW.contiguous(),
        CHW / 255,
        (CHW / 255).double(),
        (CHW / 255).half(),
        (CHW / 255).requires_grad_(),
        torch.nn.Parameter(CHW / 255),
    ],
)
def test_tensors(tensor: torch.Tensor) -> None:
    found = read(tensor, SIDES)
    assert found.pixels.flags.c_contiguous
    np.testing.assert_array_equal(found.pixels, RGB)
    assert found.path is None


def test_a_grey_tensor() -> None:
    np.testing.assert_array_equal(read(CHW[:1] / 255, SIDES).pixels, np.repeat(RGB[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.from_numpy(RGB), r"a tensor of shape \(20, 30, 3\) is no image; give \[3, H, W\]"),
        (CHW[0], r"a tensor of shape \(20, 30\)"),
        (CHW[:, :0], r"a tensor of shape \(3, 0, 30\)"),
        (CHW.long(), "a tensor of int64 is no image; give uint8, or floats in 0..1"),
        (CHW.float(), r"a tensor of 0..255 is no image; give floats in 0..1, or uint8"),
        ((CHW / 255 - 0.5) / 0.25, r"a tensor of -2..2 is no image"),
        (CHW / 255 * torch.nan, "a tensor of nan..nan is no image"),
    ],
)
def test_tensors_that_are_no_images(tensor: torch.Tensor, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        read(tensor, SIDES)


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy])
def test_opencvs_order_of_channels(form: Callable[[np.ndarray], Any]) -> None:
    tensor = form is torch.from_numpy
    bgr = np.ascontiguousarray(RGB[..., ::-1])
    found = read(form(bgr.transpose(2, 0, 1) if tensor else bgr), SIDES, "bgr")
    np.testing.assert_array_equal(found.pixels, RGB)
    assert found.pixels.flags.c_contiguous


def test_opencv_reads_the_same(file: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    np.testing.assert_array_equal(read(cv2.imread(str(file)), SIDES, "bgr").pixels, RGB)
    half_clear = np.dstack([RGB, np.full(RGB.shape[:2], 128, np.uint8)])
    expected = read(half_clear, SIDES).pixels
    np.testing.assert_array_equal(read(cv2.cvtColor(half_clear, cv2.COLOR_RGBA2BGRA), SIDES, "bgr").pixels, expected)
    grey = RGB[..., 0]
    np.testing.assert_array_equal(read(grey, SIDES, "bgr").pixels, read(grey, SIDES).pixels)


def test_files_and_pillow_images_know_their_own_order(file: Path) -> None:
    for source in (file, file.read_bytes(), Image.open(file)):
        np.testing.assert_array_equal(read(source, SIDES, "bgr").pixels, RGB)
    with pytest.raises(ConfigError, match="color 'brg' is not one of rgb, bgr; did you mean"):
        read(RGB, SIDES, "brg")  # pyright: ignore[reportArgumentType]


def test_file_objects(file: Path) -> None:
    with file.open("rb") as opened:
        found = read(opened, SIDES)
    np.testing.assert_array_equal(found.pixels, RGB)
    assert found.path == file
    found = read(io.BytesIO(file.read_bytes()), SIDES)
    np.testing.assert_array_equal(found.pixels, RGB)
    assert found.path is None
    nowhere = io.BytesIO(b"head" + file.read_bytes())
    nowhere.seek(4)  # as in an archive: it is read from where it stands
    np.testing.assert_array_equal(read(nowhere, SIDES).pixels, RGB)


def test_file_objects_that_give_nothing(file: Path) -> None:
    with file.open(encoding="latin-1") as text, pytest.raises(ImageError, match=r"a\.png: .*binary mode \('rb'\)"):
        read(text, SIDES)  # pyright: ignore[reportArgumentType]
    read_already = io.BytesIO(file.read_bytes())
    read(read_already, SIDES)
    with pytest.raises(ImageError, match=r"BytesIO object: gives no bytes; .* at its beginning"):
        read(read_already, SIDES)
    with pytest.raises(ImageError, match="BytesIO object: not an image of a known kind"):
        read(io.BytesIO(b"text"), SIDES)


def test_nothing_may_be_left_of_an_image(file: Path) -> None:
    with pytest.raises(ImageError, match=r"^3000x1 pixels: nothing is left of it once the longer side has 100"):
        read(torch.zeros(3, 1, 3000), SIDES)
    Image.new("RGB", (3000, 1)).save(file)
    with pytest.raises(ImageError, match=r"a\.png: 3000x1 pixels"):
        read(file, SIDES)


@pytest.mark.parametrize(
    "source", ["a.png", Path("a.png"), b"bytes", bytearray(1), RGB, CHW, CHW[0], Image.fromarray(RGB), io.BytesIO(), 3]
)
def test_what_is_one(source: Any) -> None:
    assert is_one(source)


@pytest.mark.parametrize("source", [[RGB], (RGB,), iter([RGB]), CHW[None], {"a": 1}.keys(), Path(".").glob("*")])
def test_what_is_many(source: Any) -> None:
    assert not is_one(source)
