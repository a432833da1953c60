"""The size that torchvision resizes an image to, in whole numbers.

torchvision computes floor(side * min(shortest / min(sides), longest / max(sides))) in 64-bit floats. Where the product
is a whole number its rounding may lose a pixel: 141 * (128 / 141) is 128, 161 * (128 / 161) is not. That concerns 1 to
11 % of all sizes. Not every engine has 64-bit floats (OpenVINO computes in 32 bits and is off by a pixel in a sixth of
all cases), and so the graph finds that rounding in integers of at most 31 bits, which every engine has.
"""

import torch
from torch import Tensor

_POWERS = tuple(2**exponent for exponent in range(16))


def longer_limit(imgsz: Tensor, shortest: int, longest: int) -> Tensor:
    """The longer side's limit where the shorter side is `imgsz` and not `shortest`: see `scaled_sides`."""
    return quotient(imgsz * longest, shortest) + (2 * (imgsz * longest % shortest) > shortest - 1).long()


def resized(sides: Tensor, shortest: Tensor, longest: Tensor) -> Tensor:
    """Sizes of a resized image, [2] of int64, of `sides` [2]; all that is given is at most 32767.

    `shortest` and `longest` are the shorter side and the longer side's limit.

    The scale a / b is either shortest / min(sides) or longest / max(sides). As a float it is Q * 2**-e with Q the
    whole number of 53 bits that is nearest to a / b * 2**e. Q is too small by the fraction r / (a * 2**e), r being the
    rest of that division, if r is less than b / 2; and the product with a side, which should be n, is rounded
    down if that fraction of n is more than half the distance from n to the float before it.
    """
    powers = torch.tensor(_POWERS)
    low, high = sides.amin(), sides.amax()
    # `<` and `>` alone: ONNX Runtime 1.19 to 1.23 fail to infer the shapes of LessOrEqual and GreaterOrEqual here.
    by_longest = longest * low < shortest * high
    a = torch.where(by_longest, longest, shortest)
    b = torch.where(by_longest, high, low)
    n, inexact = quotient(sides * a, b), sides * a % b
    # With b <= a < 2b the quotient a * 2**52 / b has 53 bits. Its rest is found 13 bits at a time.
    a = a * torch.where(a * powers < b, powers[-1], powers).amin()
    b = b * torch.where(b * powers > a, 1, powers).amax()
    rest = a % b
    for _ in range(52 // 13):
        rest = rest * 2**13 % b
    below = torch.where(powers < n[:, None], powers, 1).amax(1)  # floats before n are this * 2**-52 apart
    lost = (inexact == 0) & (2 * rest < b) & (2 * n * rest > below * a)
    return n - lost.long()


def quotient(a: Tensor, b: int | Tensor) -> Tensor:
    """a // b of positive numbers; that of negative ones would be nine more nodes."""
    return torch.div(a, b, rounding_mode="trunc")
