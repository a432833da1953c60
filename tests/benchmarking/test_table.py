"""Rows: the Pareto front of those that can be on it, and a CSV that says what they say."""

import csv
from dataclasses import replace
from pathlib import Path

from slimdet.benchmarking.table import COLUMNS, Row, with_front, write_csv

ROW = Row(
    width=0.5,
    imgsz=64,
    proposals=20,
    precision="fp32",
    scenario="single-stream",
    front=None,
    ap=0.3,
    ap_low=0.28,
    ap_high=0.33,
    ap50=0.5,
    images=100,
    data="instances_val",
    p50_ms=10.0,
    p90_ms=12.5,
    p99_ms=None,
    images_per_s=95.0,
    mb=50.5,
    n=30,
    warmup=8,
    rate=None,
    overloaded=None,
    timed="one image at a time, from decoded pixels to boxes",
    timed_on="8 images of instances_val",
    throttled="no",
    watched="quota, steal",
    quota_ms=0.0,
    steal_percent=0.0,
    heat=None,
    others_percent=1.5,
    model="runs/train-1/model",
    artifact="width-0.5.onnx",
    sha256="90aa",
    engine="onnxruntime",
    version="1.24.4",
    device="cpu",
    threads=1,
    cpu="a <processor>",
    cores=4,
    slimdet="0.1.0",
    date="2026-01-02T03:04:05+00:00",
)


def test_the_front() -> None:
    numbers = [(10.0, 0.3, None), (20.0, 0.3, None), (30.0, 0.4, None), (5.0, 0.1, None), (4.0, 0.6, True)]
    rows = [replace(ROW, p50_ms=ms, ap=ap, overloaded=over) for ms, ap, over in numbers]
    assert [row.front for row in with_front(rows)] == [True, False, True, True, False]
    unmeasured = [replace(row, ap=None) for row in rows]
    assert with_front(unmeasured) == unmeasured


def test_offline_an_image_costs_its_part() -> None:
    assert (ROW.ms, replace(ROW, p50_ms=None, images_per_s=50.0).ms) == (10, 20)


def test_a_csv_line_for_each_row(tmp_path: Path) -> None:
    write_csv([ROW, replace(ROW, width=1.0, threads=None)], tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [tuple(line) for line in lines] == [COLUMNS] * 2
    assert lines[0] == {name: "" if value is None else str(value) for name, value in vars(ROW).items()}
    assert (lines[1]["width"], lines[1]["threads"]) == ("1.0", "")
