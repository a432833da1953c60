"""The table of kinds: each row is found by detector and by description; what a row refuses is refused by name."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import detection

import slimdet
from ready_made import GROUPED, ready_made
from slimdet import Slimmable, slim
from slimdet.bundle.card import Card
from slimdet.errors import ConfigError, UnknownLayerError
from slimdet.evaluation.inference import to_coco
from slimdet.evaluation.matching import evaluate
from slimdet.exporting.engine_files import export
from slimdet.models import builders, kinds
from slimdet.models.kinds import KINDS, ORIGINAL, TORCHVISION, kind_of, require, without_background
from slimdet.models.sorting import sort_detector
from slimdet.report.validation import val
from slimdet.training.distillation import watch
from slimdet.training.settings import TrainSettings
from slimdet.training.start import starting_model

BUILDERS = {
    "fasterrcnn_resnet50_fpn": "Faster R-CNN",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "Faster R-CNN",
    "maskrcnn_resnet50_fpn_v2": "Mask R-CNN",
    "keypointrcnn_resnet50_fpn": "Keypoint R-CNN",
    "retinanet_resnet50_fpn": "RetinaNet",
    "retinanet_resnet50_fpn_v2": "RetinaNet",
    "fcos_resnet50_fpn": "FCOS",
    "ssdlite320_mobilenet_v3_large": "SSDLite",
    "ssd300_vgg16": "SSD",
}


@pytest.mark.parametrize("builder", BUILDERS)
def test_torchvisions_detectors_by_class_and_by_description(builder: str) -> None:
    with torch.device("meta"):
        detector = getattr(detection, builder)(weights=None, weights_backbone=None)
    assert kind_of(detector).name == BUILDERS[builder]
    assert kind_of({"builder": f"torchvision.{builder}", "num_classes": 3}) is kind_of(detector)


def test_our_builders_detectors() -> None:
    detector = builders.mask_rcnn(3, "mobilenet_v2", "light", weights=None)
    assert kind_of(detector) is TORCHVISION["maskrcnn"] is kind_of(detector.architecture)
    assert kind_of({"builder": "faster_rcnn"}) is TORCHVISION["fasterrcnn"]


def test_the_originals_detectors() -> None:
    for model in ({}, {"mask_head": None}, None):
        assert kind_of({"builder": "original", "model": model}) is ORIGINAL["FasterRCNN"]
    assert kind_of({"builder": "original", "model": {"mask_head": {"num_convs": 4}}}) is ORIGINAL["MaskRCNN"]


def test_a_subclass_is_of_its_parents_kind_and_a_namesake_is_not() -> None:
    assert kind_of(object.__new__(type("Mine", (detection.KeypointRCNN,), {}))).name == "Keypoint R-CNN"
    assert kind_of(object.__new__(type("FasterRCNN", (nn.Module,), {}))).export is False


def test_what_is_in_no_row_can_be_slimmed_alone() -> None:
    for thing, name in ((nn.Linear(2, 2), "Linear"), ({"builder": "yolo"}, "yolo")):
        kind = kind_of(thing)
        assert kind.name == name
        assert [task for task in kinds.TASKS if getattr(kind, task)] == ["slim"]


@pytest.mark.parametrize("task", kinds.TASKS)
@pytest.mark.parametrize("word", TORCHVISION)
def test_require(word: str, task: str) -> None:
    description: dict[str, Any] = {"builder": f"torchvision.{word}_x"}
    if getattr(TORCHVISION[word], task):
        assert require(description, task) is TORCHVISION[word]
        return
    with pytest.raises(ConfigError) as caught:
        require(description, task)
    refused, able = str(caught.value).split("; those that can: ")
    assert refused == f"{TORCHVISION[word].name} cannot be {kinds.TASKS[task]}"
    assert able == ", ".join(kind.name for kind in KINDS if getattr(kind, task))


# ------------------------------------------------------------------------------------------ the cells, tried


# The R-CNNs for boxes and masks are tried wherever slimdet is.
TRIED = ("keypointrcnn_resnet50", "retinanet_resnet50", "fcos_resnet50", "ssdlite_mobilenet_v3")


@dataclass
class Saved:
    """A slimmed detector with random weights as a bundle, and a data set of what it finds best in an image."""

    model: Slimmable
    bundle: Path
    data: Path
    pixels: np.ndarray
    found: dict[str, Any]  # at width 1.0, by the model itself
    coco: dict[str, Any]


@pytest.fixture(scope="module", params=TRIED)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("kind")
    made = ready_made(request.param)
    model = slim(made, (0.5, 1.0), "backbone" if request.param in GROUPED else "detector").eval()
    names = [f"class {label}" for label in range(1, 2 if "keypoint" in request.param else 5)]
    slimdet.save(model, folder / "model", Card(tuple(names)))
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "1.png")
    with torch.no_grad():
        found = without_background(model([torch.from_numpy(pixels).permute(2, 0, 1) / 255], width=1.0)[0])
    found = {key: found[key] for key in ("boxes", "labels", "scores")}
    best = {key: value[:20] for key, value in found.items()}
    truth = [item | {"id": number} for number, item in enumerate(to_coco(best, 1, range(1, len(names) + 1)), 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    images = [{"id": 1, "file_name": "1.png", "width": 120, "height": 90}]
    coco = {"images": images, "annotations": truth, "categories": categories}
    (folder / "coco.json").write_text(json.dumps(coco))
    split = "{images: ., annotations: coco.json}"
    (folder / "data.yaml").write_text(f"train: {split}\nval: {split}\n")
    return Saved(model, folder / "model", folder / "data.yaml", pixels, found, coco)


def tried(saved: Saved, task: str) -> Any:
    """The result of what the table says is done, or None where it was refused with the table's words."""
    model, bundle = saved.model, str(saved.bundle)
    work: dict[str, Callable[[], Any]] = {
        "run": lambda: slimdet.Runtime(bundle, engine="torch", conf=0.0)(saved.pixels),
        "validate": lambda: val(bundle, saved.data, out=saved.bundle.parent / "val"),
        "export": lambda: export(bundle, width=0.5),
        "distil": lambda: watch(model.twin(1.0)).__enter__(),
        "sort": lambda: sort_detector(model.extract(1.0), [torch.rand(3, 90, 120)]),
        "train": lambda: starting_model(TrainSettings(weights=bundle, widths=(0.5, 1.0)), ["a"]),
    }
    kind = kind_of(model.twin(1.0))
    if getattr(kind, task):
        return work[task]()
    with pytest.raises(ConfigError, match=re.escape(f"{kind.name} cannot be {kinds.TASKS[task]}; those that can: ")):
        work[task]()
    return None


def test_what_runs_finds_what_the_detector_finds(saved: Saved) -> None:
    if (result := tried(saved, "run")) is not None:
        np.testing.assert_allclose(result.boxes, saved.found["boxes"], atol=1e-3)
        np.testing.assert_allclose(result.scores, saved.found["scores"], atol=1e-6)
        assert result.labels.tolist() == saved.found["labels"].tolist()
        assert len(set(result.labels.tolist())) > 1


def test_validation_finds_all_that_the_detector_finds(saved: Saved) -> None:
    if (result := tried(saved, "validate")) is not None:
        ids = range(1, len(saved.coco["categories"]) + 1)
        expected = evaluate(saved.coco, to_coco(saved.found, 1, ids))["bbox"]
        assert result.widths["1.0"]["bbox"] == pytest.approx(expected, abs=1e-9)
        assert expected["AP"] > 0


@pytest.mark.parametrize("task", ["export", "distil", "sort", "train"])
def test_the_other_cells(saved: Saved, task: str) -> None:
    assert (tried(saved, task) is None) == (not getattr(kind_of(saved.model.twin(1.0)), task))


def test_ssd_cannot_be_slimmed() -> None:
    assert not TORCHVISION["ssd"].slim
    with torch.device("meta"):
        ssd = detection.ssd300_vgg16(weights=None, weights_backbone=None)
    with pytest.raises(UnknownLayerError, match="SSDFeatureExtractorVGG with scale_weight"):
        slim(ssd, (0.5, 1.0))


def test_the_table_in_the_docs_is_this_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "detectors.md").read_text(encoding="utf-8")
    for kind in KINDS:
        cells = [getattr(kind, column) for column in ("masks", "keypoints", *kinds.TASKS)]
        assert " | ".join([f"| {kind.name}", *("yes" if cell else "-" for cell in cells)]) + " |" in text.splitlines()
