"""Mosaics: boxes and masks stay on their objects, in the item's own size."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from slimdet.data.loader import loader
from slimdet.data.mosaic import Mosaic


class Squares(Dataset[Any]):
    """Image i: one square of brightness 100 + 20 * i, label i + 1, on a grey of 10; sizes differ."""

    def __init__(self, masks: bool, floats: bool = False) -> None:
        self.masks, self.floats = masks, floats

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        height, width = 60 + 10 * index, 90 - 5 * index
        image = torch.full((3, height, width), 10, dtype=torch.uint8)
        box = [20, 20, 60, 50]
        image[:, box[1] : box[3], box[0] : box[2]] = 100 + 20 * index
        target: dict[str, Any] = {
            "boxes": torch.tensor([box], dtype=torch.float32),
            "labels": torch.tensor([index + 1]),
            "image_id": 7 + index,
        }
        if self.masks:
            target["masks"] = (image[:1] > 50).to(torch.uint8)
        return (image / 255 if self.floats else image), target


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("floats", [False, True])
def test_boxes_stay_on_their_objects(masks: bool, floats: bool) -> None:
    torch.manual_seed(0)
    plain = Squares(masks, floats)
    mosaics, whole, found = Mosaic(plain), 0, 0
    for turn in range(60):
        own = turn % len(plain)
        image, target = mosaics[own]
        before, alone = plain[own]
        assert image.shape == before.shape
        assert image.dtype == before.dtype
        assert target["image_id"] == alone["image_id"]
        assert ("masks" in target) == masks
        if torch.equal(image, before):
            whole += 1
            continue
        pixels = image * 255 if floats else image.float()
        height, width = image.shape[1:]
        for number, (box, label) in enumerate(zip(target["boxes"], target["labels"], strict=True)):
            found += 1
            x1, y1, x2, y2 = box.tolist()
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
            inside = pixels[0, round(y1) + 2 : round(y2) - 2, round(x1) + 2 : round(x2) - 2]
            torch.testing.assert_close(inside, torch.full_like(inside, 100 + 20 * (int(label) - 1)), atol=2, rtol=0)
            if masks:
                rows, columns = torch.nonzero(target["masks"][number], as_tuple=True)
                tight = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                assert (tight - box).abs().max() <= 2
    assert 15 <= whole <= 45
    assert found > 2 * (60 - whole)  # most keep most of their objects


def test_items_depend_on_seed_and_epoch_alone() -> None:
    def batches(workers: int) -> list[Any]:
        return list(loader(Mosaic(Squares(masks=True)), 2, shuffle=True, seed=3, workers=workers))

    for (images, targets), (others, again) in zip(batches(0), batches(2), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(images, others, strict=True))
        assert all(torch.equal(one["boxes"], other["boxes"]) for one, other in zip(targets, again, strict=True))
