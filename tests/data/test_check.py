"""The checker names every fault, with file, id and reason, and none where there is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from slimdet.data.annotations import HARMLESS
from slimdet.data.check import Fault, check, file_faults

from .conftest import CocoFiles


def faults(files: CocoFiles) -> list[Fault]:
    files.write()
    return check(files.annotations, files.images)


def test_a_sound_set_has_no_faults(files: CocoFiles) -> None:
    assert faults(files) == []


@pytest.mark.parametrize("name", ["animalpose", "coco_small", "pennfudan", "nuclei"])
def test_real_annotations_have_no_faults(shared: Path, name: str) -> None:
    path = shared / "data" / name / "annotations" / "instances_val.json"
    assert list(file_faults(json.loads(path.read_text()), str(path))) == []


def test_real_images_have_no_faults(shared: Path) -> None:
    folder = shared / "data" / "pennfudan"
    assert check(folder / "annotations" / "instances_val.json", folder / "images") == []


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({"bbox": [NAN, 6, 20, 10]}, "NaN or infinite box", "nan"),
        ({"bbox": [4, 6, INFINITE, 10]}, "NaN or infinite box", "inf"),
        ({"bbox": [4, 6, 20, 0]}, "zero-area box", "[4, 6, 20, 0]"),
        ({"bbox": [4, 6, 0.0, 10]}, "zero-area box", "[4, 6, 0.0, 10]"),
        ({"bbox": [4, 6, -20, 10]}, "negative box", "[4, 6, -20, 10]"),
        ({"bbox": [30, 6, 20, 10]}, "box outside image", "40x30"),
        ({"bbox": [-3, 6, 20, 10]}, "box outside image", "40x30"),
        ({"bbox": [400, 600, 20, 10]}, "box outside image", "40x30"),
        ({"bbox": [4, 6, 20]}, "malformed box", "[4, 6, 20]"),
        ({"bbox": "4 6 20 10"}, "malformed box", "4 6 20 10"),
        ({"bbox": [4, 6, None, 10]}, "malformed box", "None"),
        ({"bbox": {}}, "malformed box", "{}"),
        ({"category_id": 3}, "unknown category", "3"),
        ({"category_id": None}, "unknown category", "None"),
        ({"category_id": [2]}, "unknown category", "[2]"),
        ({"image_id": 99}, "unknown image", "99"),
        ({"image_id": "x7"}, "unknown image", "'x7'"),
        ({"area": "large"}, "malformed annotation", "'large'"),
        ({"iscrowd": NAN}, "malformed annotation", "nan"),
        ({"segmentation": [[4, 6, 24, 6]]}, "bad segmentation", "4 numbers"),
        ({"segmentation": [[4, 6, 24, 6, 24, 16, 4]]}, "bad segmentation", "7 numbers"),
        ({"segmentation": [[4, 6, 24, NAN, 24, 16]]}, "bad segmentation", "finite"),
        ({"segmentation": [[4, 6, 24, "6", 24, 16]]}, "bad segmentation", "finite"),
        ({"segmentation": [4, 6, 24, 6, 24, 16]}, "bad segmentation", "finite"),
        ({"segmentation": [[4, 6, 1e9, 6, 24, 16]]}, "bad segmentation", "far outside"),
        ({"segmentation": "polygon"}, "bad segmentation", "neither"),
        ({"segmentation": {"counts": [1200]}}, "bad segmentation", "neither"),
        ({"segmentation": {"size": [40, 30], "counts": [1200]}}, "bad segmentation", "[40, 30]"),
        ({"segmentation": {"size": [30, 40], "counts": [1199]}}, "bad segmentation", "1199"),
        ({"segmentation": {"size": [30, 40], "counts": [-1, 1201]}}, "bad segmentation", "run lengths"),
        ({"segmentation": {"size": [30, 40], "counts": [0.5, 1199.5]}}, "bad segmentation", "run lengths"),
        ({"segmentation": {"size": [30, 40], "counts": None}}, "bad segmentation", "run lengths"),
        ({"segmentation": {"size": [30, 40], "counts": "\x7f\x7f"}}, "bad segmentation", "run lengths"),
        ({"segmentation": {"size": [30, 40], "counts": "0"}}, "bad segmentation", "add up to 0"),
    ],
)
def test_faults_of_an_annotation(files: CocoFiles, changes: dict[str, Any], kind: str, reason: str) -> None:
    files.add(**changes)
    (fault,) = faults(files)
    assert (fault.kind, fault.file, fault.id) == (kind, str(files.annotations), 100)
    assert reason in fault.reason
    assert "\n" not in str(fault)
    for part in (kind, str(files.annotations), "100", fault.reason):
        assert part in str(fault)


def test_rounding_over_the_edge_is_no_fault(files: CocoFiles) -> None:
    files.annotation(1)["bbox"] = [-0.01, 0, 40.02, 30]
    assert faults(files) == []


def test_every_fault_is_named(files: CocoFiles) -> None:
    files.add(id=21, bbox=[4, 6, 0, 10])
    files.add(id=22, bbox=[4, 6, NAN, 10], category_id=3, image_id=99)
    files.add(id=22)
    (files.images / "3.png").unlink()
    Image.new("RGB", (5, 5)).save(files.images / "12.png")
    assert [(fault.kind, fault.id) for fault in faults(files)] == [
        ("duplicate annotation id", 22),
        ("zero-area box", 21),
        ("unknown image", 22),
        ("unknown category", 22),
        ("NaN or infinite box", 22),
        ("missing image", 3),
        ("wrong size", 12),
    ]


@pytest.mark.parametrize(
    ("name", "number", "kind"),
    [
        ("images", 7, "duplicate image id"),
        ("annotations", 1, "duplicate annotation id"),
        ("categories", 2, "duplicate category id"),
    ],
)
def test_duplicate_ids(files: CocoFiles, name: str, number: int, kind: str) -> None:
    record = next(record for record in files.coco[name] if record["id"] == number)
    files.coco[name].append(dict(record))
    assert [(fault.kind, fault.id) for fault in faults(files)] == [(kind, number)]


def test_duplicate_category_names(files: CocoFiles) -> None:
    files.coco["categories"].append({"id": 5, "name": "dog"})
    assert [(fault.kind, fault.id) for fault in faults(files)] == [("duplicate category name", 5)]


def test_id_0(files: CocoFiles) -> None:
    files.annotation(1)["id"] = 0
    files.coco["categories"][1]["id"] = 0
    files.annotation(2)["category_id"] = 0
    files.coco["images"][0]["id"] = 0  # harmless: the evaluation libraries count images from anywhere
    files.annotation(0)["image_id"] = 0
    assert [(fault.kind, fault.id) for fault in faults(files)] == [("annotation id 0", 0), ("category id 0", 0)]


@pytest.mark.parametrize(
    ("name", "record", "kind"),
    [
        ("images", {"id": 50, "width": 3, "height": 4}, "malformed image"),
        ("images", {"id": 50, "file_name": "7.png", "height": 30}, "malformed image"),
        ("images", {"id": 50, "file_name": "7.png", "width": "wide", "height": 30}, "malformed image"),
        ("images", "7.png", "malformed image"),
        ("images", {"file_name": "7.png", "width": 40, "height": 30}, "malformed image"),
        ("annotations", None, "malformed annotation"),
        ("annotations", {"id": "a1"}, "malformed annotation"),
        ("categories", {"id": 50}, "malformed category"),
        ("categories", {"name": "cow"}, "malformed category"),
    ],
)
def test_malformed_records(files: CocoFiles, name: str, record: Any, kind: str) -> None:
    files.coco[name].append(record)
    assert kind in {fault.kind for fault in faults(files)}


# --- images


def test_missing_image(files: CocoFiles) -> None:
    path = files.images / "7.png"
    path.unlink()
    assert faults(files) == [Fault("missing image", str(path), 7, "no such file")]


def test_wrong_size(files: CocoFiles) -> None:
    files.coco["images"][2] |= {"width": 65}
    (fault,) = faults(files)
    assert (fault.kind, fault.id) == ("wrong size", 12)
    assert fault.reason == "64x64 pixels, but the annotations say 65x64"


def test_annotations_made_before_exif_orientation(files: CocoFiles) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(files.images / "7.png", exif=exif)
    (fault,) = faults(files)
    assert (fault.kind, fault.id) == ("size before orientation", 7)
    assert fault.kind in HARMLESS
    assert fault.reason == "30x40 pixels, but the annotations say 40x30"


def test_unreadable_jpegs(files: CocoFiles) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    paths = [files.images / name for name in ("cut.jpg", "text.jpg", "empty.jpg", "sound.jpg")]
    for number, path in enumerate(paths, 200):
        noise.save(path)
        files.coco["images"].append({"id": number, "file_name": path.name, "width": 40, "height": 30})
    paths[0].write_bytes(paths[0].read_bytes()[:-100])
    paths[1].write_text("not a photograph")
    paths[2].write_bytes(b"")
    found = faults(files)
    assert [(fault.kind, fault.file, fault.id) for fault in found] == [
        ("unreadable image", str(path), number) for number, path in enumerate(paths[:3], 200)
    ]
    assert "cut off" in found[0].reason


# --- the file itself


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"images": []}', '"text"', "null"])
def test_annotations_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    (fault,) = check(path, tmp_path)
    assert (fault.kind, fault.file, fault.id) == ("unreadable annotations", str(path), None)
    assert str(path) not in fault.reason


def test_annotations_that_are_missing(tmp_path: Path) -> None:
    (fault,) = check(tmp_path / "nowhere.json", tmp_path)
    assert fault.kind == "unreadable annotations"


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 40) | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["size", "counts"]), inner),
        max_leaves=6,
    ),
    st.sampled_from(["bbox", "segmentation", "image_id", "category_id", "id", "area", "iscrowd"]),
)
def test_any_json_in_any_place_is_survived(value: Any, key: str) -> None:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4, "iscrowd": 0, key: value}
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [annotation],
    }
    assert all(isinstance(fault, Fault) for fault in file_faults(coco, "a.json"))


def test_boxes_that_look_relative_and_masks_that_are_missing(files: CocoFiles) -> None:
    for annotation in files.coco["annotations"]:
        annotation["bbox"] = [0.2, 0.3, 0.5, 0.4]
    del files.coco["annotations"][0]["segmentation"]
    files.coco["annotations"][1]["segmentation"] = []  # as some tools write it
    found = {fault.kind: fault.reason for fault in faults(files)}
    assert "relative to the image's sides" in found["relative boxes"]
    assert found["missing mask"].startswith("2 of 3 annotations have no segmentation")


def test_numbers_of_other_kinds_are_those_numbers(files: CocoFiles) -> None:
    """Text and whole floats, as pandas and others write them; and names as Windows does."""
    for name in ("images", "annotations", "categories"):
        for record in files.coco[name]:
            record["id"] = f"{record['id']:012d}"
    for record in files.coco["images"]:
        record["width"], record["file_name"] = float(record["width"]), f".\\{record['file_name']}"
    for record in files.coco["annotations"]:
        record["image_id"], record["category_id"] = f"{record['image_id']:012d}", float(record["category_id"])
    assert faults(files) == []
