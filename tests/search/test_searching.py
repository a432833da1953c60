"""The verb `search`: a plan that is measured, written as a width, and gone on with where it was stopped."""

from pathlib import Path
from typing import Any

import pytest

import slimdet
from scenes_detector import small_settings
from slimdet.bundle import card, manifest
from slimdet.cli import points_views
from slimdet.cli.verbs import main
from slimdet.errors import ConfigError
from slimdet.search.bench import Bench
from slimdet.search.searching import Search, search
from slimdet.training.runs import train
from slimdet.widths import WidthRange

QUICK: dict[str, Any] = {"engine": "torch", "trials": 3, "images": 4, "statistics": 4, "repeats": 1, "budget_ms": 1e6}


@pytest.fixture(scope="module")
def supernet(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained at random widths of its stages, for some steps."""
    settings = small_settings(
        scenes, backbone="resnet18", widths=WidthRange(0.5), width_sampling="stages", epochs=2, lr=0.02, warmup=2
    )
    return train(settings, out=tmp_path_factory.mktemp("runs") / "supernet").model


@pytest.fixture(scope="module")
def found(supernet: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """What a search finds; its bundle is the supernet with the plan."""
    folder = tmp_path_factory.mktemp("search")
    model = slimdet.save(slimdet.load(supernet), folder / "model", card.read(supernet))
    return search(model, scenes, out=folder / "run", **QUICK)


class Unhurried:
    """Times nothing: a plan takes as long as its widths are wide."""

    def __init__(self, *_: Any) -> None:
        pass

    def full_ms(self) -> float:
        return 100.0

    def times_less(self, plans: list[dict[str, float]], _: Any = None) -> list[float]:
        return [sum(plan.values()) / len(plan) for plan in plans]


def test_a_plan_becomes_a_width_of_the_bundle(found: Search) -> None:
    described = manifest.read(found.model)
    assert found.width in described.widths
    assert slimdet.load(found.model).plans[found.width] == found.best.plan
    assert described.metrics[str(found.width)]["bbox"]["AP"] == pytest.approx(found.best.ap, abs=1e-6)
    assert described.calibrations[str(found.width)]["images"] == 6
    assert len(found.trials) == 3
    assert found.best.plan.keys() == {name for names in found.stages for name in names}
    assert set(found.equal.plan.values()) == {1.0}  # of a budget that all keep
    assert found.best.ms > 0
    low, gain, high = found.gain
    assert low <= gain <= high
    assert not found.in_ladder
    assert not (found.run / "timed").exists()


def test_what_people_see(found: Search, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Console(width=160).print(points_views.search(found))
    shown = capsys.readouterr().out
    assert f"it is width {found.width:g} of {found.model}" in shown.replace("\n", "")
    assert "3 plans tried" in shown
    assert "roi_heads.box_head" in shown


def test_a_stopped_search_goes_on_with_what_it_has(
    supernet: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimdet.search.searching.Stopwatch", Unhurried)
    model = slimdet.save(slimdet.load(supernet), tmp_path / "model", card.read(supernet))
    tried: list[Any] = []
    inner = Bench.ap

    def stopping(self: Bench, plan: Any) -> float:
        if len(tried) == 2:
            raise KeyboardInterrupt
        tried.append(plan)
        return inner(self, plan)

    with monkeypatch.context() as patched:
        patched.setattr(Bench, "ap", stopping)
        with pytest.raises(KeyboardInterrupt):
            search(model, scenes, out=tmp_path / "out", **QUICK | {"budget_ms": 80})
    assert manifest.read(model).widths == (0.5, 0.75, 1.0)  # as it was
    monkeypatch.setattr(Bench, "ap", lambda self, plan: tried.append(plan) or inner(self, plan))
    found = search(model, scenes, resume=tmp_path / "out", **QUICK | {"budget_ms": 80})
    assert len(tried) == len(set(tried)) == 3
    assert {trial.plan for trial in found.trials} == set(tried)
    assert all(trial.ms <= 80 for trial in found.trials)
    with pytest.raises(ConfigError, match=r"out.*it is of"):
        search(model, scenes, resume=tmp_path / "out", **QUICK | {"budget_ms": 70})


def test_what_cannot_be_searched_is_told(
    trained: Path, scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimdet.search.searching.Stopwatch", Unhurried)
    caplog.set_level("WARNING", "slimdet")
    model = trained / "model"
    with pytest.raises(ConfigError, match=r"--budget-ms 10: even width 0\.5 takes 50\.0 ms here"):
        search(model, scenes, out=tmp_path / "out", **QUICK | {"budget_ms": 10})
    assert "unequal ones, are poor; train with --width-sampling stages" in caplog.text
    with pytest.raises(ConfigError, match="--budget-ms 0 must be above 0"):
        search(model, scenes, budget_ms=0)
    with pytest.raises(ConfigError, match="is no run of search"):
        search(model, scenes, resume=tmp_path, **QUICK)
    with pytest.raises(ConfigError, match=r"--name 0\.5 is a width of .* already"):
        search(model, scenes, **QUICK, name=0.5)


def test_the_command_line(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", "--model", "bundled", "--data", str(scenes)]
    assert main(words) == 2
    assert "--budget-ms" in capsys.readouterr().err
    assert main([*words, "--budget-ms", "5", "--out", str(tmp_path / "b"), "--resume", str(tmp_path)]) == 2
    assert "leave out --out" in capsys.readouterr().err
    assert main([*words, "--budget-ms", "5", "--out", str(tmp_path / "b")]) == 2
    assert "the model's" in capsys.readouterr().err  # other classes
