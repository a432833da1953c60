"""What ships beside the code: licences and attributions complete, annotations sound, small enough."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from slimdet.assets import PHOTOGRAPHS, VAL
from slimdet.data.check import check
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config

NUCLEI = Path(__file__).parent / "assets/nuclei"
README = (PHOTOGRAPHS.parent / "README.md").read_text(encoding="utf-8")

LICENCES = {  # ids of COCO's table, and 9 for CC0, by a part of the address of the text
    4: "creativecommons.org/licenses/by/2.0/",
    5: "creativecommons.org/licenses/by-sa/2.0/",
    7: "flickr.com/commons/usage/",
    8: "usa.gov/copyright",
    9: "creativecommons.org/publicdomain/zero/1.0/",
}


class Set(NamedTuple):
    annotations: Path
    images: Path

    def read(self) -> dict[str, Any]:
        return json.loads(self.annotations.read_text(encoding="utf-8"))


SHIPPED = {
    "photographs": Set(PHOTOGRAPHS / "photographs.json", PHOTOGRAPHS),
    "val": Set(VAL / "instances_val.json", VAL / "images"),
}
FOR_TESTS = {
    f"nuclei {part}": Set(NUCLEI / f"annotations/instances_{part}.json", NUCLEI / "images") for part in ("train", "val")
}
SETS = SHIPPED | FOR_TESTS
each_set = pytest.mark.parametrize("assets", SETS.values(), ids=list(SETS))
each_shipped = pytest.mark.parametrize("assets", SHIPPED.values(), ids=list(SHIPPED))


@each_set
def test_no_fault(assets: Set) -> None:
    assert check(*assets) == []


@each_set
def test_every_image_has_a_licence_that_allows_passing_on_and_an_attribution(assets: Set) -> None:
    coco = assets.read()
    licences = {entry["id"]: entry for entry in coco["licenses"]}
    assert {image["license"] for image in coco["images"]} == set(licences)
    for number, entry in licences.items():
        assert LICENCES[number] in entry["url"]
        assert entry["name"]
    for image in coco["images"]:
        assert image["author"]
        assert image["changes"]
        assert image["source"].startswith("https://")


def test_every_file_is_listed() -> None:
    """No image without a record, hence without a licence; each in one set only."""
    listed = [assets.images / image["file_name"] for assets in SETS.values() for image in assets.read()["images"]]
    files = [path for folder in (PHOTOGRAPHS, VAL, NUCLEI) for path in folder.rglob("*") if path.is_file()]
    assert sorted(listed) == sorted(path for path in files if path.suffix not in (".json", ".yaml"))


@each_shipped
def test_the_readme_attributes_every_image(assets: Set) -> None:
    rows = {line.split("|")[1].strip(): line for line in README.splitlines() if line.startswith("| ")}
    for image in assets.read()["images"]:
        row = rows[image["file_name"]]
        assert image["source"] in row
        assert LICENCES[image["license"]] in row


def test_the_readme_counts_the_validation_set() -> None:
    coco = SHIPPED["val"].read()
    assert f"{len(coco['images'])} photographs with {len(coco['annotations'])} animals" in README


def test_shipped_sets_have_the_same_classes() -> None:
    expected = {1: "dog", 2: "cat", 3: "sheep", 4: "horse", 5: "cow"}
    for assets in SHIPPED.values():
        assert {category["id"]: category["name"] for category in assets.read()["categories"]} == expected


def test_classes_are_those_of_the_training_set(shared: Path) -> None:
    trained = json.loads((shared / "data/animalpose/annotations/instances_val.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in trained["categories"]}
    assert names == {category["id"]: category["name"] for category in SHIPPED["val"].read()["categories"]}


def test_three_photographs_are_in_the_validation_set() -> None:
    """With the same boxes, moved where the photograph is cropped."""
    whole = {image["id"]: image for image in SHIPPED["val"].read()["images"]}
    cut = {image["id"]: image for image in SHIPPED["photographs"].read()["images"]}
    assert len(cut.keys() & whole.keys()) == 3
    for number in cut.keys() & whole.keys():
        boxes = [
            [item["bbox"] for item in assets.read()["annotations"] if item["image_id"] == number]
            for assets in SHIPPED.values()
        ]
        assert len(boxes[0]) == len(boxes[1]) > 0
        moves = {(round(b[0] - a[0], 2), round(b[1] - a[1], 2)) for a, b in zip(*boxes, strict=True)}
        assert len(moves) == 1
        [(right, down)] = moves
        same_size = cut[number]["width"] == whole[number]["width"] and cut[number]["height"] == whole[number]["height"]
        assert (right, down) == (0, 0) if same_size else (right > 0 and down > 0)
        # The pixels have moved as far as the boxes.
        with (
            Image.open(PHOTOGRAPHS / cut[number]["file_name"]) as picture,
            Image.open(VAL / "images" / whole[number]["file_name"]) as original,
        ):
            left, top = round(right), round(down)
            part = original.crop((left, top, left + picture.width, top + picture.height)).resize((8, 8))
            pairs = zip(part.tobytes(), picture.resize((8, 8)).tobytes(), strict=True)
            assert max(abs(a - b) for a, b in pairs) <= 4


def test_small_enough() -> None:
    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert size(PHOTOGRAPHS) + size(VAL) <= 6_000_000
    assert size(NUCLEI) <= 500_000


@each_shipped
def test_loads_as_a_data_set(assets: Set) -> None:
    data = CocoDataset(*assets)
    assert data.classes == ("dog", "cat", "sheep", "horse", "cow")
    assert sum(len(target["boxes"]) for _, target in data) == len(data.coco["annotations"])
    assert all(len(target["boxes"]) for _, target in data)


def test_nuclei_load_with_masks() -> None:
    config = read_data_config(NUCLEI / "data.yaml")
    assert config.train is not None
    assert config.val is not None
    for split, length in ((config.train, 12), (config.val, 4)):
        data = CocoDataset(split.annotations, split.images, masks=True, train=True)
        assert len(data) == length
        assert data.classes == ("nucleus",)
        for _, target in data:
            assert target["masks"].flatten(1).any(1).all()
