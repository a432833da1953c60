"""Numbers stay with the weights that they are true of."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import slimdet
from scenes_detector import tiny_model
from slimdet.bundle import card, manifest
from slimdet.bundle.card import Card
from slimdet.bundle.ladder import Latencies, Point, Rung, Timing
from slimdet.bundle.store import weights_of
from slimdet.errors import BundleError, WidthError
from slimdet.models import builders

WIDTHS = ("0.25", "0.5", "1.0")
METRICS = {width: {"bbox": {"AP": float(width) / 2}} for width in WIDTHS}
CALIBRATIONS = {width: {"images": 4} for width in WIDTHS}


def small_model(norm_sharing: str = "shared") -> slimdet.Slimmable:
    torch.manual_seed(0)
    detector = builders.faster_rcnn(3, "resnet18", "light", weights=None, norm_layer="batch", imgsz=64)
    return slimdet.slim(detector, (0.25, 0.5, 1.0), norm_sharing=norm_sharing).eval()


def measured(model: slimdet.Slimmable) -> Card:
    return Card(("cat", "dog"), (3, 17), {"lr": 0.1}).record(weights_of(model), METRICS, CALIBRATIONS)


def test_what_is_recorded_comes_back(tmp_path: Path) -> None:
    model = small_model()
    about = measured(model)
    said = card.read(slimdet.save(model, tmp_path / "model", about))
    assert said == about


def test_numbers_of_other_weights_are_not_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = small_model()
    first = slimdet.save(model, tmp_path / "first", measured(model))
    other = slimdet.load(first)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    said = card.read(slimdet.save(other, tmp_path / "second", card.read(first)))
    assert (said.metrics, said.calibrations) == ({}, {})
    assert (said.classes, said.category_ids, said.training) == (("cat", "dog"), (3, 17), {"lr": 0.1})
    assert "the numbers of width 0.25, 0.5, 1.0 are of other weights" in caplog.text
    nobodys = slimdet.save(model, tmp_path / "third", Card(metrics=METRICS))
    assert not manifest.read(nobodys).metrics  # it was not said whose they are


def test_the_bundled_model_saved_with_other_weights_has_no_accuracy(tmp_path: Path) -> None:
    model = slimdet.load("bundled")
    same = manifest.read(slimdet.save(model, tmp_path / "same", card.read("bundled")))
    assert same.metrics == manifest.read("bundled").metrics  # in 32 bits now: the values are the same
    with torch.no_grad():
        next(model.parameters()).zero_()
    assert not manifest.read(slimdet.save(model, tmp_path / "zeroed", card.read("bundled"))).metrics


@pytest.mark.parametrize("norm_sharing", ["own", "shared"])
def test_a_width_that_changes_alone_loses_its_numbers_alone(
    norm_sharing: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_model(norm_sharing)
    about = measured(model)
    for width, left in ((0.5, {"0.25", "1.0"}), (1.0, {"0.25"})):  # the widest's statistics are nobody else's
        model.twin(width).get_submodule("backbone.body.bn1").running_mean.add_(1)  # pyright: ignore
        said = card.read(slimdet.save(model, tmp_path / str(width), about))
        assert set(said.metrics) == set(said.calibrations) == left
    model.get_parameter("backbone.body.conv1.weight").data[0].mul_(2)  # every width reads the first channel
    assert not card.read(slimdet.save(model, tmp_path / "shared", about)).metrics
    assert "0.25, 0.5, 1.0" in caplog.text


def test_a_new_width_leaves_the_others_their_numbers() -> None:
    model = small_model()
    about = measured(model)
    before = weights_of(model)
    model.add(0.75)
    after = weights_of(model)
    assert {width: after[width] for width in before} == before
    said = about.record(after, {"0.75": {"bbox": {"AP": 0.3}}})
    assert said.true_of(after) == said
    assert set(said.metrics) == {*WIDTHS, "0.75"}


def test_recording_replaces_what_was_said_of_a_widths_earlier_weights() -> None:
    model = small_model()
    about = measured(model)
    model.twin(0.5).get_submodule("backbone.body.bn1").running_mean.add_(1)  # pyright: ignore
    said = about.record(weights_of(model), calibrations={"0.5": {"images": 9}})
    assert set(said.metrics) == {"0.25", "1.0"}
    assert said.calibrations == CALIBRATIONS | {"0.5": {"images": 9}}
    again = said.record(weights_of(model), {"0.5": {"bbox": {"AP": 0.7}}})  # of the same weights: both stay
    assert again.calibrations == said.calibrations
    assert again.metrics["0.5"] == {"bbox": {"AP": 0.7}}
    with pytest.raises(WidthError, match=r"numbers of width 0\.7, where the model has 0\.25, 0\.5, 1\.0"):
        about.record(weights_of(model), {"0.7": {}})


def test_rounding_to_16_bits_makes_other_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = small_model()
    half = slimdet.save(model, tmp_path / "half", measured(model), half=True)
    assert not manifest.read(half).metrics
    rounded = slimdet.load(half)  # measured is what was stored
    caplog.clear()
    assert card.read(slimdet.save(rounded, half, measured(rounded), half=True)).metrics == METRICS
    assert card.read(slimdet.save(rounded, tmp_path / "full", card.read(half))).metrics == METRICS
    assert not caplog.records


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_digests_do_not_depend_on_how_values_are_stored(dtype: torch.dtype) -> None:
    model = tiny_model()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.bfloat16())
    before = weights_of(model)
    assert weights_of(model.to(dtype)) == before


def test_classes_and_their_ids() -> None:
    assert Card(["a", "b"]).category_ids == (1, 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(BundleError, match="2 classes but 1 category ids; give one id for each class"):
        Card(("a", "b"), (1,))


def test_a_card_is_read_with_its_weights_or_not_at_all(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(slimdet.save(tiny_model(), tmp_path / "model"), tmp_path / "copy"))
    with (folder / "weights.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\1\2\3\4")
    with pytest.raises(BundleError, match="get the bundle again"):
        card.read(folder)
    with pytest.raises(BundleError, match="not in the format of safetensors"):
        card.digests(b"as good as weights", (1.0,))


def ladder_of(model: slimdet.Slimmable, *points: Point) -> tuple[Rung, ...]:
    weights = weights_of(model)
    return tuple(Rung(point, {"AP": point.width / 2}, 4, "val", weights[str(point.width)]) for point in points)


POINTS = (Point(0.25, 64, 20, "fp32"), Point(0.5, 32, 20, "fp32"), Point(1.0, 64, 20, "fp32"))


def timed(*points: Point) -> Latencies:
    return Latencies("torch", "cpu", 1, {"torch": "2"}, "2026-01-01", tuple(Timing(one, 4.0, 5.0, 9) for one in points))


def test_a_ladder_is_written_beside_what_was_there(exported: Path) -> None:
    weights = card.read(exported).weights
    ladder = [
        Rung(Point(width, 186, 50, "fp32"), {"AP": width}, 9, "val", weights[str(width)]) for width in (0.25, 1.0)
    ]
    before = manifest.read(exported)
    card.write_ladder(exported, ladder[1:], "there", timed(ladder[1].point))
    card.write_ladder(exported, ladder, "here", timed(*(rung.point for rung in ladder)))
    after = manifest.read(exported)
    assert after.ladder == tuple(ladder)
    assert after.latencies == {"there": timed(ladder[1].point), "here": timed(*(rung.point for rung in ladder))}
    assert after.document | {"ladder": 0, "latencies": 0} == before.document | {"ladder": 0, "latencies": 0}
    assert after.engine("onnx", 0.25)  # the engine files are still those that are described
    card.write_ladder(exported, ladder[:1], "here", timed(ladder[0].point))
    assert list(manifest.read(exported).latencies) == ["here"]  # the other machine knew the other point alone


def test_a_ladder_of_other_weights_is_not_written(exported: Path) -> None:
    before = (exported / "model.json").read_bytes()
    with pytest.raises(BundleError, match=r"0\.5 at 64 px is of other weights; tune it again"):
        card.write_ladder(exported, [Rung(Point(0.5, 64), {"AP": 0.1}, 4, "val", "abc")], "here", timed(Point(0.5, 64)))
    assert (exported / "model.json").read_bytes() == before


def test_a_saved_bundle_keeps_its_ladder_and_drops_rungs_of_other_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_model("own")
    files = Point(1.0, 64, 20, "int8")
    about = replace(measured(model), ladder=ladder_of(model, *POINTS, files), latencies={"here": timed(*POINTS, files)})
    path = slimdet.save(model, tmp_path / "model", about)
    assert manifest.read(path).ladder == about.ladder[:3]  # files in 8 bits go with what is saved
    assert "1 points of the ladder" in caplog.text
    with torch.no_grad():
        for parameter in model.twin(0.5).backbone.body.bn1.parameters():  # type: ignore[union-attr]
            parameter.add_(1)  # of width 0.5 alone
    said = card.read(slimdet.save(model, path, card.read(path)))
    assert [rung.point for rung in said.ladder] == [POINTS[0], POINTS[2]]
    assert said.latencies == {"here": timed(POINTS[0], POINTS[2])}
