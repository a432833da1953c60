"""A bundle measured as it runs: one path for all engines, the numbers those of the model in memory."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import slimdet
from scenes import make_scenes
from scenes_detector import tiny_model
from slimdet.assets import VAL
from slimdet.bundle.card import Card
from slimdet.bundle.ladder import Point
from slimdet.data.coco import CocoDataset
from slimdet.errors import BundleError, DataError, ImageError
from slimdet.evaluation.points import check_points, detect_points, measure_points, part_of
from slimdet.evaluation.validation import measure
from slimdet.runtime import preprocessing


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data.yaml, annotations.json and images/."""
    return make_scenes(tmp_path_factory.mktemp("scenes"), images=4).parent


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    card = Card(("red", "green"), (10, 20))
    return slimdet.save(tiny_model(masks=True), tmp_path_factory.mktemp("models") / "masks", card)


@pytest.fixture(scope="module")
def assets() -> CocoDataset:
    """The sixteen pictures that the package has for its bundled model."""
    return CocoDataset(VAL / "instances_val.json", VAL / "images")


def test_torch_gives_what_the_model_in_memory_gives(bundle: Path, data: Path) -> None:
    dataset = CocoDataset(data / "annotations.json", data / "images", masks=True)
    runtime = slimdet.Runtime(bundle, engine="torch")
    told: list[tuple[Point, int, int]] = []
    points = [Point(0.5), Point(1.0)]
    found = list(measure_points(runtime, dataset, points, progress=lambda *how_far: told.append(how_far)))
    expected = list(measure(slimdet.load(bundle), dataset, (0.5, 1.0), "cpu", runtime.classes))
    assert told == [(point, done, 4) for done in (1, 2, 3, 4) for point in points]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.point == theirs.point
        assert len(ours.detections) == len(theirs.detections) > 0
        # A runtime resizes bytes, the model in memory floats.
        assert ours.numbers["bbox"] == pytest.approx(theirs.numbers["bbox"], abs=1e-3)
        assert ours.numbers["segm"] == pytest.approx(theirs.numbers["segm"], abs=1e-3)


def test_size_and_proposals_are_those_of_the_point(bundle: Path, data: Path) -> None:
    dataset = CocoDataset(data / "annotations.json", data / "images")
    runtime = slimdet.Runtime(bundle, engine="torch")
    small, few = Point(1.0, imgsz=32), Point(1.0, proposals=1)
    found = detect_points(runtime, dataset, [Point(), small, few], [0, 1])
    for point in (small, few):
        by_hand = [runtime(dataset.file(place), point=point, conf=runtime.engine.own_conf) for place in (0, 1)]
        assert [one["score"] for one in found[point]] == [score for one in by_hand for score in one.scores.tolist()]
        assert [one["score"] for one in found[point]] != [one["score"] for one in found[Point()]]
    assert "segmentation" not in found[Point()][0]  # the data set was read without masks


def test_an_exported_engine_gives_what_torch_gives(assets: CocoDataset) -> None:
    point = Point(0.25)
    numbers = {}
    for engine in ("onnxruntime", "torch"):
        runtime = slimdet.Runtime("bundled", engine=engine)
        assert runtime.engine.own_conf == 0.05
        [found] = measure_points(runtime, assets, [point])
        assert min(one["score"] for one in found.detections) >= 0.05
        numbers[engine] = found.numbers["bbox"]
    # Neighbouring proposals with equal scores suppress one another in another order: one detection of 323 differs.
    assert numbers["onnxruntime"]["AP"] == pytest.approx(numbers["torch"]["AP"], abs=2e-3)
    assert numbers["torch"]["AP"] > 0.1


def test_the_very_files_are_what_is_measured(exported: Path, assets: CocoDataset) -> None:
    shutil.copy(exported / "width-0.5.onnx", exported / "width-0.25.onnx")
    runtime = slimdet.Runtime(exported, engine="onnxruntime")
    with pytest.raises(BundleError, match="not the file that"):
        next(measure_points(runtime, assets, [Point(0.25)]))


def test_an_image_is_decoded_once_for_all_points_of_a_size(
    bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = CocoDataset(data / "annotations.json", data / "images")
    decoded, read = Counter[Path](), preprocessing.read

    def counted(path: Path, *options: Any) -> Any:
        decoded[path] += 1
        return read(path, *options)

    monkeypatch.setattr(preprocessing, "read", counted)
    detect_points(slimdet.Runtime(bundle, engine="torch"), dataset, [Point(0.5), Point(), Point(imgsz=32)], [3, 1])
    assert decoded == {dataset.file(3): 2, dataset.file(1): 2}


def test_other_processes_read_the_same(bundle: Path, data: Path) -> None:
    dataset = CocoDataset(data / "annotations.json", data / "images")
    runtime = slimdet.Runtime(bundle, engine="torch")
    here, there = (detect_points(runtime, dataset, [Point(0.5)], range(4), workers) for workers in (0, 1))
    assert list(here[Point(0.5)]) == list(there[Point(0.5)])


def test_what_does_not_fit_is_told_before(bundle: Path, tmp_path: Path) -> None:
    folder = make_scenes(tmp_path / "one", images=2, classes=1).parent
    runtime = slimdet.Runtime(bundle, engine="torch")
    annotations = folder / "annotations.json"
    annotations.write_text(annotations.read_text().replace('"red"', '"blue"'))
    with pytest.raises(DataError, match="only the model has red, green; only the data set has blue"):
        check_points(runtime, CocoDataset(folder / "annotations.json", folder / "images"), [Point()])
    folder = make_scenes(tmp_path / "two").parent
    dataset = CocoDataset(folder / "annotations.json", folder / "images")
    dataset.coco["images"].sizes[2] = (1, 600)
    with pytest.raises(ImageError, match=r"3\.png: 600x1 pixels"):
        check_points(runtime, dataset, [Point()])
    with pytest.raises(DataError, match=r"3\.png: 96x72 pixels, but the annotations say 600x1"):
        detect_points(runtime, dataset, [Point()], [2])


def test_a_part_has_the_images_asked_for_and_their_objects(data: Path) -> None:
    dataset = CocoDataset(data / "annotations.json", data / "images")
    part = part_of(dataset, [3, 1])
    assert [image["id"] for image in part["images"]] == [4, 2]
    kept = [one["id"] for one in dataset.coco["annotations"] if one["image_id"] in (2, 4)]
    assert [one["id"] for one in part["annotations"]] == kept
