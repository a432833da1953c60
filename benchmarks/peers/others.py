"""The peers, built from their own packages with random weights: a graph's time does not depend on them.

Nothing here is slimdet's: torchvision's detectors as torchvision exports them, YOLO11 by ultralytics' own export,
RT-DETRv2 and D-FINE from `transformers`. D-FINE-N and RT-DETRv2-R18 are configured as their papers' repositories
configure them; their numbers of parameters are checked against the published ones (4 and 20 million).
"""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graphs import run_onnx, run_openvino
from timing import NETWORK, PIXELS, Contender, Run
from torch import Tensor, nn
from torchvision.models import detection

SIZES = (320, 640)
RANDOM = "random"
OPSET = 17

# HGNetV2-B0 and D-FINE-N: github.com/Peterande/D-FINE, configs/dfine/dfine_hgnetv2_n_coco.yml (Apache-2.0).
HGNET_B0: dict[str, Any] = {
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
    "hidden_sizes": [64, 256, 512, 1024],
    "depths": [1, 1, 2, 1],
    "out_features": ["stage3", "stage4"],
}
DFINE_N: dict[str, Any] = {
    "encoder_in_channels": [512, 1024],
    "feat_strides": [16, 32],
    "encoder_hidden_dim": 128,
    "encode_proj_layers": [1],
    "encoder_ffn_dim": 512,
    "hidden_expansion": 0.34,
    "depth_mult": 0.5,
    "d_model": 128,
    "decoder_in_channels": [128, 128],
    "decoder_ffn_dim": 512,
    "num_feature_levels": 2,
    "decoder_layers": 3,
    "decoder_n_points": [6, 6],
    "num_labels": 80,
}
# RT-DETRv2-R18: github.com/lyuwenyu/RT-DETR, rtdetrv2_r18vd_120e_coco.yml (Apache-2.0).
RESNET18: dict[str, Any] = {
    "layer_type": "basic",
    "depths": [2, 2, 2, 2],
    "hidden_sizes": [64, 128, 256, 512],
    "out_features": ["stage2", "stage3", "stage4"],
}
RTDETR_R18: dict[str, Any] = {
    "encoder_in_channels": [128, 256, 512],
    "hidden_expansion": 0.5,
    "decoder_layers": 3,
    "num_labels": 80,
}


class _Outputs(nn.Module):
    """A detector of `transformers`, its outputs as a tuple."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        found = self.detector(pixel_values=pixels)
        return found.logits, found.pred_boxes


def _checked(detector: nn.Module, millions: float) -> nn.Module:
    have = sum(values.numel() for values in detector.parameters()) / 1e6
    if abs(have - millions) > 0.05 * millions + 0.2:
        raise RuntimeError(f"{type(detector).__name__} has {have:.1f} million parameters, published are {millions}")
    return _Outputs(detector.eval())


def dfine_n() -> nn.Module:
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config  # pyright: ignore

    return _checked(DFineForObjectDetection(DFineConfig(backbone_config=HGNetV2Config(**HGNET_B0), **DFINE_N)), 4)


def rtdetrv2_r18() -> nn.Module:
    from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection  # pyright: ignore

    config = RTDetrV2Config(backbone_config=RTDetrResNetConfig(**RESNET18), **RTDETR_R18)
    return _checked(RTDetrV2ForObjectDetection(config), 20)


def faster_rcnn(side: int) -> Any:
    """torchvision's Faster R-CNN of ResNet-50-FPN at 640 pixels, or of MobileNetV3-Large-320-FPN, on 91 labels."""
    torch.manual_seed(0)
    if side == 640:
        made = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=640, max_size=640)
    else:
        made = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    return settled(quiet(made))


@torch.no_grad()
def quiet(detector: Any) -> Any:
    """Make the last layers' weights small: proposals are about the anchors then, and no score is above the threshold.

    With weights as they are drawn one width would have a hundred boxes to sort out and another none.
    """
    last = detector.roi_heads.box_predictor
    for layer in (detector.rpn.head.bbox_pred, last.cls_score, last.bbox_pred):
        layer.weight.mul_(1e-4)
    return detector


@torch.no_grad()
def settled(detector: Any) -> Any:
    """Give the norms of a backbone the statistics of noise, for features of random weights grow from layer to layer."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 3, 256, 256, generator=generator)
    norms = [module for module in detector.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = {norm: norm.momentum for norm in norms}
    for norm in norms:
        norm.momentum = 1.0
    detector.train().backbone(noise)
    for norm in norms:
        norm.momentum = usual[norm]
    return detector.eval()


def _export(make: Callable[[], nn.Module], side: int, file: Path) -> None:
    torch.manual_seed(0)
    example: Any = torch.zeros(1, 3, side, side)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the trace holds constants: the size is fixed
        torch.onnx.export(make(), (example,), file, dynamo=False, opset_version=OPSET, input_names=["images"])


def _export_torchvision(side: int, file: Path) -> None:
    torch.manual_seed(0)
    example: Any = [torch.rand(3, side, side)]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            faster_rcnn(side), (example,), file, dynamo=False, opset_version=OPSET, input_names=["images"]
        )


def _export_yolo(size: str, side: int, file: Path) -> None:
    os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(file.parent)}
    from ultralytics import YOLO  # pyright: ignore

    here = Path.cwd()
    os.chdir(file.parent)  # it writes where it stands
    try:
        written = YOLO(f"yolo11{size}.yaml").export(format="onnx", imgsz=side, simplify=False, opset=OPSET)
        shutil.move(written, file)
    finally:
        os.chdir(here)


# Name, the package that makes it, and how its graph is written for a size.
NETWORKS: tuple[tuple[str, str, Callable[[int, Path], None]], ...] = (
    ("YOLO11n", "ultralytics", partial(_export_yolo, "n")),
    ("YOLO11s", "ultralytics", partial(_export_yolo, "s")),
    ("RT-DETRv2-R18", "transformers", partial(_export, rtdetrv2_r18)),
    ("D-FINE-N", "transformers", partial(_export, dfine_n)),
)
TORCHVISION = {640: "torchvision Faster R-CNN R50-FPN", 320: "torchvision Faster R-CNN MobileNetV3-320"}


def contenders(photographs: dict[int, np.ndarray], folder: Path) -> Iterator[Contender]:
    """All peers; graphs that `folder` does not have yet are written.

    Args:
        photographs: of each side of `SIZES`, uint8 [side, side, 3].
        folder: for graphs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for side, name in TORCHVISION.items():
        yield Contender(name, "torch eager", side, PIXELS, RANDOM, partial(_eager, side, photographs[side]))
        file = folder / f"torchvision-{side}-{version('torchvision')}.onnx"
        yield from _engines(name, side, file, partial(_export_torchvision, side), PIXELS, _floats(photographs[side]))
    for name, package, write in NETWORKS:
        if find_spec(package) is None:
            print(f"{name} is left out: {package} is not installed", flush=True)
            continue
        for side in SIZES:
            file = folder / f"{name}-{side}-{package}-{version(package)}.onnx"
            pixels = _floats(photographs[side])[None]
            yield from _engines(name, side, file, partial(write, side), NETWORK, pixels)


def _floats(photograph: np.ndarray) -> np.ndarray:
    """[3, side, side], 0..1."""
    return np.ascontiguousarray(photograph.transpose(2, 0, 1), dtype=np.float32) / 255


def _engines(
    name: str, side: int, file: Path, write: Callable[[Path], None], timed: str, pixels: np.ndarray
) -> Iterator[Contender]:
    if not file.exists():
        write(file)
    inputs = {"images": pixels}
    for engine, run in (("onnxruntime", run_onnx), ("openvino", run_openvino)):
        yield Contender(name, engine, side, timed, RANDOM, partial(run, file, inputs))


def _eager(side: int, photograph: np.ndarray, threads: int) -> Run:
    detector = faster_rcnn(side)
    return partial(detect, detector, photograph)


@torch.no_grad()
def detect(detector: Callable[[list[Tensor]], object], photograph: np.ndarray) -> object:
    """A torchvision detector from uint8 [H, W, 3] to boxes, eager."""
    return detector([torch.from_numpy(photograph).permute(2, 0, 1).float() / 255])
