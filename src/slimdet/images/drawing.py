"""Boxes, masks and labels drawn onto photographs, with Pillow and numpy alone.

N detections, H x W pixels. Lines and letters grow with the picture, so that a thumbnail and a poster both read well.
"""

import colorsys
import io
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from slimdet.files import atomic_write
from slimdet.images.fonts import Font, font_for

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom are outside

# Light and dark, warm and cold by turns: neighbours in a list of classes look different, to colour-blind eyes too.
COLOURS: tuple[Colour, ...] = (
    (255, 176, 0),
    (30, 110, 230),
    (226, 55, 55),
    (60, 200, 190),
    (190, 80, 220),
    (150, 205, 40),
    (255, 120, 180),
    (120, 75, 30),
    (150, 200, 255),
    (0, 125, 70),
)
MASK_OPACITY = 0.42
DARK, LIGHT = (20, 20, 20), (255, 255, 255)


def class_colour(name: str, classes: Sequence[str] = ()) -> Colour:
    """The colour of a class: by its place in `classes`, or by its name alone where it is not among them."""
    place = classes.index(name) if name in classes else zlib.crc32(name.encode()) % 997
    if place < len(COLOURS):
        return COLOURS[place]
    # Steps of the golden ratio keep the hues of any number of further classes apart.
    red, green, blue = colorsys.hsv_to_rgb(place * 0.618034 % 1, (0.85, 0.55)[place % 2], (0.8, 1.0)[place // 2 % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(
    image: Image.Image | NDArray[np.uint8],
    boxes: ArrayLike,
    names: Sequence[str],
    scores: Sequence[float] | None = None,
    masks: ArrayLike | None = None,
    classes: Sequence[str] = (),
) -> Image.Image:
    """Draw detections onto a copy of the image; better scores lie on top and choose first where their label goes.

    Args:
        image: a PIL image, or uint8 [H, W, 3] (RGB) or [H, W] (grey).
        boxes: [N, 4], (x1, y1, x2, y2) in pixels; parts outside the image are cut off.
        names: [N], the class of each box.
        scores: [N] in 0..1, shown behind the names, or None.
        masks: [N, H, W] or [N, 1, H, W], boolean, or in 0..1 and then cut at 0.5; or None.
        classes: all the classes, whose order gives the colours (see `class_colour`).

    Raises:
        ValueError: the lengths differ, or a mask is not of the image's size.
    """
    source = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    picture = source.convert("RGB") if source.mode != "RGB" else source.copy()
    corners = np.asarray(boxes, dtype=float).reshape(-1, 4)
    shapes = None if masks is None else np.asarray(masks).reshape(-1, picture.height, picture.width)
    for what, values in (("names", names), ("scores", scores), ("masks", shapes)):
        if values is not None and len(values) != len(corners):
            raise ValueError(f"{len(values)} {what} for {len(corners)} boxes")

    line = max(2, round(0.004 * max(picture.size)))
    colours = [class_colour(name, classes) for name in names]
    places = [_inside(corner, *picture.size) for corner in corners]
    best_first = list(range(len(corners)))
    if scores is not None:
        best_first.sort(key=lambda index: -scores[index])
    if shapes is not None:
        # Large masks first, or they would hide the small ones.
        for index in sorted(best_first, key=lambda index: -np.count_nonzero(shapes[index] > 0.5)):
            _draw_mask(picture, shapes[index] > 0.5, colours[index], max(1, line // 2))
    pen = ImageDraw.Draw(picture)
    for index in reversed(best_first):
        left, top, right, bottom = places[index]
        pen.rectangle((left, top, right - 1, bottom - 1), outline=colours[index], width=line)
    letters = max(11, round(0.022 * max(picture.size)))  # pixels
    margin = max(2, line // 2)
    labels: dict[int, tuple[str, Font, Box]] = {}
    for index in best_first:
        text = names[index] if scores is None else f"{names[index]} {scores[index]:.2f}"
        font = font_for(text, letters)
        text = _cut(pen, text, font, picture.width - 2 * margin)
        size = round(pen.textlength(text, font=font)) + 2 * margin, round(1.2 * font.size) + margin
        taken = [place for _, _, place in labels.values()]
        labels[index] = text, font, _label_place(size, places[index], picture.size, taken)
    for index, (text, font, (left, top, right, bottom)) in reversed(labels.items()):
        pen.rectangle((left, top, right - 1, bottom - 1), fill=colours[index])
        ink = DARK if np.dot(colours[index], (0.299, 0.587, 0.114)) > 140 else LIGHT
        pen.text(((left + right) / 2, (top + bottom) / 2), text, fill=ink, font=font, anchor="mm")
    return picture


def caption(picture: Image.Image, text: str) -> Image.Image:
    """Write a line onto the picture's upper left corner, light on dark; return the picture."""
    pen, font = ImageDraw.Draw(picture), font_for(text, max(11, round(0.022 * max(picture.size))))
    text = _cut(pen, text, font, picture.width)
    margin = max(2, font.size // 4)
    size = round(pen.textlength(text, font=font)) + 2 * margin, round(1.2 * font.size) + margin
    pen.rectangle((0, 0, size[0] - 1, size[1] - 1), fill=DARK)
    pen.text((margin, size[1] / 2), text, fill=LIGHT, font=font, anchor="lm")
    return picture


def save(picture: Image.Image, path: str | Path, quality: int) -> Path:
    """Encode a picture in the format of the path's ending, then write it whole; return the path.

    Raises:
        ValueError: no such format.
        OSError: as `slimdet.files.atomic_write`.
    """
    path, encoded = Path(path), io.BytesIO()
    encoded.name = path.name  # by which Pillow chooses the format
    picture.save(encoded, quality=quality)
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
    return path


def side_by_side(
    pictures: Iterable[tuple[str, Image.Image]], height: int = 480, columns: int | None = None
) -> Image.Image:
    """Pictures next to each other on white, each under its title.

    Args:
        pictures: (title, picture); all are scaled to the same height.
        height: of each picture in pixels.
        columns: pictures in a row; by default all in one.

    Raises:
        ValueError: there are no pictures.
    """
    tiles = [
        (title, picture.convert("RGB").resize((max(1, round(height * picture.width / picture.height)), height)))
        for title, picture in pictures
    ]
    if not tiles:
        raise ValueError("no pictures to put side by side")
    columns = columns or len(tiles)
    gap, letters = max(4, height // 40), max(12, height // 18)  # pixels
    title_height = round(1.7 * letters)
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    widths = [max(row[place][1].width for row in rows if place < len(row)) for place in range(min(columns, len(tiles)))]
    sheet = Image.new("RGB", (sum(widths) + gap * (len(widths) + 1), (title_height + height + gap) * len(rows)), LIGHT)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = number * (title_height + height + gap)
        for place, (title, picture) in enumerate(row):
            left = gap + sum(widths[:place]) + gap * place
            font = font_for(title, letters)
            fitting = _cut(pen, title, font, widths[place])
            pen.text((left, top + title_height / 2), fitting, fill=DARK, font=font, anchor="lm")
            sheet.paste(picture, (left, top + title_height))
    return sheet


def _draw_mask(picture: Image.Image, mask: NDArray[np.bool_], colour: Colour, line: int) -> None:
    """Tint the mask's pixels and follow its rim with a full line."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    # Only the mask's own part of the picture is touched: large pictures with many small objects stay quick.
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = mask.shape
    around, inner = np.pad(mask, line), mask.copy()
    for down, right in ((0, line), (2 * line, line), (line, 0), (line, 2 * line)):
        inner &= around[down : down + height, right : right + width]
    opacity = np.where(inner, round(255 * MASK_OPACITY), 255 * mask).astype(np.uint8)
    picture.paste(colour, (int(columns[0]), int(rows[0])), Image.fromarray(opacity))


def _label_place(size: tuple[int, int], box: Box, picture: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where a label goes: at its box, inside the picture and, where possible, off the labels in `taken`."""
    (width, height), (picture_width, picture_height) = size, picture
    left, top, right, bottom = box
    # On the box's upper edge by preference, then at its lower one; at the left corner before the right one.
    spots = [(x, y) for x in (left, right - width) for y in (top - height, top, bottom, bottom - height)]
    spots = [(max(0, min(x, picture_width - width)), y) for x, y in spots]
    places = [(x, y, x + width, y + height) for x, y in spots if y >= 0 and y + height <= picture_height]
    places = places or [(spots[0][0], 0, spots[0][0] + width, height)]
    return next((place for place in places if not any(_overlap(place, other) for other in taken)), places[0])


def _inside(corner: NDArray[np.float64], width: int, height: int) -> Box:
    """The box in whole pixels, at least one wide and high, cut to the picture."""
    x1, y1, x2, y2 = np.nan_to_num(corner, posinf=width, neginf=0)
    left, right = (round(min(max(x, 0), width)) for x in (min(x1, x2), max(x1, x2)))
    top, bottom = (round(min(max(y, 0), height)) for y in (min(y1, y2), max(y1, y2)))
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _cut(pen: ImageDraw.ImageDraw, text: str, font: Font, width: float) -> str:
    """The text, or as much of it as fits into that many pixels and an ellipsis; on one line."""
    text = " ".join(text.split())
    if pen.textlength(text, font=font) <= width:
        return text
    while text and pen.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
