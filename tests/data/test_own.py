"""Data sets in torchvision's form: what they become, and what is wrong with those that are not."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from slimdet.data.own import OwnDataset
from slimdet.data.transforms import augmentation
from slimdet.errors import DataError
from slimdet.evaluation.matching import evaluate

BOXES = [[1.0, 2.0, 11.0, 22.0], [5.0, 5.0, 15.0, 15.0]]


def target(**changes: Any) -> dict[str, Any]:
    return {"boxes": torch.tensor(BOXES), "labels": torch.tensor([2, 1]), "colour": "ignored", **changes}


PIXELS = np.full((24, 32, 3), 51, np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(PIXELS),
        Image.fromarray(PIXELS).convert("L"),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.full((3, 24, 32), 0.2),
    ],
    ids=["Pillow", "grey", "bytes", "floats"],
)
def test_items(image: Any) -> None:
    data = OwnDataset([(image, target())], ["cat", "dog"])  # pyright: ignore[reportArgumentType]
    made, found = data[0]
    assert made.shape == (3, 24, 32)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, torch.full((3, 24, 32), 0.2))
    assert found["boxes"].tolist() == BOXES
    assert found["labels"].tolist() == [2, 1]
    assert found["image_id"] == 1
    assert set(found) == {"boxes", "labels", "image_id"}
    assert (data.classes, data.category_ids) == (("cat", "dog"), (1, 2))


def test_augmentation_and_without() -> None:
    data = OwnDataset([(torch.rand(3, 24, 32), target())], ["cat", "dog"])  # pyright: ignore[reportArgumentType]
    data.transforms = augmentation("flip")
    lefts = {data[0][1]["boxes"][0, 0].item() for _ in range(20)}
    assert lefts == {1.0, 21.0}  # as it is, and flipped
    assert data.unaugmented()[0][1]["boxes"].tolist() == BOXES
    assert data.transforms is not None


def test_it_can_be_evaluated_with_masks() -> None:
    masks = torch.zeros(2, 24, 32)
    masks[0, 2:22, 1:11] = masks[1, 5:15, 5:15] = 1
    pair = (torch.rand(3, 24, 32), target(masks=masks))
    data = OwnDataset([pair, pair], ["cat", "dog"], masks=True)  # pyright: ignore[reportArgumentType]
    assert data[0][1]["masks"].sum() == 300
    found = [
        {"image_id": one["image_id"], "category_id": one["category_id"], "bbox": one["bbox"], "score": 0.9}
        | {"segmentation": one["segmentation"]}
        for one in data.coco["annotations"]
    ]
    numbers = evaluate(data.coco, found, ("bbox", "segm"))
    assert numbers["bbox"]["AP"] == numbers["segm"]["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("image", "changes", "said"),
    [
        (torch.rand(24, 32), {}, r"item 0 .* not \[3, H, W\]"),
        (torch.rand(3, 24, 32), {"labels": torch.tensor([0, 1])}, r"item 0 .* labels \[0, 1\], not 1\.\.2"),
        (torch.rand(3, 24, 32), {"labels": torch.tensor([1, 3])}, r"labels \[1, 3\]"),
        (torch.rand(3, 24, 32), {"labels": torch.tensor([1])}, "item 0 .* not an image and a target"),
        (torch.rand(3, 24, 32), {"boxes": torch.tensor([BOXES[0], [5.0, 5, 4, 9]])}, "x1 < x2"),
    ],
)
def test_what_is_wrong_is_named(image: Any, changes: dict[str, Any], said: str) -> None:
    data = OwnDataset([(image, target(**changes))], ["cat", "dog"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=said):
        data[0]
