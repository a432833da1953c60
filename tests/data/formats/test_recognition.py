"""Data sets as their tools write them are read as they lie there: what they are taken for, and what is in them."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slimdet.cli.verbs import main
from slimdet.data.check import check
from slimdet.data.coco import CocoDataset
from slimdet.data.config import open_data, read_data_config
from slimdet.errors import DataError

Files = dict[str, str | bytes | tuple[int, int] | Path]  # a size is an image, a path a link
BOX = "0 0.5 0.5 0.2 0.4\n"
XML = (
    "<annotation><filename>C:\\data\\x.jpg</filename><size><width>100.0</width><height>50.0</height></size><object>"
    "<name>dog</name><bndbox><xmin>41</xmin><ymin>16</ymin><xmax>60</xmax><ymax>35</ymax></bndbox></object></annotation>"
)
CENTRE = [40, 15, 20, 20]  # the box of both


def coco(name: str, **changes: Any) -> str:
    """COCO instances with one image and that box in it; `changes` are of the annotation."""
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": CENTRE, "area": 400, "iscrowd": 0}
    image = {"id": 1, "file_name": name, "width": 100, "height": 50}
    return json.dumps({"images": [image], "annotations": [box | changes], "categories": [{"id": 1, "name": "dog"}]})


def build(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, tuple):
            kind = {".jfif": "JPEG", ".mpo": "JPEG"}.get(path.suffix.lower())
            Image.new("RGB", content, "green").save(path, kind)
        elif isinstance(content, Path):
            path.symlink_to(content, target_is_directory=True)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(path: Path) -> dict[str, list[tuple[str, str, list[float]]]]:
    """(file, class, box) of all annotations of each split; every image is opened."""
    config = read_data_config(path)
    found = {}
    for name, split in vars(config).items():
        if split is None:
            continue
        assert check(split.annotations, split.images) == []
        dataset = CocoDataset(split.annotations, split.images)
        names = dict(zip(dataset.category_ids, dataset.classes, strict=True))
        files = {one["id"]: one["file_name"] for one in dataset.coco["images"]}
        found[name] = [
            (files[one["image_id"]], names[one["category_id"]], [round(value) for value in one["bbox"]])
            for one in dataset.coco["annotations"]
        ]
    return found


IMAGE = (100, 50)
ONE = {"train": [("a.jpg", "dog", CENTRE)]}
BOTH = ONE | {"val": [("b.jpg", "dog", CENTRE)]}
SETS: dict[str, tuple[Files, dict[str, list], str]] = {
    "YOLO of Ultralytics": (
        {
            "data.yaml": "path: ../datasets/mine\ntrain: images/train\nval: images/val\nnames: {0: dog}\n",
            "images/train/a.jpg": IMAGE,
            "labels/train/a.txt": BOX,
            "images/val/b.jpg": IMAGE,
            "labels/val/b.txt": BOX,
        },
        BOTH,
        "YOLO, by ",
    ),
    "YOLO of Roboflow": (
        {
            "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['dog']\n",
            "train/images/a.jpg": IMAGE,
            "train/labels/a.txt": BOX,
            "valid/images/b.jpg": IMAGE,
            "valid/labels/b.txt": BOX,
        },
        BOTH,
        "YOLO, by ",
    ),
    "YOLO of CVAT": (
        {
            "obj.data": "classes = 1\nnames = data/obj.names\n",
            "obj.names": "dog\n",
            "train.txt": "data/obj_train_data/a.jpg\n",
            "obj_train_data/a.jpg": IMAGE,
            "obj_train_data/a.txt": BOX,
        },
        ONE,
        "obj.names",
    ),
    "YOLO of labelImg": ({"classes.txt": "dog\n", "a.jpg": IMAGE, "a.txt": BOX}, ONE, "classes.txt"),
    "YOLO of Label Studio": (
        {"classes.txt": "dog\n", "notes.json": "{}", "images/a.jpg": IMAGE, "labels/a.txt": BOX},
        ONE,
        "classes.txt",
    ),
    "labels beside images": (
        {"data.yaml": "train: images\nnames: [dog]\n", "images/a.jpg": IMAGE, "images/a.txt": BOX},
        ONE,
        "data.yaml",
    ),
    "capital letters": (
        {"data.YAML": "train: Images\nnames: [dog]\n", "Images/A.JPG": IMAGE, "Labels/A.TXT": BOX},
        {"train": [("A.JPG", "dog", CENTRE)]},
        "data.YAML",
    ),
    "suffixes of JPEG": (
        {
            "classes.txt": "dog",
            "a.jfif": IMAGE,
            "a.txt": BOX,
            "b.mpo": IMAGE,
            "b.txt": BOX,
            "c.jpe": IMAGE,
            "c.txt": BOX,
        },
        {"train": [(name, "dog", CENTRE) for name in ("a.jfif", "b.mpo", "c.jpe")]},
        "classes.txt",
    ),
    "lists of Windows": (
        {
            "data.yaml": "train: lists\\train.txt\nnames: [dog]\n",
            "lists/train.txt": "D:\\mine\\images\\a.jpg\r\n",
            "images/a.jpg": IMAGE,
            "labels/a.txt": BOX,
        },
        ONE,
        "data.yaml",
    ),
    "folders that are links": (
        {
            "data.yaml": "train: images\nnames: [dog]\n",
            "../store/pictures/a.jpg": IMAGE,
            "../store/texts/a.txt": BOX,
            "images/camera": Path("../../store/pictures"),
            "labels/camera": Path("../../store/texts"),
            "images/loop": Path(".."),
        },
        ONE,
        "data.yaml",
    ),
    "names that YAML would change": (
        {"data.yaml": "train: .\nnames: [on, off, 007, 1e3, no, ~]\n", "a.jpg": IMAGE, "a.txt": "2" + BOX[1:] + BOX},
        {"train": [("a.jpg", "007", CENTRE), ("a.jpg", "on", CENTRE)]},
        "data.yaml",
    ),
    "VOC": (
        {
            "Annotations/a.xml": XML,
            "JPEGImages/a.JPG": IMAGE,
            "Annotations/b.xml": XML,
            "JPEGImages/b.png": IMAGE,
            "ImageSets/Main/train.txt": "a\n",
            "ImageSets/Main/val.txt": "b  1\n",
        },
        {"train": [("a.JPG", "dog", CENTRE)], "val": [("b.png", "dog", CENTRE)]},
        "Pascal VOC, by ",
    ),
    "VOC of Roboflow": (
        {"train/a.xml": XML, "train/a.jpg": IMAGE, "valid/b.xml": XML, "valid/b.jpg": IMAGE, "README.txt": "Roboflow"},
        BOTH,
        "Pascal VOC, by ",
    ),
    "VOC of CVAT": (
        {
            "labelmap.txt": "# label:color:parts:actions\n",
            "Annotations/cam/my photo.xml": XML,
            "JPEGImages/cam/my photo.jpg": IMAGE,
            "ImageSets/Main/default.txt": "cam/my photo\n",
        },
        {"train": [("my photo.jpg", "dog", CENTRE)]},
        "Pascal VOC, by ",
    ),
    "VOC of labelImg": ({"a.XML": XML, "a.jpg": IMAGE}, ONE, "Pascal VOC, by "),
    "COCO of Roboflow": (
        {
            "train/_annotations.coco.json": coco("a.jpg"),
            "train/a.jpg": IMAGE,
            "valid/_annotations.coco.json": coco("b.jpg"),
            "valid/b.jpg": IMAGE,
            "test/_annotations.coco.json": coco("c.jpg"),
        },
        BOTH,
        "COCO, by ",
    ),
    "COCO of CVAT": (
        {"annotations/instances_default.json": coco("a.jpg"), "images/default/a.jpg": IMAGE},
        ONE,
        "COCO, by ",
    ),
    "COCO of Label Studio": (
        {"result.json": coco("images\\a.jpg"), "images/a.jpg": IMAGE},
        {"train": [("images/a.jpg", "dog", CENTRE)]},
        "COCO, by ",
    ),
    "COCO": (
        {
            "annotations/instances_train2017.json": coco("a.jpg"),
            "annotations/captions_train2017.json": coco("a.jpg"),
            "annotations/instances_val2017.json": coco("b.jpg"),
            "train2017/a.jpg": IMAGE,
            "val2017/b.jpg": IMAGE,
        },
        BOTH,
        "COCO, by ",
    ),
    "ids as text and with a point": (
        {
            "annotations/train.json": coco("a.jpg", image_id="000001", category_id=1.0).replace(
                '"id": 1,', '"id": "01",'
            ),
            "images/a.jpg": IMAGE,
        },
        ONE,
        "COCO, by ",
    ),
    "YOLO of Darknet": (
        {
            "obj.data": "classes = 1\ntrain = data/mine.txt\nvalid = data/test.txt\nnames = data/obj.names\n",
            "obj.names": "dog\n",
            "mine.txt": "data/obj/a.jpg\n",
            "test.txt": "data/obj/b.jpg\n",
            "obj/a.jpg": IMAGE,
            "obj/a.txt": BOX,
            "obj/b.jpg": IMAGE,
            "obj/b.txt": BOX,
        },
        BOTH,
        "obj.names",
    ),
    "Darknet of Roboflow": (
        {
            "train/_darknet.labels": "dog\n",
            "train/a.jpg": IMAGE,
            "train/a.txt": BOX,
            "valid/_darknet.labels": "dog\n",
            "valid/b.jpg": IMAGE,
            "valid/b.txt": BOX,
        },
        BOTH,
        "_darknet.labels",
    ),
    "names in the folder of labels": (
        {"images/train/a.jpg": IMAGE, "labels/train/a.txt": BOX, "labels/train/classes.txt": "dog\n"},
        ONE,
        "classes.txt",
    ),
    "nothing but labels beside images": (
        {"train/a.jpg": IMAGE, "train/a.txt": BOX, "val/b.jpg": IMAGE, "val/b.txt": BOX},
        {name: [(file, "class_0", box) for file, _, box in found] for name, found in BOTH.items()},
        "YOLO, by its labels",
    ),
    "YAML's null": (
        {
            "data.yaml": "path: ~\ntrain: images\nval: null\ntest: Null\nkpt_shape: null\nnames: [dog]\n",
            "images/a.jpg": IMAGE,
            "labels/a.txt": BOX,
        },
        ONE,
        "data.yaml",
    ),
    "nc without names": (
        {"data.yaml": "train: images\nnc: 2\n", "images/a.jpg": IMAGE, "labels/a.txt": "1" + BOX[1:]},
        {"train": [("a.jpg", "class_1", CENTRE)]},
        "data.yaml",
    ),
    "hidden files and a broken YAML of something else": (
        {
            "images/a.jpg": IMAGE,
            "images/._a.jpg": b"x",
            "labels/a.txt": BOX,
            "labels/._a.txt": b"\x00\xff",
            "mkdocs.yml": "a: [",
            "._data.yaml": b"\xff",
            "classes.txt": "dog\n",
        },
        ONE,
        "classes.txt",
    ),
    "VOC with lists in capital letters": (
        {
            "annotations/a.xml": XML,
            "annotations/b.xml": XML,
            "annotations/._a.xml": b"\x00",
            "images/a.jpg": IMAGE,
            "images/b.jpg": IMAGE,
            "imagesets/main/Train.txt": "a\na\n",
            "imagesets/main/Validation.txt": "b\n",
            "imagesets/main/Test.txt": "a\n",
        },
        BOTH,
        "Pascal VOC, by ",
    ),
    "VOC with two images of a name": (
        {"Annotations/x.xml": XML, "JPEGImages/x.jpg": IMAGE, "JPEGImages/x.png": (7, 7)},
        {"train": [("x.jpg", "dog", CENTRE)]},
        "Pascal VOC, by ",
    ),
    "COCO in capital letters": (
        {"ANNOTATIONS/INSTANCES_TRAIN.JSON": coco("a.jpg"), "IMAGES/a.jpg": IMAGE},
        ONE,
        "COCO, by ",
    ),
    "COCO whose names begin as others' do": (
        {
            "annotations/stuffed_train.json": coco("a.jpg"),
            "annotations/stuffed_val.json": coco("b.jpg"),
            "images/a.jpg": IMAGE,
            "images/b.jpg": IMAGE,
        },
        BOTH,
        "COCO, by ",
    ),
    "COCO with nothing but key points": (
        {"annotations/person_keypoints_train.json": coco("a.jpg"), "images/a.jpg": IMAGE},
        ONE,
        "COCO, by ",
    ),
    "DATA.yaml of slimdet": (
        {
            "data.yaml": "train: {images: 'deep\\images', annotations: 'train.json'}\n",
            "train.json": coco("a.jpg"),
            "deep/images/a.jpg": IMAGE,
        },
        ONE,
        "",
    ),
}


@pytest.mark.parametrize("kind", SETS)
def test_read_as_it_lies_there(tmp_path: Path, kind: str) -> None:
    files, found, why = SETS[kind]
    folder = build(tmp_path / "set", files)
    assert read(folder) == found
    assert why in open_data(folder).why


NOTED: dict[str, tuple[Files, str]] = {
    "no labels": (
        {"labels/b.txt": BOX, "images/b.jpg": IMAGE},
        "1 images have no label file and count as images without",
    ),
    "a label alone": ({"labels/spare.txt": BOX}, "1 label files have no image and are left out"),
    "HEIC": ({"images/phone.HEIC": b"x"}, "1 photographs are not read; convert them to JPEG or PNG first"),
    "no area": (
        {"labels/a.txt": BOX + "0 0.5 0.5 0 0.4\n0 0.1 0.1 0.1 0.1 0.1 0.1\n"},
        "2 boxes or outlines without area",
    ),
    "objects that are there twice": ({"labels/a.txt": BOX + BOX}, "1 objects are there twice, and count once"),
    "boxes over the edge": ({"labels/a.txt": "0 0.9 0.5 0.6 0.4\n"}, "1 boxes reach more than a pixel over the edge"),
    "labels of a split without images": ({"labels/val/b.txt": BOX}, "1 label files have no image"),
    "names that would steer a terminal": ({"labels/spare\x1b[31m\n.txt": BOX}, "spare\\x1b[31m\\n.txt"),
    "a test split": ({"data.yaml": "train: images\ntest: x\nnames: [dog]\n"}, "1 test split is not read"),
}


@pytest.mark.parametrize("what", NOTED)
def test_what_is_left_out_is_said(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    usual: Files = {"data.yaml": "train: images\nnames: [dog]\n", "images/a.jpg": IMAGE, "labels/a.txt": BOX}
    files, note = NOTED[what]
    extra: Files = {"images/more.jpg": IMAGE} if what == "no labels" else {}
    folder = build(tmp_path, usual | files | extra)
    with caplog.at_level("WARNING", "slimdet"):
        read_data_config(folder)
    assert note in caplog.text
    assert any(note in line for line in open_data(folder).notes)


OTHERS: dict[str, tuple[Files, str]] = {
    "images outside the splits": (
        {"images/train/a.jpg": IMAGE, "labels/train/a.txt": BOX, "images/b.jpg": IMAGE, "extra/c.jpg": IMAGE},
        "2 images are in no split",
    ),
    "images of a test split": (
        {"images/train/a.jpg": IMAGE, "labels/train/a.txt": BOX, "images/test/b.jpg": IMAGE},
        "1 images of a test split are not read",
    ),
    "images in no list": (
        {"train.txt": "a.jpg\n", "classes.txt": "dog\n", "a.jpg": IMAGE, "a.txt": BOX, "b.jpg": IMAGE},
        "1 images are in no list",
    ),
    "VOC's test list": (
        {
            "Annotations/a.xml": XML,
            "JPEGImages/a.jpg": IMAGE,
            **{f"ImageSets/Main/{name}.txt": "a\n" for name in ("train", "val", "test")},
        },
        "1 test split is not read",
    ),
    "two XML files for an image": (
        {"Annotations/x.xml": XML, "Annotations/x_copy.xml": XML, "JPEGImages/x.jpg": IMAGE},
        "1 annotations are of an image that another file annotates too",
    ),
    "VOC's boxes over the edge": (
        {"Annotations/a.xml": XML.replace("<xmax>60", "<xmax>400"), "JPEGImages/a.jpg": IMAGE},
        "1 boxes reach more than a pixel over the edge",
    ),
    "COCO's other kinds": (
        {"a/instances_train.json": coco("a.jpg"), "a/stuff_train.json": coco("a.jpg"), "images/a.jpg": IMAGE},
        "1 file of COCO's other kinds is not read",
    ),
    "COCO beside a YOLO YAML": (
        {
            "data.yaml": "train: images\nnames: [dog]\n",
            "labels/a.txt": BOX,
            "images/a.jpg": IMAGE,
            "annotations/instances_train.json": coco("a.jpg"),
        },
        "1 COCO file is not read; the YAML file says that this is YOLO",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_else_is_there_is_said(tmp_path: Path, what: str) -> None:
    files, note = OTHERS[what]
    opened = open_data(build(tmp_path, files))
    assert opened.faults == []
    assert any(note in line for line in opened.notes), opened.notes


def test_check_counts_images_that_no_file_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files: Files = {"annotations/train.json": coco("a.jpg"), "images/phone.heic": b"x", "images/test/c.jpg": IMAGE}
    files |= {f"images/{name}.jpg": IMAGE for name in "abd"} | {"annotations/test.json": coco("test/c.jpg")}
    assert main(["check", "--data", str(build(tmp_path, files)), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert [note.split(":")[0] for note in notes] == [
        "1 file of a test split is not read",
        "2 images are in no annotation file and are left out",
        "1 photographs are not read; convert them to JPEG or PNG first; HEIC as with",
    ]


FAULTS: dict[str, tuple[Files, str]] = {
    "a file that is cut off": (
        {"instances_train.json": coco("a.jpg")[:-60], "instances_val.json": coco("a.jpg"), "a.jpg": IMAGE},
        r"instances_train\.json: unreadable annotations: is cut off",
    ),
    "a file that is empty": (
        {"valid/_annotations.coco.json": "", "train/_annotations.coco.json": coco("a.jpg"), "train/a.jpg": IMAGE},
        r"_annotations\.coco\.json: unreadable annotations: is empty",
    ),
    "an empty line among class names": (
        {"classes.txt": "cat\n\ndog\n", "a.jpg": IMAGE, "a.txt": BOX},
        r"classes\.txt:2: empty line: tools do not agree",
    ),
    "class names that differ": (
        {"train/classes.txt": "dog", "valid/classes.txt": "cat", "train/a.jpg": IMAGE, "train/a.txt": BOX},
        r"valid/classes\.txt: class names differ",
    ),
    "two images for an XML file": (
        {"Annotations/a.xml": XML, "JPEGImages/a.jpg": IMAGE, "JPEGImages/a.png": IMAGE},
        r"more than one image: may be of a\.jpg and a\.png",
    ),
    "a list that is not there": (
        {"obj.data": "train = gone.txt", "obj.names": "dog", "a.jpg": IMAGE, "a.txt": BOX},
        r"missing list: train: no such file: gone\.txt",
    ),
    "a name that is too long": (
        {"data.yaml": "train: l.txt\nnames: [dog]", "l.txt": f"a.jpg\n{'x' * 5000}.jpg", "a.jpg": IMAGE, "a.txt": BOX},
        r"l\.txt:2: missing image",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_faults_of_a_folder(tmp_path: Path, what: str) -> None:
    files, text = FAULTS[what]
    told = [str(fault) for fault in open_data(build(tmp_path, files)).faults]
    assert len(told) == 1
    assert re.search(text, told[0])


REFUSED: dict[str, tuple[Files, str]] = {
    "a test split alone": ({"test/_annotations.coco.json": coco("a.jpg")}, "has a test split alone"),
    "two kinds": (
        {"annotations/instances_train.json": coco("a.jpg"), "images/a.jpg": IMAGE, "labels/a.txt": BOX},
        "holds COCO's JSON files and labels of another kind",
    ),
    "a key that is there twice": ({"data.yaml": "train: .\nnames: {0: cat, 0: dog}", "a.jpg": IMAGE}, "'0' is there"),
    "no shape of keypoints": ({"data.yaml": "train: .\nnames: [a]\nkpt_shape: 17x3", "a.jpg": IMAGE}, "kpt_shape is"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_a_way_out(tmp_path: Path, what: str) -> None:
    files, text = REFUSED[what]
    with pytest.raises(DataError, match=text):
        open_data(build(tmp_path, files))


def test_a_pipe_in_place_of_labels_is_not_waited_for(tmp_path: Path) -> None:
    build(tmp_path, {"images/a.jpg": IMAGE, "images/b.jpg": IMAGE, "labels/b.txt": BOX, "classes.txt": "dog"})
    os.mkfifo(tmp_path / "labels/a.txt")
    [fault] = open_data(tmp_path).faults
    assert fault.reason == "is no ordinary file"


def test_faults_are_told_all_at_once(tmp_path: Path) -> None:
    lines = BOX + "0 1.2 0.5 0.5 0.5\n7 0.5 0.5 0.1 0.1\nx 1 2 3 4\n"
    files: Files = {"classes.txt": "dog\n", "a.jpg": IMAGE, "a.txt": lines, "b.jpg": b"broken", "b.txt": BOX}
    build(tmp_path, files)
    opened = open_data(tmp_path)
    assert [fault.file.removeprefix(f"{tmp_path}/") for fault in opened.faults] == [
        "a.txt:2",
        "a.txt:3",
        "a.txt:4",
        "b.jpg",
    ]
    with pytest.raises(DataError, match=r"a\.txt:2: .* \(and 3 more faults\); list them all with 'slimdet check"):
        read_data_config(tmp_path)
    assert opened.config.train is not None  # the rest can still be looked at


def test_a_set_without_any_label_is_none(tmp_path: Path) -> None:
    build(tmp_path, {"data.yaml": "train: images\nnames: [dog]\n", "images/a.jpg": IMAGE, "images/b.jpg": IMAGE})
    with pytest.raises(DataError, match="none of 2 images has a label file"):
        read_data_config(tmp_path)


def test_voc_of_a_tool_that_does_not_turn_images(tmp_path: Path, stored: Callable[[Path, int], None]) -> None:
    """The photograph is stored lying, 100x50, and is upright 50x100; so is the box."""
    build(tmp_path, {"Annotations/a.xml": XML, "JPEGImages/skip": b""})
    stored(tmp_path / "JPEGImages" / "a.jpg", 6)
    assert read(tmp_path) == {"train": [("a.jpg", "dog", [15, 40, 20, 20])]}
    assert "turned too" in open_data(tmp_path).notes[0]


@pytest.fixture
def stored() -> Callable[[Path, int], None]:
    def write(path: Path, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", IMAGE).save(path, exif=exif)

    return write


def test_two_files_for_a_split_are_named(tmp_path: Path) -> None:
    build(tmp_path, {"a.json": coco("a.jpg"), "b.json": coco("a.jpg"), "a.jpg": IMAGE})
    with pytest.raises(DataError, match=r"a\.json and .*b\.json may both be its train; write a DATA\.yaml"):
        read_data_config(tmp_path)
