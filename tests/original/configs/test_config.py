"""The five configs, and files of their grammar: read without executing, wrong ones answered with file and line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from slimdet.errors import ConfigError
from slimdet.original.configs.config import image_scales, read_config

from ..small import CONFIGS, config_text


def write(folder: Path, old: str, new: str, kind: str = "mask") -> Path:
    text = config_text(kind)
    assert old in text
    path = folder / "user.py"
    path.write_text(text.replace(old, new, 1))
    return path


def line_of(path: Path, part: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if part in line)


def test_five_configs_are_read_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {path.stem: read_config(path).model.type for path in sorted(CONFIGS.glob("*.py"))}
    assert kinds == {
        "fast_mask_rcnn_r50_fpn_1x": "FastRCNN",
        "fast_rcnn_r50_fpn_1x": "FastRCNN",
        "faster_rcnn_r50_fpn_1x": "FasterRCNN",
        "mask_rcnn_r50_fpn_1x": "MaskRCNN",
        "rpn_r50_fpn_1x": "RPN",
    }
    assert capsys.readouterr().out == ""


def test_fields_hold_what_the_file_computes() -> None:
    config = read_config(CONFIGS / "mask_rcnn_r50_fpn_1x.py")
    assert config.data.test.ann_file == "data/coco/annotations/instances_val2017.json"
    assert config.train_cfg.rpn.smoothl1_beta == 1 / 9
    assert config.lr_config.warmup_ratio == 1 / 3
    assert config.model.rpn_head.anchor_scales == (8,)
    assert config.data.test.num_max_proposals == 1000  # left out: the original's default


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("nms_pre=2000", "nms_per=2000", ["test_cfg.rpn.nms_per", "nms_pre"]),
        ("total_epochs = 12", "totl_epochs = 12", ["totl_epochs", "total_epochs"]),
        ("nms_pre=2000", "nms_pre='2000'", ["test_cfg.rpn.nms_pre", "whole number"]),
        ("nms_across_levels=False", "nms_across_levels=0", ["nms_across_levels", "True or False"]),
        ("num_outs=5", "num_outs=True", ["num_outs", "whole number"]),
        ("style='pytorch'", "style='pytroch'", ["style", "pytorch"]),
        ("type='MaskRCNN'", "type='MaskRCN'", ["MaskRCN", "MaskRCNN"]),
        ("target_stds=[1.0, 1.0, 1.0, 1.0]", "target_stds=[1.0, 1.0]", ["target_stds", "4"]),
        ("img_scale=(1333, 800)", "img_scale=(1333,)", ["img_scale"]),
        ("total_epochs = 12", "total_epochs = __import__('os').getpid()", ["code, not data"]),
        ("total_epochs = 12", "total_epochs = open('x')", ["code, not data"]),
        ("total_epochs = 12", "total_epochs = [i for i in (1, 2)]", ["code, not data"]),
        ("total_epochs = 12", "import os", ["import os", "code, not data"]),
        ("total_epochs = 12", "total_epochs = total_epoch", ["total_epoch", "not defined"]),
        ("total_epochs = 12", "total_epochs = 9 ** 9 ** 9", ["cannot be computed"]),
        ("total_epochs = 12", "work = 'a' * 10 ** 12", ["cannot be computed"]),
        ("total_epochs = 12", "total_epochs = 1 / 0", ["cannot be computed"]),
        ("total_epochs = 12", "total_epochs = (", ["not valid Python"]),
        ("total_epochs = 12", "total_epochs = 12.0", ["total_epochs", "whole number"]),
        ("total_epochs = 12", "total_epochs = 0", ["total_epochs=0", "at least 1"]),
        ("imgs_per_gpu=2", "imgs_per_gpu=2 - 3", ["data.imgs_per_gpu=-1", "at least 1"]),
        ("nms_thr=0.7", "nms_thr=7", ["test_cfg.rpn.nms_thr=7", "at least 0 and at most 1"]),
        ("std=[58.395, 57.12, 57.375]", "std=[58.395, 0, 57.375]", ["img_norm_cfg.std[1]=0"]),
        ("lr=0.02", "lr=1e999", ["optimizer.lr", "finite"]),
        ("lr=0.02", "lr=0.02, lr=0.2", ["lr is given twice"]),
        ("total_epochs = 12", "total_epochs = model.depth", ["code, not data"]),
        ("total_epochs = 12", "total_epochs = 6; total_epochs += 6", ["code, not data"]),
        ("total_epochs = 12", "total_epochs = f'{12}'", ["code, not data"]),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    path = write(tmp_path, old, new)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line_of(path, new.strip())}: ")
    assert all(word in message for word in words)
    assert "\n" not in message


def test_arithmetic_in_any_field(tmp_path: Path) -> None:
    path = write(tmp_path, "img_scale=(1333, 800)", "img_scale=(2 * 256, 1000 // 3 - 13)")
    path.write_text(path.read_text().replace("anchor_ratios=[0.5, 1.0, 2.0]", "anchor_ratios=[1 / 2, 2 ** 0, +2.0]"))
    config = read_config(path)
    assert config.data.train.img_scale == (512, 320)
    assert config.model.rpn_head.anchor_ratios == (0.5, 1, 2.0)


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_files_of_other_editors(tmp_path: Path, change: Callable[[str], str]) -> None:
    path = tmp_path / "x.py"
    path.write_bytes(change(config_text("rpn")).encode())
    assert read_config(path).total_epochs == 12


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.mask_head is missing"):
        read_config(write(tmp_path, "type='FasterRCNN'", "type='MaskRCNN'", "faster"))
    with pytest.raises(ConfigError, match=r"nms_thr is missing"):
        read_config(write(tmp_path, "        nms_thr=0.7,\n", ""))


def test_nothing_is_executed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(ConfigError):
        read_config(write(tmp_path, "total_epochs = 12", f"total_epochs = open({str(marker)!r}, 'w')"))
    assert not marker.exists()


def test_own_names_serve_other_fields(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "total_epochs = 12", "half = 6\ntotal_epochs = half * 2"))
    assert config.total_epochs == 12


def test_the_originals_helpers_may_be_left_unused(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(config_text("rpn").replace("data_root + ", "").replace("=dataset_type", "='CocoDataset'"))
    assert read_config(path).data.test.ann_file == "annotations/instances_val2017.json"


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("depth=50,", "depth=50, with_cp=True,", "model.backbone.with_cp"),
        ("neg_balance_thr=0,", "neg_balance_thr=0.1,", "train_cfg.rpn.sampler.neg_balance_thr"),
        ("ignore_iof_thr=-1,", "ignore_iof_thr=0.5,", "train_cfg.rpn.assigner.ignore_iof_thr"),
        ("add_gt_as_proposals=False", "add_gt_as_proposals=True", "train_cfg.rpn.sampler.add_gt_as_proposals"),
        ("debug=False", "debug=True", "train_cfg.rpn.debug"),
    ],
)
def test_a_field_without_effect_is_answered(tmp_path: Path, old: str, new: str, name: str) -> None:
    told: list[str] = []
    path = write(tmp_path, old, new)
    read_config(path, warn=told.append)
    assert len(told) == 1
    assert told[0].startswith(f"{path}:{line_of(path, new)}: ")
    assert name in told[0]
    assert "no effect" in told[0]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a" * 3 + b"(" * 9999, b"\x00"])
def test_files_that_are_no_configs(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.py"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "absent.py")


def test_image_scales() -> None:
    assert image_scales((800, 1333)) == ((1333, 800),)
    assert image_scales([(1333, 800), (666, 400)]) == ((1333, 800), (666, 400))
    assert image_scales([1333.5, 800]) == ()
    assert image_scales("ab") == ()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("_base_ = ['../x.py']", "2.0"),
        ("train_dataloader = dict(batch_size=2)", "3.0"),
        ("train_pipeline = []", "1.0"),
        ("model = dict(type='FasterRCNN', loss_cls=dict())", "0.6"),
    ],
)
def test_a_config_of_a_later_version_is_told(tmp_path: Path, text: str, version: str) -> None:
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(ConfigError, match=rf"config\.py:1: unknown key .* is of mmdetection {version} or later"):
        read_config(tmp_path / "config.py")
