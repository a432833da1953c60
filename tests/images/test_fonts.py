"""Class names of any script are readable in pictures."""

from typing import Any

import pytest
from PIL import ImageFont

from slimdet.assets import LABELS_FONT
from slimdet.images import fonts
from slimdet.images.fonts import font_for


@pytest.mark.parametrize("text", ["dog 0.98", "Löwe é ñ", "собака", "σκύλος", "Pączek žluťoučký", "chó săn ở"])
def test_every_letter_is_there(text: str) -> None:
    font: Any = font_for(text, 20)
    missing = bytes(font.getmask("\U0010ffff"))
    assert not [letter for letter in text if letter != " " and bytes(font.getmask(letter)) == missing]
    assert font.size == 20


def test_english_is_drawn_as_before() -> None:
    usual: Any = ImageFont.load_default(13)
    assert font_for("dog", 13).getname() == usual.getname()


def test_letters_that_no_font_has_are_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", ("no-such-font.ttf",))
    fonts._warn.cache_clear()
    for size in range(2):
        assert font_for(f"犬 ö{size}", 20).path == str(LABELS_FONT)
    assert caplog.text.count("no font here has 犬:") == 1


def test_a_font_of_the_system_is_taken_where_it_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_missing", lambda name, letters: "" if name == "that-one.ttc" else letters)
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", ("another.ttc", "that-one.ttc"))
    monkeypatch.setattr(fonts, "_named", lambda name, size: name)
    assert font_for("犬", 20) == "that-one.ttc"
