"""The accuracy study's arithmetic: AP from stored matches, and differences with their intervals."""

import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask

STUDY = Path(__file__).parents[2] / "benchmarks" / "accuracy"
sys.path.insert(0, str(STUDY))

from matches import difference, match, read, resampled, write  # noqa: E402  # pyright: ignore

from slimdet.evaluation.matching import evaluate  # noqa: E402


def scene(seed: int, quality: float) -> tuple[dict, list[dict]]:
    draw = np.random.default_rng(0)
    noise = np.random.default_rng(seed)
    coco: dict = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]}
    found = []
    for image in range(1, 21):
        coco["images"].append({"id": image, "width": 100, "height": 100})
        for _ in range(int(draw.integers(0, 4))):
            x, y, w, h = (float(v) for v in draw.integers(5, 45, 4))
            category = int(draw.choice([3, 7]))
            crowd = int(draw.random() < 0.1)
            coco["annotations"].append(
                {"id": len(coco["annotations"]) + 1, "image_id": image, "category_id": category,
                 "bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd}
            )  # fmt: skip
            shift = noise.normal(0, quality, 4)
            box = [x + shift[0], y + shift[1], max(1.0, w + shift[2]), max(1.0, h + shift[3])]
            found.append({"image_id": image, "category_id": category, "bbox": box, "score": float(noise.random())})
        found.append({"image_id": image, "category_id": 3, "bbox": [60.0, 60, 20, 20], "score": float(noise.random())})
    return coco, found


@pytest.mark.parametrize("quality", [0.5, 3.0])
def test_ap_is_cocos(quality: float) -> None:
    coco, found = scene(1, quality)
    matches = match(coco, found)
    assert matches.ap() == pytest.approx(evaluate(coco, found)["bbox"]["AP"], abs=1e-6)
    assert match(coco, []).ap() == 0


def test_a_file_holds_the_same_matches(tmp_path: Path) -> None:
    coco, found = scene(1, 3.0)
    nobody = {"images": coco["images"], "annotations": [], "categories": coco["categories"][:1]}
    given = {"a/0.5/bbox": match(coco, found), "empty": match(coco, []), "b": match(coco, scene(2, 1.0)[1])}
    write(tmp_path / "x.xz", given | {"nobody": match(nobody, found)})
    again = read(tmp_path / "x.xz")
    assert list(again) == [*given, "nobody"]
    for name, matches in given.items():
        assert len(again[name].image) <= len(matches.image)
        assert np.array_equal(resampled(again[name], draws=50), resampled(matches, draws=50))
    write(tmp_path / "y.xz", again)
    assert (tmp_path / "y.xz").read_bytes() == (tmp_path / "x.xz").read_bytes()


def test_ap_of_masks_is_cocos() -> None:
    """Masks that are only a part of their boxes, so that the masks' overlaps are not the boxes'."""
    coco, found = scene(1, 2.0)
    grid = np.mgrid[:100, :100]
    for item in coco["annotations"] + found:
        x, y, w, h = item["bbox"]
        inside = (grid[1] >= x) & (grid[1] < x + w) & (grid[0] >= y) & (grid[0] < y + h)
        inside &= (grid[1] - x) / w > (grid[0] - y) / h - 0.1 * item["category_id"]
        rle = mask.encode(np.asfortranarray(inside.astype(np.uint8)))
        item["segmentation"] = rle | {"counts": rle["counts"].decode()}
        if "area" in item:
            item["area"] = float(inside.sum())
    expected = evaluate(coco, found, ("bbox", "segm"))
    assert match(coco, found, "segm").ap() == pytest.approx(expected["segm"]["AP"], abs=1e-6)
    assert expected["segm"]["AP"] != pytest.approx(expected["bbox"]["AP"], abs=1e-3)


def test_an_image_counted_twice_is_an_image_that_is_there_twice() -> None:
    coco, found = scene(1, 2.0)
    weights = np.ones(20)
    weights[4] = 2
    coco["images"].append({"id": 21, "width": 100, "height": 100})
    again = [item | {"id": 100 + item["id"], "image_id": 21} for item in coco["annotations"] if item["image_id"] == 5]
    matches = match(coco, found)
    coco["annotations"] += again
    found += [item | {"image_id": 21} for item in found if item["image_id"] == 5]
    assert matches.ap(np.append(weights, 0)) == pytest.approx(match(coco, found).ap(), abs=1e-9)


def test_differences_are_paired() -> None:
    coco, poor = scene(1, 4.0)
    _, good = scene(2, 1.0)
    ours, theirs = ([resampled(match(coco, found), draws=200)] for found in (good, poor))
    same = difference(ours, ours)
    assert same == {"difference": 0, "low": 0, "high": 0}
    gain = difference(ours, theirs)
    assert gain["difference"] == pytest.approx(match(coco, good).ap() - match(coco, poor).ap())
    assert gain["low"] < gain["difference"] < gain["high"]
    assert gain["low"] > 0
    assert difference(theirs, ours)["high"] == pytest.approx(-gain["low"])
    assert difference(ours + theirs, theirs)["difference"] == pytest.approx(gain["difference"] / 2)
