"""A checkpoint becomes a bundle and comes back, every entry unchanged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import slimdet
from slimdet.bundle import card
from slimdet.bundle.card import Card
from slimdet.cli import verbs
from slimdet.errors import BundleError
from slimdet.original.bundles import COCO_CLASSES, to_bundle, to_checkpoint
from slimdet.original.detector import checkpoint

Small = Callable[[str], tuple[Path, Path]]


def test_there_and_back(small: Small, tmp_path: Path) -> None:
    config, weights = small("mask")
    bundle = to_bundle(weights, tmp_path / "bundle", config=config)
    assert to_checkpoint(bundle, tmp_path / "back.pth") == tmp_path / "back.pth"
    before, after = checkpoint.read(weights), checkpoint.read(tmp_path / "back.pth")
    assert list(before["state_dict"]) == list(after["state_dict"])
    assert all(torch.equal(value, after["state_dict"][name]) for name, value in before["state_dict"].items())
    assert after["meta"] == {"epoch": 3}
    model = slimdet.load(bundle)
    assert model.widths == (0.25, 0.5, 0.75, 1.0)


def test_other_bundles_have_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        to_checkpoint(tmp_path / "absent", tmp_path / "x.pth")


def test_a_checkpoint_of_another_detector_names_its_config(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, weights = map(str, small("mask"))
    out = tmp_path / "bundle"
    assert verbs.main(["convert", weights, "--out", str(out)]) == 2
    assert "--config FILE" in capsys.readouterr().err
    assert not out.exists()
    assert verbs.main(["convert", weights, "--out", str(out), "--config", config]) == 0
    assert verbs.main(["convert", str(out), "--out", str(tmp_path / "x.pth"), "--config", config]) == 2
    assert verbs.main(["convert", str(out), "--out", str(tmp_path / "x.pth")]) == 0
    before, after = (checkpoint.read(path)["state_dict"] for path in (weights, tmp_path / "x.pth"))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_released_files_need_no_config(synthetic: Any, tmp_path: Path) -> None:
    bundle = to_bundle(synthetic("faster"), tmp_path / "bundle")
    model = card.read(bundle)
    assert len(model.classes) == 80
    assert model.category_ids[-1] == 90
    assert COCO_CLASSES[90] == model.classes[-1] == "toothbrush"


@pytest.mark.parametrize(
    ("verb", "reason"),
    [
        ("extract --model {bundle} --width 0.5 --out {out}", "has layers of the original system"),
        ("calibrate --data {data} --model {bundle} --width 0.6 --out {out}", "R-CNN cannot be calibrated"),
        ("train --data {data} --weights {bundle} --out {out}", "original Faster R-CNN cannot be trained"),
        ("export --model {bundle} --out {out}", "original Faster R-CNN cannot be exported"),
    ],
)
def test_what_these_bundles_cannot_do_is_said_in_one_line(
    small: Small, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, reason: str
) -> None:
    config, weights = small("faster")
    bundle = to_bundle(weights, tmp_path / "bundle", config=config)
    data = tmp_path / "data.yaml"
    data.write_text(f"train:\n  images: {pictures}\n  annotations: {pictures / 'coco.json'}\n")
    out = tmp_path / "out"
    capsys.readouterr()
    assert verbs.main(verb.format(bundle=bundle, data=data, out=out).split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert reason in said.err
    assert str(bundle) in said.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("kind", "numbers"), [("faster", {"bbox"}), ("mask", {"bbox", "segm"}), ("fast_mask", {"bbox", "segm"})]
)
def test_val_compares_all_that_these_detectors_find(
    small: Small, pictures: Path, tmp_path: Path, kind: str, numbers: set[str]
) -> None:
    config, weights = small(kind)
    model = slimdet.load(to_bundle(weights, tmp_path / "bundle", config=config))
    slimdet.save(model, tmp_path / "bundle", Card(("c1", "c2", "c3"), (7, 14, 21)))
    data = tmp_path / "data.yaml"
    data.write_text(f"val:\n  images: {pictures}\n  annotations: {pictures / 'coco.json'}\n")
    found = slimdet.val(tmp_path / "bundle", data, width=0.5, out=tmp_path / "val")
    assert set(found.widths["0.5"]) == numbers
