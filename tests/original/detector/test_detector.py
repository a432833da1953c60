"""The original detector as slimdet's detectors are used: tensors in, torchvision's results out, at every width."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimdet.errors import ConfigError
from slimdet.original.configs.config import read_config
from slimdet.original.data.pipeline import read_bgr, views
from slimdet.original.detector.boxes import from_inclusive
from slimdet.original.detector.detector import OriginalDetector, architecture_of, build
from slimdet.original.detector.masks import paste
from slimdet.original.testing.augmented_test import detect, off_view, onto_view
from slimdet.original.testing.prepare import ready
from slimdet.original.testing.run import load_model

from ..small import small_text

Small = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def mask(small: Small) -> Any:
    config, weights = small("mask")
    return load_model(read_config(config), weights)


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(read_bgr(path)[..., ::-1])).permute(2, 0, 1).float() / 255


@torch.no_grad()
def test_called_like_torchvisions(mask: Any, pictures: Path) -> None:
    images = [pixels(pictures / "1.png"), pixels(pictures / "2.png")]
    for width in (0.25, 1.0):
        for image, found in zip(images, mask(images, width=width), strict=True):
            count = len(found["scores"])
            assert found["boxes"].shape == (count, 4)
            assert found["masks"].shape == (count, 1, *image.shape[1:])
            assert set(found["labels"].tolist()) <= {1, 2, 3}
            assert (found["boxes"][:, 2:] > found["boxes"][:, :2]).all()
            assert ((found["masks"] >= 0) & (found["masks"] <= 1)).all()


@torch.no_grad()
def test_folding_and_extraction_change_digits_only(mask: Any, pictures: Path) -> None:
    view = views(read_bgr(pictures / "1.png"), [(96, 64)], False, read_config_norm(), 32)[0]
    for width in mask.widths:
        expected = mask.twin(width).backbone(view.batch)
        found = ready(mask, width).backbone(view.batch)
        assert found.keys() == expected.keys()
        for name in found:
            assert torch.allclose(found[name], expected[name], atol=1e-4), name


def read_config_norm() -> Any:
    return read_config(Path(__file__).parents[3] / "configs" / "rpn_r50_fpn_1x.py").data.test.img_norm_cfg


@torch.no_grad()
def test_a_mirrored_image_gives_mirrored_boxes(mask: Any, pictures: Path) -> None:
    detector = ready(mask, 0.5)
    image = read_bgr(pictures / "3.png")
    plain, mirrored = views(image, [(64, 64)], True, read_config_norm(), 32)
    boxes = from_inclusive(torch.tensor([[3.0, 4, 20, 30]]))
    assert torch.allclose(off_view(onto_view(boxes, mirrored), mirrored), boxes)
    assert onto_view(boxes, mirrored).tolist() == [[64 - 21, 4, 64 - 3, 31]]
    assert torch.equal(plain.batch.flip(3), mirrored.batch)  # 64 pixels need no padding
    found = detect(detector, [plain, mirrored])
    again = detect(detector, [mirrored, plain])
    assert len(found["scores"]) == len(again["scores"]) > 0
    assert torch.allclose(found["boxes"], again["boxes"], atol=1e-3)
    assert torch.allclose(found["cells"], again["cells"], atol=1e-4)


def test_architecture_builds_the_same(small: Small) -> None:
    import json

    first = build(architecture_of(read_config(small("mask")[0])))
    second = build(json.loads(json.dumps(first.architecture)))
    shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (first, second)]
    assert shapes[0] == shapes[1]
    assert second.roi_heads is not None
    assert second.roi_heads.score_thresh == 0.2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("in_channels=[64, 128, 256, 512]", "in_channels=[256, 512, 1024, 2048]", "neck.in_channels"),
        ("anchor_strides=[4, 8, 16, 32, 64]", "anchor_strides=[4, 8, 16, 32]", "anchor_strides"),
        ("roi_feat_size=7", "roi_feat_size=8", "roi_feat_size"),
        ("out_indices=(0, 1, 2, 3)", "out_indices=(0, 1, 2, 4)", "out_indices"),
    ],
)
def test_parts_that_do_not_fit(pictures: Path, tmp_path: Path, old: str, new: str, words: str) -> None:
    text = small_text("mask", pictures)
    assert old in text
    (tmp_path / "x.py").write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=words):
        build(architecture_of(read_config(tmp_path / "x.py")))


@torch.no_grad()
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("depth=18", "depth=34"),
        ("style='pytorch'", "style='caffe'"),
        ("num_outs=5", "num_outs=4"),
        ("reg_class_agnostic=False", "reg_class_agnostic=True"),
        ("nms_across_levels=False", "nms_across_levels=True"),
        ("num_fcs=2", "num_fcs=1"),
        ("nms_pre=60", "nms_pre=-1"),
    ],
)
def test_other_settings_run(pictures: Path, tmp_path: Path, old: str, new: str) -> None:
    text = small_text("mask", pictures).replace(old, new)
    if new == "num_outs=4":
        text = text.replace("anchor_strides=[4, 8, 16, 32, 64]", "anchor_strides=[4, 8, 16, 32]")
    assert new in text
    (tmp_path / "x.py").write_text(text)
    detector = build(architecture_of(read_config(tmp_path / "x.py"))).eval()
    assert isinstance(detector, OriginalDetector)
    found = detector([torch.rand(3, 40, 50)])[0]
    assert found["boxes"].shape[1] == 4


def test_masks_are_pasted_as_the_original_does(units: dict[str, np.ndarray]) -> None:
    import json

    from pycocotools import mask as rle

    scale = float(units["mask_paste/scale_factor"])
    logits = torch.tensor(units["mask_paste/logits"])
    labels = units["mask_paste/labels0"]
    boxes = torch.tensor(units["mask_paste/boxes_at_test_scale"]) / scale
    by_class = json.loads(bytes(units["mask_paste/rle_json_by_class"]))
    wanted = [code for codes in by_class for code in codes]
    order = sorted(range(len(labels)), key=lambda index: labels[index])
    size = tuple(wanted[0]["size"])
    for place, code in zip(order, wanted, strict=True):
        cells = logits[place, labels[place] + 1].sigmoid()
        pasted = paste(cells, from_inclusive(boxes[place : place + 1])[0], size) > 0.5
        expected = rle.decode(code).astype(bool)
        differing = (pasted.numpy() != expected).sum()
        assert differing <= 0.003 * (pasted.numpy() | expected).sum()
