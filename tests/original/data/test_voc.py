"""Pascal VOC annotations become the original's lists and COCO JSON."""

import json
from pathlib import Path

import pytest

from slimdet.errors import DataError
from slimdet.original.data.dataset import read_annotations
from slimdet.original.data.unpickle import unpickle
from slimdet.original.data.voc import convert

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"""


def voc(folder: Path, year: str, splits: dict[str, list[str]], objects: str) -> None:
    root = folder / f"VOC{year}"
    for part in ("Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    for split, names in splits.items():
        (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            size = "<size><width>50</width><height>40</height><depth>3</depth></size>"
            (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{objects}</annotation>")


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    cat = OBJECT.format(name="cat", difficult=0, x1=1, y1=2, x2=10, y2=20)
    chair = OBJECT.format(name="chair", difficult=1, x1="5.0", y1=5, x2=9, y2=9)
    voc(tmp_path, "2007", {"train": ["a"], "val": ["b"], "trainval": ["a", "b"], "test": ["c"]}, cat + chair)
    voc(tmp_path, "2012", {"train": ["d"], "val": ["e"], "trainval": ["d", "e"]}, "")
    return tmp_path


def test_files_and_what_is_missing(devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = convert(devkit, tmp_path / "out")
    expected = {f"voc{years}_{split}" for years in ("07", "12", "0712") for split in ("train", "val", "trainval")}
    assert {path.stem for path in written} == expected | {"voc07_test"}
    assert "voc12_test is left out" in capsys.readouterr().out
    assert [e["filename"] for e in unpickle(tmp_path / "out" / "voc0712_train.pkl")] == [
        "VOC2007/JPEGImages/a.jpg",
        "VOC2012/JPEGImages/d.jpg",
    ]


def test_entries(devkit: Path) -> None:
    convert(devkit)
    entry = unpickle(devkit / "voc07_train.pkl")[0]
    assert (entry["width"], entry["height"]) == (50, 40)
    assert entry["ann"]["bboxes"].tolist() == [[0, 1, 9, 19]]
    assert entry["ann"]["labels"].tolist() == [8]
    assert entry["ann"]["bboxes_ignore"].tolist() == [[4, 4, 8, 8]]
    assert entry["ann"]["labels_ignore"].tolist() == [9]
    assert unpickle(devkit / "voc12_train.pkl")[0]["ann"]["bboxes"].shape == (0, 4)


def test_json_and_pickle_say_the_same(devkit: Path) -> None:
    convert(devkit)
    coco = json.loads((devkit / "voc07_trainval.json").read_text())
    assert len(coco["categories"]) == 20
    assert [(a["bbox"], a["category_id"], a["iscrowd"]) for a in coco["annotations"][:2]] == [
        ([0, 1, 10, 19], 8, 0),
        ([4, 4, 5, 5], 9, 1),
    ]
    pickled = read_annotations(devkit / "voc07_trainval.pkl")
    for one, other in zip(pickled["annotations"], coco["annotations"], strict=True):
        assert {k: one[k] for k in ("bbox", "area", "category_id", "iscrowd")} == {
            k: other[k] for k in ("bbox", "area", "category_id", "iscrowd")
        }


def test_mistakes(devkit: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither VOC2007 nor VOC2012"):
        convert(tmp_path / "VOC2007")
    (devkit / "VOC2007/Annotations/a.xml").write_text("<annotation><size>")
    with pytest.raises(DataError, match=r"a\.xml:1: is not XML"):
        convert(devkit)
    (devkit / "VOC2007/Annotations/a.xml").write_text(
        "<annotation><size><width>5</width><height>5</height></size>"
        + OBJECT.format(name="dragon", difficult=0, x1=1, y1=1, x2=2, y2=2)
        + "</annotation>"
    )
    with pytest.raises(DataError, match="dragon"):
        convert(devkit)
