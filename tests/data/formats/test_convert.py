"""YOLO and VOC sets become sound COCO sets that point to the original images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slimdet.data.check import check
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config
from slimdet.data.formats import convert
from slimdet.data.formats.recognition import read_foreign
from slimdet.errors import DataError

WriteImage = Callable[..., Path]


def to_coco(dataset: Path, out: Path) -> dict[str, Path]:
    return convert.to_coco(read_foreign(dataset), out)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def boxes(coco: dict[str, Any]) -> dict[str, list]:
    """For every image its [category name, bbox, iscrowd] ..."""
    names = {item["id"]: item["name"] for item in coco["categories"]}
    files = {item["id"]: item["file_name"] for item in coco["images"]}
    found: dict[str, list] = {name: [] for name in files.values()}
    for item in coco["annotations"]:
        found[files[item["image_id"]]].append([names[item["category_id"]], item["bbox"], item["iscrowd"]])
    return found


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def assert_sound(written: dict[str, Path]) -> None:
    """The checker finds nothing, and DATA.yaml leads to data sets that can be read."""
    config = read_data_config(written["data"])
    for name, split in (("train", config.train), ("val", config.val)):
        assert (split is not None) == (name in written)
        if split is not None:
            assert check(split.annotations, split.images) == []
            dataset = CocoDataset(split.annotations, split.images, train=True)
            assert len(dataset) > 0
            for index in range(len(dataset)):
                dataset[index]


# --- YOLO


@pytest.fixture
def yolo(tmp_path: Path, write_image: WriteImage) -> Path:
    """Images of 100x50: two to train on, one of them without a label file, and one in a subfolder to validate on."""
    folder = tmp_path / "yolo"
    write_image(folder / "images" / "train" / "a.jpg")
    write_image(folder / "images" / "train" / "b.png")
    write_image(folder / "images" / "val" / "deep" / "c.jpg")
    write(folder / "labels" / "train" / "a.txt", "1 0.5 0.5 0.2 0.4\n\n0 0.05 0.9 0.1 0.2\n")
    write(folder / "labels" / "val" / "deep" / "c.txt", "0 0.1 0.2 0.5 0.2 0.5 0.8\n")
    write(folder / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\nnc: 2\n")
    return folder


def test_yolo_with_yaml(yolo: Path, tmp_path: Path) -> None:
    written = to_coco(yolo, tmp_path / "out")
    assert written == {
        "train": tmp_path / "out" / "annotations" / "instances_train.json",
        "val": tmp_path / "out" / "annotations" / "instances_val.json",
        "data": tmp_path / "out" / "data.yaml",
    }
    train, val = read(written["train"]), read(written["val"])
    assert train["categories"] == val["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert train["images"][0] == {"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}
    assert boxes(train) == {"a.jpg": [["dog", [40, 15, 20, 20], 0], ["cat", [0, 40, 10, 10], 0]], "b.png": []}
    assert [item["area"] for item in train["annotations"]] == [400, 100]
    (outline,) = val["annotations"]
    assert outline["bbox"] == [10, 10, 40, 30]
    assert outline["segmentation"] == [[10, 10, 50, 10, 50, 40]]
    assert outline["area"] == 600  # the triangle's
    assert_sound(written)
    split = read_data_config(written["data"]).val
    assert split is not None
    assert CocoDataset(split.annotations, split.images, masks=True)[0][1]["masks"].sum() == pytest.approx(600, abs=40)


def test_yolo_from_its_yaml_file(yolo: Path, tmp_path: Path) -> None:
    assert_sound(to_coco(yolo / "data.yaml", tmp_path / "out"))


def test_images_stay_where_they_are(yolo: Path, tmp_path: Path) -> None:
    before = sorted(path for path in yolo.rglob("*"))
    written = to_coco(yolo, tmp_path / "out")
    assert sorted(yolo.rglob("*")) == before
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == [
        "data.yaml",
        "instances_train.json",
        "instances_val.json",
    ]
    assert "images: ../yolo/images/train" in written["data"].read_text()


def test_both_can_be_moved_together(yolo: Path, tmp_path: Path) -> None:
    to_coco(yolo, yolo / "coco")
    moved = yolo.rename(tmp_path / "moved")
    config = read_data_config(moved / "coco" / "data.yaml")
    assert config.train is not None
    assert check(config.train.annotations, config.train.images) == []


@pytest.mark.parametrize(
    "names", ["{0: cat, 1: dog}", "\n  0: cat\n  1: dog\n", "['cat', 'dog']", "{1: dog, 0: cat, 7: cow}"]
)
def test_yolo_names(yolo: Path, tmp_path: Path, names: str) -> None:
    write(yolo / "data.yaml", f"train: images/train\nnames: {names}\n")
    written = to_coco(yolo, tmp_path / "out")
    assert boxes(read(written["train"]))["a.jpg"][0][0] == "dog"
    assert "val" not in written
    assert_sound(written)


@pytest.mark.parametrize("entry", ["./images/train/a.jpg", "images/train/a.jpg", "{folder}/images/train/a.jpg"])
def test_yolo_list_files(yolo: Path, tmp_path: Path, entry: str) -> None:
    write(yolo / "train.txt", entry.format(folder=yolo) + "\n\n")
    write(yolo / "labels" / "val" / "deep" / "c.txt", "0 0.3 0.5 0.4 0.6\n")
    write(yolo / "data.yaml", "train: train.txt\nval: [images/val, images/train]\nnames: [cat, dog]\n")
    written = to_coco(yolo, tmp_path / "out")
    assert list(boxes(read(written["train"]))) == ["a.jpg"]
    assert list(boxes(read(written["val"]))) == ["val/deep/c.jpg", "train/a.jpg", "train/b.png"]
    assert_sound(written)


def test_yolo_as_some_exports_write_it(tmp_path: Path, write_image: WriteImage) -> None:
    """train/images beside train/labels, "valid" for "val", and paths that start one folder too high."""
    folder = tmp_path / "export"
    for split in ("train", "valid"):
        write_image(folder / split / "images" / "a.photo.jpg")
        write(folder / split / "labels" / "a.photo.txt", "0 0.5 0.5 1 1")
    write(folder / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['cat']\n")
    written = to_coco(folder, tmp_path / "out")
    assert boxes(read(written["val"])) == {"a.photo.jpg": [["cat", [0, 0, 100, 50], 0]]}
    assert_sound(written)
    (folder / "data.yaml").unlink()
    assert_sound(to_coco(folder, tmp_path / "again"))


@pytest.mark.parametrize("classes", ["classes.txt", "labels/classes.txt", None])
def test_yolo_without_yaml(tmp_path: Path, write_image: WriteImage, classes: str | None) -> None:
    folder = tmp_path / "plain"
    write_image(folder / "images" / "a.jpg")
    write_image(folder / "images" / "b.jpg")
    write(folder / "labels" / "a.txt", "2 0.5 0.5 0.2 0.4")
    if classes:
        write(folder / classes, "cat\ndog\ncow\n")
    written = to_coco(folder, tmp_path / "out")
    assert set(written) == {"train", "data"}  # no split is made up
    assert boxes(read(written["train"])) == {
        "a.jpg": [["cow" if classes else "class_2", [40, 15, 20, 20], 0]],
        "b.jpg": [],
    }
    assert_sound(written)


def test_yolo_labels_beside_the_images(tmp_path: Path, write_image: WriteImage) -> None:
    folder = tmp_path / "flat"
    write_image(folder / "pictures" / "a.jpg")
    write(folder / "pictures" / "a.txt", "0 0.5 0.5 0.2 0.4")
    write(folder / "data.yaml", "train: pictures\nnames: [cat]")
    assert boxes(read(to_coco(folder, tmp_path / "out")["train"])) == {"a.jpg": [["cat", [40, 15, 20, 20], 0]]}


def test_yolo_sizes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    folder = tmp_path / "turned"
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (100, 50)).save(folder / "images" / "a.jpg", exif=exif)
    write(folder / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5")
    written = to_coco(folder, tmp_path / "out")
    assert boxes(read(written["train"])) == {"a.jpg": [["class_0", [12.5, 25, 25, 50], 0]]}
    assert_sound(written)


def test_yolo_keypoints_leave_the_box(tmp_path: Path, write_image: WriteImage) -> None:
    folder = tmp_path / "pose"
    write_image(folder / "images" / "a.jpg")
    write(folder / "labels" / "a.txt", "0 0.5 0.5 0.2 0.4 0.5 0.5 2 0.6 0.6 2")
    write(folder / "data.yaml", "train: images\nnames: [cat]\nkpt_shape: [2, 3]")
    (item,) = read(to_coco(folder, tmp_path / "out")["train"])["annotations"]
    assert item["bbox"] == [40, 15, 20, 20]
    assert "segmentation" not in item


def test_yolo_boxes_are_clipped_where_rounding_put_them_outside(yolo: Path, tmp_path: Path) -> None:
    write(yolo / "labels" / "train" / "a.txt", "0 0.95 0.5 0.11 1.0000004")
    written = to_coco(yolo, tmp_path / "out")
    assert boxes(read(written["train"]))["a.jpg"] == [["cat", [89.5, 0, 10.5, 50], 0]]
    assert_sound(written)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "4 numbers"),
        ("0 0.5 0.5 0.2 0.4 0.9", "6 numbers"),
        ("0 0.5 0.5 0.2 0.4 0.9 0.1 0.2", "8 numbers"),
        ("cat 0.5 0.5 0.2 0.4", "not a number"),
        ("0,0.5,0.5,0.2,0.4", "not a number"),
        ("2 0.5 0.5 0.2 0.4", "class 2 is not one of 0..1"),
        ("-1 0.5 0.5 0.2 0.4", "class -1 is not one of 0..1"),
        ("0.5 0.5 0.5 0.2 0.4", "class 0.5"),
        ("nan 0.5 0.5 0.2 0.4", "class nan"),
        ("0 50 25 20 20", "not relative"),
        ("0 0.5 nan 0.2 0.4", "not relative"),
        ("0 -0.5 0.5 0.2 0.4", "not relative"),
    ],
)
def test_malformed_yolo_lines_are_named(yolo: Path, tmp_path: Path, line: str, message: str) -> None:
    path = write(yolo / "labels" / "train" / "a.txt", f"0 0.5 0.5 0.2 0.4\n\n{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        to_coco(yolo, tmp_path / "out")
    assert str(caught.value).startswith(f"{path}:3: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [cat, dog]", "has neither 'train:' nor 'val:'"),
        ("names: 2\ntrain: images/train", "names is '2'"),
        ("names: {a: cat}\ntrain: images/train", "names is"),
        ("names: [cat, dog]\nnc: 3\ntrain: images/train", "nc is 3, but there are 2 names"),
        ("names: [cat, dog]\ntrain: images/nowhere", "train: no such folder or list of images"),
        ("names: [cat, dog]\ntrain: labels", "train: no images in labels"),
        ("names: [cat, dog]\ntrain: 5", "train: no such folder or list of images"),
        ("names: [cat, dog]\ntrain: {images: 5}", "train is {'images': '5'}"),
        ("names: [cat, dog]\ntrain: list.txt", "list.txt:2: no such image: nowhere.jpg"),
        ("names: [cat", "cannot be read as YAML"),
    ],
)
def test_malformed_yolo_yaml(yolo: Path, tmp_path: Path, text: str, message: str) -> None:
    write(yolo / "list.txt", "images/train/a.jpg\nnowhere.jpg\n")
    write(yolo / "data.yaml", text)
    with pytest.raises(DataError) as caught:
        to_coco(yolo, tmp_path / "out")
    assert message in str(caught.value)
    assert str(yolo) in str(caught.value)


def test_binary_labels_and_broken_images_are_named(yolo: Path, tmp_path: Path) -> None:
    (yolo / "labels" / "train" / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"b\.txt: is not text"):
        to_coco(yolo, tmp_path / "out")
    (yolo / "images" / "train" / "a.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"a\.jpg: cannot be decoded|a\.jpg: not an image"):
        to_coco(yolo, tmp_path / "out")


# --- VOC


def voc_xml(objects: str = "", size: tuple[int, int] | None = (100, 50), filename: str = "other.jpg") -> str:
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation><folder>f</folder><filename>{filename}</filename>{sides}{objects}</annotation>"


def voc_object(name: str, corners: tuple, extra: str = "<difficult>0</difficult>") -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"


@pytest.fixture
def voc(tmp_path: Path, write_image: WriteImage) -> Path:
    folder = tmp_path / "VOC2007"
    for stem in ("000001", "000002", "000003"):
        write_image(folder / "JPEGImages" / f"{stem}.jpg")
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    first = voc_object("dog", (1, 1, 100, 50), part) + voc_object("cat", (11, 21, 50, 40), "<difficult>1</difficult>")
    write(folder / "Annotations" / "000001.xml", voc_xml(first))
    write(folder / "Annotations" / "000002.xml", voc_xml())
    write(folder / "Annotations" / "000003.xml", voc_xml(voc_object("cat", (10.5, 20.5, 30, 40), "")))
    write(folder / "ImageSets" / "Main" / "train.txt", "000001\n000002 \n")
    write(folder / "ImageSets" / "Main" / "val.txt", "000003\n")
    write(folder / "ImageSets" / "Main" / "cat_train.txt", "000001 -1\n")
    return folder


def test_voc(voc: Path, tmp_path: Path) -> None:
    written = to_coco(voc, tmp_path / "out")
    train, val = read(written["train"]), read(written["val"])
    assert train["categories"] == val["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    # 1..100 is the whole width: VOC counts from 1 and includes the last pixel. Difficult objects are crowds to COCO.
    assert boxes(train) == {
        "000001.jpg": [["dog", [0, 0, 100, 50], 0], ["cat", [10, 20, 40, 20], 1]],
        "000002.jpg": [],
    }
    assert boxes(val) == {"000003.jpg": [["cat", [9.5, 19.5, 20.5, 20.5], 0]]}
    assert_sound(written)
    config = read_data_config(written["data"])
    assert config.train is not None
    dataset = CocoDataset(config.train.annotations, config.train.images, train=True)
    assert dataset[0][1]["labels"].tolist() == [2]


def test_voc_without_lists_is_all_train(voc: Path, tmp_path: Path) -> None:
    for path in (voc / "ImageSets" / "Main").iterdir():
        path.unlink()
    written = to_coco(voc, tmp_path / "out")
    assert set(written) == {"train", "data"}
    assert len(read(written["train"])["images"]) == 3
    assert_sound(written)


def test_voc_test_lists_stand_in(voc: Path, tmp_path: Path) -> None:
    lists = voc / "ImageSets" / "Main"
    (lists / "train.txt").rename(lists / "trainval.txt")
    (lists / "val.txt").rename(lists / "test.txt")
    assert_sound(to_coco(voc, tmp_path / "out"))


def test_voc_xml_beside_the_images(tmp_path: Path, write_image: WriteImage) -> None:
    folder = tmp_path / "flat"
    write_image(folder / "a.png")
    write_image(folder / "renamed.jpg")
    write(folder / "a.xml", voc_xml(voc_object("cat", (0, 0, 10, 10)), size=None))  # counted from 0: clipped
    write(folder / "b.xml", voc_xml(size=(0, 0), filename="renamed.jpg"))
    written = to_coco(folder, tmp_path / "out")
    assert boxes(read(written["train"])) == {"a.png": [["cat", [0, 0, 10, 10], 0]], "renamed.jpg": []}
    assert_sound(written)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", "000001.xml:1: is not XML"),
        ("", "is not XML"),
        (voc_xml(voc_object("", (1, 1, 5, 5))), "an object without name"),
        (voc_xml("<object><name>cat</name></object>"), "object 'cat': bndbox/xmin is 'nothing', not a number"),
        (voc_xml(voc_object("cat", (1, "one", 5, 5))), "object 'cat': bndbox/ymin is 'one', not a number"),
        (voc_xml(voc_object("cat", (1, "nan", 5, 5))), "ymin is 'nan', not a number"),
        (voc_xml(voc_object("cat", (50, 1, 5, 5))), "without area"),
        (voc_xml(size=(50, 100)), "says 50x100, but"),
        ("<?xml version='1.0' encoding='klingon'?><annotation/>", "its encoding cannot be read: unknown encoding"),
    ],
)
def test_malformed_voc(voc: Path, tmp_path: Path, text: str, message: str) -> None:
    path = write(voc / "Annotations" / "000001.xml", text)
    with pytest.raises(DataError) as caught:
        to_coco(voc, tmp_path / "out")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "iso-8859-5", "utf-16"])
def test_voc_in_the_encoding_that_it_declares(voc: Path, tmp_path: Path, encoding: str) -> None:
    name = "собака" if encoding == "iso-8859-5" else "犬"
    text = f"<?xml version='1.0' encoding='{encoding}'?>{voc_xml(voc_object(name, (1, 1, 5, 5)))}"
    (voc / "Annotations" / "000001.xml").write_bytes(text.encode(encoding))
    assert {"id": 2, "name": name} in read(to_coco(voc, tmp_path / "out")["train"])["categories"]


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE annotation SYSTEM "voc.dtd">',
    ],
)
def test_document_types_are_refused(voc: Path, tmp_path: Path, declaration: str) -> None:
    write(voc / "Annotations" / "000001.xml", f"<?xml version='1.0'?>\n{declaration}\n{voc_xml()}")
    with pytest.raises(DataError, match=r"000001\.xml:2: has a document type"):
        to_coco(voc, tmp_path / "out")


def test_what_is_listed_has_to_exist(voc: Path, tmp_path: Path) -> None:
    (voc / "JPEGImages" / "000003.jpg").unlink()
    found = read_foreign(voc)
    assert found.splits["val"] == []
    assert "annotations have no image in" in found.findings.notes[0]
    assert found.findings.notes[0].endswith("000003.xml")
    write(voc / "ImageSets" / "Main" / "val.txt", "000002\n000009\n")
    with pytest.raises(DataError, match=r"val\.txt:2: no such annotation"):
        to_coco(voc, tmp_path / "out")


# --- both


def test_unknown_and_ambiguous_sets(tmp_path: Path, yolo: Path, voc: Path) -> None:
    with pytest.raises(DataError, match="no such data set"):
        to_coco(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is no data set that is known: YOLO has"):
        to_coco(tmp_path / "empty", tmp_path / "out")
    coco = {"images": [], "annotations": [], "categories": []}
    write(tmp_path / "already" / "annotations" / "instances_train.json", json.dumps(coco))
    with pytest.raises(DataError, match="is COCO already"):
        to_coco(tmp_path / "already", tmp_path / "out")
    (voc / "Annotations").rename(yolo / "Annotations")
    with pytest.raises(DataError, match="both YOLO and VOC"):
        to_coco(yolo, tmp_path / "out")


def test_nothing_is_overwritten(yolo: Path, tmp_path: Path) -> None:
    before = (yolo / "data.yaml").read_text()
    with pytest.raises(DataError, match="already exists"):
        to_coco(yolo, yolo)
    assert (yolo / "data.yaml").read_text() == before
    to_coco(yolo, tmp_path / "out")
    with pytest.raises(DataError, match="already exists"):
        to_coco(yolo, tmp_path / "out")
