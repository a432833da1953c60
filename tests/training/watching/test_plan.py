"""The block before the first step."""

from pathlib import Path
from typing import Any

import torch

from scenes_detector import small_settings, tiny_model
from slimdet.data.coco import CocoDataset
from slimdet.training.watching import plan as planning
from slimdet.training.watching.plan import plan
from watching import state_of


def state(scenes: Path, **changes: Any) -> Any:
    data = CocoDataset(scenes.parent / "annotations.json", scenes.parent / "images")
    settings = small_settings(scenes, **changes)
    return state_of(Path(), settings=settings, model=tiny_model(), dataset=data, device=torch.device("cpu"))


def test_the_block(scenes: Path) -> None:
    found = plan(state(scenes, epochs=7))
    lines = dict(line.split(maxsplit=1) for line in str(found).splitlines())
    assert lines["data"] == "6 images to train on, none to validate on (2 without objects)"
    assert lines["objects"] == "6; at the size of training 83% small (below 32 x 32 pixels), 17% medium, 0% large"
    assert lines["classes"] == "2: red, green"
    assert lines["model"].startswith("faster_rcnn, resnet18, light neck, ")
    assert lines["widths"] == "0.5, 1.0"
    assert lines["images"] == "resized to 64 pixels (shorter side; longer side at most 88)"
    assert lines["steps"] == "20 of 2 images, 7 epochs"
    assert lines["recipe"].startswith("paper: --backbone mobilenet_v2 --neck light --imgsz 64 --head-norm batch ")
    assert lines["model"].endswith(" at width 1.0; from random weights")
    assert all(sum(flag in line for line in str(found).splitlines()) == 1 for flag in found.recipe)  # none is broken
    assert lines["device"].startswith("cpu, 1 threads; bfloat16: no; ")


def test_a_range_of_sizes(scenes: Path) -> None:
    assert "resized to 32 to 64 pixels" in str(plan(state(scenes, imgsz=(32, 64))))


def test_bfloat16_is_explained(scenes: Path, monkeypatch: Any) -> None:
    said = {}
    for able in (True, False):
        monkeypatch.setattr(planning, "bfloat16_units", lambda _, able=able: able)
        said[able] = [plan(state(scenes, bf16=wanted)).bf16 for wanted in (True, False)]
    assert said[True] == ["yes", "no; --bf16 makes it faster here"]
    assert said[False][0].endswith("slower with it")
    assert said[False][1] == "no; this device has no instructions for it"
