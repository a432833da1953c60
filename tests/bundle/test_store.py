"""Bundles: what is saved comes back, and nothing else is let in."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torchvision.models import detection as D

import slimdet
from ready_made import READY_MADE, photographs, ready_made, same
from slimdet.bundle.card import Card, read
from slimdet.bundle.store import weights_of
from slimdet.core.scopes import Scope
from slimdet.errors import BundleError
from slimdet.models import builders

WIDTHS = (0.5, 1.0)


def small_model(scope: str | Scope = "detector") -> slimdet.Slimmable:
    torch.manual_seed(0)
    detector = builders.faster_rcnn(3, backbone="resnet18", neck="light", weights=None, norm_layer="batch", imgsz=96)
    return slimdet.slim(detector, WIDTHS, scope).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "model"
    model = small_model()
    card = Card(("cat", "dog"), (3, 17)).record(weights_of(model), {"0.5": {"bbox": {"AP": 0.1}}})
    return slimdet.save(model, folder, card)


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_what_is_saved_comes_back_to_the_last_bit(saved: Path) -> None:
    model, loaded = small_model(), slimdet.load(saved)
    assert loaded.widths == WIDTHS
    card = read(saved)
    assert (card.classes, card.category_ids) == (("cat", "dog"), (3, 17))
    assert card.metrics["0.5"]["bbox"]["AP"] == 0.1
    assert not loaded.training
    for width in WIDTHS:
        assert same(model(photographs(), width=width), loaded(photographs(), width=width))
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])


def test_weights_hold_each_tensor_once_under_the_contract_names(saved: Path) -> None:
    assert sorted(file.name for file in saved.iterdir()) == ["model.json", "weights.safetensors"]
    with safe_open(str(saved / "weights.safetensors"), "pt") as file:
        keys = set(file.keys())
    model = small_model()
    assert {key for key in keys if not key.startswith("twins.")} == set(model.twin(1.0).state_dict())
    assert keys == set(model.state_dict())


@pytest.mark.parametrize("name", READY_MADE)
def test_ready_made_torchvision_detectors_save_and_load(name: str, tmp_path: Path) -> None:
    detector = ready_made(name)
    model = slimdet.slim(detector, WIDTHS)
    loaded = slimdet.load(slimdet.save(model, tmp_path / "model"))
    for width in WIDTHS:
        assert same(model(photographs(), width=width), loaded(photographs(), width=width))


def test_settings_changed_after_building_are_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector: Any = D.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4).eval()
    detector.transform.min_size, detector.transform.max_size = (64,), 96
    detector.roi_heads.score_thresh = 0.0
    detector.roi_heads.detections_per_img = 7
    detector.roi_heads.box_coder.weights = (5.0, 5.0, 2.5, 2.5)
    generator = detector.rpn.anchor_generator
    generator.sizes = ((16,), (32,), (64,), (128,), (256,))
    pairs = zip(generator.sizes, generator.aspect_ratios, strict=True)
    generator.cell_anchors = [generator.generate_anchors(*pair) for pair in pairs]
    model = slimdet.slim(detector, WIDTHS)
    loaded = slimdet.load(slimdet.save(model, tmp_path / "model"))
    assert len(model(photographs(), width=0.5)[0]["boxes"]) == 7
    for width in WIDTHS:
        assert same(model(photographs(), width=width), loaded(photographs(), width=width))


def test_frozen_norms_and_own_scopes_come_back(tmp_path: Path) -> None:
    detector = builders.faster_rcnn(
        3, backbone="resnet18", neck="light", weights=None, backbone_norm="frozen", imgsz=96
    ).eval()
    scope = Scope("only-backbone-end", narrow=(r"backbone\.body\.layer4\..*conv1",))
    model = slimdet.slim(detector, WIDTHS, scope)
    loaded = slimdet.load(slimdet.save(model, tmp_path / "model"))
    assert loaded.scope == scope
    assert same(model(photographs(), width=0.5), loaded(photographs(), width=0.5))


def test_half_stores_16_bits_and_loads_32(tmp_path: Path) -> None:
    model = small_model()
    full = slimdet.save(model, tmp_path / "full") / "weights.safetensors"
    folder = slimdet.save(model, tmp_path / "half", half=True)
    assert (folder / "weights.safetensors").stat().st_size < 0.55 * full.stat().st_size
    loaded = slimdet.load(folder)
    for key, value in model.state_dict().items():
        kept = loaded.state_dict()[key]
        assert kept.dtype == value.dtype
        torch.testing.assert_close(kept, value, rtol=1e-3, atol=1e-6 if value.dim() > 1 else 0)


def test_half_keeps_small_variances_in_32_bits(tmp_path: Path) -> None:
    model = small_model()
    variance = model.get_buffer("backbone.body.bn1.running_var")
    variance.uniform_(1e-7, 1e-6)
    loaded = slimdet.load(slimdet.save(model, tmp_path / "half", half=True))
    assert torch.equal(loaded.get_buffer("backbone.body.bn1.running_var"), variance)


def test_saving_over_a_bundle_replaces_it_whole(copied: Path) -> None:
    (copied / "old.onnx").write_bytes(b"belongs to the old weights")
    document = json.loads((copied / "model.json").read_text())
    document["engines"] = {"onnx": {"1.0": {"file": "old.onnx", "sha256": "", "weights": ""}}}
    (copied / "model.json").write_text(json.dumps(document))
    (copied / "notes.txt").write_text("the user's")
    model = small_model()
    with torch.no_grad():
        next(model.parameters()).add_(1)
    slimdet.save(model, copied, Card(("a", "b")))
    assert read(copied).classes == ("a", "b")
    assert torch.equal(next(slimdet.load(copied).parameters()), next(model.parameters()))
    assert sorted(file.name for file in copied.iterdir()) == ["model.json", "notes.txt", "weights.safetensors"]
    assert [entry.name for entry in copied.parent.iterdir()] == ["copy"]  # no leftovers beside it


def test_a_save_that_fails_leaves_the_old_bundle(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in copied.iterdir()}
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        slimdet.save(small_model(), copied)
    assert {file.name: file.read_bytes() for file in copied.iterdir()} == before
    assert [entry.name for entry in copied.parent.iterdir()] == ["copy"]


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is not a bundle"):
        slimdet.save(small_model(), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_detectors_that_cannot_be_described_are_refused(tmp_path: Path) -> None:
    detector: Any = D.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    detector.roi_heads.box_head = nn.Sequential(nn.Flatten(), nn.Linear(256 * 49, 1024))
    with pytest.raises(BundleError, match="none of torchvision's ready-made detectors"):
        slimdet.save(slimdet.slim(detector, WIDTHS), tmp_path / "model")
    changed: Any = builders.faster_rcnn(3, backbone="resnet18", neck="light", weights=None)
    changed.rpn.head.cls_logits = nn.Conv2d(128, 6, 3, padding=1)
    with pytest.raises(BundleError, match=r"changed after it was built \(rpn\.head\.cls_logits"):
        slimdet.save(slimdet.slim(changed, WIDTHS), tmp_path / "model")
    assert not (tmp_path / "model").exists()


# ------------------------------------------------------------------------------------------------- foreign and damaged


def test_missing_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere is not a bundle: there is no model\.json"):
        slimdet.load(tmp_path / "nowhere")
    (tmp_path / "model.json").write_text('{"layers": 3}')
    with pytest.raises(BundleError, match="is not a slimdet model: it needs format, architecture"):
        slimdet.load(tmp_path)


@pytest.mark.parametrize("file", ["model.json", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "empty", "flip", "remove"])
def test_damaged_files_are_named_errors(copied: Path, file: str, damage: str) -> None:
    path = copied / file
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        path.write_bytes({"truncate": content[: len(content) // 3], "empty": b"", "flip": flipped}[damage])
    with pytest.raises(BundleError, match="copy"):
        slimdet.load(copied)


MUTATIONS: dict[str, Any] = {
    "format": [0, 99, "1", None],
    "architecture": [
        None,
        [],
        "resnet",
        {},
        {"builder": "os.system"},
        {"builder": "torchvision.resnet50"},
        {"builder": 3},
    ],
    "classes": [None, "cat", ["cat"], {}],
    "category_ids": [None, [1], "12"],
    "widths": [None, [], [0.5], ["wide", 1.0], [0.5, 0.5, 1.0], [[0.5], 1.0], [0.3, 1.0]],
    "scope": [None, 3, "neck", {}, {"name": "x"}],
    "weights": [None, {}, {"file": "../../etc/passwd", "sha256": "0"}, {"file": 3, "sha256": 3}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in MUTATIONS.items() for value in values])
def test_mutated_descriptions_are_named_errors(copied: Path, key: str, value: Any) -> None:
    document = json.loads((copied / "model.json").read_text())
    document[key] = value
    (copied / "model.json").write_text(json.dumps(document))
    with pytest.raises(BundleError) as caught:
        slimdet.load(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": 9},
        {"num_classes": "many"},
        {"backbone": "resnet34"},
        {"backbone": "vgg"},
        {"unknown": 1},
        {"settings": {"roi_heads": {"nonsense": 1}}},
        {"settings": {"roi_heads": {"score_thresh": "high"}}},
        {"settings": {"nowhere": {"score_thresh": 0.1}}},
        {"settings": {"roi_heads.box_roi_pool": {"sampling_ratio": 10**6}}},
        {"settings": {"transform": {"image_std": [0, 0, 0]}}},
        {"settings": [1, 2]},
    ],
)
def test_mutated_architectures_are_named_errors(copied: Path, change: dict[str, Any]) -> None:
    document = json.loads((copied / "model.json").read_text())
    document["architecture"] |= change
    (copied / "model.json").write_text(json.dumps(document))
    with pytest.raises(BundleError):
        slimdet.load(copied)
