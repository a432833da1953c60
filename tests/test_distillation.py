"""In-place distillation: what it measures, and who learns from it."""

import torch
from torch import Tensor

from scenes_detector import scene_batch, tiny_model
from slimdet.distillation import distillation_losses, feature_loss, watch


def test_features_equal_up_to_scale_and_shift_cost_nothing() -> None:
    teacher = torch.randn(2, 8, 6, 6)
    student = 3 * teacher[:, :4] - 5
    assert feature_loss(student, teacher, [(48, 48), (48, 48)]) < 1e-5
    assert feature_loss(-student, teacher, [(48, 48), (48, 48)]) > 1.9  # opposite: (2x)^2 / 2
    assert abs(feature_loss(torch.randn(64, 4, 16, 16), torch.randn(64, 8, 16, 16), [(128, 128)] * 64) - 1) < 0.05


def test_padding_is_left_out() -> None:
    teacher, student = torch.randn(2, 8, 6, 6), torch.randn(2, 4, 6, 6)
    sizes = [(48, 24), (20, 48)]  # of 48 x 48: 6 x 3 and 3 x 6 cells are valid
    expected = feature_loss(student, teacher, sizes)
    for features in (teacher, student):
        features[0, :, :, 3:] = 100 * torch.randn(features.shape[1], 6, 3)
        features[1, :, 3:] = 1e4
    torch.testing.assert_close(feature_loss(student, teacher, sizes), expected)


def test_only_the_narrow_width_is_taught() -> None:
    model = tiny_model().train()
    images, targets = scene_batch()
    with watch(model.twin(1.0)) as seen:
        model(images, targets, width=1.0)
    teacher = seen.detached()
    with watch(model.twin(0.5)) as student:
        model(images, targets, width=0.5)
    losses = distillation_losses(model.twin(0.5), student, teacher)
    assert set(losses) == {"distill_classes", "distill_features"}
    assert all(value.item() > 0 for value in losses.values())
    model.zero_grad()
    sum(losses.values(), torch.zeros(())).backward()
    lateral = model.get_parameter("backbone.fpn.inner_blocks.0.0.weight")
    out, inputs = lateral.shape[0] // 2, lateral.shape[1] // 2
    assert lateral.grad is not None
    assert lateral.grad[:out, :inputs].abs().sum() > 0
    outside: Tensor = lateral.grad.clone()
    outside[:out, :inputs] = 0
    assert not outside.any()  # nothing reaches the teacher's own channels


def test_watching_ends_with_the_block() -> None:
    model = tiny_model().train()
    images, targets = scene_batch()
    with watch(model.twin(1.0)) as seen:
        model(images, targets, width=1.0)
    logits = seen.class_logits
    model(images, targets, width=1.0)
    assert seen.class_logits is logits
    assert sum(len(boxes) for boxes in seen.proposals) == len(logits)  # pyright: ignore[reportArgumentType]
