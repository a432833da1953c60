"""Augmentation moves image, boxes and masks together and never leaves a box that is not in the image."""

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from slimdet.data.coco import CocoDataset
from slimdet.data.transforms import LEVELS, ShrinkInto, augmentation
from slimdet.errors import ConfigError

from .conftest import CocoFiles


def scene(boxes: list[list[int]]) -> tuple[Tensor, dict[str, Tensor]]:
    """A dark image [3, 80, 120] in which object i is a rectangle of brightness 100 + 50 * i, in all channels."""
    image = torch.full((3, 80, 120), 10, dtype=torch.uint8)
    masks = torch.zeros((len(boxes), 80, 120), dtype=torch.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        image[:, y1:y2, x1:x2] = 100 + 50 * number
        masks[number, y1:y2, x1:x2] = 1
    target = {
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), format="XYXY", canvas_size=(80, 120)
        ),
        "labels": torch.arange(1, len(boxes) + 1),
        "masks": tv_tensors.Mask(masks),
    }
    return tv_tensors.Image(image), target


BOXES = [[10, 20, 40, 60], [70, 10, 110, 40], [50, 60, 60, 70]]


def test_none_changes_nothing() -> None:
    image, target = scene(BOXES)
    after, found = augmentation("none")(image, target)
    assert torch.equal(after, image)
    assert torch.equal(found["boxes"], target["boxes"])


def test_flip_flips_half_of_the_time() -> None:
    flip = augmentation("flip")
    image, target = scene(BOXES)
    flipped = 0
    for _ in range(40):
        after, found = flip(image, target)
        if torch.equal(after, image):
            assert torch.equal(found["boxes"], target["boxes"])
            continue
        flipped += 1
        assert torch.equal(after, image.flip(2))
        assert torch.equal(found["masks"], target["masks"].flip(2))
        assert found["boxes"][0].tolist() == [80, 20, 110, 60]
    assert 10 <= flipped <= 30


def test_default_is_mild() -> None:
    default, (before, _) = augmentation("default"), scene(BOXES)
    scales, brightness = [], []
    for _ in range(40):
        image, target = default(*scene(BOXES))
        assert image.shape == before.shape
        brightness.append(float(image[:, 75:, 115:].float().mean()))
        for box, label in zip(target["boxes"], target["labels"], strict=True):
            x1, y1, x2, y2 = BOXES[int(label) - 1]
            scales.append(float((box[2] - box[0]) * (box[3] - box[1])) / ((x2 - x1) * (y2 - y1)))
        assert len(target["boxes"]) >= 2  # hardly any object leaves
    assert 0.4 < min(scales) < 0.9
    assert 1.1 < max(scales) < 1.6
    assert len(set(brightness)) > 10


def test_strong_keeps_boxes_on_their_objects() -> None:
    strong = augmentation("strong")
    sizes, counts, scales, brightness = set(), set(), [], set()
    for _ in range(60):
        image, target = strong(*scene(BOXES))
        boxes, labels, masks = target["boxes"], target["labels"], target["masks"]
        height, width = image.shape[1:]
        sizes.add((height, width))
        counts.add(len(boxes))
        brightness.add(int(image.float().mean()))
        assert image.dtype == torch.uint8
        assert len(boxes) == len(labels) == len(masks)
        assert masks.shape[1:] == (height, width)
        assert set(labels.tolist()) <= {1, 2, 3}
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
        for box, label, mask in zip(boxes, labels, masks, strict=True):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            tight = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (tight - box).abs().max() <= 2  # the mask is resampled to whole pixels
            x1, y1, x2, y2 = BOXES[int(label) - 1]
            scales.append(float((box[2] - box[0]) * (box[3] - box[1])) / ((x2 - x1) * (y2 - y1)))
    assert len(sizes) > 5  # cropped
    assert len(brightness) > 20  # coloured
    assert len(counts) > 1  # objects that were cut away are gone
    assert max(scales) > 1.1  # larger and smaller than they were
    assert min(scales) < 0.6


def test_strong_takes_images_without_objects() -> None:
    for _ in range(20):
        _, target = augmentation("strong")(*scene([]))
        assert target["boxes"].shape == (0, 4)
        assert target["labels"].shape == (0,)
        assert target["masks"].shape[0] == 0


def test_an_object_whose_mask_leaves_the_image_is_removed() -> None:
    strong = augmentation("strong")
    image, target = scene([[0, 0, 120, 80]])
    target["masks"][:] = 0
    target["masks"][0, 79, 0] = 1  # the box is large, but only a corner of it is the object
    removed = 0
    for _ in range(60):
        masks = strong(image, dict(target))[1]["masks"]
        assert masks.flatten(1).any(1).all()
        removed += len(masks) == 0
    assert removed > 0


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_levels_go_into_a_data_set(files: CocoFiles, level: str, masks: bool) -> None:
    dataset = CocoDataset(files.annotations, files.images, augmentation(level), masks=masks, train=True)
    for index in range(3):
        image, target = dataset[index]
        assert type(image) is torch.Tensor
        assert type(target["boxes"]) is type(target["labels"]) is torch.Tensor
        assert ("masks" in target) == masks


@pytest.mark.parametrize(("level", "hint"), [("storng", "; did you mean strong?"), ("xyz", "")])
def test_unknown_level(level: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        augmentation(level)
    assert str(caught.value) == f"augmentation {level!r} is not one of none, flip, default, strong, mosaic{hint}"


@pytest.mark.parametrize(("shorter", "longest"), [(40, 1000), (40, 50), (33, 66)])
def test_shrinking_gives_the_detector_the_size_it_wants(shorter: int, longest: int) -> None:
    image, target = scene(BOXES)
    small, found = ShrinkInto(shorter, longest)(image, target)
    assert small.dtype == torch.uint8
    resize = GeneralizedRCNNTransform(shorter, longest, [0.0] * 3, [1.0] * 3)
    wanted, _ = resize([image / 255])
    again, _ = resize([small / 255])
    assert again.image_sizes == [tuple(small.shape[-2:])]  # nothing is left to resize
    assert all(abs(a - b) <= 1 for a, b in zip(again.image_sizes[0], wanted.image_sizes[0], strict=True))
    assert found["masks"].shape[-2:] == small.shape[-2:]
    ratio = torch.tensor([small.shape[-1] / 120, small.shape[-2] / 80]).repeat(2)
    torch.testing.assert_close(torch.Tensor(found["boxes"]), torch.Tensor(target["boxes"]) * ratio)
    if again.image_sizes == wanted.image_sizes:
        difference = (again.tensors - wanted.tensors).abs()
        assert difference.max() <= 1 / 255  # of rounding to bytes


def test_small_images_are_not_enlarged() -> None:
    image, target = scene(BOXES)
    same, _ = ShrinkInto(80, 120)(image, target)
    assert torch.equal(same, image)
    same, _ = ShrinkInto(200, 400)(image, target)
    assert torch.equal(same, image)
