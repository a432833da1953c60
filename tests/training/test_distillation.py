"""Distillation: what it measures, and who learns from it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection as D

from scenes_detector import scene_batch, tiny_model
from slimdet import Slimmable
from slimdet.errors import ConfigError
from slimdet.models.image_size import resize_shorter_side
from slimdet.training.distillation import PARTS, Watched, distillation_losses, feature_loss, mask_loss, rpn_loss, watch

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


def masked_batch(objects: int = 1) -> Batch:
    """A batch with masks; the second image has `objects` objects, the first as many."""
    images, targets = scene_batch()
    for image, target in zip(images, targets, strict=True):
        target["boxes"], target["labels"] = target["boxes"][:objects], target["labels"][:objects]
        target["masks"] = torch.zeros(objects, *image.shape[1:], dtype=torch.uint8)
        target["masks"][:, 20:40, 20:40] = 1
    return images, targets


def watched(detector: nn.Module, batch: Batch) -> Watched:
    torch.manual_seed(1)  # which proposals are sampled
    with watch(detector) as seen:
        detector(*batch)
    return seen


def taught(model: Slimmable, batch: Batch, **options: Any) -> dict[str, Tensor]:
    teacher = watched(model.twin(1.0), batch).detached()
    return distillation_losses(model.twin(0.5), watched(model.twin(0.5), batch), teacher, **options)


def test_features_equal_up_to_scale_and_shift_cost_nothing() -> None:
    teacher = torch.randn(2, 8, 6, 6)
    student = 3 * teacher[:, :4] - 5
    assert feature_loss(student, teacher, [(48, 48), (48, 48)]) < 1e-5
    assert feature_loss(-student, teacher, [(48, 48), (48, 48)]) > 1.9  # opposite: (2x)^2 / 2
    assert abs(feature_loss(torch.randn(64, 4, 16, 16), torch.randn(64, 8, 16, 16), [(128, 128)] * 64) - 1) < 0.05


@pytest.mark.parametrize(
    ("sizes", "cells"),
    [([(48, 24), (20, 48)], (6, 6)), ([(33, 20), (9, 33)], (8, 8)), ([(100, 40), (30, 97)], (16, 16))],
)
def test_padding_is_left_out(sizes: list[tuple[int, int]], cells: tuple[int, int]) -> None:
    teacher, student = torch.randn(2, 8, *cells), torch.randn(2, 4, *cells)
    expected = feature_loss(student, teacher, sizes)
    for features in (teacher, student):
        for image, (height, width) in enumerate(sizes):
            features[image, :, -(-height // 8) :] = 1e4
            features[image, :, :, -(-width // 8) :] = 100 * torch.randn(())
    torch.testing.assert_close(feature_loss(student, teacher, sizes), expected)


@pytest.mark.parametrize("part", PARTS)
def test_only_the_narrow_width_is_taught(part: str) -> None:
    model = tiny_model(masks=True).train()
    (name, loss), *others = taught(model, masked_batch(), parts=(part,)).items()
    assert (name, others) == (f"distill_{part}", [])
    assert loss.item() > 0
    loss.backward()
    lateral = model.get_parameter("backbone.fpn.inner_blocks.0.0.weight")
    out, inputs = lateral.shape[0] // 2, lateral.shape[1] // 2
    assert lateral.grad is not None
    assert lateral.grad[:out, :inputs].abs().sum() > 0
    for parameter in model.twin(1.0).parameters():  # nothing reaches the teacher's own channels
        if parameter.grad is not None and parameter.dim() == 4 and parameter.shape[1] % 2 == 0:
            assert not parameter.grad[:, parameter.shape[1] // 2 :].any()


def test_a_detector_without_masks_is_taught_the_rest() -> None:
    model = tiny_model().train()
    assert set(taught(model, scene_batch())) == {"distill_features", "distill_classes", "distill_rpn"}
    assert taught(model, scene_batch(), parts=()) == {}
    assert taught(model, scene_batch(), parts=("masks",)) == {}
    with pytest.raises(ConfigError, match="part 'boxes' is not one of 'features', 'classes', 'rpn', 'masks'"):
        taught(model, scene_batch(), parts=("rpn", "boxes"))


def test_what_is_not_asked_for_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(masks=True).train()
    batch = masked_batch()
    teacher, student = watched(model.twin(1.0), batch).detached(), watched(model.twin(0.5), batch)
    heads: Any = model.twin(0.5).get_submodule("roi_heads")
    ran: list[str] = []
    for name in ("box_head", "mask_head"):
        heads.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    distillation_losses(model.twin(0.5), student, teacher, ("features", "rpn"))
    assert ran == []
    distillation_losses(model.twin(0.5), student, teacher, ("masks",))
    assert ran == ["mask_head"]


def test_a_student_equal_to_its_teacher_learns_nothing() -> None:
    model = tiny_model(masks=True).train()
    detector = model.twin(1.0)
    seen = watched(detector, masked_batch())
    teacher = seen.detached()
    losses = distillation_losses(detector, seen, teacher)
    assert losses["distill_rpn"] == 0
    assert losses["distill_features"] == 0
    assert losses["distill_classes"] < 1e-6
    assert teacher.mask_logits is not None
    entropy = torch.distributions.Bernoulli(logits=teacher.mask_logits).entropy().mean()
    torch.testing.assert_close(losses["distill_masks"], entropy)  # cross-entropy is never less
    losses["distill_masks"].backward()
    assert all(parameter.grad is None or parameter.grad.abs().max() < 1e-5 for parameter in detector.parameters())


def proposal_network(probability: Tensor, codes: Tensor) -> Watched:
    """One level of stride 8 over one image without padding: probabilities [A, H, W], codes [A * 4, H, W]."""
    _, height, width = probability.shape
    return Watched(
        objectness=[probability.logit()[None]], box_codes=[codes[None]], image_sizes=[(8 * height, 8 * width)]
    )


def test_background_and_padding_do_not_change_the_scale_of_the_rpn_loss() -> None:
    torch.manual_seed(0)
    shape = (3, 16, 16)
    s, t = torch.full(shape, 1e-3), torch.full(shape, 1e-3)
    s[:, 2:5, 2:5], t[:, 2:5, 2:5] = torch.rand(3, 3, 3), 0.9
    codes = torch.randn(2, 12, 16, 16)

    def loss(s: Tensor, t: Tensor, size: tuple[int, int]) -> Tensor:
        grow = (0, s.shape[2] - 16, 0, s.shape[1] - 16)
        student, teacher = (proposal_network(p, nn.functional.pad(c, grow)) for p, c in zip((s, t), codes, strict=True))
        student.image_sizes = teacher.image_sizes = [size]
        return rpn_loss(student, teacher)

    expected = loss(s, t, (128, 128))
    assert expected > 0.1
    background = torch.full((3, 64, 64), 1e-3)
    wide_s, wide_t = background.clone(), background.clone()
    wide_s[:, :16, :16], wide_t[:, :16, :16] = s, t
    torch.testing.assert_close(loss(wide_s, wide_t, (512, 512)), expected, rtol=2e-3, atol=0)
    padded_s, padded_t = torch.rand(3, 24, 24), torch.rand(3, 24, 24)
    padded_s[:, :16, :16], padded_t[:, :16, :16] = s, t
    torch.testing.assert_close(loss(padded_s, padded_t, (128, 128)), expected)


def test_objectness_is_bounded_and_box_codes_count_where_the_teacher_sees_objects() -> None:
    nothing, everything = torch.full((1, 8, 8), 1e-6), torch.full((1, 8, 8), 1 - 1e-6)
    codes = torch.zeros(4, 8, 8)
    for s, t in ((nothing, everything), (everything, nothing)):
        worst = rpn_loss(proposal_network(s, codes), proposal_network(t, codes))
        torch.testing.assert_close(worst, torch.tensor(1.0))
    t = nothing.clone()
    t[:, 1, 1] = 1 - 1e-6
    moved = codes.clone()
    moved[:, 5, 5] = 100  # the teacher sees nothing there
    assert rpn_loss(proposal_network(t, moved), proposal_network(t, codes)) < 1e-6
    moved[2, 1, 1] = 1
    loss = rpn_loss(proposal_network(t, moved), proposal_network(t, codes))
    torch.testing.assert_close(loss, torch.tensor(1 - 0.5 / 9))  # smooth L1 of one code, on the one object


def test_box_codes_belong_to_their_anchor() -> None:
    """The second of two anchors is an object: the last four codes count, the first four do not."""
    t = torch.stack([torch.full((4, 4), 1e-6), torch.full((4, 4), 1 - 1e-6)])
    codes = torch.zeros(8, 4, 4)
    first, second = codes.clone(), codes.clone()
    first[:4], second[4:] = 1, 1
    assert rpn_loss(proposal_network(t, first), proposal_network(t, codes)) < 1e-6
    assert rpn_loss(proposal_network(t, second), proposal_network(t, codes)) > 3


def test_without_positives_the_mask_loss_is_a_zero_with_a_graph() -> None:
    model = tiny_model(masks=True).train()
    batch = masked_batch(objects=0)
    teacher, student = watched(model.twin(1.0), batch).detached(), watched(model.twin(0.5), batch)
    assert teacher.mask_logits is not None
    assert not len(teacher.mask_logits)
    loss = mask_loss(model.twin(0.5), student, teacher)
    assert loss == 0
    loss.backward()
    assert all(value.isfinite() for value in distillation_losses(model.twin(0.5), student, teacher).values())


@pytest.mark.parametrize("make", [D.fasterrcnn_resnet50_fpn_v2, D.maskrcnn_resnet50_fpn])
def test_a_ready_made_detector_is_taught_by_another(make: Any) -> None:
    """The teacher is a detector of its own; both compute in bfloat16."""
    options: dict[str, Any] = {"weights": None, "weights_backbone": None, "min_size": 64, "max_size": 96}
    options |= {"box_batch_size_per_image": 16, "rpn_post_nms_top_n_train": 50}
    student, teacher = (make(**options, num_classes=3).train() for _ in range(2))
    batch = masked_batch()
    with torch.autocast("cpu", torch.bfloat16):
        seen, taught_by = watched(student, batch), watched(teacher, batch).detached()
        losses = distillation_losses(student, seen, taught_by)
    masks = {"distill_masks"} if make is D.maskrcnn_resnet50_fpn else set()
    assert set(losses) == {"distill_features", "distill_classes", "distill_rpn"} | masks
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.rpn.head.bbox_pred.weight.grad.abs().sum() > 0


def test_watching_ends_with_the_block() -> None:
    model = tiny_model(masks=True).train()
    batch = masked_batch()
    seen = watched(model.twin(1.0), batch)
    logits, labels = seen.class_logits, seen.labels
    model(*batch, width=1.0)
    assert seen.class_logits is logits
    assert seen.labels is labels
    assert sum(map(len, seen.proposals)) == sum(map(len, labels)) == len(logits)  # pyright: ignore
    assert [len(maps) for maps in (seen.objectness, seen.box_codes)] == [3, 3]
    before = set(vars(model.get_submodule("roi_heads")))
    with pytest.raises(RuntimeError, match="in the middle"), watch(model.twin(1.0)):
        raise RuntimeError("in the middle")
    assert set(vars(model.get_submodule("roi_heads"))) == before
    assert not any(module._forward_hooks for module in model.modules())


def test_detectors_that_cannot_be_watched_are_refused() -> None:
    retina = D.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    with (
        pytest.raises(ConfigError, match="RetinaNet cannot be distilled; those that can: Faster"),
        watch(retina),
    ):
        pass
    with pytest.raises(ConfigError, match="training mode"), watch(tiny_model().eval().twin(1.0)):
        pass


def test_a_teacher_that_saw_the_images_larger_teaches_all_but_the_rpn() -> None:
    model = tiny_model(masks=True).train()
    batch = masked_batch()
    resize_shorter_side(model.twin(1.0), 96)
    teacher = watched(model.twin(1.0), batch).detached()
    student = watched(model.twin(0.5), batch)
    assert teacher.image_sizes != student.image_sizes
    losses = distillation_losses(model.twin(0.5), student, teacher, ("features", "classes", "masks"))
    assert losses.keys() == {"distill_features", "distill_classes", "distill_masks"}
    assert all(value.isfinite() and value > 0 for value in losses.values())
    with pytest.raises(ConfigError, match="part 'rpn' needs one image size"):
        distillation_losses(model.twin(0.5), student, teacher)


def test_maps_and_proposals_follow_each_image_to_its_new_size() -> None:
    sizes, smaller = [(64, 96), (96, 48)], [(32, 48), (48, 24)]
    maps, like = torch.zeros(2, 2, 12, 12), torch.zeros(2, 1, 6, 6)  # stride 8
    maps[0, :, :8, :] = torch.linspace(0, 1, 12)
    maps[1, :, :12, :6] = 7.0
    maps[1, :, :, 6:] = 1e4  # padding
    box = torch.tensor([[10.0, 20, 30, 60]])
    teacher = Watched({"0": maps, "pool": maps}, image_sizes=sizes, proposals=[box, box])
    resized = teacher.resized(Watched({"0": like}, image_sizes=smaller))
    assert resized.image_sizes == smaller
    torch.testing.assert_close(torch.cat(resized.proposals), torch.tensor([[5.0, 10, 15, 30]] * 2))
    found = resized.features["0"]
    assert found.shape == (2, 2, 6, 6)
    torch.testing.assert_close(found[1, :, :, :3], torch.full((2, 6, 3), 7.0))
    assert not found[1, :, :, 3:].any()
    assert not found[0, :, 4:].any()
    assert torch.all(found[0, :, :4].diff(dim=-1) > 0.1)
