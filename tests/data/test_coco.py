"""COCO sets: what an item holds, what is filled in, what is refused."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from slimdet.data.coco import CocoDataset, read_coco
from slimdet.errors import DataError, ImageError
from slimdet.images.decoding import read_image

from .conftest import CocoFiles


def test_items_are_plain_tensors(files: CocoFiles) -> None:
    dataset = CocoDataset(files.annotations, files.images, masks=True, train=True)
    assert len(dataset) == 3
    assert dataset.image_ids == (7, 3, 12)
    image, target = dataset[0]
    assert type(image) is torch.Tensor
    assert image.dtype == torch.float32
    assert image.shape == (3, 30, 40)
    pixels = torch.from_numpy(read_image(files.images / "7.png")).permute(2, 0, 1)
    assert torch.equal((image * 255).round().to(torch.uint8), pixels)
    assert set(target) == {"boxes", "labels", "masks", "image_id"}
    assert {name: type(value) for name, value in target.items() if name != "image_id"} == {
        "boxes": torch.Tensor,
        "labels": torch.Tensor,
        "masks": torch.Tensor,
    }
    assert target["image_id"] == 7
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].tolist() == [[4, 6, 24, 16]]
    assert target["masks"].dtype == torch.uint8
    assert target["masks"].shape == (1, 30, 40)


def test_category_ids_with_gaps_become_contiguous_labels(files: CocoFiles) -> None:
    dataset = CocoDataset(files.annotations, files.images)
    assert dataset.category_ids == (2, 17, 90)
    assert dataset.classes == ("dog", "horse", "cat")
    labels = {dataset[i][1]["image_id"]: dataset[i][1]["labels"].tolist() for i in range(3)}
    assert labels == {7: [2], 3: [1, 3], 12: []}
    for index in range(3):
        target = dataset[index][1]
        given = [a["category_id"] for a in dataset.coco["annotations"] if a["image_id"] == target["image_id"]]
        assert [dataset.category_ids[label - 1] for label in target["labels"]] == given


def test_crowds_do_not_train_but_stay_for_evaluation(files: CocoFiles) -> None:
    dataset = CocoDataset(files.annotations, files.images, train=True)
    assert dataset[1][1]["labels"].tolist() == [1]
    assert [item["id"] for item in dataset.coco["annotations"] if item["iscrowd"]] == [5]


def test_images_without_objects_are_kept(files: CocoFiles) -> None:
    image, target = CocoDataset(files.annotations, files.images, masks=True, train=True)[2]
    assert image.shape == (3, 64, 64)
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["labels"].dtype == torch.int64
    assert target["masks"].shape == (0, 64, 64)


def test_polygons_and_both_kinds_of_rle_give_the_same_mask(files: CocoFiles) -> None:
    bitmap = np.zeros((30, 40), np.uint8)
    bitmap[6:16, 4:24] = 1
    encoded = rle.encode(np.asfortranarray(bitmap))
    uncompressed = [4 * 30 + 6, *([10, 20] * 20)]
    uncompressed[-1] = 30 * 40 - sum(uncompressed[:-1])
    files.add(id=11, segmentation={"size": [30, 40], "counts": encoded["counts"].decode()})
    files.add(id=12, segmentation={"size": [30, 40], "counts": uncompressed})
    files.add(id=13, segmentation=[[4, 6, 14, 6, 14, 16, 4, 16], [14, 6, 24, 6, 24, 16, 14, 16]])  # two parts
    masks = CocoDataset(files.annotations, files.images, masks=True)[0][1]["masks"]
    assert masks.shape == (4, 30, 40)
    for mask in masks:
        np.testing.assert_array_equal(mask.numpy(), bitmap)


def test_masks_agree_with_pycocotools(shared: Path) -> None:
    folder = shared / "data" / "coco_small"
    annotations = folder / "annotations" / "instances_val.json"
    dataset = CocoDataset(annotations, folder / "images", masks=True)
    oracle = COCO(str(annotations))
    seen = 0
    for index in range(0, len(dataset), 12):
        image_id = dataset.image_ids[index]
        target = dataset[index][1]
        expected = [oracle.annToMask(item) for item in oracle.imgToAnns[image_id]]
        assert len(expected) == len(target["masks"])
        for mask, reference in zip(target["masks"], expected, strict=True):
            np.testing.assert_array_equal(mask.numpy(), reference)
            seen += 1
    assert seen > 20


def test_missing_area_and_iscrowd_are_filled(files: CocoFiles) -> None:
    triangle = [0, 0, 20, 0, 0, 20]
    for number, changes in {11: {}, 12: {"segmentation": [triangle], "bbox": [0, 0, 20, 20]}}.items():
        item = files.add(id=number, **changes)
        del item["area"], item["iscrowd"]
    del files.annotation(11)["segmentation"]
    files.write()
    filled = {item["id"]: item for item in read_coco(files.annotations)["annotations"]}
    assert filled[11]["area"] == 200
    assert filled[11]["iscrowd"] == 0
    assert filled[12]["area"] == rle.area(rle.merge(rle.frPyObjects([triangle], 30, 40)))
    assert filled[12]["area"] < 400 * 0.6  # the mask's, not the box's
    assert filled[1]["area"] == 200


def test_boxes_are_clipped(files: CocoFiles) -> None:
    files.annotation(1)["bbox"] = [-5, 20.5, 100, 100]
    files.write()
    assert CocoDataset(files.annotations, files.images)[0][1]["boxes"].tolist() == [[0, 20.5, 40, 30]]


@pytest.mark.parametrize("box", [[4, 6, 20, 0], [4, 6, 0, 10], [50, 6, 5, 5], [-9, -9, 9, 9]])
def test_boxes_without_area_are_left_out_and_said(
    files: CocoFiles, box: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    files.add(bbox=box)
    with caplog.at_level(logging.WARNING):
        dataset = CocoDataset(files.annotations, files.images, masks=True)
    assert dataset[0][1]["boxes"].tolist() == [[4, 6, 24, 16]]
    assert len(dataset[0][1]["masks"]) == 1
    assert "1 boxes without area" in caplog.text
    assert len(dataset.coco["annotations"]) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [1, 2, float("nan"), 4]}, "NaN or infinite box"),
        ({"bbox": [1, 2, 3, float("inf")]}, "NaN or infinite box"),
        ({"bbox": [1, 2, -3, 4]}, "negative box"),
        ({"bbox": [1, 2, 3]}, "malformed box"),
        ({"bbox": None}, "malformed box"),
        ({"bbox": ["1", 2, 3, 4]}, "malformed box"),
        ({"category_id": 4}, "unknown category"),
        ({"image_id": 4}, "unknown image"),
        ({"id": 1}, "duplicate annotation id"),
        ({"id": None}, "malformed annotation"),
    ],
)
def test_faults_of_annotations_are_refused(files: CocoFiles, changes: dict, message: str) -> None:
    files.add(**changes)
    with pytest.raises(DataError, match=message) as caught:
        CocoDataset(files.annotations, files.images)
    assert str(files.annotations) in str(caught.value)
    assert "slimdet check" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_number_of_faults_is_said(files: CocoFiles) -> None:
    for number in (11, 12, 13):
        files.add(id=number, category_id=4)
    with pytest.raises(DataError, match="and 2 more faults"):
        read_coco(files.annotations)


def test_segmentations_matter_only_to_masks(files: CocoFiles) -> None:
    files.add(segmentation=[[1, 2, 3, 4]])
    assert len(CocoDataset(files.annotations, files.images)) == 3
    with pytest.raises(DataError, match="bad segmentation"):
        CocoDataset(files.annotations, files.images, masks=True)


@pytest.mark.parametrize("shape", [None, []])
def test_masks_need_a_segmentation_each(files: CocoFiles, shape: list | None) -> None:
    files.add(segmentation=shape)
    with pytest.raises(DataError, match="annotations have no segmentation, as 100"):
        CocoDataset(files.annotations, files.images, masks=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "a list, not an object; it may be a list of detections"),
        ('{"images": [], "annotations": []}', "no list 'categories'"),
        ('{"shapes": [], "imagePath": "a"}', "no list 'images' and no list 'annotations' and no list 'categories'"),
        ('{"images": {}, "annotations": [], "categories": []}', "no list 'images'"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_not_coco_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        CocoDataset(path, tmp_path)


def test_missing_files_are_named(files: CocoFiles) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: cannot be read"):
        CocoDataset("nowhere.json", files.images)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        CocoDataset(files.annotations, "nowhere")
    (files.images / "7.png").unlink()
    dataset = CocoDataset(files.annotations, files.images)  # images are opened when asked for
    with pytest.raises(ImageError, match=r"7\.png: no such file"):
        dataset[0]
    assert dataset[1][1]["image_id"] == 3


def test_an_image_of_another_size_is_refused(files: CocoFiles) -> None:
    Image.new("RGB", (30, 40)).save(files.images / "7.png")
    with pytest.raises(DataError, match=r"7\.png: 30x40 pixels, but the annotations say 40x30"):
        CocoDataset(files.annotations, files.images)[0]


def test_annotation_id_0_can_be_read(files: CocoFiles) -> None:
    files.annotation(1)["id"] = 0
    files.write()
    assert CocoDataset(files.annotations, files.images)[0][1]["labels"].tolist() == [2]


def test_transforms_see_boxes_and_masks(files: CocoFiles) -> None:
    seen = []

    def spy(image, target):
        seen.append((type(image).__name__, image.dtype, {name: type(value).__name__ for name, value in target.items()}))
        return image, target

    CocoDataset(files.annotations, files.images, transforms=spy, masks=True)[0]
    assert seen == [("Image", torch.uint8, {"boxes": "BoundingBoxes", "labels": "Tensor", "masks": "Mask"})]


@pytest.mark.parametrize("name", ["animalpose", "coco_small", "pennfudan", "nuclei"])
def test_real_sets(shared: Path, name: str) -> None:
    folder = shared / "data" / name
    annotations = folder / "annotations" / "instances_val.json"
    dataset = CocoDataset(annotations, folder / "images", masks=name != "animalpose", train=True)
    given = json.loads(annotations.read_text())
    assert len(dataset) == len(given["images"])
    assert len(dataset.classes) == len(given["categories"])
    for index in range(0, len(dataset), len(dataset) // 4):
        image, target = dataset[index]
        x1, y1, x2, y2 = target["boxes"].unbind(1)
        assert ((x1 >= 0) & (y1 >= 0) & (x2 <= image.shape[2]) & (y2 <= image.shape[1])).all()
        assert ((x2 > x1) & (y2 > y1)).all()
        assert image.min() >= 0
        assert image.max() <= 1
        for box, mask in zip(target["boxes"], target.get("masks", ()), strict=False):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            tight = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (tight - box).abs().max() <= 2.5  # COCO's polygons are rounded to pixels


def test_a_root_category_without_objects_is_none(files: CocoFiles) -> None:
    for category in files.coco["categories"]:
        category["supercategory"] = "animals"
    files.coco["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
    files.write()
    assert CocoDataset(files.annotations, files.images).classes == ("dog", "horse", "cat")
    files.add(category_id=0)
    files.write()
    assert CocoDataset(files.annotations, files.images).classes == ("animals", "dog", "horse", "cat")
