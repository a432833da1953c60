"""The core: widths share weights, extracted detectors are plain, errors name the way out."""

import copy
import io
import math
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import detection as D
from torchvision.models import resnet18

from core.small import SMALL_EXAMPLE, Small, assert_tied, slim_small
from ready_made import GROUPED, READY_MADE, photographs, ready_made, same
from slimdet.core.scopes import Scope
from slimdet.core.sliced import Sliced
from slimdet.core.slimmable import Slimmable, slim
from slimdet.errors import SharingError, UnknownLayerError, WidthError

ODD = (0.25, 0.3, 0.35, 2 / 3, 1.0)
FITTING = (0.25, 0.375, 0.75, 1.0)


def widths_for(name: str, scope: str) -> tuple[float, ...]:
    return FITTING if name in GROUPED and scope == "detector" else ODD


@pytest.fixture(scope="module")
def tiny() -> Slimmable:
    """A slimmable Faster R-CNN on ResNet-18, small enough to run often."""
    return slim(tiny_detector(), (0.25, 0.5, 1.0)).eval()


def tiny_detector() -> nn.Module:
    torch.manual_seed(0)
    backbone = D.backbone_utils._resnet_fpn_extractor(resnet18(weights=None), 5)
    return D.FasterRCNN(
        backbone,
        5,
        min_size=64,
        max_size=96,
        box_score_thresh=0.0,
        rpn_post_nms_top_n_test=50,
        rpn_post_nms_top_n_train=50,
        box_batch_size_per_image=32,
    ).eval()


# ------------------------------------------------------------------------------------------------- extract


@pytest.mark.parametrize("scope", ["detector", "backbone"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "keypoint" in name else name for name in READY_MADE]
)
def test_extracted_detector_is_the_twin_to_the_last_bit(name: str, scope: str) -> None:
    detector = ready_made(name)
    model = slim(detector, widths_for(name, scope), scope)
    images = photographs()
    assert model.twin(1.0) is detector
    with torch.no_grad():
        assert same(model(images), detector(images))
        for width in model.widths[:-1]:
            twin, plain = model(images, width=width), model.extract(width)
            assert len(twin[0]["boxes"]) >= 20
            assert same(twin, plain(images))
            assert not any(type(module).__module__.startswith("slimdet") for module in plain.modules())
            check_shapes(detector, plain, width, model.scope)


def check_shapes(detector: nn.Module, plain: nn.Module, width: float, scope: Scope) -> None:
    """Names as in the widest; outputs int(w * C) where the scope narrows; nothing shared with the widest."""
    assert list(plain.state_dict()) == list(detector.state_dict())
    assert not {p.data_ptr() for p in plain.parameters()} & {p.data_ptr() for p in detector.parameters()}
    for name, wide in detector.named_modules():
        narrow = plain.get_submodule(name)
        assert type(narrow) is type(wide)
        if isinstance(wide, nn.Conv2d) and isinstance(narrow, nn.Conv2d):
            if wide.groups == 1:
                out = int(width * wide.out_channels) if scope.narrows(name) else wide.out_channels
                assert (narrow.out_channels, narrow.weight.shape[0]) == (out, out), name
            else:  # depthwise: follows its input wholly
                assert narrow.groups == narrow.in_channels == narrow.out_channels == narrow.weight.shape[0]
                assert narrow.in_channels in (int(width * wide.in_channels), wide.in_channels)
            assert narrow.in_channels in (3, wide.in_channels, int(width * wide.in_channels)), name
            assert narrow.weight.shape[1] * narrow.groups == narrow.in_channels
        if isinstance(wide, nn.Linear) and isinstance(narrow, nn.Linear):
            assert narrow.weight.shape == (narrow.out_features, narrow.in_features)
            assert narrow.out_features == (int(width * wide.out_features) if scope.narrows(name) else wide.out_features)


def test_linear_behind_a_flatten_narrows_by_whole_channels(tiny: Slimmable) -> None:
    model = slim(tiny_detector(), (0.3, 1.0))
    fc6: Any = model.extract(0.3).get_submodule("roi_heads.box_head.fc6")
    assert fc6.in_features == int(0.3 * 256) * 49 != int(0.3 * 256 * 49)


def test_extracting_leaves_the_model_alone(tiny: Slimmable) -> None:
    before = tiny(photographs(), width=0.5)
    plain = tiny.extract(0.5)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert same(before, tiny(photographs(), width=0.5))
    for name in ("rpn.head.cls_logits", "backbone.body.conv1"):
        assert isinstance(tiny.twin(0.5).get_submodule(name), Sliced)


# ------------------------------------------------------------------------------------------------- gradients


def explicit(model: Small, norm: Any, biases: dict[str, Tensor], w: float, x: Tensor) -> Tensor:
    """Small's forward at one width, written with explicit slices."""
    c8, c12, c10 = int(w * 8), int(w * 12), int(w * 10)
    x = F.conv2d(x, model.first.weight[:c8], padding=1)
    x = F.relu(F.batch_norm(x, None, None, norm.weight, norm.bias, training=True))
    x = F.relu(F.conv2d(x, model.second.weight[:c12, :c8], biases["second"], stride=2, padding=1))
    x = F.relu(F.conv_transpose2d(x, model.up.weight[:c12, :c8], biases["up"], stride=2))
    x = F.adaptive_avg_pool2d(x, 4).flatten(1)
    x = F.relu(F.linear(x, model.hidden.weight[:c10, : c8 * 16], biases["hidden"]))
    return F.linear(x, model.last.weight[:, :c10], model.last.bias)


@pytest.mark.parametrize("width", [0.25, 0.5, 0.35, 0.6667])
def test_gradients_equal_explicit_slicing(width: float) -> None:
    model = slim_small((width, 1.0)).train()
    widest, twin = model.twin(1.0), model.twin(width)
    x = torch.randn(2, 3, 8, 8)
    model(x, width=width).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in widest.named_parameters() if p.grad is not None}
    own = {
        name: p.grad.clone() for name, p in twin.named_parameters() if "norm" in name or name.endswith("hidden.bias")
    }
    model.zero_grad()
    biases = {name: twin.get_submodule(name).bias for name in ("second", "up", "hidden")}
    explicit(widest, twin.norm, biases, width, x).square().sum().backward()  # pyright: ignore
    assert set(gradients) == {"first.weight", "second.weight", "up.weight", "hidden.weight", "last.weight", "last.bias"}
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, widest.get_parameter(name).grad, rtol=1e-5, atol=1e-6)
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, twin.get_parameter(name).grad, rtol=1e-5, atol=1e-6)
    c8, c12, c10 = int(width * 8), int(width * 12), int(width * 10)
    corners = {"first": (c8, 3), "second": (c12, c8), "up": (c12, c8), "hidden": (c10, c8 * 16), "last": (4, c10)}
    for name, (rows, columns) in corners.items():
        outside = gradients[f"{name}.weight"].clone()
        outside[:rows, :columns] = 0
        assert torch.equal(outside, torch.zeros_like(outside)), name


def test_gradients_of_widths_add_up() -> None:
    model = slim_small().train()
    x = torch.randn(2, 3, 8, 8)
    each = []
    for width in model.widths:
        model.zero_grad()
        model(x, width=width).square().sum().backward()
        each.append(model.twin(1.0).get_parameter("second.weight").grad.clone())  # pyright: ignore
    model.zero_grad()
    for width in model.widths:
        model(x, width=width).square().sum().backward()
    total = model.twin(1.0).get_parameter("second.weight").grad
    torch.testing.assert_close(total, sum(each))


def test_detector_losses_train_every_width(tiny: Slimmable) -> None:
    model = copy.deepcopy(tiny).train()
    targets = [{"boxes": torch.tensor([[5.0, 5, 60, 60]]), "labels": torch.tensor([1])}]
    for width in model.widths:
        losses = model(photographs(), targets, width=width)
        sum(losses.values()).backward()
        assert all(math.isfinite(value.item()) for value in losses.values())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


# ------------------------------------------------------------------------------------------------- sharing


@pytest.mark.parametrize("scope", ["detector", "backbone"])
def test_all_widths_cost_little_more_memory_than_the_widest(scope: str) -> None:
    detector = ready_made("fasterrcnn_resnet50")
    model = slim(detector, (0.25, 0.5, 0.75, 1.0), scope)
    own = {id(p) for m in model.twins.modules() for k, p in m._parameters.items() if p is not None and p.dim() == 1}
    storages = [p.untyped_storage() for p in model.parameters() if id(p) not in own]
    shared = {storage.data_ptr(): storage.nbytes() for storage in storages}
    widest = sum(p.numel() * p.element_size() for p in detector.parameters())
    assert sum(shared.values()) <= 1.02 * widest
    assert_tied(model)


def test_state_dict_names_each_shared_tensor_once(tiny: Slimmable) -> None:
    state = tiny.state_dict()
    ordinary = [key for key in state if not key.startswith("twins.")]
    assert ordinary == list(tiny.twin(1.0).state_dict())
    own = [key for key in state if key.startswith("twins.")]
    assert own
    assert all(key.startswith(("twins.0_25.", "twins.0_5.")) for key in own)
    assert all(state[key].dim() <= 1 for key in own)
    pointers = [tensor.data_ptr() for tensor in state.values() if tensor.numel()]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize("assign", [False, True])
def test_loading_a_state_dict_keeps_the_sharing(tiny: Slimmable, assign: bool) -> None:
    torch.manual_seed(3)
    other = slim(tiny_detector(), tiny.widths).eval()
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.05)
    state = {key: value.clone() for key, value in tiny.state_dict().items()}
    assert str(other.load_state_dict(state, strict=True, assign=assign)) == "<All keys matched successfully>"
    assert_tied(other)
    for width in tiny.widths:
        assert same(tiny(photographs(), width=width), other(photographs(), width=width))
    with pytest.raises(RuntimeError, match=r"twins\.0_25\.backbone\.body\.bn1"):
        other.load_state_dict({k: v for k, v in state.items() if k != "twins.0_25.backbone.body.bn1.weight"})
    with pytest.raises(RuntimeError, match="nonsense"):
        other.load_state_dict(state | {"nonsense": torch.zeros(1)})


def to_empty_and_back(model: Slimmable) -> Slimmable:
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model = model.to("meta").to_empty(device="cpu")
    model.load_state_dict(state)
    return model


def saved_and_loaded(model: Slimmable) -> Slimmable:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize(
    "operation",
    [
        copy.deepcopy,
        saved_and_loaded,
        to_empty_and_back,
        lambda model: model.to("cpu", memory_format=torch.channels_last).to(memory_format=torch.contiguous_format),
        lambda model: nn.ModuleDict({"inner": model}).double().float()["inner"],
    ],
    ids=["deepcopy", "torch.save", "to_empty", "channels_last", "nested"],
)
def test_operations_keep_the_sharing(tiny: Slimmable, operation: Callable[[Slimmable], Slimmable]) -> None:
    model = operation(copy.deepcopy(tiny))
    assert_tied(model)
    with torch.no_grad():
        for width in tiny.widths:
            assert same(tiny(photographs(), width=width), model(photographs(), width=width))


@pytest.mark.parametrize("made_there", [False, True])
@pytest.mark.parametrize("assign", [False, True])
def test_a_detector_on_the_meta_device_is_slimmed_and_filled(tiny: Slimmable, assign: bool, made_there: bool) -> None:
    with torch.device("meta" if made_there else "cpu"):
        detector = tiny_detector()
    model = slim(detector.to("meta"), tiny.widths).eval()
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert_tied(model)
    if not assign:
        model = model.to_empty(device="cpu")
    model.load_state_dict({key: value.clone() for key, value in tiny.state_dict().items()}, assign=assign)
    assert_tied(model)
    for width in tiny.widths:
        assert same(tiny(photographs(), width=width), model(photographs(), width=width))


def test_half_converts_every_width_once(tiny: Slimmable) -> None:
    model = copy.deepcopy(tiny).half()
    assert_tied(model)
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {torch.float16}
    plain = model.extract(0.5)
    assert {p.dtype for p in plain.parameters()} == {torch.float16}


def test_weight_averaging_and_one_optimizer_keep_the_sharing(tiny: Slimmable) -> None:
    model = copy.deepcopy(tiny).train()
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    targets = [{"boxes": torch.tensor([[5.0, 5, 60, 60]]), "labels": torch.tensor([1])}]
    for _ in range(2):
        optimizer.zero_grad()
        for width in model.widths:
            sum(model(photographs(), targets, width=width).values()).backward()
        optimizer.step()
        averaged.update_parameters(model)
    assert_tied(model)
    assert_tied(averaged.module)  # pyright: ignore[reportArgumentType]
    restored = torch.optim.SGD(model.parameters(), lr=0.01)
    restored.load_state_dict(optimizer.state_dict())
    averaged.module.load_state_dict(model.state_dict())
    assert_tied(averaged.module)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("operation", [nn.Module.half, nn.Module.double, lambda m: m.to("meta")])
def test_converting_one_width_alone_is_refused(tiny: Slimmable, operation: Callable[[nn.Module], Any]) -> None:
    with pytest.raises(SharingError, match="extract"):
        operation(tiny.twin(0.25))
    assert_tied(tiny)


def test_widths_share_nothing_but_parameters(tiny: Slimmable) -> None:
    seen: set[int] = set()
    for width in tiny.widths:
        modules = {id(module) for module in tiny.twin(width).modules()}
        assert not modules & seen
        seen |= modules
        pooler: Any = tiny.twin(width).get_submodule("roi_heads.box_roi_pool")
        pooler.scales = None
    tiny(photographs(), width=0.25)
    assert tiny.twin(0.5).roi_heads.box_roi_pool.scales is None  # pyright: ignore


def test_training_mode_reaches_every_width(tiny: Slimmable) -> None:
    model = copy.deepcopy(tiny)
    for mode in (True, False):
        model.train(mode)
        assert all(m.training == mode for w in model.widths for m in model.twin(w).modules())


# ------------------------------------------------------------------------------------------------- concurrency, compile


def test_threads_at_mixed_and_same_widths_give_single_thread_results(tiny: Slimmable) -> None:
    sizes = [(64, 96), (80, 70), (50, 90)]
    jobs = [(width, size) for width in tiny.widths for size in sizes]
    with torch.no_grad():
        expected = {job: tiny(photographs(job[1]), width=job[0]) for job in jobs}

        def run(index: int) -> bool:
            with torch.no_grad():
                width, size = jobs[index % len(jobs)] if index % 2 else jobs[0]
                return same(tiny(photographs(size), width=width), expected[width, size])

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(run, range(200)))


@pytest.mark.slow  # a minute of compiling
def test_compiled_backbone_and_whole_detector_give_the_same(tiny: Slimmable) -> None:
    torch._dynamo.reset()
    twin: Any = tiny.twin(0.5)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        compiled = torch.compile(twin.backbone, fullgraph=True, backend="aot_eager")
        for key, value in compiled(image).items():
            torch.testing.assert_close(value, twin.backbone(image)[key])
        whole = torch.compile(copy.deepcopy(tiny), backend="eager")
        found, expected = whole(photographs(), width=0.5)[0], tiny(photographs(), width=0.5)[0]
        for key in expected:
            torch.testing.assert_close(found[key], expected[key])
    torch._dynamo.reset()


def test_activation_checkpointing_over_several_widths_in_one_backward() -> None:
    model = slim_small().train()
    x = torch.randn(2, 3, 8, 8)
    sum(model(x, width=w).square().sum() for w in model.widths).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    parts = [checkpoint(model.twin(w), x, use_reentrant=False).square().sum() for w in model.widths]  # pyright: ignore
    sum(parts).backward()  # pyright: ignore
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


# ------------------------------------------------------------------------------------------------- the original's way


@pytest.mark.parametrize("width", [0.25, 0.35, 0.75])
def test_zero_padding_before_the_pyramid_equals_sliced_laterals(width: float) -> None:
    detector: Any = ready_made("fasterrcnn_resnet50")
    twin: Any = slim(detector, (width, 1.0), "backbone").twin(width)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        narrow = twin.backbone.body(image)
        padded = {
            level: F.pad(features, (0, 0, 0, 0, 0, channels - features.shape[1]))
            for (level, features), channels in zip(narrow.items(), (256, 512, 1024, 2048), strict=True)
        }
        for level, expected in detector.backbone.fpn(padded).items():
            torch.testing.assert_close(twin.backbone.fpn(narrow)[level], expected, rtol=1e-5, atol=1e-5)


def test_backbone_scope_keeps_neck_and_heads_wide() -> None:
    model = slim(tiny_detector(), (0.25, 1.0), "backbone")
    twin: Any = model.extract(0.25)
    lateral = twin.backbone.fpn.inner_blocks[3][0]
    assert (lateral.in_channels, lateral.out_channels) == (128, 256)
    assert twin.roi_heads.box_head.fc6.weight.shape == (1024, 256 * 49)
    own = [key for key in model.state_dict() if key.startswith("twins.")]
    assert all(key.startswith("twins.0_25.backbone.body.") for key in own)  # biases stay shared: the original system


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("width", [0, -0.5, 1.01, math.nan, math.inf, "wide", None, True, 0.00001, [0.5]])
def test_malformed_widths(width: Any) -> None:
    with pytest.raises(WidthError, match=r"is not a number in \(0, 1\]"):
        slim_small((width, 1.0))


def test_widths_as_a_whole() -> None:
    with pytest.raises(WidthError, match="given twice"):
        slim_small((0.5, 0.5, 1.0))
    with pytest.raises(WidthError, match="given twice"):
        slim_small((0.66666, 2 / 3, 1.0))
    with pytest.raises(WidthError, match=r"must contain 1\.0"):
        slim_small((0.25, 0.5))
    with pytest.raises(WidthError, match=r"must contain 1\.0"):
        slim_small(())
    assert slim_small((1.0, 2 / 3, 0.25)).widths == (0.25, 0.6667, 1.0)


@pytest.mark.parametrize("name", ["scope", "plans", "add", "extract", "twin", "twins", "widths", "norm_sharing", "tie"])
def test_parts_with_names_of_slimmables_own_are_refused(name: str) -> None:
    network = nn.Sequential(OrderedDict({name: nn.Conv2d(3, 4, 1), "rest": nn.Conv2d(4, 4, 1)}))
    with pytest.raises(UnknownLayerError, match=f"'{name}', a part of the detector, .*rename it"):
        slim(network, (0.5, 1.0), Scope("all", (".*",)), example=SMALL_EXAMPLE)
    model = slim(nn.Sequential(network), (0.5, 1.0), Scope("all", (".*",)), example=SMALL_EXAMPLE)  # deeper is free
    assert torch.equal(model(SMALL_EXAMPLE[0], width=0.5), model.extract(0.5)(SMALL_EXAMPLE[0]))


@pytest.mark.parametrize("name", ["classes", "metrics", "calibrations", "norms", "card"])
def test_parts_may_have_the_names_of_what_bundles_know(name: str) -> None:
    network = nn.Sequential(OrderedDict({name: nn.Conv2d(3, 4, 1), "rest": nn.Conv2d(4, 4, 1)}))
    model = slim(network, (0.5, 1.0), Scope("all", (".*",)), example=SMALL_EXAMPLE)
    assert f"{name}.weight" in model.state_dict()
    assert model.get_submodule(name) is network.get_submodule(name)


def test_forward_at_unknown_widths_and_in_training_without_one(tiny: Slimmable) -> None:
    with pytest.raises(WidthError, match=r"0\.6 is not one of 0\.25, 0\.5, 1\.0; .*'slimdet calibrate --width 0\.6'"):
        tiny(photographs(), width=0.6)
    with pytest.raises(WidthError, match="training needs a width"):
        copy.deepcopy(tiny).train()(photographs(), [])
    with pytest.raises(WidthError, match=r"0\.6 is not one of"):
        tiny.extract(0.6)


def test_a_detector_handed_over_is_left_as_it_was() -> None:
    detector = tiny_detector()
    modules, state = dict(detector.named_modules()), copy.deepcopy(detector.state_dict())
    slim(detector, (0.25, 1.0))
    assert dict(detector.named_modules()) == modules
    assert all(torch.equal(value, detector.state_dict()[key]) for key, value in state.items())
    assert not any(isinstance(module, Sliced) or "forward" in vars(module) for module in detector.modules())
