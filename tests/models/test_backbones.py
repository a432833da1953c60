"""Backbones: their levels, and that the right weights end up in the right layers or are refused."""

import random
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from slimdet.errors import ConfigError, WeightsError
from slimdet.models.backbones import BACKBONES, STRIDES, classifier, trunk

FILES = {
    "resnet50_thin": "resnet50_thin0.5_open_nsfw_fp16.pth",
    "mobilenet_v2": "mobilenetv2_imagenet_features.pt",
    "efficientnet_lite0": "efficientnet_lite0_imagenet_fp16.pth",
}


def given(shared: Path, name: str) -> Path:
    return shared / "data" / "weights" / FILES[name]


@pytest.mark.parametrize("name", BACKBONES)
def test_levels_have_the_strides_and_channels_of_the_table(name: str) -> None:
    levels = BACKBONES[name].levels
    with torch.device("meta"):
        body = IntermediateLayerGetter(trunk(name)[0], {child: child for child, _ in levels})
        features = body(torch.zeros(1, 3, 96, 128))
    assert [tuple(f.shape) for f in features.values()] == [
        (1, channels, 96 // stride, 128 // stride) for stride, (_, channels) in zip(STRIDES, levels, strict=True)
    ]


def test_resnet50_thin_is_narrow_but_for_the_stem_and_strides_first() -> None:
    with torch.device("meta"):
        network = classifier("resnet50_thin")
    blocks = [module for module in network.modules() if isinstance(module, Bottleneck)]
    assert network.get_parameter("conv1.weight").shape[0] == 64
    assert sorted({block.conv2.out_channels for block in blocks}) == [32, 64, 128, 256]
    assert {block.conv2.stride for block in blocks} == {(1, 1)}
    assert [block.conv1.stride for block in blocks].count((2, 2)) == 3


def test_efficientnet_lite0_has_ten_depthwise_5x5_and_the_published_size() -> None:
    with torch.device("meta"):
        network = classifier("efficientnet_lite0")
    blocks = [module for module in network.modules() if isinstance(module, InvertedResidual)]
    kernels = [next(m for m in block.modules() if isinstance(m, nn.Conv2d) and m.groups > 1) for block in blocks]
    assert [conv.kernel_size[0] for conv in kernels] == [3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3]
    assert sum(p.numel() for p in network.parameters()) == 4_652_008  # 4.7 M in its announcement


@pytest.mark.slow
def test_efficientnet_lite0_computes_what_timms_does() -> None:
    timm = pytest.importorskip("timm")
    theirs, ours = timm.create_model("efficientnet_lite0").eval(), classifier("efficientnet_lite0").eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
            nn.init.uniform_(module.get_buffer("running_mean"), -0.1, 0.1)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    values = theirs.state_dict().values()  # the same layers in the same order
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    image = torch.rand(1, 3, 96, 96)
    torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-5)


def test_frozen_norm_is_torchvisions() -> None:
    with torch.device("meta"):
        kinds = {type(module) for module in trunk("resnet18", norm="frozen")[0].modules()}
    assert FrozenBatchNorm2d in kinds
    assert nn.BatchNorm2d not in kinds


# --- weights -------------------------------------------------------------------------------------------------------


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, path)
    return path


def test_a_file_is_loaded_said_and_kept_with_either_norm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = classifier("resnet18")
    nn.init.uniform_(source.get_buffer("bn1.running_var"), 1, 2)
    file = saved(tmp_path / "w.pth", source.state_dict())
    with caplog.at_level("INFO", logger="slimdet"):
        body, loaded = trunk("resnet18", file)
        frozen, _ = trunk("resnet18", file, norm="frozen")
    assert loaded == str(file)
    assert str(file) in caplog.text
    for part in (body, frozen):
        assert torch.equal(part.get_parameter("layer4.1.conv2.weight"), source.get_parameter("layer4.1.conv2.weight"))
        assert torch.equal(part.get_buffer("bn1.running_var"), source.get_buffer("bn1.running_var"))


def test_the_head_may_be_missing_or_another_for_a_trunk_but_not_for_a_classifier(tmp_path: Path) -> None:
    state = classifier("mobilenet_v2").state_dict()
    other = {**state, "classifier.1.weight": torch.ones(2, 1280), "classifier.1.bias": torch.ones(2)}
    without = {key: value for key, value in state.items() if not key.startswith(("classifier.", "features.18."))}
    for name, content in (("other.pth", other), ("without.pth", without)):
        file = saved(tmp_path / name, content)
        trunk("mobilenet_v2", file)
        with pytest.raises(WeightsError, match=r"classifier\.1\.weight"):
            classifier("mobilenet_v2", file)


@pytest.mark.parametrize(
    ("saved_as", "loaded_as", "fault"),
    [
        ("resnet18", "resnet34", "missing: layer1.2"),
        ("resnet34", "resnet18", "unexpected: layer1.2"),
        ("resnet50_thin", "resnet50", "wrong shape: layer1.0"),
        ("mobilenet_v2", "resnet18", "unexpected: classifier"),
        ("mobilenet_v2", "efficientnet_lite0", "wrong shape: features.4"),
    ],
)
def test_another_backbones_file_is_refused(tmp_path: Path, saved_as: str, loaded_as: str, fault: str) -> None:
    with torch.device("meta"):
        shapes = classifier(saved_as).state_dict()
    file = saved(tmp_path / "w.pth", {key: torch.zeros(value.shape) for key, value in shapes.items()})
    with torch.device("meta"), pytest.raises(WeightsError, match=f"do not fit {loaded_as}.*{fault}") as caught:
        trunk(loaded_as, file)
    assert "\n" not in str(caught.value)


def in_flat_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """MobileNetV2's keys as torchvision named them before 0.4, written out the other way round than in the source."""
    flat = {"0.0": "0", "0.1": "1", "1.0": "3", "1.1": "4", "2": "6", "3": "7"}
    first = {"0.0": "0", "0.1": "1", "1": "3", "2": "4"}
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if len(parts) > 3 and parts[2] == "conv":
            layer = (first if parts[1] == "1" else flat)[".".join(parts[3:-1])]
            key = ".".join([*parts[:3], layer, parts[-1]])
        renamed[key] = value
    return renamed


def test_the_older_mobilenet_layout_is_read_by_name_not_by_order(tmp_path: Path) -> None:
    source = classifier("mobilenet_v2").state_dict()
    for value in source.values():  # make every tensor different
        value.copy_(torch.rand_like(value, dtype=torch.float32))
    items = list(in_flat_layout(source).items())
    random.Random(0).shuffle(items)
    loaded = classifier("mobilenet_v2", saved(tmp_path / "w.pth", dict(items))).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in source.items() if not key.endswith("tracked"))

    misfit = dict(items) | {"features.3.conv.4.bias": torch.ones(7)}
    with pytest.raises(WeightsError, match=r"features\.3\.conv\.1\.1\.bias \[7\] instead of \[144\]"):
        trunk("mobilenet_v2", saved(tmp_path / "misfit.pth", misfit))


@pytest.mark.parametrize("name", FILES)
def test_the_given_files_load_in_order_and_completely(shared: Path, name: str) -> None:
    file = given(shared, name)
    body, loaded = trunk(name, file)
    assert loaded == str(file)
    state, raw = body.state_dict(), torch.load(file, weights_only=True)
    # Two of the files use other names; they are checked another way: by the order of computation, in which they lie.
    pairs = zip(state.values(), (raw[key] for key in state) if name == "resnet50_thin" else raw.values(), strict=False)
    same = [torch.equal(ours, theirs.to(ours.dtype)) for ours, theirs in pairs if ours.is_floating_point()]
    assert same == [True] * sum(value.is_floating_point() for value in state.values())


def test_efficientnet_lite0_calls_the_cat_a_cat(shared: Path) -> None:
    data = pytest.importorskip("skimage.data")
    network = classifier("efficientnet_lite0", given(shared, "efficientnet_lite0")).eval()
    photo = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None, :, :, 75:375] / 255  # [1, 3, 300, 300]
    photo = nn.functional.interpolate(photo, (224, 224), mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    scores = network((photo - mean[:, None, None]) / std[:, None, None]).softmax(dim=1)[0]  # [1000]
    assert 281 <= int(scores.argmax()) <= 285  # tabby, tiger, Persian, Siamese, Egyptian cat
    assert scores[281:286].sum() > 0.8


# --- torchvision's downloads -----------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub and no network; returns the cache's folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("name", "file"), [("resnet18", "resnet18-f37072fd.pth"), ("mobilenet_v2", "mobilenet_v2-b0353104.pth")]
)
def test_imagenet_is_torchvisions_cached_download(offline: Path, name: str, file: str) -> None:
    source = classifier(name)
    torch.save(source.state_dict(), offline / file)
    network, (_, loaded) = classifier(name, "imagenet"), trunk(name, "imagenet")
    assert "IMAGENET1K_V1" in loaded
    assert all(map(torch.equal, network.parameters(), source.parameters()))


@pytest.mark.parametrize("name", [name for name, entry in BACKBONES.items() if entry.downloads])
def test_offline_imagenet_is_an_error_with_the_way_out(offline: Path, name: str) -> None:
    with (
        torch.device("meta"),
        pytest.raises(
            WeightsError, match=r"--weights FILE, --weights bundled .* or --weights none, or put it at"
        ) as caught,
    ):
        trunk(name, "imagenet")
    assert str(offline / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_download_is_an_error(offline: Path) -> None:
    (offline / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth"):
        trunk("resnet18", "imagenet")


@pytest.mark.parametrize("name", ["resnet50_thin", "efficientnet_lite0"])
def test_what_torchvision_does_not_offer_is_said(name: str) -> None:
    with pytest.raises(WeightsError, match=f"no ImageNet weights for {name}; give --weights FILE, --weights bundled"):
        trunk(name, "imagenet")


@pytest.mark.parametrize(("name", "near"), [("resnet5", "resnet50"), ("mobilenetv2", "mobilenet_v2")])
def test_unknown_backbone_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {near}"):
        trunk(name)


def test_unknown_norm() -> None:
    with pytest.raises(ConfigError, match="did you mean frozen"):
        trunk("resnet18", norm="frosen")
