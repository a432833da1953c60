"""The original's region proposal network, from torchvision's parts."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import nms

from slimdet.original.configs.config import Config
from slimdet.original.detector.anchors import RoundedAnchors
from slimdet.original.detector.boxes import Coder, clip


class Head(RPNHead):
    """torchvision's RPN head, with a number of hidden channels of its own."""

    def __init__(self, in_channels: int, channels: int, anchors: int) -> None:
        super().__init__(channels, anchors)
        if channels != in_channels:
            hidden = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1)
            nn.init.normal_(hidden.weight, std=0.01)
            nn.init.constant_(hidden.bias, 0)  # pyright: ignore[reportArgumentType]
            self.conv = nn.Sequential(nn.Sequential(hidden, nn.ReLU(inplace=True)))


class RegionProposals(nn.Module):
    """Where objects may be: boxes and scores from every level of the pyramid.

    Args:
        head: a config's `model.rpn_head`.
        test: a config's `test_cfg.rpn`; it counts in training, too.
    """

    def __init__(self, head: Config, test: Config) -> None:
        super().__init__()
        self.anchors = RoundedAnchors(
            head.anchor_strides, head.anchor_scales, head.anchor_ratios, head.anchor_base_sizes
        )
        per_cell = len(head.anchor_scales) * len(head.anchor_ratios)
        self.head = Head(head.in_channels, head.feat_channels, per_cell)
        self.coder = Coder(head.target_means, head.target_stds)
        self.pre_nms_top_n, self.post_nms_top_n, self.max_num = test.nms_pre, test.nms_post, test.max_num
        self.nms_thresh, self.min_size, self.nms_across_levels = (
            test.nms_thr,
            test.min_bbox_size,
            test.nms_across_levels,
        )

    def forward(self, features: Mapping[str, Tensor], sizes: Sequence[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
        """Proposals of each image: half-open boxes [N, 4] in pixels of the network's input, scores [N] in 0..1.

        Args:
            features: the pyramid, [B, C, H, W] each.
            sizes: (height, width) of each of the B images without padding; proposals end there.
        """
        maps = list(features.values())
        logits, codes = self.head(maps)
        return self.propose(logits, codes, self.anchors.per_level(maps), sizes)

    def propose(
        self,
        logits: Sequence[Tensor],
        codes: Sequence[Tensor],
        anchors: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
    ) -> list[tuple[Tensor, Tensor]]:
        """The same from the head's outputs per level: logits [B, A, H, W] and codes [B, 4 A, H, W]."""
        proposals = []
        for image, size in enumerate(sizes):
            levels = [
                self._of_level(
                    logit[image].detach().permute(1, 2, 0).flatten().sigmoid(),  # [H * W * A]
                    code[image].detach().permute(1, 2, 0).reshape(-1, 4),  # [H * W * A, 4]
                    anchor,
                    size,
                )
                for logit, code, anchor in zip(logits, codes, anchors, strict=True)
            ]
            boxes = torch.cat([boxes for boxes, _ in levels])
            scores = torch.cat([scores for _, scores in levels])
            proposals.append(self.best(boxes, scores, suppress=self.nms_across_levels))
        return proposals

    def best(self, boxes: Tensor, scores: Tensor, suppress: bool) -> tuple[Tensor, Tensor]:
        """The best `max_num` of boxes [N, 4] and scores [N], after NMS over all of them where asked."""
        if suppress:
            keep = nms(boxes, scores, self.nms_thresh)
            boxes, scores = boxes[keep], scores[keep]
        keep = scores.topk(min(self.max_num, len(scores))).indices
        return boxes[keep], scores[keep]

    def _of_level(self, scores: Tensor, codes: Tensor, anchors: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        if 0 < self.pre_nms_top_n < len(scores):
            scores, best = scores.topk(self.pre_nms_top_n)
            codes, anchors = codes[best], anchors[best]
        boxes = clip(self.coder.decode_single(codes, anchors), size)
        large = ((boxes[:, 2:] - boxes[:, :2]) >= self.min_size).all(dim=1)
        boxes, scores = boxes[large], scores[large]
        keep = nms(boxes, scores, self.nms_thresh)[: self.post_nms_top_n]
        return boxes[keep], scores[keep]
