"""Detectors: torchvision's structure and names, nothing but torchvision's classes, and they train and detect."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

import slimdet
from slimdet.errors import ConfigError, WeightsError
from slimdet.models.backbones import BACKBONES
from slimdet.models.builders import BUILDERS, NECKS, NORM_LAYERS, build, faster_rcnn, mask_rcnn

# What the slimmable core can narrow.
KNOWN = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d, FrozenBatchNorm2d, nn.GroupNorm)


def scene(objects: int = 1) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """One noisy image [3, 64, 64] with up to one square object of class 1."""
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[:, 10:40, 10:40] = 1
    target = {"boxes": torch.tensor([[10.0, 10, 40, 40]]), "labels": torch.tensor([1]), "masks": masks}
    return [torch.rand(3, 64, 64)], [{key: value[:objects] for key, value in target.items()}]


def shapes(detector: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(key, value.shape) for key, value in detector.state_dict().items()]


@pytest.mark.parametrize(
    ("ours", "theirs"), [(faster_rcnn, fasterrcnn_resnet50_fpn), (mask_rcnn, maskrcnn_resnet50_fpn)]
)
def test_full_resnet50_is_torchvisions(ours: Any, theirs: Any) -> None:
    with torch.device("meta"):
        mine, reference = ours(91, weights=None), theirs(weights=None, weights_backbone=None)
    assert shapes(mine) == shapes(reference)
    assert repr(mine) == repr(reference)  # every layer's hyperparameters, image sizes and RoI pooling
    for part in ("rpn", "roi_heads"):
        settings, expected = vars(getattr(mine, part)), vars(getattr(reference, part))
        plain = [key for key, value in expected.items() if isinstance(value, int | float | dict) and key[0] != "_"]
        assert plain
        assert all(settings[key] == expected[key] for key in plain), part
    assert mine.rpn._pre_nms_top_n == reference.rpn._pre_nms_top_n
    assert mine.rpn._post_nms_top_n == reference.rpn._post_nms_top_n
    assert mine.rpn.anchor_generator.sizes == reference.rpn.anchor_generator.sizes
    assert mine.rpn.anchor_generator.aspect_ratios == reference.rpn.anchor_generator.aspect_ratios


@pytest.mark.parametrize(
    ("backbone", "neck", "norm_layer"),
    [
        *((backbone, "light", "group") for backbone in BACKBONES),
        *(("resnet18", neck, norm_layer) for neck in NECKS for norm_layer in NORM_LAYERS),
    ],
)
def test_only_torchvisions_classes_and_layers_that_narrow(backbone: str, neck: str, norm_layer: str | None) -> None:
    with torch.device("meta"):
        detector = mask_rcnn(3, backbone, neck, None, norm_layer, "frozen" if neck == "full" else "batch")
    homes = {type(module).__module__.partition(".")[0] for module in detector.modules()}
    assert homes <= {"torch", "torchvision"}
    holders = [m for m in detector.modules() if [*m.parameters(recurse=False), *m.buffers(recurse=False)]]
    assert all(isinstance(module, KNOWN) for module in holders)
    for name in ("backbone.body", "backbone.fpn", "rpn.head", "roi_heads.box_head", "roi_heads.mask_predictor"):
        detector.get_submodule(name)
    assert detector.get_submodule("roi_heads.box_predictor.cls_score").out_features == 3
    for module in detector.modules():
        if isinstance(module, nn.GroupNorm):  # a quarter of the channels is a whole number of groups
            assert module.num_channels // module.num_groups == 16
            assert module.num_groups % 4 == 0


@pytest.mark.parametrize(
    ("norm_layer", "parts"),
    [
        (None, set()),
        ("batch", {"backbone.fpn", "roi_heads.box_head", "roi_heads.mask_head"}),
        ("group", {"backbone.fpn", "rpn.head", "roi_heads.box_head", "roi_heads.mask_head"}),
    ],
)
def test_norms_are_where_the_documentation_says(norm_layer: str | None, parts: set[str]) -> None:
    with torch.device("meta"):
        detector = mask_rcnn(3, "resnet18", "light", None, norm_layer)
    norms = nn.GroupNorm if norm_layer == "group" else nn.modules.batchnorm._BatchNorm
    names = [name for name, module in detector.named_modules() if isinstance(module, norms) and "body" not in name]
    assert {".".join(name.split(".")[:2]) for name in names} == parts


@pytest.mark.parametrize(
    ("backbone", "norm_layer"),
    [
        ("resnet18", None),
        ("resnet50_thin", "batch"),
        ("efficientnet_lite0", "group"),
        *(("mobilenet_v2", norm_layer) for norm_layer in NORM_LAYERS),
    ],
)
def test_light_detectors_train_and_detect(backbone: str, norm_layer: str | None) -> None:
    detector: Any = mask_rcnn(3, backbone, "light", None, norm_layer, imgsz=64)
    images, targets = scene()
    losses = detector(images, targets)
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
    detector.roi_heads.score_thresh = 0.0
    (found,) = detector.eval()([torch.rand(3, 50, 70)])
    assert 0 < len(found["boxes"]) <= 100
    assert found["masks"].shape == (len(found["boxes"]), 1, 50, 70)
    assert set(found["labels"].tolist()) <= {1, 2}
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"] <= torch.tensor([70.0, 50, 70, 50])).all()


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50", "resnet101", "resnet152"])
def test_the_larger_resnets_train_and_detect(backbone: str) -> None:
    detector = faster_rcnn(3, backbone, "light", None, imgsz=64)
    losses = detector(*scene())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in detector.parameters())
    (found,) = detector.eval()([torch.rand(3, 64, 64)])
    assert found["boxes"].shape[1] == 4


@pytest.mark.parametrize("norm_layer", NORM_LAYERS)
def test_an_image_without_objects_trains_and_spoils_no_statistics(norm_layer: str | None) -> None:
    detector = mask_rcnn(3, "mobilenet_v2", "light", None, norm_layer, imgsz=64)
    losses = detector(*scene(objects=0))
    assert all(loss.isfinite() for loss in losses.values())
    assert all(buffer.isfinite().all() for buffer in detector.buffers())


@pytest.mark.parametrize(
    ("backbone", "norm_layer"), [("resnet50_thin", "group"), ("mobilenet_v2", None), ("efficientnet_lite0", "batch")]
)
def test_they_narrow(backbone: str, norm_layer: str | None) -> None:
    model = slimdet.slim(faster_rcnn(3, backbone, "light", None, norm_layer, imgsz=64), widths=(0.25, 1.0)).eval()
    images = [torch.rand(3, 64, 64)]
    twin, plain = model(images, width=0.25)[0], model.extract(0.25)(images)[0]
    assert all(torch.equal(twin[key], plain[key]) for key in twin)


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("neck", NECKS)
def test_architecture_is_json_from_which_the_same_detector_is_built(builder: str, neck: str) -> None:
    with torch.device("meta"):
        detector: Any = BUILDERS[builder](7, "resnet18", neck, "none", "group", "frozen", imgsz=(100, 200))
        again: Any = build(json.loads(json.dumps(detector.architecture)))
    assert type(again) is type(detector) is (MaskRCNN if builder == "mask_rcnn" else FasterRCNN)
    assert shapes(again) == shapes(detector)
    assert repr(again) == repr(detector)
    assert again.architecture == detector.architecture
    assert again.rpn.anchor_generator.sizes == detector.rpn.anchor_generator.sizes
    assert again.weights_loaded == "none (random start)"


def test_a_detector_is_pickled_without_a_trace_of_slimdet() -> None:
    file = io.BytesIO()
    torch.save(mask_rcnn(3, "efficientnet_lite0", "light", None, "group"), file)
    assert b"slimdet" not in file.getvalue()


def test_weights_end_up_in_the_body_and_are_named(tmp_path: Path) -> None:
    source = faster_rcnn(3, "resnet18", "light", None).get_submodule("backbone.body").state_dict()
    torch.save(source, tmp_path / "body.pth")
    detector: Any = faster_rcnn(5, "resnet18", "light", tmp_path / "body.pth", "batch")
    assert detector.weights_loaded == str(tmp_path / "body.pth")
    assert all(torch.equal(value, source[key]) for key, value in detector.backbone.body.state_dict().items())


def test_there_is_no_silent_random_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    with torch.device("meta"), pytest.raises(WeightsError, match="--weights none"):
        faster_rcnn(3)


@pytest.mark.parametrize(
    ("imgsz", "expected"),
    [(None, (256, 352)), (320, (320, 440)), ((200, 300), (200, 300)), ([96, 96], (96, 96))],
)
def test_image_size(imgsz: Any, expected: tuple[int, int]) -> None:
    with torch.device("meta"):
        detector = faster_rcnn(3, "resnet18", "light", None, imgsz=imgsz)
    assert (detector.transform.min_size, detector.transform.max_size) == ((expected[0],), expected[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "mobilenet_v3"}, "backbone 'mobilenet_v3' is not one of .*; did you mean mobilenet_v2\\?"),
        ({"neck": "ligth"}, "neck 'ligth' is not one of .*; did you mean light\\?"),
        ({"norm_layer": "groups"}, "norm_layer 'groups' is not one of .*; did you mean group\\?"),
        ({"backbone_norm": "frosen"}, "did you mean frozen"),
        ({"num_classes": 1}, "num_classes 1 must be an integer of at least 2"),
        ({"num_classes": 2.0}, "num_classes 2.0"),
        ({"num_classes": True}, "num_classes True"),
        ({"imgsz": 0}, "imgsz"),
        ({"imgsz": (300, 200)}, "imgsz"),
        ({"imgsz": "320"}, "imgsz '320'"),
        ({"imgsz": 320.0}, "imgsz 320.0"),
        ({"imgsz": True}, "imgsz True"),
        ({"imgsz": (1, 2, 3)}, "imgsz"),
        ({"bakbone": "resnet18"}, "option of faster_rcnn 'bakbone' is not one of .*; did you mean backbone\\?"),
        ({"weights": "file"}, "option of faster_rcnn 'weights' is not one of"),
        ({"builder": "fast_rcnn"}, "did you mean faster_rcnn"),
        ({"builder": None}, "builder None is not one of"),
        ({"backbone": ["resnet18"]}, "is not one of"),
    ],
)
def test_a_wrong_option_is_an_error_with_the_way_out(options: dict[str, Any], message: str) -> None:
    right = {"builder": "faster_rcnn", "num_classes": 3, "backbone": "resnet18", "neck": "light"}
    with torch.device("meta"), pytest.raises(ConfigError) as caught:
        build(right | options)
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)


def test_an_architecture_without_classes_is_an_error() -> None:
    with pytest.raises(ConfigError, match="lacks num_classes"):
        build({"builder": "mask_rcnn"})


@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "efficientnet_lite0", "resnet18"])
def test_the_documented_numbers_of_parameters_are_true(backbone: str, neck: str) -> None:
    document = Path(__file__).parents[2] / "docs" / "detectors.md"
    row = next(line for line in document.read_text().splitlines() if line.startswith(f"| {backbone} | {neck} |"))
    with torch.device("meta"):
        made = [builder(81, backbone, neck, None) for builder in (faster_rcnn, mask_rcnn)]
    counts = [f"{sum(p.numel() for p in detector.parameters()) / 1e6:.1f} M" for detector in made]
    assert [cell.strip() for cell in row.split("|")[3:5]] == counts
