"""Non-maximum suppression across classes, for data whose classes exclude each other: one detection a place."""

from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import nms

from slimdet.errors import ConfigError
from slimdet.messages import check_choice

SUPPRESSIONS = ("class", "all")


class ExclusiveRoIHeads(RoIHeads):
    """torchvision's heads, whose detections of an image are suppressed once more, without regard to their classes."""

    def postprocess_detections(self, *args: Any) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of the boxes that overlap by more than `nms_thresh` the one with the highest score, whatever its class."""
        boxes, scores, labels = super().postprocess_detections(*args)
        kept = [nms(*found, self.nms_thresh) for found in zip(boxes, scores, strict=True)]  # falling scores, as before
        return (
            [found[keep] for found, keep in zip(boxes, kept, strict=True)],
            [found[keep] for found, keep in zip(scores, kept, strict=True)],
            [found[keep] for found, keep in zip(labels, kept, strict=True)],
        )


def set_suppression(detector: nn.Module, suppression: str) -> None:
    """Let a detector of `slimdet.models.builders` suppress within each "class", or across "all" of them too.

    It is part of the detector's description, so that a bundle and what is exported of it have it.

    Raises:
        ConfigError: another word, or a detector that they did not make.
    """
    check_choice("nms", suppression, SUPPRESSIONS)
    described: Any = getattr(detector, "architecture", None)
    if not isinstance(described, dict):
        raise ConfigError(
            f"nms {suppression}: a {type(detector).__name__} that is not of slimdet.models.builders has its own way"
        )
    heads: Any = detector.get_submodule("roi_heads")
    # The parts stay, and so do the state dict and torchvision's class where it will do.
    heads.__class__ = ExclusiveRoIHeads if suppression == "all" else RoIHeads
    described.pop("nms", None)
    if suppression == "all":
        described["nms"] = suppression
