"""Colour profiles (ICC): what a camera's or a scanner's numbers mean, as the sRGB that detectors are trained on."""

import io
from functools import lru_cache
from typing import Any

from PIL import Image, ImageCms, features

_MODES = ("RGB", "RGBA", "L", "CMYK")


def in_srgb(image: Image.Image) -> Image.Image:
    """The image in the colours of sRGB; as it is where it has no profile, a broken one, or that of sRGB."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not features.check("littlecms2"):
        return image
    if image.mode == "LA" and (of_grey := _transform(profile, "L")) is not None:
        colours = ImageCms.applyTransform(image.getchannel("L"), of_grey)
        if colours is not None:
            colours.putalpha(image.getchannel("A"))
            return colours
    colour = {"P": "RGB", "LA": "RGBA"}.get(image.mode)
    given = image.convert(colour) if colour else image
    transform = _transform(profile, given.mode) if given.mode in _MODES else None
    if transform is None:
        return image
    return ImageCms.applyTransform(given, transform) or image


@lru_cache(8)  # a set's photographs are of few cameras
def _transform(profile: bytes, mode: str) -> Any:
    """What turns pixels of a mode into sRGB; None where there is nothing to do, or no doing it."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        target = "RGBA" if mode == "RGBA" else "RGB"
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, target, intent)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # of another mode, or broken: the pixels are whole
        return None
