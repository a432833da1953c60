"""The original's anchors: corners rounded to whole pixels, on a grid without half-cell offset."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList


class RoundedAnchors(AnchorGenerator):
    """torchvision's anchor generator over the original's cells.

    Args:
        strides: pixels per cell of each of the L levels.
        scales: anchor sides as multiples of the base size.
        ratios: height / width.
        base_sizes: one per level; by default the strides.
    """

    def __init__(
        self,
        strides: Sequence[int],
        scales: Sequence[float],
        ratios: Sequence[float],
        base_sizes: Sequence[float] | None = None,
    ) -> None:
        bases = tuple(base_sizes or strides)
        sizes = tuple(tuple(base * scale for scale in scales) for base in bases)
        super().__init__(sizes, (tuple(ratios),) * len(bases))
        self.strides = tuple(strides)
        self.cell_anchors = [cell(base, scales, ratios) for base in bases]

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors [sum of H * W * A, 4] of each image, half-open; row by row, a cell's A anchors together."""
        anchors = torch.cat(self.per_level(feature_maps))
        return [anchors] * len(image_list.image_sizes)

    def per_level(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """Anchors [H * W * A, 4] of each level, half-open."""
        first = feature_maps[0]
        self.set_cell_anchors(first.dtype, first.device)
        sizes = [list(feature.shape[-2:]) for feature in feature_maps]
        # The strides are the config's: image size by grid size, torchvision's way, is wrong where a grid is rounded up.
        strides = [[torch.tensor(stride, device=first.device)] * 2 for stride in self.strides]
        return self.grid_anchors(sizes, strides)


def cell(base: float, scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """The anchors [len(ratios) * len(scales), 4] of the cell at the origin, half-open."""
    scale, ratio = torch.tensor(scales, dtype=torch.float32), torch.tensor(ratios, dtype=torch.float32)
    widths = (base / ratio.sqrt()[:, None] * scale).flatten()
    heights = (base * ratio.sqrt()[:, None] * scale).flatten()
    centre = 0.5 * (base - 1)
    half_width, half_height = 0.5 * (widths - 1), 0.5 * (heights - 1)
    corners = [centre - half_width, centre - half_height, centre + half_width, centre + half_height]
    inclusive = torch.stack(corners, dim=1).round()
    return inclusive + inclusive.new_tensor([0, 0, 1, 1])
