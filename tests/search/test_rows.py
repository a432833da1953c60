"""What was measured is measured once, and belongs to one search."""

from pathlib import Path

import pytest

from slimdet.errors import ConfigError
from slimdet.search.rows import Rows


def test_a_row_is_made_once(tmp_path: Path) -> None:
    made: list[str] = []

    def make() -> list[float]:
        made.append("once")
        return [0.1, 2.5]

    assert Rows(tmp_path, {"seed": 1}).kept("timings", make) == [0.1, 2.5]
    assert Rows(tmp_path, {"seed": 1}).kept("timings", make) == [0.1, 2.5]
    assert made == ["once"]


def test_a_row_that_fails_is_made_anew(tmp_path: Path) -> None:
    rows = Rows(tmp_path, {})
    with pytest.raises(ValueError, match="stopped"):
        rows.kept("images-0", lambda: int("stopped"))
    assert rows.kept("images-0", lambda: 3) == 3


def test_another_search_is_refused_by_what_differs(tmp_path: Path) -> None:
    Rows(tmp_path, {"seed": 1, "points": [{"width": 0.5}]})
    with pytest.raises(ConfigError, match=r"it is of points \[\{'width': 0\.5\}\], not \[\]; start a new one"):
        Rows(tmp_path, {"seed": 1, "points": []})
