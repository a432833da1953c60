"""Scopes: which patterns they may have."""

import pytest

from slimdet.core.scopes import SCOPES, Scope
from slimdet.errors import ConfigError


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.(conv1|conv2|downsample\.0)",
        r"backbone\.body\.layer[34]\..*",
        r"(?:rpn|roi_heads)\.\w+\.\d+(\.1)?",
        r"a[(]x",
    ],
)
def test_ordinary_patterns_are_scopes(pattern: str) -> None:
    assert Scope("own", (pattern, *SCOPES["detector"].narrow), SCOPES["detector"].keep)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        r"(\w|_)*x",
        "(?x)(a+) +",
        "(a+)(?#)*x",
        ".*.*.*.*.*x",
        "a?" * 30 + "a" * 30,
        "(a|a)" * 30,
        "(" * 2000,
        "x" * 501,
        "x{99999999999}",
        "[",
        3,
    ],
)
def test_patterns_that_may_take_for_ever_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"may take long|is no pattern of layers"):
        Scope("own", (".*",), keep=(pattern,)).narrows("a" * 40)
