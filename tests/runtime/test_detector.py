"""`slimdet.Runtime`: sources, streams, scores, classes, widths, threads; and every engine finds the same."""

import gc
import itertools
import json
import pickle
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import slimdet
from ready_made import ready_made
from runtime.mask_engine import mask_bundle
from scenes_detector import tiny_model
from slimdet import Result, Runtime
from slimdet.assets import PHOTOGRAPHS, VAL
from slimdet.bundle.ladder import Point, Precision, Rung
from slimdet.errors import BundleError, ConfigError, ImageError, WidthError
from slimdet.exporting.engine_files import export
from slimdet.images.decoding import read_image
from slimdet.images.resizing import Sides
from slimdet.runtime import detector as detector_module
from slimdet.runtime.engine import ENGINES, Session

FILES = sorted(PHOTOGRAPHS.glob("*.jpg"))
TABBY = PHOTOGRAPHS / "tabby.jpg"


@pytest.fixture(scope="module")
def detector() -> Runtime:
    return Runtime(conf=0.3, threads=1)


def same(one: Result, other: Result, boxes: float = 0.05, scores: float = 1e-3) -> bool:
    """Whether two results hold the same detections, as sets, to within pixels and scores."""
    if len(one) != len(other):
        return False
    left = set(range(len(other)))
    for box, label, score in zip(one.boxes, one.labels, one.scores, strict=True):
        near = [
            index
            for index in left
            if other.labels[index] == label
            and abs(other.boxes[index] - box).max() <= boxes
            and abs(other.scores[index] - score) <= scores
        ]
        if not near:
            return False
        left.remove(near[0])
    return True


# ------------------------------------------------------------------------------------------------- engines


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.0])
def test_every_engine_finds_the_same(width: float) -> None:
    # Left out is chelsea.jpg: at 0.25 proposals of exactly the same score compete there, and engines may take either.
    files = [PHOTOGRAPHS / "horses.jpg", TABBY]
    found = {engine: Runtime(width=width, engine=engine, conf=0.3, threads=1)(files) for engine in ENGINES}
    horses, tabby = found["torch"]
    assert horses.names.count("horse") >= 2
    assert tabby.names == ["cat"]
    for engine in ("onnxruntime", "openvino"):
        for expected, result in zip(found["torch"], found[engine], strict=True):
            assert same(expected, result), (engine, expected.path)
            assert result.names == expected.names
            assert (result.width, result.path, result.image_size) == (width, expected.path, expected.image_size)


def test_torch_and_the_model_itself_find_the_same_with_masks(tmp_path: Path) -> None:
    model = tiny_model((0.5, 1.0), masks=True).eval()
    folder = slimdet.save(model, tmp_path / "masks")
    image = read_image(TABBY)[:64, :80]
    with torch.no_grad():
        expected = model([torch.from_numpy(image).permute(2, 0, 1) / 255], width=0.5)[0]
    result = Runtime(folder, engine="torch", conf=0.05)(image, width=0.5)
    np.testing.assert_allclose(result.boxes, expected["boxes"].numpy(), atol=1e-3)
    np.testing.assert_allclose(result.scores, expected["scores"].numpy(), atol=1e-5)
    soft = expected["masks"][:, 0].numpy()
    assert result.masks is not None
    clear = abs(soft - 0.5) > 1e-4
    np.testing.assert_array_equal(result.masks[clear], soft[clear] > 0.5)


# ------------------------------------------------------------------------------------------------- sources


def test_one_image_in_every_form(detector: Runtime) -> None:
    pixels = read_image(TABBY)
    with Image.open(TABBY) as opened:
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)
        sources = [TABBY, str(TABBY), TABBY.read_bytes(), pixels, opened.copy(), opened, tensor, tensor / 255]
        results = [detector(source, width=0.5) for source in sources]
        with TABBY.open("rb") as file:
            results.append(detector(file, width=0.5))
        results.append(detector(pixels[..., ::-1], width=0.5, color="bgr"))
    for result in results:
        assert isinstance(result, Result)
        assert same(results[0], result, 0, 0)
        np.testing.assert_array_equal(result.image, pixels)
    assert [result.path for result in results] == [TABBY, TABBY, *[None] * 3, TABBY, None, None, TABBY, None]


def test_a_list_gives_a_list_in_its_order(detector: Runtime) -> None:
    files = sorted((VAL / "images").glob("*.jpg"))[:6]
    sources = [files[0], read_image(files[1]), *map(str, files[2:]), files[0]]
    results = detector(sources, width=0.25, batch=4)
    assert [result.path for result in results] == [files[0], None, *files[2:], files[0]]
    for source, result in zip(sources, results, strict=True):
        assert same(detector(source, width=0.25), result, 1e-2, 1e-4)
    assert detector([]) == []
    for many in (tuple(sources), iter(sources), (source for source in sources)):
        assert [result.path for result in detector(many, width=0.25)] == [result.path for result in results]


def test_a_batch_of_tensors_is_many_images(detector: Runtime) -> None:
    pixels = np.stack([read_image(TABBY)[:120, :160], read_image(PHOTOGRAPHS / "horses.jpg")[:120, :160]])
    results = detector(torch.from_numpy(pixels).permute(0, 3, 1, 2), width=0.25)
    np.testing.assert_array_equal([result.image for result in results], pixels)


def test_a_batch_has_an_image_or_more(detector: Runtime) -> None:
    with pytest.raises(ConfigError, match="batch 0 must be 1 or more"):
        detector([TABBY], batch=0)


def test_images_of_one_size_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, shapes = Runtime(threads=1), []
    session = detector.session(1.0)

    class Watched:
        sides, takes_resized = session.sides, session.takes_resized
        proposals, precision = session.proposals, session.precision

        def __call__(self, images: np.ndarray, *asked: float | None):
            shapes.append(images.shape)
            return session(images, *asked)

    monkeypatch.setitem(detector._sessions._ready, (1.0, None), Watched())
    wide, high = np.zeros((40, 60, 3), np.uint8), np.zeros((60, 40, 3), np.uint8)
    results = detector([wide, high, wide, wide, high, wide], batch=5)
    assert [result.image_size for result in results] == [(60, 40), (40, 60), (60, 40), (60, 40), (40, 60), (60, 40)]
    assert shapes == [(3, 40, 60, 3), (2, 60, 40, 3), (1, 40, 60, 3)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sides", [(3000, 1), (1, 3000)])
def test_an_image_of_which_nothing_is_left(engine: str, sides: tuple[int, int]) -> None:
    image = np.zeros((*sides, 3), np.uint8)
    with pytest.raises(ImageError, match=f"{sides[1]}x{sides[0]} pixels: nothing is left of it"):
        Runtime(engine=engine)(image, width=0.25)


def test_a_file_that_is_no_image(detector: Runtime, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(ImageError, match=r"text\.jpg: not an image"):
        detector(tmp_path / "text.jpg")
    with pytest.raises(ImageError, match="an image cannot be a Namespace"):
        detector(__import__("argparse").Namespace())


# ------------------------------------------------------------------------------------------------- photographs


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cat, ten times as large, as a camera stores it: lying on its side."""
    path, exif = tmp_path_factory.mktemp("photographs") / "large.jpg", Image.Exif()
    exif[0x0112] = 6
    with Image.open(TABBY) as cat:
        large = cat.convert("RGB").resize((cat.width * 10 // 8 * 8, cat.height * 10 // 8 * 8), Image.Resampling.BICUBIC)
    large.transpose(Image.Transpose.ROTATE_90).save(path, quality=90, exif=exif)
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_a_large_photograph_is_found_as_its_small_copy(engine: str, photograph: Path) -> None:
    runtime = Runtime(engine=engine, conf=0.3, threads=1)
    large, small = runtime(photograph), runtime(TABBY)
    times = large.image_size[0] / small.image_size[0]
    assert times > 9
    assert large.names == small.names
    np.testing.assert_allclose(large.boxes / times, small.boxes, atol=4)
    np.testing.assert_allclose(large.scores, small.scores, atol=0.03)
    np.testing.assert_array_equal(large.image, read_image(photograph))
    as_array = runtime(large.image)  # averaged here, by libjpeg there
    np.testing.assert_allclose(as_array.boxes / times, large.boxes / times, atol=1)


def test_engines_find_the_same_in_a_large_photograph(photograph: Path) -> None:
    found = [Runtime(engine=engine, width=0.5, conf=0.3, threads=1)(photograph) for engine in ENGINES]
    assert all(same(found[0], other, boxes=0.5) for other in found[1:])


def test_an_image_of_the_models_size_comes_as_it_is(detector: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    session, given = detector.session(0.25), []

    class Watched:
        sides, takes_resized = session.sides, session.takes_resized
        proposals, precision = session.proposals, session.precision

        def __call__(self, images: np.ndarray, *asked: float | None):
            given.append(images)
            return session(images, *asked)

    monkeypatch.setitem(detector._sessions._ready, (0.25, None), Watched())
    pixels = read_image(TABBY)[:186, :256]
    detector([pixels, pixels[:50, :70]], width=0.25)
    np.testing.assert_array_equal(given[0][0], pixels)
    np.testing.assert_array_equal(given[1][0], pixels[:50, :70])


def test_a_photograph_is_kept_as_its_file_and_read_for_any_size(photograph: Path) -> None:
    runtime = Runtime(engine="torch", threads=1)
    image, sides = runtime.read(photograph), Sides(186, 256)
    assert len(pickle.dumps(image)) < photograph.stat().st_size + 200_000
    assert image.at(sides).shape[:2] == (162, 256)
    assert image.at(Sides(93, 128)).shape[:2] == (81, 128)
    again, first = runtime.detect([image], imgsz=128)[0], runtime(photograph, imgsz=128)
    assert same(again, first, 0, 0)
    np.testing.assert_array_equal(image.at(sides), runtime.read(photograph).at(sides))


def test_masks_are_pasted_at_the_photographs_size(photograph: Path, tmp_path: Path) -> None:
    result = Runtime(mask_bundle(tmp_path / "masks"), conf=0.5)(photograph)
    width, height = result.image_size
    np.testing.assert_allclose(result.boxes[0], [0, 0, width, height], rtol=1e-6)
    assert result.masks is not None
    assert result.masks.shape == (2, height, width)
    inside = result.masks[0, height // 9 : -height // 9]  # not the rim, where masks fade
    assert inside[:, width // 9 : width // 2 - width // 9].all()
    assert not inside[:, width // 2 + width // 9 :].any()


def test_images_that_become_one_size_run_together_and_no_more_than_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(width=0.25, threads=1)
    session, batches = runtime.session(), []

    class Watched:
        sides, takes_resized = session.sides, session.takes_resized
        proposals, precision = session.proposals, session.precision

        def __call__(self, images: np.ndarray, *asked: float | None):
            batches.append(len(images))
            return session(images, *asked)

    monkeypatch.setitem(runtime._sessions._ready, (0.25, None), Watched())
    sizes = [(32 * times, 24 * times) for times in (8, 10, 12, 20, 40)]
    images = [np.zeros((height, width, 3), np.uint8) for width, height in sizes]
    assert [result.image_size for result in runtime(images)] == sizes
    assert batches == [5]
    monkeypatch.setattr(detector_module, "TOGETHER", 2 * 186 * 248 + 1)
    runtime(images)
    assert batches == [5, 2, 2, 1]


# ------------------------------------------------------------------------------------------------- streams


class Frames:
    """Pictures that are made one by one, as a camera does; it counts those that are still held by somebody."""

    def __init__(self, count: int) -> None:
        self.count, self.made, self.held = count, 0, weakref.WeakSet()

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.frame, range(self.count))

    def frame(self, number: int) -> np.ndarray:
        frame = np.full((40, 60 + number % 2, 3), number, np.uint8).view(Frame)
        self.made += 1
        self.held.add(frame)
        return frame


class Frame(np.ndarray):
    """An array that can be in a weak set."""

    __hash__ = object.__hash__


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_stream_holds_one_batch_at_a_time(batch: int | None, detector: Runtime) -> None:
    frames = Frames(7)
    results = detector(frames, width=0.25, stream=True, batch=batch)
    assert frames.made == 0
    size = batch or 1
    for number in range(7):
        result = next(results)
        assert result.image[0, 0, 0] == number
        assert frames.made == min(7, (number // size + 1) * size)  # no image is read before it is needed
        assert len(frames.held) <= size
        del result
        gc.collect()
        assert len(frames.held) <= size - 1 - number % size
    assert next(results, None) is None


def test_a_stream_gives_what_a_list_gives(detector: Runtime) -> None:
    files = [TABBY, PHOTOGRAPHS / "horses.jpg"]
    results = detector(itertools.cycle(files), width=0.25, stream=True, classes="horse")  # without an end
    for expected, result in zip(detector(files, width=0.25, classes="horse"), results, strict=False):
        assert same(expected, result, 0, 0)
        assert result.path == expected.path
    (alone,) = detector(TABBY, width=0.25, stream=True)
    assert alone.path == TABBY


def test_mistakes_in_a_stream(detector: Runtime, tmp_path: Path) -> None:
    with pytest.raises(WidthError, match=r"width 0\.3"):
        detector(Frames(1), width=0.3, stream=True)  # before the first result is asked for
    (tmp_path / "text.jpg").write_text("not an image")
    results = detector([TABBY, tmp_path / "text.jpg"], width=0.25, stream=True)
    assert next(results).path == TABBY
    with pytest.raises(ImageError, match=r"text\.jpg: not an image"):
        next(results)


# ------------------------------------------------------------------------------------------------- scores and classes


def test_conf_is_the_least_score_of_the_runtime_or_of_a_call() -> None:
    horses = PHOTOGRAPHS / "horses.jpg"
    runtime = Runtime(conf=0.06, threads=1)
    every = runtime(horses, width=0.5)
    middle = float(every.scores[len(every) // 2])
    expected = [score for score in every.scores.tolist() if score >= middle]
    assert 0 < len(expected) < len(every)
    for some in (
        Runtime(conf=middle, threads=1)(horses, width=0.5),
        runtime(horses, width=0.5, conf=middle),
        runtime([horses], width=0.5, conf=middle)[0],
        runtime.detect([runtime.read(horses)], 0.5, conf=middle)[0],
    ):
        assert some.scores.tolist() == expected
    assert len(runtime(horses, width=0.5)) == len(every)


@pytest.mark.parametrize("conf", [-0.1, 1.5, 25, float("nan"), "high"])
def test_conf_is_in_0_to_1(conf: float, detector: Runtime) -> None:
    with pytest.raises(ConfigError, match=f"conf {conf!r} is not a score in 0..1"):
        Runtime(conf=conf)
    with pytest.raises(ConfigError, match=f"conf {conf!r} is not a score in 0..1"):
        detector(TABBY, conf=conf)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_conf_below_what_was_exported_is_refused(engine: str, exported: Path) -> None:
    with pytest.raises(ConfigError, match=r"conf 0\.01 is below 0\.05, .*; take engine torch"):
        Runtime(exported, engine=engine, conf=0.01)
    runtime = Runtime(exported, engine=engine, conf=0.05, threads=1)
    with pytest.raises(ConfigError, match=r"conf 0 is below 0\.05"):
        runtime(TABBY, conf=0)
    document = json.loads((exported / "model.json").read_text())
    document["architecture"]["settings"]["roi_heads"] = {"score_thresh": 0.3}
    (exported / "model.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"conf 0\.25 is below 0\.3"):
        Runtime(exported, engine=engine)


def test_the_threshold_of_an_export_is_the_detectors_own(tmp_path: Path) -> None:
    model = tiny_model((1.0,))
    model.get_parameter("roi_heads.box_predictor.cls_score.bias").data[0] = 4  # background: 0.96; the classes: 0.02
    model.get_submodule("roi_heads").score_thresh = 0.01
    folder = slimdet.save(model.eval(), tmp_path / "shy")
    export(str(folder))
    image = read_image(TABBY)[:64, :80]
    with pytest.raises(ConfigError, match=r"conf 0\.005 is below 0\.01"):
        Runtime(folder, engine="onnxruntime", conf=0.005)
    found = Runtime(folder, engine="onnxruntime", conf=0.01)(image)
    assert 0.01 < found.scores.min() < found.scores.max() < 0.05
    assert same(Runtime(folder, engine="torch", conf=0.01)(image), found)


def test_torch_goes_down_to_any_score_call_by_call(tmp_path: Path) -> None:
    model = tiny_model((1.0,))
    model.get_parameter("roi_heads.box_predictor.cls_score.bias").data[0] = 4
    runtime = Runtime(slimdet.save(model.eval(), tmp_path / "shy"), engine="torch")
    image = read_image(TABBY)[:64, :80]
    assert len(runtime(image)) == 0
    low = runtime(image, conf=0)
    assert 0 < low.scores.min() < low.scores.max() < 0.05
    assert len(runtime(image, conf=0.05)) == 0
    assert runtime.session(1.0)(image[None]).scores.size == 0  # the detector's own threshold is back
    middle = float(np.median(low.scores))
    assert runtime(image, conf=middle).scores.tolist() == low.scores[low.scores >= middle].tolist()


def test_classes_of_a_call(detector: Runtime) -> None:
    files = [PHOTOGRAPHS / "horses.jpg", TABBY]
    every = detector(files)
    for classes in ("horse", 4, ["horse"], [4, "sheep"]):
        for found, result in zip(every, detector(files, classes=classes), strict=True):
            assert result.scores.tolist() == found[found.labels == 4].scores.tolist()
    assert detector(TABBY, classes=["dog", "cat"]).names == ["cat"]
    with pytest.raises(ConfigError, match=r"class 'hose' is none of labels 1..5: dog, .*; did you mean horse"):
        detector(TABBY, classes="hose")


# ------------------------------------------------------------------------------------------------- kinds


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_a_kind_that_would_lose_what_it_finds_is_refused(engine: str, exported: Path) -> None:
    document = json.loads((exported / "model.json").read_text())
    document["architecture"] = {"builder": "torchvision.keypointrcnn_resnet50_fpn", "num_classes": 6}
    (exported / "model.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="Keypoint R-CNN cannot be run by Runtime"):
        Runtime(exported, engine=engine)


def test_a_detector_of_one_stage_finds_what_the_model_finds(tmp_path: Path) -> None:
    model = slimdet.slim(ready_made("ssdlite_mobilenet_v3"), (1.0,), scope="backbone").eval()
    image = read_image(TABBY).repeat(2, axis=0)  # larger than the squares that it makes of images
    with torch.no_grad():
        expected = model([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
    result = Runtime(slimdet.save(model, tmp_path / "lite"), conf=0)(image)
    assert len(result) > 100
    np.testing.assert_array_equal(result.boxes, expected["boxes"].numpy())
    np.testing.assert_array_equal(result.scores, expected["scores"].numpy())
    np.testing.assert_array_equal(result.labels, expected["labels"].numpy())


# ------------------------------------------------------------------------------------------------- points


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_runs_at_every_point(engine: str) -> None:
    runtime = Runtime(engine=engine, conf=0.3, threads=1)
    horses = PHOTOGRAPHS / "horses.jpg"
    for width, imgsz, proposals in ((0.5, 112, 60), (0.25, 256, 12), (0.5, None, None)):
        torch_runtime = Runtime(width=width, engine="torch", conf=0.3, imgsz=imgsz, proposals=proposals)
        result = runtime(horses, width, imgsz=imgsz, proposals=proposals)
        assert same(torch_runtime(horses), result), (width, imgsz, proposals)
        assert result.point == Point(width, imgsz or 186, proposals or 150, "fp32")
        assert same(result, runtime(horses, point=result.point), 0, 0)
        assert same(result, runtime.detect([runtime.read(horses)], point=result.point)[0], 0, 0)


def test_points_of_the_runtime_and_of_the_ladder(exported: Path) -> None:
    document = json.loads((exported / "model.json").read_text())
    points = [Point(0.25, 96, 20), Point(0.5, 160, 50, "fp32")]
    rungs = [Rung(point, {"AP": 0.3}, 8, "val", "0" * 64) for point in points]
    document["ladder"] = [rung.entry for rung in rungs]
    (exported / "model.json").write_text(json.dumps(document))
    runtime = Runtime(exported, imgsz=128, proposals=30, threads=1)
    assert runtime(TABBY).point == Point(1.0, 128, 30, "fp32")
    assert runtime(TABBY, 0.5, imgsz=96).point == Point(0.5, 96, 30, "fp32")
    assert runtime.ladder == tuple(rungs)
    assert runtime(TABBY, point=0).point == Point(0.25, 96, 20, "fp32")
    assert runtime(TABBY, point=-1).point == Point(0.5, 160, 50, "fp32")


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"imgsz": 16}, ConfigError, "--imgsz 16 is too small"),
        ({"imgsz": 30000}, ConfigError, "--imgsz 30000 is too large: the longer side would have 41290 pixels"),
        ({"proposals": 0}, ConfigError, "--proposals 0 must be 1 or more"),
        ({"point": Point(0.5), "imgsz": 96}, ConfigError, "point says width, imgsz and proposals"),
        ({"point": Point(0.3)}, WidthError, r"width 0\.3 is not one of"),
        (
            {"point": Point(0.5, precision="fp16")},
            ConfigError,
            "onnxruntime has no fp16; take precision fp32, int8, or engine openvino",
        ),
        ({"point": 17}, ConfigError, "point 17 is not one of the 17 that bundled has"),
    ],
)
def test_points_that_cannot_be(asked: dict[str, Any], error: type, said: str, detector: Runtime) -> None:
    with pytest.raises(error, match=said):
        detector(TABBY, **asked)


def test_a_detector_of_one_stage_has_no_number_of_proposals(tmp_path: Path) -> None:
    model = slimdet.slim(ready_made("ssdlite_mobilenet_v3"), (1.0,), scope="backbone").eval()
    runtime = Runtime(slimdet.save(model, tmp_path / "lite"), conf=0)
    assert runtime(TABBY, imgsz=96).point == Point(1.0, 96, None, "fp32")
    with pytest.raises(ConfigError, match="SSD has no number of proposals; leave --proposals out"):
        runtime(TABBY, proposals=5)


# ------------------------------------------------------------------------------------------------- widths


def test_the_width_is_that_of_the_call_or_of_the_runtime(detector: Runtime) -> None:
    assert (detector(TABBY).width, detector(TABBY, width=0.25).width) == (1.0, 0.25)
    assert Runtime(width=0.5)(TABBY).width == 0.5
    narrow, wide = detector(TABBY, width=0.25), detector(TABBY, width=1.0)
    assert not same(narrow, wide)


def test_only_the_widths_that_run_are_loaded() -> None:
    detector = Runtime(width=0.75, threads=1)
    assert not detector._sessions._ready
    detector(TABBY, width=0.25)
    assert {width for width, _ in detector._sessions._ready} == {0.25}
    assert detector.prepare() is detector
    assert {width for width, _ in detector._sessions._ready} == set(detector.widths) == {0.25, 0.5, 0.75, 1.0}


def test_a_width_that_is_not_there() -> None:
    with pytest.raises(WidthError, match=r"width 0\.6 is not one of 0\.25, 0\.5, 0\.75, 1\.0"):
        Runtime(width=0.6)
    with pytest.raises(WidthError, match=r"width 0\.3 is not one of"):
        Runtime()(TABBY, width=0.3)


def test_what_the_bundle_says_of_itself() -> None:
    detector = Runtime()
    assert detector.classes == ("dog", "cat", "sheep", "horse", "cow")
    assert detector.category_ids == (1, 2, 3, 4, 5)
    with pytest.raises(BundleError, match="is not a bundle"):
        Runtime("nowhere")


# ------------------------------------------------------------------------------------------------- threads


def test_a_width_that_is_loading_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Runtime(threads=1).prepare([0.25])
    begun, go_on, load = threading.Event(), threading.Event(), busy.engine.load
    loads: list[float] = []

    def slow(width: float, precision: Precision | None) -> Session:
        loads.append(width)
        if width == 1.0:
            begun.set()
            assert go_on.wait(60)
        return load(width, precision)

    monkeypatch.setattr(busy.engine, "load", slow)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(busy.session, 1.0) for _ in range(2)]
        assert begun.wait(60)
        busy(TABBY, width=0.25)  # is ready
        busy(TABBY, width=0.5)  # is not
        assert not any(future.done() for future in waiting)
        go_on.set()
        one, other = (future.result() for future in waiting)
    assert one is other
    assert loads == [1.0, 0.5]


@pytest.mark.parametrize("engine", ENGINES)
def test_many_threads_at_many_widths(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Runtime(engine=engine, conf=0.3, threads=1)
    loads: list[float] = []
    load = busy.engine.load
    monkeypatch.setattr(busy.engine, "load", lambda width, precision: loads.append(width) or load(width))
    jobs = [(file, width) for file in FILES[1:3] for width in (0.25, 0.5)] * 2
    start = threading.Barrier(4)

    def run(jobs: list[tuple[Path, float]]) -> list[Result]:
        start.wait()  # all begin with sessions that nobody has loaded
        return [busy(*job) for job in jobs]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(run, [jobs[number::4] + jobs[:number] for number in range(4)]))
    assert sorted(loads) == [0.25, 0.5]
    expected = {job: busy(*job) for job in set(jobs)}
    for number, results in enumerate(answers):
        for job, result in zip(jobs[number::4] + jobs[:number], results, strict=True):
            assert same(expected[job], result, 1e-3, 1e-5), job
