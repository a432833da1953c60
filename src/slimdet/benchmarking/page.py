"""A benchmark as one HTML page that needs nothing else: tables, the Pareto front, a photograph at every point."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from slimdet.benchmarking.disturbance import BUSY
from slimdet.benchmarking.table import COLUMNS, Row
from slimdet.bundle.ladder import Point
from slimdet.errors import ConfigError
from slimdet.files import atomic_write
from slimdet.runtime.detector import Runtime

TEMPLATE = "page.html"
SIDE, MANY = 480, 32  # pixels of a photograph's longer side; where there are more points than that, fewer
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 300, 40, 14, 14, 40  # of the chart and its margins
ROOM = 16  # between two numbers in the chart


@dataclass(frozen=True)
class Chart:
    """AP against latency, in units of the drawing.

    Attributes:
        dots: x, y, the ends of the AP's interval (y), the row, and its number from 1, or "" where there is no room.
        line: of the front.
        x_ticks, y_ticks: where, and what is written there.
    """

    dots: list[tuple[float, float, float, float, Row, str]]
    line: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def check_installed() -> None:
    """Make sure, before anything is measured, that a page can be made.

    Raises:
        ConfigError: Jinja2 is not installed.
    """
    if find_spec("jinja2") is None:
        raise ConfigError("a benchmark's page needs jinja2; get it with: pip install 'slimdet[plot]'")


def photographs(runtime: Runtime, file: Path, rows: Sequence[Row]) -> dict[Point, str]:
    """What each point finds in a photograph, drawn: a small JPEG as a data address."""
    points = list(dict.fromkeys(row.point for row in rows))
    side = round(SIDE * min(1.0, math.sqrt(MANY / len(points))))
    return {point: _address(runtime(file, point=point).plot(), side) for point in points}


def write(document: Mapping[str, Any], rows: Sequence[Row], pictures: Mapping[Point, str], file: Path) -> None:
    """Write the page.

    Args:
        document: of the benchmark, as `Benchmark.document` has it.
        rows: of one scenario at least; they are shown scenario by scenario, in their order.
        pictures: data addresses by point.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(autoescape=True, loader=folder, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters["shown"] = shown
    scenarios = dict.fromkeys(row.scenario for row in rows)
    tables = [[row for row in rows if row.scenario == scenario] for scenario in scenarios]
    contract = document["contract"]
    text = jinja.get_template(TEMPLATE).render(
        rows=rows,
        tables=[(table, chart(table)) for table in tables],
        columns=COLUMNS,
        pictures=pictures,
        contract=contract,
        keeping=[rows[place] for place in contract["keeping"]] if contract else [],
        nearest=rows[contract["nearest"]] if contract and contract["nearest"] is not None else None,
        busy=max((row.others_percent or 0 for row in rows), default=0),
        limit=BUSY,
        size=(WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM),
    )
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def shown(value: Any, digits: int | None = None) -> str:
    """A value as text; a dash for None.

    Args:
        value: of a row.
        digits: of a number, behind the point; None is six significant ones.
    """
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}" if digits is None else f"{value:.{digits}f}"
    return str(value)


def chart(rows: Sequence[Row]) -> Chart | None:
    """The rows of one scenario as dots, without an overloaded server's; None where no AP was measured."""
    drawn = [(number, row) for number, row in enumerate(rows, 1) if row.ap is not None and not row.overloaded]
    if not drawn:
        return None
    x_step, right = _scale(max(row.ms for _, row in drawn))
    y_step, top = _scale(max(row.ap_high or 0 for _, row in drawn))

    def x(ms: float) -> float:
        return round(LEFT + ms / right * (WIDTH - LEFT - RIGHT), 1)

    def y(ap: float) -> float:
        return round(HEIGHT - BOTTOM - ap / top * (HEIGHT - TOP - BOTTOM), 1)

    dots: list[tuple[float, float, float, float, Row, str]] = []
    written: list[tuple[float, float]] = []
    for number, row in drawn:
        place = (x(row.ms), y(row.ap or 0))
        room = bool(row.front) and all(math.dist(place, other) > ROOM for other in written)
        written += [place] if room else []
        ends = y(row.ap_low or 0), y(row.ap_high or 0)
        dots.append((*place, *ends, row, str(number) if room else ""))
    front = sorted((dot[0], dot[1]) for dot in dots if dot[4].front)
    return Chart(
        dots,
        " ".join(f"{one},{other}" for one, other in front),
        [(x(step * x_step), f"{step * x_step:g}") for step in range(round(right / x_step) + 1)],
        [(y(step * y_step), f"{step * y_step:.2g}") for step in range(round(top / y_step) + 1)],
    )


def _scale(most: float) -> tuple[float, float]:
    """A round step, and how far an axis goes in at most eight of them."""
    rough = max(most, 1e-6) * 1.04 / 7
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in (1, 2, 2.5, 5, 10) if one * power >= rough)
    return step, step * math.ceil(max(most, 1e-6) * 1.04 / step)


def _address(picture: Image.Image, side: int) -> str:
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=74, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
