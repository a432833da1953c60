"""The points that are tried by themselves."""

from pathlib import Path

import pytest

import slimdet
from scenes_detector import tiny_model
from slimdet.bundle.ladder import Point
from slimdet.errors import ConfigError, WidthError
from slimdet.search.grid import grid, usual_proposals, usual_sizes
from slimdet.search.settings import TuneSettings


@pytest.mark.parametrize(
    ("own", "trained", "sizes"),
    [
        (186, None, (96, 128, 160, 186)),
        (186, 186, (96, 128, 160, 186)),
        (800, None, (384, 480, 576, 672, 800)),
        (256, [64, 256], (64, 96, 128, 192, 256)),  # down to what it was trained at
        (64, None, (32, 64)),
    ],
)
def test_sizes_from_half_of_the_models_to_its_own(own: int, trained: object, sizes: tuple[int, ...]) -> None:
    assert usual_sizes(own, trained) == sizes


@pytest.mark.parametrize(
    ("own", "numbers"), [(150, (20, 50, 150)), (1000, (20, 50, 150, 300, 1000)), (10, (10,)), (None, (None,))]
)
def test_proposals_up_to_the_models_own(own: int | None, numbers: tuple[int | None, ...]) -> None:
    assert usual_proposals(own) == numbers


def test_every_width_with_every_size_and_number(tmp_path: Path) -> None:
    runtime = slimdet.Runtime(slimdet.save(tiny_model(), tmp_path / "model"), engine="torch")
    points = grid(runtime, TuneSettings(proposals=(20, 50)))
    expected = [Point(w, size, n, "fp32") for w in (0.5, 1.0) for size in (32, 64) for n in (20, 50)]
    assert points == expected
    one = TuneSettings(widths=(0.5,), imgsz=(64, 64), proposals=(20,))
    assert grid(runtime, one) == [Point(0.5, 64, 20, "fp32")]
    with pytest.raises(WidthError, match=r"width 0\.3 is not one of 0\.5, 1\.0"):
        grid(runtime, TuneSettings(widths=(0.3,)))
    with pytest.raises(ConfigError, match="--imgsz names none"):
        TuneSettings(imgsz=())
