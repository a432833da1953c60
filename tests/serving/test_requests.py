"""What requests may hold: options, types, tokens; every mistake with its value."""

from typing import Any

import pytest

from slimdet.serving.requests import Limits, RequestError, check_image, check_token, check_type

LIMITS = Limits(0.25, 200.0, (0.25, 0.5, 1.0), 3, (32, 186))


def test_what_is_left_out_is_the_servers() -> None:
    asked = LIMITS.asked({})
    assert (asked.conf, asked.deadline_ms, asked.rung, asked.options) == (0.25, 200.0, None, {})
    asked = LIMITS.asked({"point": "2", "conf": "0.5", "deadline_ms": 40})
    assert (asked.conf, asked.deadline_ms, asked.rung, asked.options) == (0.5, 40.0, 2, {})
    assert LIMITS.asked({"width": "0.5", "imgsz": "96", "point": "auto"}).options == {"width": 0.5, "imgsz": 96}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"widht": "1"}, "no option 'widht'.*did you mean width"),
        ({"width": "0.3"}, r"width 0.3 is not one of 0.25, 0.5, 1.0"),
        ({"imgsz": "5000"}, r"imgsz '5000' is not a number in 32..186"),
        ({"conf": "nan"}, r"conf 'nan' is not a number in 0..1"),
        ({"deadline_ms": "0"}, r"deadline_ms '0' is not a number in 1..60000"),
        ({"deadline_ms": [1]}, "deadline_ms"),
        ({"point": "3"}, r"point '3' is not auto or one of 0..2"),
        ({"point": None}, "point 'None'"),
        ({"point": "1", "width": "0.5"}, "give it or them"),
    ],
)
def test_options_that_cannot_be(given: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        LIMITS.asked(given)
    assert caught.value.status == 400


def test_types_are_declared_and_true() -> None:
    check_type("Image/JPEG; q=1")
    for wrong in ("image/tiff", "text/html", ""):
        with pytest.raises(RequestError, match="is not one of image/jpeg") as caught:
            check_type(wrong)
        assert caught.value.status == 415
    for image in (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF1234WEBPVP8 ", b"BM12"):
        assert check_image(image) == image
    for other in (b"", b"II*\x00", b"\x00\x00\x00\x0cjP  ", b"%!PS"):  # TIFF, JPEG 2000, EPS: Pillow would read them
        with pytest.raises(RequestError, match="no JPEG, PNG, WebP or BMP"):
            check_image(other)


def test_a_token() -> None:
    check_token("", None)
    check_token("bearer  secret", "secret")
    for wrong in ("", "secret", "Bearer secre", "Basic secret", "Bearer schlüssel"):
        with pytest.raises(RequestError) as caught:
            check_token(wrong, "secret")
        assert (caught.value.status, caught.value.headers) == (401, {"www-authenticate": "Bearer"})
