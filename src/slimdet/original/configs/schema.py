"""Every field of the original's configs: its type, its values, and whether leaving it out is allowed.

A table is a dict of field name -> Field. What the original accepted but this package does only in one way is given by
`only`: another value there is an error with the reason, never a silent difference.
"""

import math
from dataclasses import dataclass
from typing import Any

Table = dict[str, "Field"]


@dataclass(frozen=True)
class Field:
    """One field of a config.

    Args:
        kind: a word of `KINDS`, or the table of a dict.
        required: leaving it out is an error.
        default: its value when left out.
        only: the values that are allowed, where not all of the kind are.
        many: a list or tuple of `kind`; `length` fixes how many.
        none: None is allowed too.
        low, high: the smallest and largest value of a number.
        unused: why the field has no effect; using it is answered with a warning.
    """

    kind: str | Table
    required: bool = False
    default: Any = None
    only: tuple[Any, ...] = ()
    many: bool = False
    length: int = 0
    none: bool = False
    low: float = -math.inf
    high: float = math.inf
    unused: str = ""


KINDS: dict[str, tuple[type, ...]] = {
    "whole number": (int,),
    "number": (int, float),
    "True or False": (bool,),
    "string": (str,),
    "anything": (object,),
}


def _must(kind: str | Table, **options: Any) -> Field:
    return Field(kind, required=True, **options)


def _int(default: Any, **options: Any) -> Field:
    return Field("whole number", default=default, **options)


def _num(default: Any, **options: Any) -> Field:
    return Field("number", default=default, **options)


def _bool(default: bool, **options: Any) -> Field:
    return Field("True or False", default=default, **options)


def _text(default: Any = None, **options: Any) -> Field:
    return Field("string", default=default, **options)


_SHARE: dict[str, Any] = {"low": 0, "high": 1}
_POSITIVE: dict[str, Any] = {"low": 1e-9}


def _type(*names: str) -> Field:
    return Field("string", required=True, only=names)


_BACKBONE: Table = {
    "type": _type("ResNet"),
    "depth": _must("whole number", only=(18, 34, 50, 101, 152)),
    "num_stages": _int(4, only=(1, 2, 3, 4)),
    "strides": _int((1, 2, 2, 2), many=True),
    "dilations": _int((1, 1, 1, 1), many=True),
    "out_indices": _int((0, 1, 2, 3), many=True),
    "style": _text("pytorch", only=("pytorch", "caffe")),
    "frozen_stages": _int(-1, low=-1, high=4),
    "bn_eval": _bool(True),
    "bn_frozen": _bool(False, unused="the original stores it and never reads it"),
    "with_cp": _bool(False, unused="activation checkpointing changes memory, not results"),
}

_NECK: Table = {
    "type": _type("FPN"),
    "in_channels": _must("whole number", many=True, low=1),
    "out_channels": _must("whole number", low=1),
    "num_outs": _must("whole number", low=1),
    "start_level": _int(0, only=(0,)),
    "end_level": _int(-1, only=(-1,)),
    "add_extra_convs": _bool(False, only=(False,)),
    "normalize": Field("anything", none=True, only=(None,)),
    "activation": Field("anything", none=True, only=(None,)),
}

_RPN_HEAD: Table = {
    "type": _type("RPNHead"),
    "in_channels": _must("whole number"),
    "feat_channels": _int(256, low=1),
    "anchor_scales": _num((8,), many=True, **_POSITIVE),
    "anchor_ratios": _num((0.5, 1.0, 2.0), many=True, **_POSITIVE),
    "anchor_strides": _int((4, 8, 16, 32, 64), many=True, low=1),
    "anchor_base_sizes": _num(None, many=True, none=True, **_POSITIVE),
    "target_means": _num((0.0,) * 4, many=True, length=4),
    "target_stds": _num((1.0,) * 4, many=True, length=4, **_POSITIVE),
    "use_sigmoid_cls": _bool(True, only=(True,)),
}


def _roi_extractor(size: int) -> Table:
    return {
        "type": _type("SingleRoIExtractor"),
        "roi_layer": _must(
            {
                "type": _type("RoIAlign"),
                "out_size": _int(size, low=1),
                "sample_num": _int(2, low=0),
            }
        ),
        "out_channels": _must("whole number"),
        "featmap_strides": _int((4, 8, 16, 32), many=True, low=1),
        "finest_scale": _num(56, **_POSITIVE),
    }


_BBOX_HEAD: Table = {
    "type": _type("SharedFCBBoxHead"),
    "num_fcs": _int(2, low=0),
    "in_channels": _must("whole number"),
    "fc_out_channels": _int(1024, low=1),
    "roi_feat_size": _int(7),
    "num_classes": _int(81, low=2),
    "target_means": _num((0.0,) * 4, many=True, length=4),
    "target_stds": _num((0.1, 0.1, 0.2, 0.2), many=True, length=4, **_POSITIVE),
    "reg_class_agnostic": _bool(False),
    "with_avg_pool": _bool(False, only=(False,)),
    "with_cls": _bool(True, only=(True,)),
    "with_reg": _bool(True, only=(True,)),
}

_MASK_HEAD: Table = {
    "type": _type("FCNMaskHead"),
    "num_convs": _int(4, low=0),
    "roi_feat_size": _int(14, unused="the mask head takes any size of feature"),
    "in_channels": _must("whole number"),
    "conv_kernel_size": _int(3, only=(3,)),
    "conv_out_channels": _int(256, low=1),
    "upsample_method": _text("deconv", only=("deconv",)),
    "upsample_ratio": _int(2, only=(2,)),
    "num_classes": _int(81, low=2),
    "class_agnostic": _bool(False),
    "normalize": Field("anything", none=True, only=(None,)),
}

_MODEL: Table = {
    "type": _type("FasterRCNN", "MaskRCNN", "RPN", "FastRCNN"),
    "pretrained": _text(none=True),
    "backbone": _must(_BACKBONE),
    "neck": _must(_NECK),
    "rpn_head": Field(_RPN_HEAD, none=True),
    "bbox_roi_extractor": Field(_roi_extractor(7), none=True),
    "bbox_head": Field(_BBOX_HEAD, none=True),
    "mask_roi_extractor": Field(_roi_extractor(14), none=True),
    "mask_head": Field(_MASK_HEAD, none=True),
}

_ASSIGNER: Table = {
    "type": _text("MaxIoUAssigner", only=("MaxIoUAssigner",)),
    "pos_iou_thr": _must("number", **_SHARE),
    "neg_iou_thr": _must("number", **_SHARE),
    "min_pos_iou": _num(0.0, **_SHARE),
    "ignore_iof_thr": _num(-1, high=1),
}

_SAMPLER: Table = {
    "type": _text("RandomSampler", only=("RandomSampler",)),
    "num": _must("whole number", low=1),
    "pos_fraction": _must("number", **_SHARE),
    "neg_pos_ub": _num(-1),
    "add_gt_as_proposals": _bool(True),
    "pos_balance_sampling": _bool(False),
    "neg_balance_thr": _num(0, unused="background is drawn evenly, whatever its overlap"),
}

# The original handed crowds to the box head only, and objects are no anchors.
_RPN_ASSIGNER: Table = {**_ASSIGNER, "ignore_iof_thr": _num(-1, unused="anchors on crowds are not left out")}
_RPN_SAMPLER: Table = {**_SAMPLER, "add_gt_as_proposals": _bool(False, unused="an object is no anchor")}

_DEBUG = _bool(False, unused="it changed nothing but what the original printed")

TRAIN_RPN: Table = {
    "assigner": _must(_RPN_ASSIGNER),
    "sampler": _must(_RPN_SAMPLER),
    "allowed_border": _num(0),
    "pos_weight": _num(-1),
    "smoothl1_beta": _num(1 / 9, **_POSITIVE),
    "debug": _DEBUG,
}

TRAIN_RCNN: Table = {
    "assigner": _must(_ASSIGNER),
    "sampler": _must(_SAMPLER),
    "mask_size": _int(28, low=1),
    "pos_weight": _num(-1),
    "debug": _DEBUG,
}

TEST_RPN: Table = {
    "nms_across_levels": _bool(False),
    "nms_pre": _must("whole number"),
    "nms_post": _must("whole number", low=1),
    "max_num": _must("whole number", low=1),
    "nms_thr": _must("number", **_SHARE),
    "min_bbox_size": _num(0, low=0),
}

TEST_RCNN: Table = {
    "score_thr": _must("number", **_SHARE),
    "max_per_img": _must("whole number", low=1),
    "nms_thr": _must("number", **_SHARE),
    "mask_thr_binary": _num(0.5, **_SHARE),
}

_NORMALISATION: Table = {
    "mean": _must("number", many=True, length=3),
    "std": _must("number", many=True, length=3, **_POSITIVE),
    "to_rgb": _bool(True),
}

DATASET: Table = {
    "type": _type("CocoDataset", "CustomDataset"),
    "ann_file": _must("string"),
    "img_prefix": _text(""),
    "img_scale": _must("anything"),
    "img_norm_cfg": _must(_NORMALISATION),
    "size_divisor": _int(None, none=True, low=1),
    "proposal_file": _text(none=True),
    "num_max_proposals": _int(1000, none=True, low=1),
    "flip_ratio": _num(0, **_SHARE),
    "with_mask": _bool(True),
    "with_crowd": _bool(True),
    "with_label": _bool(True),
    "test_mode": _bool(False),
    "debug": _DEBUG,
}

_DATA: Table = {
    "imgs_per_gpu": _int(2, low=1),
    "workers_per_gpu": _int(2, low=0),
    "train": Field(DATASET, none=True),
    "val": Field(DATASET, none=True),
    "test": Field(DATASET, none=True),
}

_OPTIMIZER: Table = {
    "type": _type("SGD"),
    "lr": _must("number", low=0),
    "momentum": _num(0, low=0),
    "weight_decay": _num(0, low=0),
    "nesterov": _bool(False),
    "dampening": _num(0),
}

_LR: Table = {
    "policy": _text("step", only=("step",)),
    "warmup": _text(none=True, only=("linear", "constant", "exp", None)),
    "warmup_iters": _int(0, low=0),
    "warmup_ratio": _num(0.1, low=0),
    "step": _must("whole number", many=True, low=0),
    "gamma": _num(0.1, low=0),
}

_LOG: Table = {
    "interval": _int(50, low=1),
    "hooks": Field({"type": _type("TextLoggerHook", "TensorboardLoggerHook")}, many=True, default=()),
}

CONFIG: Table = {
    "model": _must(_MODEL),
    "train_cfg": Field({"rpn": Field(TRAIN_RPN, none=True), "rcnn": Field(TRAIN_RCNN, none=True)}, none=True),
    "test_cfg": _must({"rpn": Field(TEST_RPN, none=True), "rcnn": Field(TEST_RCNN, none=True)}),
    "data": _must(_DATA),
    "optimizer": Field(_OPTIMIZER, none=True),
    "optimizer_config": Field(
        {"grad_clip": Field({"max_norm": _must("number", **_POSITIVE), "norm_type": _num(2, **_POSITIVE)}, none=True)},
        none=True,
    ),
    "lr_config": Field(_LR, none=True),
    "checkpoint_config": Field({"interval": _int(1, low=1)}, none=True),
    "log_config": Field(_LOG, none=True),
    "total_epochs": _int(12, low=1),
    "dist_params": Field({"backend": _text("nccl", only=("nccl", "gloo"))}, none=True),
    "log_level": _text("INFO", only=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
    "work_dir": _text(none=True),
    "load_from": _text(none=True),
    "resume_from": _text(none=True),
    "workflow": Field("anything", default=[("train", 1)]),
}

# What a detector is built from (slimdet.original.detector.detector.build).
DETECTOR: Table = {
    "model": CONFIG["model"],
    "test_cfg": CONFIG["test_cfg"],
    "image": _must({key: DATASET[key] for key in ("img_scale", "img_norm_cfg", "size_divisor")}),
}
