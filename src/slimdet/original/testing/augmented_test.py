"""Test-time augmentation: one image at several scales and mirrored, and one answer.

N boxes, K classes without background, M cells along a side of a mask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from slimdet.original.data.pipeline import View
from slimdet.original.detector.boxes import clip, flip, rescale
from slimdet.original.detector.detector import OriginalDetector
from slimdet.original.detector.masks import unflip


def detect(detector: OriginalDetector, views: Sequence[View], proposals: Tensor | None = None) -> dict[str, Tensor]:
    """Detections in one image from all its views, in original pixels; the result is `OriginalDetector.detect`'s.

    The proposals of all views are one set (the original lost all but the first view's). Each view then has its say on
    each of them: boxes, class scores and masks are averaged over the views before NMS.

    Args:
        views: the image's views, one or more.
        proposals: boxes [N, 4] in original pixels, for a detector without a region proposal network.
    """
    pyramids = [detector.backbone(view.batch) for view in views]
    if len(views) == 1:
        inside = None if proposals is None else onto_view(proposals, views[0])
        return detector.detect(pyramids[0], views[0].frame, inside)
    if proposals is None:
        found = [detector.proposals(*pair) for pair in zip(pyramids, (view.frame for view in views), strict=True)]
        boxes = torch.cat([off_view(boxes, view) for (boxes, _), view in zip(found, views, strict=True)])
        scores = torch.cat([scores for _, scores in found])
        assert detector.rpn is not None
        proposals, scores = detector.rpn.best(boxes, scores, suppress=True)
        if detector.roi_heads is None:
            return {"boxes": proposals, "labels": torch.ones_like(scores, dtype=torch.int64), "scores": scores}
    heads = detector.roi_heads
    assert heads is not None
    all_boxes, all_scores = [], []
    for view, pyramid in zip(views, pyramids, strict=True):
        inside = onto_view(proposals, view)
        logits, codes = heads.box_outputs(pyramid, [inside])
        boxes = heads.all_boxes(codes, inside, view.frame.size)  # [N, K + 1, 4]
        all_boxes.append(off_view(boxes.reshape(-1, 4), view).reshape(boxes.shape))
        all_scores.append(logits.softmax(dim=1))
    result = heads.select(torch.stack(all_boxes).mean(dim=0), torch.stack(all_scores).mean(dim=0))
    if heads.mask_pool is not None:
        cells = []
        for view, pyramid in zip(views, pyramids, strict=True):
            found = heads.masks(pyramid, onto_view(result["boxes"], view), result["labels"])  # [N, M, M]
            cells.append(unflip(found) if view.flipped else found)
        result["cells"] = torch.stack(cells).mean(dim=0)
    return result


def onto_view(boxes: Tensor, view: View) -> Tensor:
    """Boxes [N, 4] in original pixels as they lie in a view's input."""
    height, width = view.frame.size
    boxes = rescale(boxes, view.frame.scale)
    boxes = flip(boxes, width) if view.flipped else boxes
    return clip(boxes, (height + 1, width + 1))  # the original lets boxes from a file end one pixel outside


def off_view(boxes: Tensor, view: View) -> Tensor:
    """Boxes [N, 4] in a view's input as they lie in the original image."""
    boxes = flip(boxes, view.frame.size[1]) if view.flipped else boxes
    return rescale(boxes, 1 / view.frame.scale)
