"""The five configs, and files of their grammar: read without executing, wrong ones answered with file and line."""

from pathlib import Path

import pytest

from slimdet.errors import ConfigError
from slimdet.seed.config import image_scales, read_config

from .small import CONFIGS, config_text


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


def test_a_field_without_effect_is_answered(tmp_path: Path) -> None:
    told: list[str] = []
    path = write(tmp_path, "depth=50,", "depth=50, with_cp=True,")
    read_config(path, warn=told.append)
    assert len(told) == 1
    assert f"{path}:{line_of(path, 'with_cp')}" in told[0]
    assert "model.backbone.with_cp" in told[0]


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
