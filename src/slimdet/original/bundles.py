"""A checkpoint of the original as a bundle, and back, losslessly."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from slimdet.bundle import manifest, store
from slimdet.bundle.card import Card
from slimdet.core.slimmable import slim
from slimdet.errors import BundleError, WeightsError
from slimdet.original.configs.config import read_config
from slimdet.original.data.voc import CLASSES as VOC_CLASSES
from slimdet.original.detector import checkpoint
from slimdet.original.detector.detector import WIDTHS, architecture_of, build

# By category id; COCO's ids are not consecutive, and torchvision's list has placeholders for those it leaves out.
COCO_CLASSES = {
    number: name
    for number, name in enumerate(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
    if name not in ("__background__", "N/A")
}


def to_bundle(path: str | Path, out: str | Path, config: str | Path | None = None) -> Path:
    """Convert a checkpoint of the original into a bundle and return its folder.

    Args:
        path: a detection checkpoint.
        out: the bundle's folder.
        config: the config it belongs to; by default that of configs/ whose parts the checkpoint has.

    Raises:
        WeightsError: not a detection checkpoint, or it does not fit.
    """
    if config is None:
        architecture = _guess(checkpoint.read(path)["state_dict"], str(path))
    else:
        architecture = architecture_of(read_config(config))
    model = slim(build(architecture), WIDTHS, "backbone").eval()
    rest = checkpoint.load(model, path, advice="; --config FILE names the config that it was made from")
    names, ids = _classes(architecture["num_classes"] - 1)
    # What was not weights goes along as far as JSON can hold it; optimizer states do not belong in a bundle.
    meta = rest.get("meta")
    kept = (
        {str(k): v for k, v in meta.items() if isinstance(v, str | int | float | bool)}
        if isinstance(meta, Mapping)
        else {}
    )
    return store.save(model, out, Card(names, ids, {"checkpoint_meta": kept}))


def to_checkpoint(path: str | Path, out: str | Path) -> Path:
    """Convert a bundle made by `to_bundle` (and perhaps trained further) into a checkpoint; return `out`.

    Raises:
        BundleError: the bundle is damaged, or its detector is not one of the original's.
    """
    model = store.load(path)
    if getattr(model.twin(1.0), "architecture", {}).get("builder") != "original" or model.widths != WIDTHS:
        raise BundleError(f"{path} is not a detector of the original system; only those have checkpoints of its kind")
    checkpoint.write(out, model, manifest.read(path).training.get("checkpoint_meta", {}))
    return Path(out)


def _classes(count: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if count == len(COCO_CLASSES):
        return tuple(COCO_CLASSES.values()), tuple(COCO_CLASSES)
    names = VOC_CLASSES if count == len(VOC_CLASSES) else tuple(str(label) for label in range(1, count + 1))
    return tuple(names), tuple(range(1, count + 1))


def _guess(state: Mapping[str, Tensor], path: str) -> dict[str, Any]:
    """The architecture of a checkpoint, from its entries: the fields of configs/, with what the shapes tell."""
    parts = {name.split(".")[0] for name in state}
    if "backbone" not in parts or "neck" not in parts or not parts & {"rpn_head", "bbox_head"}:
        raise WeightsError(f"{path} is not a detection checkpoint of the original; its parts are {', '.join(parts)}")
    blocks = [_count(state, rf"backbone\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
    deep = any(name.startswith("backbone.layer1.0.conv3") for name in state)
    depths: dict[tuple[int, ...], int] = {
        (2, 2, 2, 2): 18,
        (3, 4, 6, 3): 50 if deep else 34,
        (3, 4, 23, 3): 101,
        (3, 8, 36, 3): 152,
    }
    channels = [64 * 2**stage * (4 if deep else 1) for stage in range(4)]
    roi = {"type": "SingleRoIExtractor", "out_channels": 256, "featmap_strides": [4, 8, 16, 32]}
    model: dict[str, Any] = {
        "backbone": {"type": "ResNet", "depth": depths.get(tuple(blocks), 50), "frozen_stages": 1},
        "neck": {"type": "FPN", "in_channels": channels, "out_channels": 256, "num_outs": 5},
    }
    test: dict[str, Any] = {}
    if "rpn_head" in parts:
        model["rpn_head"] = {"type": "RPNHead", "in_channels": 256}
        counts = dict.fromkeys(("nms_pre", "nms_post", "max_num"), 2000)
        test["rpn"] = {"nms_thr": 0.7, **counts}
    classes = 2
    if "bbox_head" in parts:
        classes = len(state.get("bbox_head.fc_cls.bias", ())) or 81
        align = {"roi_layer": {"type": "RoIAlign", "out_size": 7, "sample_num": 2}}
        model["bbox_roi_extractor"] = {**roi, **align}
        model["bbox_head"] = {"type": "SharedFCBBoxHead", "in_channels": 256, "num_classes": classes}
        test["rcnn"] = {"score_thr": 0.05, "nms_thr": 0.5, "max_per_img": 100}
    if "mask_head" in parts:
        align = {"roi_layer": {"type": "RoIAlign", "out_size": 14, "sample_num": 2}}
        model["mask_roi_extractor"] = {**roi, **align}
        model["mask_head"] = {"type": "FCNMaskHead", "in_channels": 256, "num_classes": classes}
    model["type"] = "FastRCNN" if "rpn_head" not in parts else "FasterRCNN" if "bbox_head" in parts else "RPN"
    if model["type"] == "FasterRCNN" and "mask_head" in parts:
        model["type"] = "MaskRCNN"
    norm = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True}
    image = {"img_scale": [1333, 800], "img_norm_cfg": norm, "size_divisor": 32}
    return {"builder": "original", "num_classes": classes, "model": model, "test_cfg": test, "image": image}


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    numbers = [int(found[1]) for name in state if (found := re.match(pattern, name))]
    return max(numbers, default=-1) + 1
