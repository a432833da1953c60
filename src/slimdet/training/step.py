"""One step of training: every width forward and backward on the same batch, what becomes of the summed gradients.

"Slimmable Neural Networks" (ICLR 2019), algorithm 1. What is added to it is chosen by settings: in-place distillation,
weights of the widths' losses, division of shared gradients, an average of the weights.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from slimdet.core.sliced import Sliced
from slimdet.core.slimmable import Slimmable
from slimdet.training.activations import recomputed_backbone
from slimdet.training.distillation import Watched, distillation_losses, watch
from slimdet.training.pooling import matrix_pooling
from slimdet.training.precision import bfloat16_layers
from slimdet.training.processes.distributed import Place
from slimdet.training.processes.sharing import Samples, Share
from slimdet.training.settings import TrainSettings


def accumulate_gradients(
    model: Slimmable,
    images: list[Tensor],
    targets: list[dict[str, Tensor]],
    widths: Sequence[float],
    settings: TrainSettings | None = None,
    teacher: nn.Module | None = None,
    share: Share | None = None,
) -> dict[float, dict[str, Tensor]]:
    """Run every width forward and backward on the same batch; gradients add up in the shared parameters.

    Args:
        model: in training mode.
        images, targets: as the detector takes them.
        widths: the widest first where it teaches the others.
        settings: `distill`, `distill_parts`, `loss_exponent`, `bf16` and `checkpoint_activations` of them; without them
            the paper's step.
        teacher: a detector of its own, in training mode, that teaches all widths in place of the widest.
        share: which images of the step these are; by default all.

    Returns:
        The losses of each width, detached scalars; those of several processes add up to the whole batch's.
    """
    settings, share = settings or TrainSettings(), share or Share(Place(), len(images))
    losses: dict[float, dict[str, Tensor]] = {}
    taught: Watched | None = None
    lesson = Samples()
    distill = settings.distill
    if distill and teacher is not None:
        with share.sampled(teacher) as lesson:
            taught = _lesson(teacher, images, targets, settings.bf16)
    for width in widths:
        twin = model.twin(width)
        recomputed = recomputed_backbone(twin, settings.checkpoint_activations)
        with bfloat16_layers(twin, settings.bf16), recomputed, matrix_pooling(), share.sampled(twin, width) as samples:
            if not distill:
                parts = model(images, targets, width=width)
            else:
                with watch(twin) as seen:
                    parts = model(images, targets, width=width)
                if taught is None:
                    taught, lesson = seen.detached(), samples
                else:
                    extra = distillation_losses(twin, seen, taught, settings.distill_parts)
                    parts = parts | {name: distill * value for name, value in extra.items()}
            weights = share.weights(parts, samples.counts | lesson.taught())
            parts = {name: weights[name] * value.float() for name, value in parts.items()}
            total = torch.stack(list(parts.values())).sum()
            (total * width**-settings.loss_exponent).backward()
        losses[width] = {name: value.detach() for name, value in parts.items()}
    return losses


@torch.no_grad()
def _lesson(teacher: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]], bf16: bool) -> Watched:
    with bfloat16_layers(teacher, bf16), watch(teacher) as seen:
        teacher(images, targets)
    return seen.detached()


@torch.no_grad()
def divide_by_users(model: Slimmable, widths: Iterable[float], power: float = 1.0) -> None:
    """Divide the sum of the widths' gradients, weight by weight, by the number of widths that use the weight.

    After a pass at 0.25 and one at 1.0, the leading quarter of a layer's channels holds two gradients, its other
    weights one. Where they are summed ("Slimmable Neural Networks", ICLR 2019, algorithm 1), a learning rate that fits
    the weights of the widest alone is too high for those that every width uses.

    Args:
        model: with gradients.
        widths: those whose passes left them.
        power: of the number; 1 is the mean, the step of a detector trained by itself; 0.5 leaves n gradients that
            have nothing in common with the length of one.
    """
    users: dict[nn.Parameter, list[tuple[slice, ...]]] = defaultdict(list)
    for width in widths:
        for module in model.twin(width).modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.grad is not None:
                    users[parameter].append(module.corner(name) if isinstance(module, Sliced) else ())
    for parameter, corners in users.items():
        if len(corners) > 1 and parameter.grad is not None:
            counts = torch.zeros_like(parameter.grad)
            for corner in corners:
                counts[corner] += 1
            parameter.grad.div_(counts.clamp_min_(1) ** power)


@torch.no_grad()
def average(into: nn.Module, model: nn.Module, decay: float) -> None:
    """Exponential moving average of parameters and statistics: into = decay * into + (1 - decay) * model."""
    for kept, new in zip(_tensors(into), _tensors(model), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
