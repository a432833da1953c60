"""Training a small detector: what freezes, what moves, what resumes, and the original's own losses."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimdet.errors import ConfigError, WeightsError
from slimdet.original.commands import run_test
from slimdet.original.configs.config import Config, read_config
from slimdet.original.data.train_data import collate, load, objects_of
from slimdet.original.detector import checkpoint
from slimdet.original.detector.detector import WIDTHS
from slimdet.original.testing.run import load_model, read_split
from slimdet.original.training.command import train
from slimdet.original.training.freezing import freeze
from slimdet.original.training.losses import losses
from slimdet.original.training.trainer import Trainer

Small = Callable[[str], tuple[Path, Path]]


@pytest.fixture
def config(small: Small, tmp_path: Path) -> Path:
    text = small("mask")[0].read_text().replace("pretrained='modelzoo://resnet50'", "pretrained=None")
    text = text.replace("total_epochs = 12", "total_epochs = 2").replace("imgs_per_gpu=2", "imgs_per_gpu=1")
    path = tmp_path / "train.py"
    path.write_text(text)
    return path


def weights_of(folder: Path, name: str = "latest.pth") -> dict[str, torch.Tensor]:
    return checkpoint.read(folder / name)["state_dict"]


def test_training_saves_resumes_and_measures_every_width(config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(str(config), work_dir=str(whole), validate=True)
    assert sorted(p.name for p in whole.iterdir() if p.suffix == ".pth") == ["epoch_1.pth", "epoch_2.pth", "latest.pth"]
    log = next(whole.glob("*.log.json")).read_text().splitlines()
    measured = [json.loads(line) for line in log if json.loads(line)["mode"] == "val"]
    assert [entry["width"] for entry in measured] == [*WIDTHS, *WIDTHS]
    assert all({"bbox_mAP", "segm_mAP"} <= entry.keys() for entry in measured)
    # Interrupted after an epoch and taken up again, it ends where the other did.
    short = config.with_name("short.py")
    short.write_text(config.read_text().replace("total_epochs = 2", "total_epochs = 1"))
    train(str(short), work_dir=str(parts))
    train(str(config), work_dir=str(parts))
    first, second = weights_of(whole), weights_of(parts)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    # Frozen parts did not move, the others did.
    start = checkpoint.state_of(Trainer(read_config(config), tmp_path).model)
    moved = {name for name, value in first.items() if not torch.equal(value, start[name])}
    assert "backbone.layer2.0.conv1.weight" in moved
    assert "mask_head.conv_logits.weight" in moved
    assert not {name for name in moved if name.startswith(("backbone.conv1", "backbone.layer1")) or ".bn." in name}


def test_two_shares_in_one_process_average_their_gradients(config: Path, tmp_path: Path) -> None:
    settings = read_config(config)
    both = Trainer(settings, tmp_path, shares=(0, 1), world=2)
    both.optimizer.step = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
    settings["optimizer_config"] = None
    both.step(both.prepare(0, 0, [[0], [1]]))
    single = []
    for share in (0, 1):
        one = Trainer(settings, tmp_path, shares=[share], world=2)
        one.gradients(one.prepare(0, 0, [[0], [1]])[0])
        single.append([p.grad for p in one.parameters])
    for mine, first, second in zip(both.parameters, *single, strict=True):
        wanted = sum(grad for grad in (first, second) if grad is not None) / 2
        assert torch.allclose(mine.grad, torch.as_tensor(wanted).expand_as(mine.grad), atol=1e-6)


def test_images_without_objects_and_crowds_before_objects(small: Small, tmp_path: Path) -> None:
    path, weights = small("mask")
    settings = read_config(path)
    coco = json.loads(Path(settings.data.train.ann_file).read_text())
    crowd = {**coco["annotations"][0], "iscrowd": 1, "id": 99, "bbox": [40.0, 40, 8, 8]}
    for name, annotations in (("crowd", [crowd, *coco["annotations"]]), ("empty", [{**crowd, "image_id": 10}])):
        (tmp_path / f"{name}.json").write_text(json.dumps({**coco, "annotations": annotations}))
    plain = settings.data.train
    model = load_model(settings, weights)
    freeze(model, settings.model.backbone)

    def total(dataset: Config, images: list[int]) -> tuple[Any, dict[str, torch.Tensor]]:
        settings.data["train"] = dataset
        pictures = read_split(settings, "train")
        objects = objects_of(pictures)
        items = [load(pictures, i, objects[pictures.image_ids[i]], dataset, (96, 64), False) for i in images]
        batch, targets = collate(items)
        everything = {"rpn": settings.train_cfg.rpn, "rcnn": settings.train_cfg.rcnn}
        for part in everything.values():
            part.sampler["num"] = 10**6
        return targets, losses(model.twin(0.5), batch, targets, settings.train_cfg)  # pyright: ignore

    targets, values = total(Config({**plain, "ann_file": str(tmp_path / "crowd.json")}), [0])
    expected_targets, expected = total(plain, [0])
    assert np.array_equal(targets[0].masks, expected_targets[0].masks)
    assert len(targets[0].ignored) == 1
    assert values["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-6)
    targets, values = total(Config({**plain, "ann_file": str(tmp_path / "empty.json")}), [0, 1])
    assert [len(target.boxes) for target in targets] == [0, 0]
    assert values["loss"].isfinite()
    assert values["loss_mask"] == values["loss_reg"] == values["loss_rpn_reg"].sum() == 0
    values["loss"].backward()


def test_mistakes(small: Small, config: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="S-ResNet-50"):
        train(str(small("mask")[0]), work_dir=str(tmp_path / "a"))
    with pytest.raises(ConfigError, match="torchrun"):
        train(str(config), work_dir=str(tmp_path / "b"), launcher="pytorch")
    (tmp_path / "c").mkdir()
    torch.save(checkpoint.read(small("mask")[1])["state_dict"], tmp_path / "c" / "latest.pth")
    with pytest.raises(WeightsError, match="load_from"):
        train(str(config), work_dir=str(tmp_path / "c"))


@pytest.mark.parametrize(
    "kind", ["rpn", "fast_mask", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("faster", "fast"))]
)
def test_every_kind_learns_and_is_tested_afterwards(small: Small, tmp_path: Path, kind: str) -> None:
    text = small(kind)[0].read_text().replace("pretrained='modelzoo://resnet50'", "pretrained=None")
    settings = read_config(small(kind)[0])
    if "fast" in kind and kind != "faster":
        boxes = np.array([[5, 6, 24, 30], [10, 6, 29, 30], [15, 6, 34, 30], [0, 0, 49, 49]], np.float32)
        with_scores = np.column_stack([boxes, np.linspace(0.9, 0.1, 4)])
        proposals = [boxes, with_scores, np.zeros((0, 5), np.float32)]  # the last image has none
        (tmp_path / "proposals.pkl").write_bytes(pickle.dumps(proposals))
        text = text.replace(settings.data.train.proposal_file, str(tmp_path / "proposals.pkl"))
    for old, new in (
        ("total_epochs = 12", "total_epochs = 6"),
        ("warmup='linear'", "warmup=None"),
        ("interval=50", "interval=1"),
        ("dict(type='TextLoggerHook'),", "dict(type='TextLoggerHook'), dict(type='TensorboardLoggerHook'),"),
        ("lr=0.02", "lr=0.003"),
        ("flip_ratio=0.5", "flip_ratio=0"),
    ):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "train.py"
    path.write_text(text)
    train(str(path), work_dir=str(tmp_path / "run"))
    log = [json.loads(line) for line in next((tmp_path / "run").glob("*.log.json")).read_text().splitlines()]
    for width in map(str, WIDTHS):
        losses = [entry["widths"][width]["loss"] for entry in log]
        assert np.isfinite(losses).all()
        assert np.mean(losses[-2:]) < 0.99 * np.mean(losses[:2]), (width, losses)
    assert any((tmp_path / "run/tf_logs").iterdir())
    kinds = ["proposal"] if kind == "rpn" else ["bbox", "segm"] if kind == "fast_mask" else ["bbox"]
    measured = run_test(str(path), str(tmp_path / "run/latest.pth"), width_mult=["all"], eval=kinds)
    assert [*measured] == [*WIDTHS]
    assert all(len(numbers) == 12 for found in measured.values() for numbers in found.values())


def test_log_level_silences_people_not_programs(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config.write_text(config.read_text().replace("'INFO'", "'WARNING'").replace("total_epochs = 2", "total_epochs = 1"))
    train(str(config), work_dir=str(tmp_path / "run"))
    assert capsys.readouterr().err == ""
    assert [path.suffix for path in (tmp_path / "run").glob("*.log*")] == [".json"]
