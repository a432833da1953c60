"""Fonts that have the letters of a text: class names may be in any script."""

import logging
from functools import cache, lru_cache
from typing import Any

from PIL import ImageFont

from slimdet.assets import LABELS_FONT

logger = logging.getLogger("slimdet")

Font = ImageFont.FreeTypeFont
# The systems' own, as Pillow finds them by name; those with Chinese, Japanese and Korean first.
SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "SourceHanSans-Regular.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "Nirmala.ttf",
    "arial.ttf",
)
_NO_LETTER = "\U0010ffff"  # which no font has: it is drawn as the box that stands for letters that are missing


def font_for(text: str, size: int) -> Font:
    """A font of that size (pixels) with all letters of the text; where there is none, a warning names those missing.

    Pillow's own has English letters; the package's also those of the other Latin alphabets, Greek and Cyrillic.
    """
    letters = "".join(sorted(set(text)))
    if all(" " <= letter <= "~" for letter in letters):
        return _named("", size)
    for name in (str(LABELS_FONT), *SYSTEM_FONTS):
        if _named(name, size) is not None and not _missing(name, letters):
            return _named(name, size)
    _warn(_missing(str(LABELS_FONT), letters))
    return _named(str(LABELS_FONT), size)


@lru_cache(64)
def _named(name: str, size: int) -> Any:
    """The font of a name or file, None where there is none; of no name Pillow's own, a FreeType font with a size."""
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None


@lru_cache(1024)
def _missing(name: str, letters: str) -> str:
    """Those of some letters that a font does not have."""
    font = _named(name, 20)
    box = bytes(font.getmask(_NO_LETTER))
    return "".join(letter for letter in letters if not letter.isspace() and bytes(font.getmask(letter)) == box)


@cache
def _warn(letters: str) -> None:
    logger.warning("no font here has %s: pictures show boxes; install one that does, as Noto Sans CJK", letters)
