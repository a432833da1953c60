"""What the recipes decide, by what they go by; what was asked for stays as it was asked for."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from torchvision.models.detection import fcos_resnet50_fpn

import slimdet
from scenes_detector import small_settings
from slimdet.bundle import manifest
from slimdet.data.coco import CocoDataset
from slimdet.errors import ConfigError
from slimdet.training import recipes
from slimdet.training.own import Own
from slimdet.training.recipes import BUILT, DECIDES, RECIPES, Task, as_flags, by_recipe, task_of
from slimdet.training.runs import resume
from slimdet.training.settings import TrainSettings

SMALL, LARGE = Task(images=300), Task(images=100_000, gpu=True, memory_gb=80)


def test_the_papers_recipe_is_the_settings_as_they_are() -> None:
    assert by_recipe("paper", SMALL, {"epochs": 3.0, "lr": None}) == TrainSettings(epochs=3.0)
    assert by_recipe("paper", LARGE, {}) == TrainSettings()


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_asked_for_is_not_decided(name: Any) -> None:
    asked: dict[str, Any] = {
        "backbone": "resnet18",
        "neck": "full",
        "imgsz": 96,
        "head_norm": "group",
        "sort": False,
        "width_sampling": "all",
        "distill": 0.5,
        "distill_parts": ("rpn",),
        "gradient_reduction": "mean",
        "widest_only": 0.1,
        "batch": 3,
        "optimizer": "sgd",
        "lr": 0.5,
        "weight_decay": 0.1,
        "warmup": 7,
        "schedule": "step",
        "ema": 0.5,
        "epochs": 2.0,
        "augment": "none",
    }
    assert asked.keys() == set(DECIDES)
    for task in (SMALL, replace(LARGE, masks=True, distil=False)):
        assert by_recipe(name, task, asked) == TrainSettings(recipe=name, **asked)
        assert by_recipe(name, task, dict.fromkeys(DECIDES)) == by_recipe(name, task, {})


def test_a_cpu_gets_a_detector_that_it_can_train(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "slimdet")
    small, large = by_recipe("default", SMALL, {}), by_recipe("default", LARGE, {})
    assert (small.backbone, small.neck, small.imgsz) == ("mobilenet_v2", "light", None)
    assert (large.backbone, large.neck) == ("resnet50", "full")
    assert caplog.text.count("no --backbone was given: mobilenet_v2") == 1
    assert by_recipe("default", SMALL, {"backbone": "resnet18"}).neck == "light"
    assert caplog.text.count("no --backbone was given") == 1


def test_the_length_follows_the_number_of_images() -> None:
    def images_seen(images: int) -> float:
        return images * by_recipe("default", Task(images), {}).epochs

    assert images_seen(300) == images_seen(100) == RECIPES["default"].images[False]
    assert by_recipe("default", Task(3), {}).epochs == recipes.MOST_EPOCHS
    assert by_recipe("default", Task(50_000), {}).epochs == RECIPES["default"].epochs[False]
    assert by_recipe("fast", SMALL, {}).epochs < by_recipe("default", SMALL, {}).epochs


def test_what_follows_the_number_of_steps() -> None:
    short = by_recipe("default", SMALL, {"epochs": 2.0})  # 76 steps
    assert (short.warmup, short.widest_only, short.ema, short.optimizer) == (15, 0.0, 0.8684, "adamw")
    long = by_recipe("default", SMALL, {"epochs": 200.0})  # 7600
    assert (long.warmup, long.widest_only, long.ema, long.optimizer) == (500, recipes.LATE, 0.9987, "sgd")
    assert by_recipe("default", replace(LARGE, images=300), {}).optimizer == "sgd"
    assert by_recipe("default", Task(1), {"epochs": 0.0}).ema == 0.0


def test_the_batch_and_its_rate(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "slimdet")
    for optimizer, growth in (("sgd", 2), ("adamw", 2**0.5)):
        one, two = (by_recipe("default", SMALL, {"optimizer": optimizer, "batch": batch}) for batch in (8, 16))
        assert two.peak_lr == pytest.approx(growth * one.peak_lr, rel=1e-2)
    assert by_recipe("default", SMALL, {"lr": 0.001}).peak_lr == 0.001
    assert by_recipe("default", SMALL, {"lr": 0.02, "optimizer": "sgd"}).peak_lr == 0.02
    assert not caplog.text
    assert by_recipe("default", SMALL, {"lr": 0.02}).optimizer == "adamw"
    assert "--lr 0.02 is a rate for SGD, and this recipe takes AdamW; add --optimizer sgd" in caplog.text
    assert by_recipe("default", replace(SMALL, processes=3), {}).batch == 9
    batches = [by_recipe("default", replace(LARGE, memory_gb=gb), {}).batch for gb in (1, 8, 24, 80)]
    assert batches == [1, 2, 8, 16]


def test_a_detector_that_is_there_keeps_its_parts() -> None:
    decided = by_recipe("fast", replace(SMALL, ready=True), {})
    assert {name: getattr(decided, name) for name in BUILT} == {name: getattr(TrainSettings(), name) for name in BUILT}
    assert by_recipe("default", replace(SMALL, distil=False), {}).distill == 0
    assert "masks" in by_recipe("default", replace(SMALL, masks=True), {}).distill_parts


def test_the_task_of_a_training(scenes: Path, trained: Path) -> None:
    data = CocoDataset(scenes.parent / "annotations.json", scenes.parent / "images")
    asked = small_settings(scenes)
    assert task_of(asked, Own(), data, 2) == Task(images=6, processes=2)
    assert task_of(replace(asked, weights=str(trained / "model"), model="mask_rcnn"), Own(), data).ready
    fcos = task_of(asked, Own(detector=fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)), data)
    assert (fcos.ready, fcos.distil) == (True, False)


def test_values_as_flags() -> None:
    flags = as_flags(TrainSettings(imgsz=(64, 96), sort=True, ema=0.99))
    assert {"--sort", "--ema 0.99", "--imgsz 64-96", "--distill-parts features,classes", "--epochs 12"} <= set(flags)
    assert not any(flag.startswith("--lr") for flag in flags)  # not decided
    assert "--no-sort" in as_flags(TrainSettings())
    assert not any(
        flag.startswith(("--backbone", "--sort", "--no-sort")) for flag in as_flags(TrainSettings(), ready=True)
    )


def test_a_run_stores_what_is_trained(scenes: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "data": scenes,
        "weights": "none",
        "widths": (0.5, 1.0),
        "imgsz": 64,
        "batch": 6,
        "nms": "all",
    }
    run = slimdet.train(recipe="fast", out=tmp_path / "run", epochs=1, evaluate=False, device="cpu", **asked).run
    stored = json.loads((run / "settings.json").read_text())
    assert {
        name: stored[name] for name in ("recipe", "backbone", "neck", "imgsz", "batch", "epochs", "optimizer", "lr")
    } == {
        "recipe": "fast",
        "backbone": "mobilenet_v2",
        "neck": "light",
        "imgsz": 64,
        "batch": 6,
        "epochs": 1,
        "optimizer": "adamw",
        "lr": TrainSettings(optimizer="adamw", batch=6).peak_lr,
    }
    assert manifest.read(run / "model").architecture["nms"] == "all"
    with pytest.raises(ConfigError, match=r"--resume .*: leave out --recipe, --lr"):
        resume(run, recipe="paper", lr=1.0)
    assert resume(run, epochs=2).steps == 2
    assert json.loads((run / "settings.json").read_text()) == stored | {"epochs": 2}


def test_whole_settings_have_no_recipe(scenes: Path) -> None:
    with pytest.raises(ConfigError, match="recipe fast: it decides what is not given, and settings are given whole"):
        slimdet.train(small_settings(scenes), recipe="fast")


def test_settings_are_json(scenes: Path) -> None:
    decided = by_recipe("default", SMALL, {"data": str(scenes)})
    restored = TrainSettings(**json.loads(json.dumps(asdict(decided))))
    assert replace(restored, widths=decided.widths) == decided


def test_a_recipes_settings_are_fields_with_values_that_can_be() -> None:
    for recipe in RECIPES.values():
        assert set(recipe.settings) <= set(DECIDES)
        assert TrainSettings(**recipe.settings) is not None
