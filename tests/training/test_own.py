"""Data sets and detectors of one's own, trained from Python."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from torchvision.models import detection

import slimdet
from scenes_detector import small_settings
from slimdet.bundle import card
from slimdet.data.coco import CocoDataset
from slimdet.data.own import OwnDataset
from slimdet.errors import BundleError, ConfigError
from slimdet.models.builders import faster_rcnn
from slimdet.training.own import Own, own_model
from slimdet.training.watching.callbacks import Callback


class Plain(Dataset[Any]):
    """The made-up scenes as somebody else would hand them over."""

    def __init__(self, scenes: Path) -> None:
        self.scenes = CocoDataset(scenes.parent / "annotations.json", scenes.parent / "images")

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Any:
        image, target = self.scenes[index]
        return image, {"boxes": target["boxes"], "labels": target["labels"]}


class Heard(Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.calls: list[str] = []

    def on_start(self, state: Any) -> None:
        self.calls.append("start")

    def on_step(self, state: Any, report: Any) -> None:
        self.steps.append(state.step)

    def on_epoch(self, state: Any) -> None:
        self.calls.append(f"epoch {state.step}")

    def on_validation(self, state: Any, found: Any) -> None:
        self.calls.append(f"validation of {sorted(found)}")

    def on_checkpoint(self, state: Any, file: Path) -> None:
        self.calls.append(f"checkpoint {file.name}")

    def on_end(self, state: Any, model: Path) -> None:
        self.calls.append(f"end {model.name}")


def test_data_and_detector_of_ones_own_and_a_callback(scenes: Path, tmp_path: Path) -> None:
    data = OwnDataset(Plain(scenes), ["red", "green"])
    detector = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=96
    )
    settings = small_settings(Path(), imgsz=None, epochs=2, val_every=2, evaluate=True)
    heard = Heard()
    run = slimdet.train(settings, own=Own(data, data, detector), out=tmp_path / "run", callbacks=[heard])
    assert heard.steps == [1, 2, 3, 4, 5, 6]
    validated = "validation of [1.0]"
    saved = "checkpoint last.pt"  # before the first step and after the last
    assert heard.calls == ["start", saved, "epoch 3", validated, "epoch 6", saved, "end model"]
    assert set(run.widths) == {"0.5", "1.0"}
    assert card.read(run.model).classes == ("red", "green")
    assert type(slimdet.load(run.model).twin(1.0)) is type(detector)
    assert (run.run / "best" / "model.json").is_file()


def test_what_cannot_be_trained_is_told_at_once() -> None:
    settings = small_settings(Path())
    with pytest.raises(ConfigError, match=r"for 3 classes, with the background; the data has 5: .* num_classes=6"):
        own_model(settings, faster_rcnn(3, "resnet18", "light", weights=None), 5)
    with pytest.raises(BundleError, match="none of torchvision's"):
        own_model(settings, torch.nn.Linear(3, 3), 2)
