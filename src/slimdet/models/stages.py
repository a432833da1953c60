"""The stages of a detector: the parts whose widths need not be equal."""

from torch import nn

from slimdet.core.slimmable import Slimmable

PROBE = 0.5  # a width that differs from 1.0, to see what has to be as wide as what
BACKBONE = "backbone.body"
HEADS = ("backbone.fpn", "rpn.head", *(f"roi_heads.{name}" for name in ("box_head", "mask_head", "mask_predictor")))


def stages(model: Slimmable) -> tuple[tuple[str, ...], ...]:
    """The names that a width plan may give widths to, stage by stage: those of one stage must have the same.

    Children of the backbone that follow each other are one stage where their outputs are added together, in a residual
    network; that is tried out, width by width. Pyramid and heads are a stage each. What does not narrow in the model's
    scope is left out.
    """
    widest = model.twin(1.0)
    parts = dict(widest.named_modules())
    children = [f"{BACKBONE}.{name}" for name, _ in parts.get(BACKBONE, nn.Module()).named_children()]
    found: list[tuple[str, ...]] = []
    for number, child in enumerate(children):
        before = dict.fromkeys([name for name in children[:number] if _narrows(model, name)], PROBE)
        if not _narrows(model, child):
            continue
        if before and not model.fits(before):
            found[-1] += (child,)
        else:
            found.append((child,))
    return (*found, *((name,) for name in HEADS if name in parts and model.fits({name: PROBE})))


def _narrows(model: Slimmable, name: str) -> bool:
    layers = [
        path
        for path, module in model.twin(1.0).named_modules()
        if f"{path}.".startswith(f"{name}.") and isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    return any(map(model.scope.narrows, layers))
