"""Tables fit a terminal, whatever the classes are called and however few results there are."""

import io

from rich.console import Console, RenderableType

from slimdet.cli import views
from slimdet.evaluation.matching import METRICS


def text_of(table: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(table)
    return console.export_text()


class TestTables:
    def test_accuracy_at_every_width_fits_80_columns(self) -> None:
        numbers = dict.fromkeys(METRICS, 0.25) | {"AP": 0.5, "AP_small": -1.0}
        results = {width: {"bbox": numbers, "segm": numbers} for width in ("1.0", "0.25", "0.6667")}
        lines = text_of(views.accuracy_table(results)).splitlines()
        rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
        assert [row[0] for row in rows] == ["0.25", "0.6667", "1.0"] * 2  # boxes, then masks, each ascending
        assert rows[0][1:] == ["0.500", "0.250", "0.250", "-", *["0.250"] * 8]
        assert {line.strip() for line in lines} >= {"boxes", "masks"}

    def test_classes_by_width(self) -> None:
        results = {width: {"[bold]b": {"AP": float(width)}, "dog": {"AP": -1.0}} for width in ("1.0", "0.5")}
        rows = [line.split() for line in text_of(views.class_table(results)).splitlines()]
        assert ["[bold]b", "0.500", "1.000"] in rows
        assert ["dog", "-", "-"] in rows

    def test_no_results_make_empty_tables(self) -> None:
        for table in (views.accuracy_table, views.class_table):
            assert not any(line.strip()[:1].isdigit() for line in text_of(table({})).splitlines())


def test_the_table_shows_the_columns_there_are() -> None:
    results = {
        "0.5": {"parameters": 5_900_000, "macs": 1.05e9, "latency_ms": 7.5, "AP": 0.3},
        "1.0": {"parameters": 23_500_000, "macs": 4.09e9, "latency_ms": 20.06},
    }
    shown = views.cost_table(results)
    assert "memory" not in shown
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert rows[2:] == ["0.5 5.90 M 1.05 G 7.5 ms 0.300", "1.0 23.50 M 4.09 G 20.1 ms -"]
    assert len({len(line) for line in shown.splitlines()}) == 1
    assert views.cost_table({}).splitlines()[0] == "width"
    assert views.cost_table(results, "point").split()[0] == "point"


def test_texts_beside_tables_do_not_steer_the_terminal() -> None:
    assert text_of(views.group("in runs/a\x1b[2J\nnext", views.class_table({}))).startswith("in runs/a\\x1b[2J\nnext\n")
