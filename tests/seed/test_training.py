"""Training a small detector: what freezes, what moves, what resumes, and the original's own losses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimdet.errors import ConfigError, WeightsError
from slimdet.seed import checkpoint
from slimdet.seed.config import Config, read_config
from slimdet.seed.detector import WIDTHS
from slimdet.seed.freezing import freeze
from slimdet.seed.losses import losses
from slimdet.seed.testing import load_model, read_split
from slimdet.seed.train_command import train
from slimdet.seed.train_data import collate, load, objects_of
from slimdet.seed.training import Trainer

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
    assert values["loss_mask"] == values["loss_reg"] == values["loss_rpn_reg"] == 0
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


@pytest.mark.parametrize("kind", ["mask", "rpn"])
def test_losses_are_the_originals(seed: Path, synthetic: Any, kind: str) -> None:
    """The narrowest width of the reference's step; benchmarks/parity/train_step.py writes all and the gradients."""
    name = {"mask": "mask_rcnn", "rpn": "rpn"}[kind]
    settings = read_config(Path(__file__).parents[2] / "configs" / f"{name}_r50_fpn_1x.py")
    reference = seed / "reference"
    dataset = Config({**settings.data.train, "ann_file": str(reference / "tiny_coco.json")})
    dataset |= {"img_prefix": str(reference / "images")}
    settings.data["train"] = Config(dataset)
    for part in filter(None, settings.train_cfg.values()):
        part.sampler["num"] = 10**7
    pictures = read_split(settings, "train")
    objects = objects_of(pictures)
    items = [load(pictures, i, objects[pictures.image_ids[i]], settings.data.train, (512, 320), False) for i in (0, 1)]
    model = load_model(settings, synthetic(kind))
    with torch.no_grad():
        found = losses(model.twin(0.25), *collate(items), settings.train_cfg)  # pyright: ignore[reportArgumentType]
    wanted = json.loads((reference / f"train_{kind}_all.json").read_text())["losses"]["0.25"]
    for key, value in found.items():
        assert value.item() == pytest.approx(wanted[key], rel=1e-4), key
