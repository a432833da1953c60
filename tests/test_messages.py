"""Words of messages."""

import pytest

from slimdet.messages import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Löwe é ñ собака 犬 'x'", "Löwe é ñ собака 犬 'x'"),
        ("dog\x1b[2J\x07", "dog\\x1b[2J\\x07"),
        ("dog\ncat\r", "dog\\ncat\\r"),
        ("left\u202eright\u2028", "left\\u202eright\\u2028"),
        ("bytes \udcff", "bytes \\udcff"),
    ],
)
def test_nothing_that_steers_a_terminal_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_stay_lines() -> None:
    assert printable_lines("dog\x1b[2J\ncat\r") == "dog\\x1b[2J\ncat\\r"
