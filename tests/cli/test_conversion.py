"""`slimdet convert` finds out what it was given."""

from pathlib import Path

import pytest
import torch

import slimdet
from scenes_detector import tiny_model
from slimdet.cli.conversion import convert
from slimdet.errors import BundleError, ConfigError, SlimdetError


def test_sources_are_told_apart(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pth"
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, checkpoint)
    with pytest.raises(SlimdetError, match=r"model\.pth"):
        convert(checkpoint, None, tmp_path / "bundle")
    with pytest.raises(ConfigError, match="can become a bundle, not --to coco"):
        convert(checkpoint, "coco", tmp_path / "coco")
    model = slimdet.save(tiny_model(), tmp_path / "ours")
    with pytest.raises(BundleError, match="not a detector of the original system"):
        convert(model, None, tmp_path / "back.pth")
    with pytest.raises(ConfigError, match=r"model\.pth already exists"):
        convert(model, "checkpoint", checkpoint)
    with pytest.raises(ConfigError, match="can become a coco, not --to bundle"):
        convert(tmp_path, "bundle", tmp_path / "x")
