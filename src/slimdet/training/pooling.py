"""RoIAlign ("Mask R-CNN", ICCV 2017) whose backward pass is two matrix products, where feature maps are small.

torchvision's backward pass on a CPU scatters every sampling point to four cells, on one thread; it was the longest
single part of a training step at 144 to 256 pixels. RoIAlign is separable: with A the interpolation along a box's rows
[bins, H] and B that along its columns [bins, W], it makes A F B^T of a channel's map F. So the gradient of F is
A^T G B, summed over boxes. The price grows with the map: large ones are left to torchvision.

Letters: B images, C channels, H and W cells of the map, N boxes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import poolers, roi_align

LARGEST = 64 * 96  # cells of a map: the products' price grows with it, the scattering's does not
_AT_ONCE = 64  # boxes: what lies between the two products is [boxes, bins, W, C]


@contextmanager
def matrix_pooling() -> Iterator[None]:
    """Let every `MultiScaleRoIAlign` have this backward pass, for forward passes within the block."""
    poolers.roi_align = small_map_roi_align
    try:
        yield
    finally:
        poolers.roi_align = roi_align


def small_map_roi_align(
    input: Tensor, boxes: Tensor, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int
) -> Tensor:
    """torchvision's `roi_align`, with its result; on a CPU and maps up to `LARGEST` it has a backward pass of its own.

    Args:
        input: feature maps [B, C, H, W].
        boxes: [N, 5]: number of the image, x1, y1, x2, y2 in pixels.
        output_size: bins down and across.
        spatial_scale: cells a pixel.
        sampling_ratio: points a side of each bin; where it follows from the box (0 or less), torchvision's is taken.

    Returns:
        [N, C, *output_size].
    """
    cells = input.shape[2] * input.shape[3]
    if input.device.type != "cpu" or sampling_ratio <= 0 or cells > LARGEST or not input.requires_grad:
        return roi_align(input, boxes, output_size, spatial_scale, sampling_ratio)
    return _SmallMapRoIAlign.apply(input, boxes, tuple(output_size), spatial_scale, sampling_ratio)


class _SmallMapRoIAlign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, boxes: Tensor, bins: tuple[int, int], scale: float, samples: int) -> Tensor:
        ctx.save_for_backward(boxes)
        ctx.shape, ctx.bins, ctx.scale, ctx.samples = input.shape, bins, scale, samples
        return roi_align(input, boxes, bins, scale, samples)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (boxes,), (images, channels, height, width) = ctx.saved_tensors, ctx.shape
        x1, y1, x2, y2 = (boxes[:, 1:] * ctx.scale).unbind(1)
        down = _interpolation(y1, y2, height, ctx.bins[0], ctx.samples)  # [N, bins, H]
        across = _interpolation(x1, x2, width, ctx.bins[1], ctx.samples).transpose(1, 2)  # [N, W, bins]
        gradient = gradients[0].permute(0, 2, 3, 1)  # [N, bins, bins, C]
        result = gradient.new_zeros(images, height, width, channels)
        for image, into in enumerate(result.flatten(2)):  # [H, W C]
            for part in torch.where(boxes[:, 0] == image)[0].split(_AT_ONCE):
                rows = across[part][:, None] @ gradient[part]  # [n, bins, W, C]
                into.addmm_(down[part].flatten(0, 1).T, rows.flatten(2).flatten(0, 1))
        return result.permute(0, 3, 1, 2), None, None, None, None


def _interpolation(starts: Tensor, ends: Tensor, cells: int, bins: int, samples: int) -> Tensor:
    """By how much each cell counts in each bin of a box along one axis: [N, bins, cells].

    As torchvision: a box is at least one cell long; points up to one cell outside count as those on the border, others
    as zero.
    """
    steps = (torch.arange(bins * samples, device=starts.device) + 0.5) / (bins * samples)
    points = starts[:, None] + (ends - starts).clamp_min(1)[:, None] * steps  # [N, bins * samples]
    inside = (points >= -1) & (points <= cells)
    distance = (points.clamp(0, cells - 1)[..., None] - torch.arange(cells, device=starts.device)).abs()
    weights = (1 - distance).clamp_min(0) * inside[..., None]
    return weights.unflatten(1, (bins, samples)).mean(2)
