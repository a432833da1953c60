"""`slimdet tune`: the ladder is what was measured, and it lands in the bundle."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import slimdet
from scenes import make_scenes
from scenes_detector import tiny_model
from slimdet.assets import VAL
from slimdet.bundle import card, manifest
from slimdet.bundle.card import Card
from slimdet.bundle.ladder import Point
from slimdet.cli.verbs import main
from slimdet.data.coco import CocoDataset
from slimdet.errors import ConfigError, DataError
from slimdet.evaluation.points import measure_points
from slimdet.search import trials
from slimdet.search.settings import TuneSettings

SMALL = TuneSettings(engine="torch", widths=(0.25, 0.5), imgsz=(96, 186), proposals=(150,), repeats=3)


def cost(point: Point) -> float:
    """Milliseconds, where nobody measures: no two points have the same."""
    return 10 * point.width + (point.imgsz or 0) / 10 + (point.proposals or 0) / 50


@pytest.fixture(autouse=True)
def timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose latencies are `cost`; every call is made once."""

    def timed(calls: dict[Point, Any], repeats: int, warm: int) -> dict[Point, list[float]]:
        for call in calls.values():
            call()
        return {point: [cost(point)] * repeats for point in calls}

    monkeypatch.setattr(trials, "latencies", timed)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """DATA.yaml of the sixteen pictures that the package has for its bundled model."""
    file = tmp_path / "data.yaml"
    file.write_text(f"val: {{images: {VAL}/images, annotations: {VAL}/instances_val.json}}\n")
    return file


def test_the_ladder_is_the_front_of_what_was_measured(exported: Path, data: Path, tmp_path: Path) -> None:
    before = card.read(exported)
    result = slimdet.tune(exported, data, SMALL, out=tmp_path / "run", budget_ms=25.0)
    assert (result.tried, result.model) == (4, exported)
    assert result.full.rung.point == Point(0.5, 186, 150, "fp32")
    steps = [*result.ladder, *result.others]
    points = [step.rung.point for step in steps]
    assert len(set(points)) == len(points)
    # Every number is that of the very point, by the path that `val` goes.
    dataset = CocoDataset(VAL / "instances_val.json", VAL / "images")
    runtime = slimdet.Runtime(exported, engine="torch")
    for step, found in zip(steps, measure_points(runtime, dataset, points), strict=True):
        assert step.rung.metrics == pytest.approx(found.numbers["bbox"])
        assert (step.timing.p50_ms, step.timing.n) == (pytest.approx(cost(step.rung.point)), 3)
    ladder = [(step.timing.p50_ms, step.rung.ap) for step in result.ladder]
    assert len(ladder) > 1
    assert ladder == sorted(ladder)
    assert all(later[1] > earlier[1] for earlier, later in pairwise(ladder))
    for step in result.others:
        assert any(ms <= step.timing.p50_ms and ap >= step.rung.ap for ms, ap in ladder)
    # It is in the bundle, beside what was there.
    said = card.read(exported)
    assert said.ladder == tuple(step.rung for step in result.ladder)
    assert {rung.images for rung in said.ladder} == {16}
    macs = {step.rung.point: step.rung.macs or 0 for step in steps}
    assert all(macs[one] > macs[replace(one, width=0.25)] > 0 for one in macs if one.width == 0.5)
    assert said.latencies[result.machine].points == tuple(step.timing for step in result.ladder)
    assert (said.metrics, said.training) == (before.metrics, before.training)
    # And a runtime takes its times.
    chosen = result.chosen
    assert chosen is not None
    assert result.fits
    assert chosen.timing.p50_ms <= 25
    held = slimdet.Runtime(exported, engine="torch", budget_ms=60_000).budget
    assert held is not None
    assert held.points == tuple(step.rung.point for step in result.ladder)
    with Image.open(tmp_path / "run" / "ladder.png") as picture:
        picture.load()
        assert min(picture.size) > 400


class Answers:
    """Stands in for the runs of a detector: objects where they are, the worse placed the narrower and smaller it runs.

    Points with one proposal find nothing. It counts the images that it is asked for, and stops before the image `stop`.
    """

    def __init__(self, stop: int | None = None) -> None:
        self.seen: Counter[int] = Counter()
        self.stop = stop

    def __call__(self, _: Any, dataset: CocoDataset, points: list[Point], places: list[int]) -> dict[Point, list]:
        if self.stop is not None and len(self.seen) >= self.stop:
            raise KeyboardInterrupt
        self.seen.update(places)
        return {point: [one for place in places for one in self.objects(dataset, point, place)] for point in points}

    def objects(self, dataset: CocoDataset, point: Point, place: int) -> list[dict[str, Any]]:
        if point.proposals == 1:
            return []
        number, shift = dataset.image_ids[place], 6 - cost(replace(point, proposals=None)) / 3
        objects = [one for one in dataset.coco["annotations"] if one["image_id"] == number]
        moved = [[one["bbox"][0] + shift, *one["bbox"][1:]] for one in objects]
        return [
            {"image_id": number, "category_id": one["category_id"], "bbox": box, "score": 0.9}
            for one, box in zip(objects, moved, strict=True)
        ]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Of the classes of the made-up scenes."""
    return slimdet.save(tiny_model(), tmp_path / "model", Card(("red", "green"), (10, 20)))


GRID = TuneSettings(engine="torch", imgsz=(32, 48, 64), proposals=(1, 2, 5, 20), repeats=1)
FOUR = replace(GRID, imgsz=(64,), proposals=(1, 20))


def test_a_run_that_was_killed_goes_on(
    model: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "CHUNK", 2)
    answers = Answers(stop=4)
    monkeypatch.setattr(trials, "detect_points", answers)
    with pytest.raises(KeyboardInterrupt):
        slimdet.tune(model, scenes, FOUR, out=tmp_path / "run")
    assert not manifest.read(model).ladder
    answers.stop = None
    result = slimdet.tune(model, scenes, FOUR, resume=tmp_path / "run")
    assert answers.seen == dict.fromkeys(range(6), 1)
    assert result.ladder == slimdet.tune(model, scenes, FOUR, out=tmp_path / "anew").ladder
    with pytest.raises(ConfigError, match="it is of seed 0, not 1; start a new one"):
        slimdet.tune(model, scenes, FOUR, resume=tmp_path / "run", seed=1)
    with pytest.raises(ConfigError, match="is no run of tune"):
        slimdet.tune(model, scenes, FOUR, resume=tmp_path)


def test_what_is_surely_worse_drops_out_early(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = make_scenes(tmp_path / "many", images=24)
    monkeypatch.setattr("slimdet.search.race.FIRST", 12)
    monkeypatch.setattr(trials, "detect_points", Answers())
    told: list[tuple[str, int, int]] = []
    result = slimdet.tune(model, scenes, GRID, out=tmp_path / "run", progress=lambda *how_far: told.append(how_far))
    left = [step.rung.point for step in (*result.ladder, *result.others)]
    assert told == [("round 1, 24 points", 12, 12), (f"round 2, {len(left)} points", 12, 12)]
    assert len(left) < 20
    # Of points that find nothing the quickest stays: it is quicker than all that find something.
    assert [point for point in left if point.proposals == 1] == [Point(0.5, 32, 1, "fp32")]
    # The curves beside the ladder are measured on all images, whatever they reach.
    assert {Point(0.5, 64, 20, "fp32"), *(Point(1.0, size, 20, "fp32") for size in (32, 48, 64))} <= set(left)
    assert result.ladder[-1].rung.point == Point(1.0, 64, 2, "fp32")
    assert result.ladder[-1].rung.ap > 0.9


def test_the_bundled_model_stays_as_it_is(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (manifest.bundled() / "model.json").read_bytes()
    words = ["--model", "bundled", "--data", data, "--widths", "0.25", "--imgsz", "186", "--proposals", "150"]
    words += ["--engine", "torch", "--images", "8", "--repeats", "1", "--budget-ms", "1", "--out", tmp_path / "run"]
    assert main(["tune", *map(str, words), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == str(tmp_path / "run" / "model")
    [entry] = document["ladder"]
    assert entry == document["full"] == document["chosen"]
    assert not document["fits"]
    assert (manifest.bundled() / "model.json").read_bytes() == before
    copy = manifest.read(document["model"])
    assert [rung.point.entry for rung in copy.ladder] == [entry["point"]]
    assert copy.engine("onnx", 0.5)
    assert main(["tune", *map(str, words[:-2]), "--resume", str(tmp_path / "run")]) == 0
    out = " ".join(capsys.readouterr().out.split())  # lines end where the terminal does
    assert "no point keeps the budget; the quickest is width 0.25 at 186 px, 150 proposals, fp32" in out


def test_images_without_objects_have_no_ladder(model: Path, scenes: Path, tmp_path: Path) -> None:
    coco = json.loads((scenes.parent / "annotations.json").read_text()) | {"annotations": []}
    (tmp_path / "empty.json").write_text(json.dumps(coco))
    data = tmp_path / "data.yaml"
    data.write_text(f"val: {{images: {scenes.parent}/images, annotations: empty.json}}\n")
    with pytest.raises(DataError, match="have no object to be found"):
        slimdet.tune(model, data, GRID, out=tmp_path / "run")
