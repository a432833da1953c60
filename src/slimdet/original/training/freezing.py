"""What is trained: the original freezes every norm, the stem and the first stages."""

from torch import nn

from slimdet.core.slimmable import Slimmable
from slimdet.original.configs.config import Config


def freeze(model: Slimmable, backbone: Config) -> None:
    """Put a model into the original's training mode.

    Norms of the backbone use the checkpoint's statistics and do not learn (`bn_eval`); the stem and the first
    `frozen_stages` stages do not learn at all. Without `bn_eval` the other norms do both.
    """
    model.train()
    frozen = ("conv1", "bn1", *(f"layer{stage}" for stage in range(1, backbone.frozen_stages + 1)))
    frozen = frozen if backbone.frozen_stages >= 0 else ()
    for width in model.widths:
        body = model.twin(width).get_submodule("backbone.body")
        for name, module in body.named_modules():
            whole = name.split(".")[0] in frozen
            if isinstance(module, nn.BatchNorm2d) and (backbone.bn_eval or whole):
                module.eval()
                module.requires_grad_(False)
            elif whole:
                for parameter in module._parameters.values():
                    if parameter is not None:
                        parameter.requires_grad_(False)
