"""RoIAlign over a feature pyramid, as the original does it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align


class PyramidRoIAlign(nn.Module):
    """Features of boxes, each from the pyramid level that fits its size (Feature Pyramid Networks, CVPR 2017, eq. 1).

    Args:
        size: cells along a side of the result.
        sampling: sample points along a side of a cell; 0 for as many as feature cells.
        strides: pixels per feature cell of each level.
        finest: boxes from 2 * finest pixels on go to the second level, from 4 * finest on to the third.
    """

    def __init__(self, size: int, sampling: int, strides: Sequence[int], finest: float) -> None:
        super().__init__()
        self.size, self.sampling, self.strides, self.finest = size, sampling, tuple(strides), finest

    def levels(self, boxes: Tensor) -> Tensor:
        """The level [N], from 0, of half-open boxes [N, 4]."""
        sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
        levels = torch.floor(torch.log2(sides / self.finest + 1e-6))
        return levels.clamp(0, len(self.strides) - 1).long()

    def forward(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Features [N, C, size, size] of all images' boxes.

        Args:
            features: the pyramid, finest level first; levels [B, C, H, W] beyond the strides are not used.
            boxes: of each of the B images, half-open [N, 4] in the pixels of the network's input.
        """
        maps = list(features.values())[: len(self.strides)]
        images = torch.cat([box.new_full((len(box), 1), index) for index, box in enumerate(boxes)])
        corners = torch.cat(list(boxes))
        # A box may be thinner than a pixel, never negative: the original takes its width as 0 then.
        corners = torch.cat([corners[:, :2], torch.maximum(corners[:, :2], corners[:, 2:])], dim=1)
        levels = self.levels(corners)
        result = maps[0].new_zeros(len(corners), maps[0].shape[1], self.size, self.size)
        for level, (feature, stride) in enumerate(zip(maps, self.strides, strict=False)):
            chosen = torch.where(levels == level)[0]
            # "aligned" subtracts half a cell, which is added here: what is left is RoIAlign without the half-cell
            # shift and, unlike aligned=False, without a smallest size of one cell.
            rois = torch.cat([images[chosen], corners[chosen] + 0.5 * stride], dim=1)
            result[chosen] = roi_align(feature, rois, self.size, 1 / stride, self.sampling, aligned=True)
        return result
