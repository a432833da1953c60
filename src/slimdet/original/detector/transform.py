"""Images as the detector wants them, and where they lie in its input."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Frame:
    """Where an image lies in the network's input.

    Attributes:
        size: (height, width) of the resized image, without padding.
        scale: pixels of the resized image per original pixel.
    """

    size: tuple[int, int]
    scale: float


def fit(size: tuple[int, int], longest: int, shortest: int) -> Frame:
    """How an image of `size` (height, width) fills `longest` x `shortest` pixels in its own ratio."""
    scale = min(longest / max(size), shortest / min(size))
    return Frame((int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)), scale)


class Transform(nn.Module):
    """Resize, normalise and pad, on tensors.

    It does without OpenCV, whose resizing of bytes differs by one level in some pixels; the commands of the original
    use `slimdet.original.data.pipeline`, which does not differ.

    Args:
        min_size, max_size: the shorter and the longer side's limit in pixels; the tighter one counts.
        mean, std: per channel, in levels of 0..255.
        to_rgb: whether the channels are red, green, blue (or the reverse) when normalised.
        divisor: sides are padded with zeros, on the right and below, to a multiple of this.
    """

    def __init__(
        self,
        min_size: int,
        max_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        to_rgb: bool = True,
        divisor: int | None = 32,
    ) -> None:
        super().__init__()
        self.min_size, self.max_size = min_size, max_size
        self.mean, self.std, self.to_rgb, self.divisor = tuple(mean), tuple(std), to_rgb, divisor

    def forward(self, images: Sequence[Tensor]) -> tuple[Tensor, list[Frame]]:
        """Images [3, H, W], RGB in 0..1, as one batch [B, 3, h, w], zero-padded to the largest, and their frames."""
        frames = [fit((image.shape[-2], image.shape[-1]), self.max_size, self.min_size) for image in images]
        return pad([self._one(*item) for item in zip(images, frames, strict=True)], self.divisor), frames

    def _one(self, image: Tensor, frame: Frame) -> Tensor:
        levels = (image * 255).round()
        levels = functional.interpolate(levels[None], frame.size, mode="bilinear", align_corners=False)[0].round()
        levels = levels if self.to_rgb else levels.flip(0)
        return (levels - levels.new_tensor(self.mean)[:, None, None]) / levels.new_tensor(self.std)[:, None, None]


def pad(images: Sequence[Tensor], divisor: int | None) -> Tensor:
    """Images [3, H, W] of any sizes as one batch [B, 3, h, w], zeros on the right and below."""
    step = divisor or 1
    height, width = (-(-max(image.shape[side] for image in images) // step) * step for side in (1, 2))
    batch = images[0].new_zeros(len(images), 3, height, width)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch
