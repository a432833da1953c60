"""What a picture shows after drawing: boxes, labels and masks in the class's colour, inside the picture, readable."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from slimdet.images.drawing import COLOURS, DARK, LIGHT, class_colour, draw, side_by_side

CLASSES = ["cat", "dog", "sheep"]
GREY = (128, 128, 128)


def grey(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def where(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(picture) == colour).all(axis=2)


def ink(picture: Image.Image) -> np.ndarray:
    """Where neither the grey ground nor the cat's colour is: the letters, soft edges and all."""
    return ~where(picture, GREY) & ~where(picture, COLOURS[0])


def test_box_has_the_colour_of_its_class_and_is_hollow() -> None:
    hits = where(draw(grey(400, 300), [[50, 100, 350, 250]], ["dog"], classes=CLASSES), COLOURS[1])
    assert hits[100, 50:350].all()
    assert hits[249, 50:350].all()
    assert hits[100:250, 50].all()
    assert hits[100:250, 349].all()
    assert not hits[110:240, 60:340].any()
    assert not hits[251:].any()
    assert not hits[:, 350:].any()


@pytest.mark.parametrize("size", [(200, 150), (3000, 2000)])
def test_lines_and_labels_grow_with_the_picture(size: tuple[int, int]) -> None:
    width, height = size
    hits = where(
        draw(grey(*size), [[width // 4, height // 2, width - 1, height - 1]], ["cat"], [0.9], None, CLASSES), COLOURS[0]
    )
    line = hits[height // 2 :, width * 3 // 4].argmin()  # thickness of the upper edge
    assert line == max(2, round(0.004 * width))
    label = hits[: height // 2].any(axis=1).sum()
    assert max(12, 0.02 * width) <= label <= max(20, 0.04 * width)


@pytest.mark.parametrize(
    "box", [[0, 0, 40, 40], [-50, -50, 20, 20], [180, 130, 260, 190], [0, 0, 200, 150], [199, 149, 200, 150]]
)
def test_labels_stay_inside(box: list[float]) -> None:
    """As much ink is to be seen as of a label with room all around, none of it on the picture's edge."""
    free = ink(draw(grey(200, 150), [[60, 60, 65, 65]], ["cat"], [0.9], None, CLASSES))
    shown = ink(draw(grey(200, 150), [box], ["cat"], [0.9], None, CLASSES))
    assert shown.sum() == free.sum() > 50
    assert shown[1:-1, 1:-1].sum() == shown.sum()


def test_a_long_label_is_cut_to_the_picture() -> None:
    name = "a name far too long for so small a picture"
    shown = ink(draw(grey(120, 90), [[10, 40, 50, 80]], [name], [0.5], None, [name]))
    assert shown[:, 60:-1].any()
    assert not shown[:, -1].any()


def test_labels_of_the_same_box_do_not_hide_each_other() -> None:
    box = [400, 400, 1200, 800]
    one = draw(grey(1600, 1200), [box], ["dog"], [0.8], None, CLASSES)
    both = draw(grey(1600, 1200), [box, box], ["dog", "cat"], [0.8, 0.9], None, CLASSES)
    # As much of the dog's label is to be seen as if it were alone; its box lies under the cat's.
    assert where(both, LIGHT).sum() == where(one, LIGHT).sum() > 100


def test_the_better_score_lies_on_top_whatever_the_order() -> None:
    boxes = np.array([[100, 100, 300, 200]] * 2)
    for names, scores in ((["dog", "cat"], [0.3, 0.9]), (["cat", "dog"], [0.9, 0.3])):
        picture = draw(grey(400, 300), boxes, names, scores, None, CLASSES)
        assert picture.getpixel((299, 150)) == COLOURS[0]


@pytest.mark.parametrize("place", range(12))
def test_text_stands_out_from_its_label(place: int) -> None:
    classes = [f"class{number}" for number in range(12)]
    colour = class_colour(classes[place], classes)
    picture = draw(grey(1600, 1200), [[400, 400, 1200, 800]], [classes[place]], None, None, classes)
    dark, light = where(picture, DARK).sum(), where(picture, LIGHT).sum()
    assert (dark == 0) != (light == 0)
    linear = [(channel / 255) ** 2.2 for channel in colour]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    contrast = (luminance + 0.05) / 0.057 if dark else 1.05 / (luminance + 0.05)
    assert contrast > 3  # WCAG's least for large text


def test_masks_are_tinted_and_have_a_rim() -> None:
    mask = np.zeros((300, 400))
    mask[100:200, 100:300] = 0.9
    mask[250:, :50] = 0.4  # under one half: not part of it
    picture = draw(grey(400, 300), [[100, 100, 300, 200]], ["dog"], None, mask[None], CLASSES)
    inside = np.array(picture.getpixel((200, 150)), float)
    np.testing.assert_allclose(inside, 0.58 * np.array(GREY) + 0.42 * np.array(COLOURS[1]), atol=2)
    assert picture.getpixel((20, 280)) == GREY
    rim = draw(grey(400, 300), [[0, 0, 400, 300]], ["dog"], None, mask[None, None], CLASSES)
    assert rim.getpixel((200, 100)) == COLOURS[1]
    assert rim.getpixel((200, 99)) == GREY


def test_small_masks_lie_on_large_ones() -> None:
    masks = np.zeros((2, 300, 400), bool)
    masks[0, 140:160, 190:210] = True
    masks[1, 50:250, 50:350] = True
    picture = draw(
        grey(400, 300), [[190, 140, 210, 160], [50, 50, 350, 250]], ["dog", "cat"], [0.1, 0.9], masks, CLASSES
    )
    middle = np.array(picture.getpixel((200, 150)), float)
    below = 0.58 * np.array(GREY) + 0.42 * np.array(COLOURS[0])
    np.testing.assert_allclose(middle, 0.58 * below + 0.42 * np.array(COLOURS[1]), atol=2)


def test_the_image_is_not_changed_and_every_mode_is_taken() -> None:
    array = grey(60, 40)
    for image in (array, array[..., 0], Image.fromarray(array), Image.fromarray(array).convert("P")):
        before = np.array(image)
        picture = draw(image, [[5, 5, 50, 30]], ["cat"], [0.5])
        assert (picture.mode, picture.size) == ("RGB", (60, 40))
        np.testing.assert_array_equal(np.array(image), before)


def test_nothing_found_leaves_the_picture_as_it_is() -> None:
    picture = draw(grey(60, 40), np.zeros((0, 4)), [], [], np.zeros((0, 40, 60)))
    np.testing.assert_array_equal(np.asarray(picture), grey(60, 40))


@pytest.mark.parametrize("size", [(1, 1), (9, 6), (3, 400)])
def test_tiny_pictures_and_odd_boxes_are_drawn(size: tuple[int, int]) -> None:
    boxes = [[0, 0, 0, 0], [5, 5, 2, 2], [-9, -9, -3, -3], [1e9, 1e9, 2e9, 2e9], [float("nan")] * 4]
    assert draw(grey(*size), boxes, ["cat"] * 5, [0.5] * 5).size == size


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="1 names for 2 boxes"):
        draw(grey(60, 40), [[0, 0, 5, 5]] * 2, ["cat"])
    with pytest.raises(ValueError, match="1 masks for 2 boxes"):
        draw(grey(60, 40), [[0, 0, 5, 5]] * 2, ["cat"] * 2, None, np.ones((1, 40, 60)))


def test_colours_are_distinct_and_lasting() -> None:
    names = [f"class{number}" for number in range(80)]
    colours = [class_colour(name, names) for name in names]
    assert len(set(colours)) == 80
    assert class_colour("zebra") == class_colour("zebra", CLASSES)  # by its name alone
    assert class_colour("dog", CLASSES) == COLOURS[1]


class TestSideBySide:
    def test_a_row_of_equal_height(self) -> None:
        sheet = side_by_side(
            [("one", Image.new("RGB", (50, 50), "red")), ("two", Image.new("RGB", (100, 50), "blue"))], 200
        )
        red, blue = where(sheet, (255, 0, 0)), where(sheet, (0, 0, 255))
        assert (red.sum(), blue.sum()) == (200 * 200, 400 * 200)
        assert np.nonzero(red)[0].min() == np.nonzero(blue)[0].min() > 0
        assert np.nonzero(red)[1].max() < np.nonzero(blue)[1].min()
        title = np.asarray(sheet.convert("L"))[: np.nonzero(red)[0].min()] < 128
        assert title[:, :200].any()
        assert title[:, 200:].any()

    def test_rows_of_columns(self) -> None:
        sheet = side_by_side([(str(number), Image.new("RGB", (40, 40), "red")) for number in range(5)], 100, columns=2)
        red = where(sheet, (255, 0, 0))
        assert red.sum() == 5 * 100 * 100
        assert [row.sum() for row in np.array_split(red, 3)] == [20_000, 20_000, 10_000]

    def test_a_long_title_stays_over_its_picture(self) -> None:
        sheet = side_by_side([("long " * 30, Image.new("RGB", (40, 40))), ("", Image.new("RGB", (40, 40), "red"))], 100)
        left = np.nonzero(where(sheet, (255, 0, 0)))[1].min()
        title = np.asarray(sheet.convert("L"))[:20, left:]
        assert (title == 255).all()

    def test_no_pictures(self) -> None:
        with pytest.raises(ValueError, match="no pictures"):
            side_by_side([])


def test_drawing_needs_no_torch() -> None:
    code = "import sys, slimdet.images.drawing; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
