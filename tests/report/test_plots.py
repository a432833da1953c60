"""Pictures are whole PNGs, whatever the classes are called and however few results there are."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimdet.errors import ConfigError
from slimdet.report import plots

# Names that matplotlib would read as formulas or hide from a legend.
AWKWARD = ["$x^2$", "$", "_hidden", "a very long name of a class that goes on", "naïve"]


def random_curves(count: int) -> np.ndarray:
    return np.sort(np.random.default_rng(0).random((count, 101)), axis=1)[:, ::-1]


def random_matrix(count: int) -> np.ndarray:
    return np.random.default_rng(0).poisson(3, (count + 1, count + 1))


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


class TestPictures:
    @pytest.mark.parametrize("count", [1, 6, 40])
    def test_confusion_matrix(self, tmp_path: Path, count: int) -> None:
        names = (AWKWARD * 14)[:count]
        plots.plot_confusion_matrix(random_matrix(count), names, tmp_path / "new" / "matrix.png", "costs $5 and $6")
        pixels = opened(tmp_path / "new" / "matrix.png")
        assert pixels.std() > 5
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["matrix.png"]

    def test_confusion_matrix_without_any_count(self, tmp_path: Path) -> None:
        plots.plot_confusion_matrix(np.zeros((3, 3), int), ["a", "b"], tmp_path / "matrix.png")
        assert opened(tmp_path / "matrix.png").std() > 0

    @pytest.mark.parametrize("count", [6, 90])
    def test_precision_recall(self, tmp_path: Path, count: int) -> None:
        curves = random_curves(count)
        curves[3:4] = np.nan  # a class without ground truth
        plots.plot_precision_recall(curves, (AWKWARD * 15)[:count], tmp_path / "curves.png", "width 0.5")
        assert opened(tmp_path / "curves.png").std() > 5

    def test_precision_recall_without_ground_truth(self, tmp_path: Path) -> None:
        plots.plot_precision_recall(np.full((2, 101), np.nan), ["a", "b"], tmp_path / "curves.png")
        assert opened(tmp_path / "curves.png").std() > 0

    def test_accuracy_against_latency(self, tmp_path: Path) -> None:
        points = {"1.0": (140.0, 0.39), "0.25": (31.0, 0.21), "0.5": (33.0, 0.22), "0.75": (96.0, -1.0)}
        plots.plot_accuracy_latency(points, tmp_path / "trade.svg", "animalpose")
        drawn = (tmp_path / "trade.svg").read_text()
        assert "<!-- width 0.25 -->" in drawn
        assert "<!-- latency (ms per image) -->" in drawn
        assert "width 0.75" not in drawn  # nothing is known of it

    def test_accuracy_against_latency_without_points(self, tmp_path: Path) -> None:
        plots.plot_accuracy_latency({"0.25": (31.0, -1.0)}, tmp_path / "trade.png")
        assert opened(tmp_path / "trade.png").std() > 0

    def test_the_global_state_of_pyplot_is_left_alone(self, tmp_path: Path) -> None:
        loaded = "matplotlib.pyplot" in sys.modules
        plots.plot_accuracy_latency({"1.0": (31.0, 0.5)}, tmp_path / "trade.png")
        assert ("matplotlib.pyplot" in sys.modules) == loaded

    def test_without_matplotlib_the_way_out_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        path = tmp_path / "picture.png"
        for draw in (
            lambda: plots.plot_confusion_matrix(random_matrix(2), ["a", "b"], path),
            lambda: plots.plot_precision_recall(random_curves(2), ["a", "b"], path),
            lambda: plots.plot_accuracy_latency({"1.0": (1.0, 0.5)}, path),
        ):
            with pytest.raises(ConfigError, match=r"pip install 'slimdet\[plot\]'"):
                draw()
        assert not path.exists()


def test_a_ladder_with_the_curves_beside_it(tmp_path: Path) -> None:
    steps = {f"0.5 at {32 * step} px, 50 proposals": (float(step), 0.02 * step) for step in range(1, 30)}
    others = {"width alone": [(30.0, 0.5), (9.0, 0.1)], "image size alone": [(30.0, 0.5)]}
    plots.plot_ladder(steps, others, tmp_path / "ladder.png", "here")
    plots.plot_ladder({"1.0": (3.0, 0.0)}, {}, tmp_path / "one.png")
    for name in ("ladder", "one"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 400
