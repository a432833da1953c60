"""Every kind of image decodes to the right RGB; what cannot be decoded whole is a named error."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, JpegImagePlugin

from slimdet.errors import ConfigError, ImageError
from slimdet.images import decoding, pixels
from slimdet.images.decoding import ImageFile, image_size, open_file, read_image, read_reduced, size_and_orientation
from slimdet.images.orientation import BOX_TURNS

HEIGHT, WIDTH = 24, 32
_rows, _columns = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([_columns * 8, _rows * 10, (_rows + _columns) * 4], axis=-1).astype(np.uint8)  # [24, 32, 3]
GREY = RGB[:, :, 0]
WHITE = np.array([255, 255, 255], np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *, transparent: bytes = b"", interlaced: bool = False
) -> bytes:
    """A PNG written by hand, for kinds that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    extra = chunk(b"tRNS", transparent) if transparent else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def png_grey16(values: np.ndarray, transparent: bytes = b"") -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, 0, rows, transparent=transparent)


def grey_as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_rgb_is_kept_and_contiguous(kind: str) -> None:
    array = read_image(encode(Image.fromarray(RGB), kind))
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, RGB)


@pytest.mark.parametrize(
    ("kind", "options", "most"), [("JPEG", {"quality": 95}, 6), ("WEBP", {"lossless": True}, 0), ("JPEG2000", {}, 0)]
)
def test_other_formats(kind: str, options: dict, most: int) -> None:
    smooth = Image.fromarray(RGB).resize((64, 48), Image.Resampling.BICUBIC)
    difference = np.abs(read_image(encode(smooth, kind, **options)).astype(int) - np.asarray(smooth))
    assert difference.mean() <= most


def test_path_text_bytes_image_and_array_agree(tmp_path: Path) -> None:
    path = tmp_path / "photo with ümlaut.png"
    Image.fromarray(RGB).save(path)
    for source in (path, str(path), path.read_bytes(), Image.open(path), RGB):
        np.testing.assert_array_equal(read_image(source), RGB)
        assert image_size(source) == (WIDTH, HEIGHT)


# --- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    # Four quarters tell all eight orientations apart. What is stored is turned so that upright comes out.
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(undo[orientation](upright))), kind, exif=exif)
    array = read_image(data)
    assert array.shape == upright.shape
    assert image_size(data) == (48, 32)
    assert np.abs(array[8:-8:16, 12:-12:24].astype(int) - upright[8:-8:16, 12:-12:24]).max() < 20
    image = Image.open(io.BytesIO(data))
    assert image_size(image) == (48, 32)
    np.testing.assert_array_equal(read_image(image), array)
    assert image_size(image) == (48, 32)  # once loaded, too
    np.testing.assert_array_equal(read_image(image), array)


def test_orientation_agrees_with_opencv(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.jpg"
        Image.fromarray(RGB).save(path, exif=exif, quality=95, subsampling=0)
        reference = cv2.imread(str(path))[:, :, ::-1]
        assert np.abs(read_image(path).astype(int) - reference).max() <= 2


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_out_of_range_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(RGB), "PNG", exif=exif)), RGB)


def test_damaged_exif_does_not_hide_the_pixels() -> None:
    data = encode(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_image(data), RGB)


# --- kinds of pixels


def test_grey() -> None:
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(GREY), "PNG")), grey_as_rgb(GREY))


def test_one_bit() -> None:
    bits = GREY > 100
    np.testing.assert_array_equal(
        read_image(encode(Image.fromarray(bits), "PNG")), grey_as_rgb(bits.astype(np.uint8) * 255)
    )


DEEP = (GREY.astype(np.uint16) * 257 - (GREY > 3) * np.uint16(100)).astype(np.uint16)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_grey_is_scaled(order: str) -> None:
    expected = grey_as_rgb(np.rint(DEEP / 257).astype(np.uint8))
    little = Image.fromarray(DEEP)
    np.testing.assert_array_equal(read_image(png_grey16(DEEP)), expected)
    np.testing.assert_array_equal(read_image(encode(little, "TIFF")), expected)
    np.testing.assert_array_equal(read_image(little), expected)
    np.testing.assert_array_equal(read_image(DEEP.astype(f"{order}u2")), expected)
    pgm = f"P5 {WIDTH} {HEIGHT} 65535\n".encode() + DEEP.astype(">u2").tobytes()
    np.testing.assert_array_equal(read_image(pgm), expected)


def test_dark_sixteen_bit_stays_dark() -> None:
    assert read_image(png_grey16(np.full((4, 4), 200, np.uint16))).max() == 1


def test_sixteen_bit_rgb() -> None:
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in RGB)
    np.testing.assert_array_equal(read_image(png(WIDTH, HEIGHT, 16, 2, rows)), RGB)


@pytest.mark.parametrize("transparency", [None, 5, bytes([255, 0, 128] + [255] * 253)])
def test_palette(transparency: int | bytes | None) -> None:
    indices = (np.arange(HEIGHT * WIDTH) % 7).reshape(HEIGHT, WIDTH).astype(np.uint8)
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    alpha = np.full(256, 255)
    if isinstance(transparency, int):
        alpha[transparency] = 0
    elif transparency:
        alpha[:] = list(transparency)
    weight = alpha[indices][:, :, None] / 255
    expected = palette[indices] * weight + 255 * (1 - weight)
    assert np.abs(read_image(encode(image, "PNG", **options)) - expected).max() <= 1


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_image(data) == (255, 0, 0)).all()


def cmyk_to_rgb(cmyk: np.ndarray) -> np.ndarray:
    ink = 1 - cmyk.astype(float) / 255
    return 255 * ink[:, :, :3] * ink[:, :, 3:]


def test_cmyk_tiff_and_adobe_jpeg() -> None:
    smooth = np.stack([_columns * 8, 255 - _columns * 4, _rows * 5, (_rows + _columns) * 2], axis=-1).astype(np.uint8)
    image = Image.fromarray(smooth, "CMYK")
    expected = cmyk_to_rgb(smooth)
    assert np.abs(read_image(encode(image, "TIFF")) - expected).max() <= 1
    jpeg = encode(image, "JPEG", quality=100)
    assert b"Adobe" in jpeg[:64]  # stored inverted, as Photoshop does
    assert np.abs(read_image(jpeg) - expected).mean() <= 2


def test_cmyk_jpeg_agrees_with_opencv(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "ink.jpg"
    Image.fromarray(RGB).convert("CMYK").save(path, quality=100)
    assert np.abs(read_image(path).astype(int) - cv2.imread(str(path))[:, :, ::-1]).mean() <= 2


# --- transparency


def test_alpha_is_composited_over_white() -> None:
    alpha = np.where(_columns < 16, 0, 255).astype(np.uint8)
    alpha[0] = 128
    rgba = np.dstack([RGB, alpha])
    weight = alpha[:, :, None] / 255
    expected = RGB * weight + 255 * (1 - weight)
    for source in (rgba, encode(Image.fromarray(rgba), "PNG"), encode(Image.fromarray(rgba), "TIFF")):
        assert np.abs(read_image(source) - expected).max() <= 1


def test_grey_with_alpha() -> None:
    alpha = np.where(_columns < 16, 0, 255).astype(np.uint8)
    expected = grey_as_rgb(np.where(alpha, GREY, 255).astype(np.uint8))
    for source in (np.dstack([GREY, alpha]), encode(Image.fromarray(np.dstack([GREY, alpha])), "PNG")):
        np.testing.assert_array_equal(read_image(source), expected)


def test_premultiplied_alpha() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    assert (read_image(image.convert("RGBa")) == 255).all()
    assert (read_image(image.convert("LA").convert("La")) == 255).all()


DEEP_BLUE = b"\x12\x34\x56\x78\x9a\xbc"  # 16 bits a channel


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # A transparent grey or colour at every bit depth: pixels with it are white, their neighbours are kept.
        (png(4, 1, 1, 0, b"\0\x50", transparent=b"\0\0"), [255, 255, 255, 255]),
        (png(4, 1, 2, 0, b"\0\x1b", transparent=b"\0\1"), [0, 255, 170, 255]),
        (png(4, 1, 4, 0, b"\0\x05\xaf", transparent=b"\0\5"), [0, 255, 170, 255]),
        (png(4, 1, 8, 0, b"\0\x00\x05\xaa\xff", transparent=b"\0\5"), [0, 255, 170, 255]),
        (png_grey16(np.array([[0, 1000, 43690, 65535]]), transparent=b"\x03\xe8"), [0, 255, 170, 255]),
        (png(2, 1, 8, 2, b"\0\x01\x02\x03\x07\x07\x07", transparent=b"\0\1\0\2\0\3"), [255, 7]),
        (png(2, 1, 16, 2, b"\0" + DEEP_BLUE + b"\x07\x07" * 3, transparent=DEEP_BLUE), [255, 7]),
    ],
)  # fmt: skip
def test_transparent_colour_of_a_png(data: bytes, expected: list[int]) -> None:
    np.testing.assert_array_equal(read_image(data), grey_as_rgb(np.array([expected], np.uint8)))


# --- floats and other arrays


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),  # 0..1
        ([-0.02, 0.5, 1.02], [0, 128, 255]),  # resized, with some overshoot
        ([0.0, 100.0, 255.0], [0, 100, 255]),  # 0..255
        ([-500.0, 0.0, 500.0], [0, 128, 255]),  # stretched
        ([1000.0, 1500.0, 2000.0], [0, 128, 255]),
    ],
)
def test_float_tiff(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    result = read_image(encode(image, "TIFF"))
    assert np.abs(result.astype(int) - grey_as_rgb(np.array([expected]))).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_float_without_a_meaning_is_refused(value: float) -> None:
    with pytest.raises(ImageError, match="NaN or infinite"):
        read_image(encode(Image.fromarray(np.array([[0, value]], np.float32)), "TIFF"))
    with pytest.raises(ImageError, match="NaN or infinite"):
        read_image(np.array([[0, value]]))


def test_constant_float_does_not_divide_by_zero() -> None:
    assert read_image(np.full((2, 2), 1e6)).shape == (2, 2, 3)


def test_int32_tiff() -> None:
    image = Image.fromarray(np.array([[0, 30000, 65535]], np.int32))
    np.testing.assert_array_equal(read_image(encode(image, "TIFF"))[0, :, 0], [0, 117, 255])


def test_dark_16_bits_are_dark_in_either_order_of_bytes() -> None:
    for order in ("<u2", ">u2"):
        mode = "I;16" if order == "<u2" else "I;16B"
        stored = np.full((6, 8), 200, order).tobytes()
        assert read_image(encode(Image.frombytes(mode, (8, 6), stored), "TIFF")).max() == 1


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64, np.int16])
def test_arrays_of_0_to_255_in_another_type(dtype: type) -> None:
    np.testing.assert_array_equal(read_image(RGB.astype(dtype)), RGB)


def test_array_views() -> None:
    np.testing.assert_array_equal(read_image(RGB[:, ::-1]), RGB[:, ::-1])
    assert read_image(RGB[:, :, ::-1]).flags.c_contiguous
    np.testing.assert_array_equal(read_image(GREY[:, :, None]), grey_as_rgb(GREY))
    np.testing.assert_array_equal(read_image(GREY > 7), grey_as_rgb((GREY > 7) * np.uint8(255)))


@pytest.mark.parametrize(
    "source",
    [np.zeros((3, 8, 8), np.uint8), np.zeros(5), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), complex), None, 7, []],
)
def test_what_is_no_image_is_refused(source) -> None:
    with pytest.raises(ImageError):
        read_image(source)


# --- size


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # 144 megapixels in a small file. The rows are compressed one by one: nothing here holds the whole image either.
    side = 12000
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
    monkeypatch.setattr(zlib, "compress", lambda data: data)
    data = png(side, side, 1, 0, rows)
    assert len(data) < 50_000
    path = tmp_path / "bomb.png"
    path.write_bytes(data)

    def decode(*_) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(Image.Image, "load", decode)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    for reader in (read_image, image_size):
        for source in (data, path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with pytest.raises(ImageError, match=r"12000x12000 is 144 megapixels, over the limit of 64"):
                    reader(source)


def test_a_bomb_that_pillow_refuses_itself_is_named() -> None:
    data = png(60000, 60000, 1, 0, b"")
    with pytest.raises(ImageError, match="megapixels"):
        read_image(data)


def test_the_limit_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.fromarray(RGB), "PNG")
    monkeypatch.setattr(decoding, "MAX_PIXELS", WIDTH * HEIGHT)
    assert read_image(data).shape == (HEIGHT, WIDTH, 3)
    monkeypatch.setattr(decoding, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(ImageError, match="over the limit"):
        read_image(data)
    with pytest.raises(ImageError, match="over the limit"):
        read_image(Image.fromarray(RGB))


# --- broken files


def test_errors_name_the_file(tmp_path: Path) -> None:
    missing, text, folder = tmp_path / "missing.jpg", tmp_path / "text.jpg", tmp_path / "folder.jpg"
    text.write_text("not an image")
    folder.mkdir()
    for path, reason in ((missing, "no such file"), (text, "not an image of a known kind"), (folder, "cannot be")):
        with pytest.raises(ImageError, match=reason) as caught:
            read_image(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError):
        read_image(b"")


HEIC = b"\0\0\0\x18ftyp%s\0\0\0\0%sheic" + bytes(100)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "is empty"),
        ("phone.jpg", HEIC % (b"heic", b"mif1"), "HEIC, which is not read; convert .*: heif-convert"),
        ("phone.jpg", HEIC % (b"mif1", b"mif1"), "HEIC, which is not read; convert .*: heif-convert"),
        ("broken.avif", HEIC % (b"mif1", b"avif"), "cannot be decoded|not an image of a known kind"),
        ("film.jpg", HEIC % (b"isom", b"isom"), "not an image of a known kind"),
        ("floats.tif", b"II*\0\x08\0\0\0\0\0", "a TIFF of a kind that is not read.*; save it with 8 bits a sample"),
        ("raw.dng", b"II*\0\x08\0\0\0\0\0", "not an image of a known kind .*; convert them to JPEG or PNG first"),
    ],
)
def test_what_is_not_read_is_told_by_its_bytes(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    for reader in (read_image, image_size):
        with pytest.raises(ImageError, match=f"{name}: ({reason})"):
            reader(tmp_path / name)


def test_postscript_never_reaches_its_interpreter() -> None:
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ImageError, match="not an image of a known kind"):
        read_image(data)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
CUT = {
    "jpeg": encode(Image.fromarray(NOISE), "JPEG"),
    "progressive": encode(Image.fromarray(NOISE), "JPEG", progressive=True),
    "png": encode(Image.fromarray(NOISE), "PNG"),
    "bmp": encode(Image.fromarray(NOISE), "BMP"),
    "tiff": encode(Image.fromarray(NOISE), "TIFF"),
    "deflated tiff": encode(Image.fromarray(NOISE), "TIFF", compression="tiff_adobe_deflate"),
    "webp": encode(Image.fromarray(NOISE), "WEBP"),
    "jpeg 2000": encode(Image.fromarray(NOISE), "JPEG2000"),
    "ppm": encode(Image.fromarray(NOISE), "PPM"),
}


@pytest.mark.parametrize("kind", CUT)
def test_a_cut_file_is_refused_or_whole(kind: str) -> None:
    data = CUT[kind]
    whole = read_image(data)
    for length in [*range(0, len(data), len(data) // 23), *range(len(data) - 6, len(data))]:
        try:
            array = read_image(data[:length])
        except ImageError:
            continue
        np.testing.assert_array_equal(array, whole)


def test_a_jpeg_without_its_end_marker_is_refused() -> None:
    with pytest.raises(ImageError, match="cut off"):
        read_image(CUT["jpeg"][:-2])


# Bytes of each pass of 8 x 8 interlaced greys: rows times (a filter's number and what is in a row).
PASSES = [1 * (1 + 1), 1 * (1 + 1), 1 * (1 + 2), 2 * (1 + 2), 2 * (1 + 4), 4 * (1 + 4), 4 * (1 + 8)]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("missing", [1, 9, 30, 60])
def test_a_png_whose_pixels_stop_early_is_refused(missing: int, interlaced: bool) -> None:
    length = sum(PASSES) if interlaced else 8 * (1 + 8)
    assert not read_image(png(8, 8, 8, 0, bytes(length), interlaced=interlaced)).any()  # black, but all there
    with pytest.raises(ImageError, match=r"stops before its last pixels|truncated"):
        read_image(png(8, 8, 8, 0, bytes(length - missing), interlaced=interlaced))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 9), (5, 5), (9, 1)])
@pytest.mark.parametrize(("depth", "colour"), [(1, 0), (2, 0), (8, 2), (8, 4), (16, 0), (16, 6)])
def test_black_pngs_are_not_taken_for_cut_ones(size: tuple[int, int], depth: int, colour: int) -> None:
    bits = depth * {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = bytes(size[1] * (1 + (size[0] * bits + 7) // 8))
    assert read_image(png(*size, depth, colour, rows)).shape == (size[1], size[0], 3)
    with pytest.raises(ImageError):
        read_image(png(*size, depth, colour, rows[:-1]))


def test_a_large_black_png_is_counted_in_pieces() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8))
    image.paste(0, (0, 200, 300, 300))
    np.testing.assert_array_equal(read_image(encode(image, "PNG"))[:, :, 0], image)


def test_a_png_without_its_palette_is_refused() -> None:
    for reader in (read_image, image_size):
        with pytest.raises(ImageError, match="the PNG has no palette"):
            reader(png(2, 1, 8, 3, b"\0\1\2"))


def test_zeros_in_place_of_the_tail_are_noticed() -> None:  # what is left of a broken download
    data = CUT["jpeg"]
    with pytest.raises(ImageError):
        read_image(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


@pytest.mark.parametrize("size", [(64, 64), (61, 47), (9, 130)])
def test_a_jpeg_that_ends_early_is_refused(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8))
    for options in ({}, {"subsampling": 0}):
        data = encode(image, "JPEG", **options)
        assert read_image(data).shape == (*size, 3)
        start = data.find(b"\xff\xda") + 14
        for part in (0.2, 0.5, 0.8):
            cut = start + int((len(data) - start) * part)
            with pytest.raises(ImageError):
                read_image(data[:cut] + b"\xff\xd9")


def test_flat_jpegs_are_not_taken_for_cut_ones() -> None:
    for colour in ("white", "black", (128, 128, 128), "red"):
        for progressive in (False, True):
            flat = Image.new("RGB", (50, 70), colour)
            flat.paste(Image.fromarray(NOISE[:20, :20]), (3, 5))
            assert read_image(encode(flat, "JPEG", progressive=progressive)).shape == (70, 50, 3)


def test_data_behind_a_jpeg_is_ignored() -> None:  # motion photographs carry a film there
    tail = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes()
    np.testing.assert_array_equal(read_image(CUT["jpeg"] + tail), read_image(CUT["jpeg"]))


def test_the_end_marker_of_a_thumbnail_does_not_count() -> None:
    thumbnail = encode(Image.fromarray(RGB), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2 + 6) + b"Exif\0\0" + thumbnail
    data = CUT["jpeg"][:2] + segment + CUT["jpeg"][2:]
    np.testing.assert_array_equal(read_image(data), read_image(CUT["jpeg"]))
    with pytest.raises(ImageError, match="cut off"):
        read_image(data[:-2])


MUTANTS = [
    *CUT.values(),
    encode(Image.fromarray(NOISE).quantize(16), "PNG"),
    encode(Image.fromarray(NOISE), "GIF"),
    encode(Image.fromarray(NOISE).convert("CMYK"), "JPEG"),
    png_grey16(NOISE[:, :, 0].astype(np.uint16) * 256),
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    data=st.sampled_from(MUTANTS),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    near_the_start=st.booleans(),
    removed=st.integers(0, 40),
)
def test_mutated_files_give_a_valid_array_or_a_named_error(
    data: bytes, edits: list[tuple[float, int]], near_the_start: bool, removed: int
) -> None:
    mutant = bytearray(data)
    reach = min(len(mutant), 200) if near_the_start else len(mutant)
    for place, value in edits:
        mutant[int(place * reach)] = value
    at = int(edits[0][0] * reach)
    del mutant[at : at + removed]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = read_image(bytes(mutant))
            size = image_size(bytes(mutant))
    except ImageError:
        return
    assert array.dtype == np.uint8
    assert array.shape == (size[1], size[0], 3)


# ------------------------------------------------------------------------------------------------- at a fraction


def photograph(width: int = 160, height: int = 96) -> Image.Image:
    """Smooth, as photographs are, with a sharp edge and an even corner at the lower right."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([127 + 100 * np.sin(x / 19), 127 + 100 * np.cos(y / 13), (x + y) % 256], axis=2).astype(np.uint8)
    pixels[-40:, -60:] = 250
    return Image.fromarray(pixels)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_fraction_of_a_jpeg_is_the_mean_of_its_pixels(factor: int, orientation: int, options: dict) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photograph(), "JPEG", quality=95, exif=exif, **options)
    whole = read_image(data)
    pixels, size = read_reduced(data, lambda width, height: factor)
    assert size == whole.shape[1::-1]
    assert pixels.shape == (whole.shape[0] // factor, whole.shape[1] // factor, 3)
    mean = whole.reshape(pixels.shape[0], factor, pixels.shape[1], factor, 3).mean((1, 3))
    assert abs(pixels - mean).mean() < 1.5
    np.testing.assert_array_equal(pixels if factor == 1 else whole, whole)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "array"])
def test_a_fraction_of_sides_that_it_does_not_divide(kind: str) -> None:
    image = photograph(157, 93)
    source = np.array(image) if kind == "array" else encode(image, kind)
    pixels, size = read_reduced(source, lambda width, height: 8)
    assert (size, pixels.shape) == ((157, 93), (12, 20, 3))
    np.testing.assert_array_equal(pixels, np.array(Image.fromarray(read_image(source)).reduce(8)))


@pytest.mark.parametrize("factor", [1, 4, 8])
def test_a_jpeg_that_ends_early_is_refused_at_any_fraction(factor: int) -> None:
    data = encode(photograph(), "JPEG")
    start = data.find(b"\xff\xda") + 14
    for part in (0.1, 0.5, 0.9, 0.97):
        cut = data[: start + int((len(data) - start) * part)].rstrip(b"\xff")
        with pytest.raises(ImageError):
            read_reduced(cut + b"\xff\xd9", lambda width, height: factor)


def test_a_jpeg_with_an_even_corner_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, load = [], JpegImagePlugin.JpegImageFile.load
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", lambda self: (decoded.append(self), load(self))[1])
    data = encode(Image.new("RGB", (64, 64), "white"), "JPEG")
    assert (read_image(data) == 255).all()
    assert len({id(image) for image in decoded}) == 1


def test_fill_bytes_between_the_segments_of_a_jpeg() -> None:
    data = encode(photograph(), "JPEG")
    np.testing.assert_array_equal(read_image(data[:2] + b"\xff\xff" + data[2:]), read_image(data))


def test_files_are_decoded_later_under_their_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(photograph(), "JPEG"))
    whole, file = read_image(path), open_file(path)
    path.unlink()
    np.testing.assert_array_equal(read_image(file), whole)
    assert image_size(file) == (160, 96)
    with pytest.raises(ImageError, match=r"a\.jpg: no such file"):
        open_file(path)
    with pytest.raises(ImageError, match=r"a\.jpg: not an image"):
        read_image(ImageFile(b"text", str(path)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_stored_pixels_are_turned_with_them(tmp_path: Path, orientation: int) -> None:
    stored, box = np.zeros((50, 100, 3), np.uint8), (10, 30, 25, 45)
    stored[30:45, 10:25] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png")[:, :, 0]
    (width, height), found = size_and_orientation(tmp_path / "a.png")
    assert (height, width, found) == (*upright.shape, orientation)
    turn = BOX_TURNS.get(orientation)
    assert (turn is not None) == (orientation > 4)
    if turn:
        rows, columns = np.nonzero(upright)
        assert turn(box, width, height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


# --- what Pillow alone would decode to other colours, or for seconds


def tiff(
    values: np.ndarray, photometric: int, kind: int = 1, planes: bool = False, more: dict[int, list[int]] | None = None
) -> bytes:
    """A TIFF written by hand: values [H, W] or [H, W, S], little-endian, uncompressed; kind 1 unsigned, 2 signed."""
    height, width, samples = (*values.shape, 1)[:3]
    data = (np.moveaxis(values, -1, 0) if planes else values).tobytes()
    strips = samples if planes else 1
    size, start = len(data) // strips, 8 + len(data)
    tags = {256: [width], 257: [height], 258: [values.itemsize * 8] * samples, 259: [1], 262: [photometric]}
    tags |= {273: [8 + size * strip for strip in range(strips)], 277: [samples], 278: [height]}
    tags |= {279: [size] * strips, 284: [2 if planes else 1], 339: [kind] * samples}
    tags = dict(sorted((tags | (more or {})).items()))
    extra, entries = b"", b""
    for tag, numbers in tags.items():
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        place = packed if len(numbers) == 1 else struct.pack("<I", start + len(extra))
        extra += packed if len(numbers) > 1 else b""
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + place
    directory = struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    return b"II*\0" + struct.pack("<I", start + len(extra)) + data + extra + directory


@pytest.mark.parametrize(
    ("values", "photometric", "grey"),
    [
        (GREY, 1, GREY),
        (255 - GREY, 0, GREY),
        (GREY.astype("<u2") * 257, 1, GREY),
        (65535 - GREY.astype("<u2") * 257, 0, GREY),
        (np.where(GREY > 100, 4_000_000_000, 0).astype("<u4"), 1, np.where(GREY > 100, 255, 0)),
    ],
)
def test_greys_of_a_tiff(values: np.ndarray, photometric: int, grey: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(tiff(values, photometric))[:, :, 0], grey)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff(GREY.view(np.int8), 1, kind=2), "signed 8-bit values"),
        (tiff(RGB.astype("<u2") * 257, 2, planes=True), "16-bit colours in separate planes"),
        (tiff(GREY.astype("<f4"), 0, kind=3), "32-bit greys in which 0 is white"),
    ],
)
def test_a_tiff_that_would_come_out_wrong_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_image(content)


def test_twelve_bits_of_a_tiff() -> None:
    values = np.array([[0, 1000, 2048, 4095]] * 2)
    packed = b"".join(((one << 12) + two).to_bytes(3, "big") for one, two in values.reshape(-1, 2).tolist())
    data = tiff(np.frombuffer(packed, np.uint8).reshape(2, 6), 1, more={256: [4], 258: [12]})
    np.testing.assert_array_equal(read_image(data)[:, :, 0], [[0, 62, 128, 255]] * 2)


@pytest.mark.parametrize("unit", [1, 257])
def test_palettes_of_a_tiff_are_of_8_or_16_bits(unit: int) -> None:
    levels = np.arange(256)
    colours = np.concatenate([levels, 255 - levels, np.full(256, 90)])
    data = tiff(GREY, 3, more={320: (colours * unit).tolist()})
    np.testing.assert_array_equal(read_image(data), np.stack([GREY, 255 - GREY, np.full_like(GREY, 90)], axis=2))


@pytest.mark.parametrize(
    ("values", "photometric", "kind", "more"),
    [
        (RGB.astype("<f4"), 2, 3, {}),
        (GREY.astype("<f2"), 1, 3, {}),
        (GREY.astype("<f8"), 1, 3, {}),
        (RGB.astype("<u4"), 2, 1, {}),
        (np.dstack([GREY, GREY]).astype("<u2"), 1, 1, {338: [2]}),
    ],
)
def test_kinds_of_tiff_that_are_not_read(values: np.ndarray, photometric: int, kind: int, more: dict) -> None:
    with pytest.raises(ImageError, match=r"a TIFF of a kind that is not read.*; save it with 8 bits a sample"):
        read_image(tiff(values, photometric, kind, more=more))


def test_planes_of_a_tiff() -> None:
    np.testing.assert_array_equal(read_image(tiff(RGB, 2, planes=True)), RGB)


def swapped_profile() -> bytes:
    """A profile in which red is green and green is red: sRGB's with the names of two tags exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for one, other in ((b"rXYZ", b"gXYZ"),):
        profile = profile.replace(one, b"####").replace(other, one).replace(b"####", other)
    return profile.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colour_profiles_are_applied(mode: str) -> None:
    picture = Image.new("RGB", (16, 16), (250, 0, 0)).convert(mode)
    red, green, _ = read_image(encode(picture, "PNG", icc_profile=swapped_profile()))[8, 8].tolist()
    assert green > 240
    assert red < 80


def linear_grey_profile() -> bytes:
    """A profile of greys that are light itself, without a curve."""
    white = struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + struct.pack(">IIHH", 0, 1, 256, 0)
    parts = {b"desc": b"desc" + struct.pack(">II", 0, 5) + b"grey\0".ljust(84, b"\0"), b"wtpt": b"XYZ \0\0\0\0" + white}
    parts[b"kTRC"] = curve
    table, body, start = b"", b"", 128 + 4 + 12 * len(parts)
    for name, part in parts.items():
        padded = part + bytes(-len(part) % 4)
        table += name + struct.pack(">II", start + len(body), len(part))
        body += padded
    header = b"lcms\x02\x40\0\0mntrGRAYXYZ ".ljust(32, b"\0") + b"acsp".ljust(32, b"\0") + white
    return (
        struct.pack(">I", start + len(body)) + header.ljust(124, b"\0") + struct.pack(">I", len(parts)) + table + body
    )


def test_profiles_of_greys_are_applied_with_alpha_and_to_16_bits() -> None:
    profile = linear_grey_profile()
    plain = read_image(encode(Image.fromarray(GREY), "PNG", icc_profile=profile))
    assert plain[0, 16].tolist() == [188, 188, 188]  # 128 / 255 of the light
    deep_grey = Image.fromarray(GREY.astype(np.uint16) * 257)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read_image(encode(deep_grey, kind, icc_profile=profile)), plain)
    other_order = Image.frombytes("I;16B", (WIDTH, HEIGHT), (GREY.astype(">u2") * 257).astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(encode(other_order, "TIFF", icc_profile=profile)), plain)
    alpha = np.where(_columns < 16, 0, 255).astype(np.uint8)
    data = encode(Image.fromarray(np.dstack([GREY, alpha])), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(read_image(data), np.where(alpha[:, :, None] == 0, WHITE, plain))
    data = encode(Image.fromarray(GREY), "PNG", icc_profile=profile, transparency=128)
    np.testing.assert_array_equal(read_image(data), np.where(GREY[:, :, None] == 128, WHITE, plain))


@pytest.mark.parametrize("profile", [b"broken", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()])
def test_profiles_that_say_nothing_change_nothing(profile: bytes) -> None:
    picture = encode(Image.fromarray(RGB), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(read_image(picture), RGB)


def test_a_jpeg_of_many_scans_is_refused() -> None:
    large = encode(Image.new("RGB", (5000, 4000)), "JPEG", progressive=True)
    last = large[large.rfind(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match="comes in 60 scans, which take long"):
        image_size(large[:-2] + last * (60 - large.count(b"\xff\xda")) + large[-2:])
    assert image_size(large) == (5000, 4000)


def test_photographs_of_telephones_are_within_the_limit() -> None:
    assert decoding.MAX_PIXELS >= 8192 * 6144


def test_the_environment_may_set_another_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (1500, 1000)).save(tmp_path / "a.png")
    monkeypatch.setenv(decoding.LIMIT, "1")
    with pytest.raises(ImageError, match=r"a.png: 1500x1000 is 2 megapixels, over the limit of 1; make it smaller, or"):
        read_image(tmp_path / "a.png")
    monkeypatch.setenv(decoding.LIMIT, "2")
    assert read_image(tmp_path / "a.png").shape == (1000, 1500, 3)
    for said in ("many", "0", "-1", "", "1e3"):
        monkeypatch.setenv(decoding.LIMIT, said)
        with pytest.raises(ConfigError, match=r"SLIMDET_MAX_MEGAPIXELS is .* not a number of megapixels"):
            read_image(tmp_path / "a.png")


def test_a_higher_limit_is_above_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setenv(decoding.LIMIT, "1")
    file = io.BytesIO()
    Image.new("L", (100, 80)).save(file, "PNG")
    assert read_image(file.getvalue()).shape == (80, 100, 3)


# --- band by band


def deep() -> np.ndarray:
    """Greys [60, 80] of which no few rows have all."""
    return np.linspace(0, 1, 60 * 80).reshape(60, 80)


def cut_in_bands() -> dict[str, bytes]:
    """Files of all that is done to pixels, by what it is."""
    rgb = photograph(80, 60)
    rgba = rgb.convert("RGBA")
    rgba.putalpha(rgb.convert("L"))
    turned = Image.Exif()
    turned[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    return {
        "colours": encode(rgb, "JPEG"),
        "turned": encode(rgb, "JPEG", exif=turned),
        "a profile": encode(rgb, "PNG", icc_profile=profile),
        "transparency": encode(rgba, "PNG"),
        "a palette": encode(rgb.convert("P"), "PNG", transparency=3),
        "four inks": encode(rgb.convert("CMYK"), "TIFF"),
        "16 bits, one of them transparent": png_grey16((65535 * deep()).astype(np.uint16), struct.pack(">H", 32000)),
        "32 bits": encode(Image.fromarray((1e6 * deep()).astype(np.int32)), "TIFF"),
        "floats": encode(Image.fromarray((deep() - 0.25).astype(np.float32)), "TIFF"),
    }


@pytest.mark.parametrize("kind", cut_in_bands())
def test_bands_are_those_of_the_whole_image(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = cut_in_bands()[kind]
    whole = read_image(data)
    monkeypatch.setattr(pixels, "_BAND", 7 * 80)
    np.testing.assert_array_equal(read_image(data), whole)


def test_rows_of_an_array_are_scaled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.stack([deep(), deep()[::-1], 0.5 * deep()], axis=2) - 0.25
    whole = read_image(array)
    assert (whole.min(), whole.max()) == (0, 255)
    monkeypatch.setattr(pixels, "_BAND", 500)
    np.testing.assert_array_equal(read_image(array), whole)
