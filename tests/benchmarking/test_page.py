"""The page has everything within, says what the rows say, and fits a phone."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarking.test_table import ROW
from slimdet.benchmarking import page
from slimdet.benchmarking.table import COLUMNS, UNKNOWN, Row, with_front

DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
ROWS = with_front(
    [replace(ROW, width=w, p50_ms=10 * w, ap=w / 2, ap_low=w / 3, ap_high=w) for w in (0.25, 0.5, 0.75, 1.0)]
)


def written(file: Path, rows: list[Row], contract: dict[str, Any] | None = None) -> str:
    page.write({"contract": contract}, rows, {row.point: DOT for row in rows}, file)
    return file.read_text(encoding="utf-8")


class Cells(HTMLParser):
    """The texts of the cells of the table of all columns, and the addresses that the page asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self._inside, self._cell = False, False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self._inside |= given.get("id") == "rows"
        if self._inside and tag == "tr":
            self.rows.append([])
        if self._inside and tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "table"
        self._cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data


def test_its_rows_are_those_it_was_given(tmp_path: Path) -> None:
    heading, *cells = Cells(written(tmp_path / "index.html", ROWS)).rows
    assert tuple(heading) == COLUMNS
    assert cells == [[page.shown(value) for value in vars(row).values()] for row in ROWS]
    assert cells[0][COLUMNS.index("cpu")] == "a <processor>"  # no markup of ours


def test_it_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    text = written(tmp_path / "index.html", ROWS)
    assert set(Cells(text).addresses) == {DOT}
    assert not re.search(r"https?:|//\w|@import|url\(|<script|<link", text)


def test_without_data_no_accuracy_is_shown(tmp_path: Path) -> None:
    rows = [replace(row, **UNKNOWN, data=None, front=None) for row in ROWS]
    text = written(tmp_path / "index.html", rows)
    assert "no accuracy was measured" in text
    assert "<svg viewBox" not in text
    assert ">AP<" not in text


def test_it_tells_what_disturbed_and_how_the_contract_fared(tmp_path: Path) -> None:
    contract = {"text": "ap>=0.5", "keeping": [3], "nearest": None, "values": ""}
    quiet = written(tmp_path / "quiet.html", ROWS, contract)
    assert "Kept:</b> ap&gt;=0.5, by 1 of 4 rows" in quiet
    assert not re.search(r"<b>(Busy|Throttled):", quiet)
    rows = [*ROWS[:3], replace(ROWS[3], throttled="yes", others_percent=60.0, overloaded=True, rate=9.0)]
    missed = {"text": "ap>=0.9", "keeping": [], "nearest": 3, "values": "ap 0.5"}
    busy = written(tmp_path / "busy.html", rows, missed)
    assert "The nearest is width 1.0 at 64 px, 20 proposals, fp32: ap 0.5." in " ".join(busy.split())
    assert re.search(r"<b>Throttled:</b>.*1 of 4 rows", busy, re.S)
    assert "up to 60 %" in busy
    assert "(overloaded)" in busy
    assert busy.count("<circle") == 3  # whose latencies say little


def test_the_chart_is_within_its_frame() -> None:
    rows = with_front([replace(ROW, p50_ms=ms, ap=ap) for ms, ap in ((0.02, 0.0), (0.021, 0.0001), (7.31, 0.004))])
    rows = [replace(row, ap_low=row.ap, ap_high=1.5 * (row.ap or 0)) for row in rows]
    chart = page.chart(rows)
    assert chart is not None
    for x, y, low, high, *_ in chart.dots:
        assert page.LEFT <= x <= page.WIDTH - page.RIGHT
        assert page.TOP <= high <= y <= low <= page.HEIGHT - page.BOTTOM
    assert [number for *_, number in chart.dots] == ["1", "", "3"]  # the second has no room
    for ticks in (chart.x_ticks, chart.y_ticks):
        assert 4 <= len(ticks) <= 9
        assert len({text for _, text in ticks}) == len(ticks)
    assert page.chart([replace(ROW, ap=None)]) is None


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser_it_fits_a_phone(tmp_path: Path) -> None:
    written(tmp_path / "index.html", ROWS)
    # A window of Chromium without a screen is 500 pixels wide at least: a frame is as narrow as a phone.
    (tmp_path / "phone.html").write_text(
        '<iframe src="index.html" style="width: 375px; height: 800px"></iframe><p id="told"></p><script>'
        "onload = () => { const page = document.querySelector('iframe').contentDocument;"
        "const dots = page.querySelectorAll('svg circle');"
        "document.querySelector('#told').textContent = [page.body.scrollWidth, "
        "page.documentElement.scrollWidth, dots.length, page.images.length].join(' ') }</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    words = [CHROMIUM or "", *flags, f"--user-data-dir={tmp_path}/profile", f"file://{tmp_path}/phone.html"]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=60).stdout
    told = re.search(r'id="told">([\d ]+)<', shown)
    assert told, shown[:2000]
    body, whole, dots, images = map(int, told[1].split())
    assert max(body, whole) <= 375  # nothing but the tables is scrolled sideways
    assert (dots, images) == (4, 4)
