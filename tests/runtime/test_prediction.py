"""`slimdet predict`: what it takes, what it writes, and what it does with files that are broken."""

import errno
import json
import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import slimdet
from scenes import make_scenes
from scenes_detector import tiny_model
from slimdet.bundle.card import Card
from slimdet.cli.verbs import main
from slimdet.errors import ConfigError, DataError
from slimdet.images.decoding import read_image
from slimdet.runtime.prediction import find_images
from slimdet.runtime.prediction import predict as run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Untrained: it gives every class about a third, so that many boxes have a score above 0.25."""
    folder = tmp_path_factory.mktemp("models")
    return str(slimdet.save(tiny_model(), folder / "boxes", Card(("red", "green"), (10, 20))))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes"), images=3).parent / "images"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # runs/ goes here


def picture(path: str | Path, size: tuple[int, int] = (60, 40)) -> str:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


def predict(*words: str, code: int = 0, capsys: Capture) -> tuple[dict, list[str]]:
    """The JSON document on stdout and the lines on stderr."""
    assert main(["predict", *words, "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out), err.splitlines()


# ------------------------------------------------------------------------------------------------- sources


def test_files_folders_and_patterns_each_image_once() -> None:
    one, two, three = picture("all/one.jpg"), picture("all/deep/two.PNG"), picture("all/deep/[3].webp")
    Path("all/notes.txt").write_text("no image")
    picture("all/.hidden.png")
    Path("all/folder.png").mkdir()
    assert find_images(["all"]) == sorted(map(Path, (one, two, three)))
    assert find_images(["all/*.jpg"]) == [Path(one)]
    assert find_images(["all/**/*.[jP]*"]) == sorted(map(Path, (one, two)))
    assert find_images([three]) == [Path(three)]  # a name before a pattern
    assert find_images([two, "all", "all/*.jpg"]) == [Path(two), Path(three), Path(one)]


@pytest.mark.parametrize("source", ["nothing.jpg", "nothing/*.jpg", "empty"])
def test_a_source_without_images_is_named(source: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(DataError, match="^" + source.replace("*", r"\*")):
        find_images([source])


def test_what_predict_drew_is_taken_up_only_by_name(bundle: str, capsys: Capture) -> None:
    mine = [Path(picture("a.png")), Path(picture("runs/holiday-1/b.png"))]
    for _ in range(3):
        document, _ = predict(".", "--model", bundle, "--conf", "1", capsys=capsys)
        assert [image["file_name"] for image in document["images"]] == [str(path) for path in mine]
    drawn = Path("runs/predict-1")
    assert find_images([str(drawn)]) == [drawn / "a.jpg", drawn / "b.jpg"]
    assert len(find_images(["runs/predict-*/a.jpg"])) == 3
    with pytest.raises(DataError, match="no such file, folder or pattern"):
        find_images(["**/*.jpg"])


# ------------------------------------------------------------------------------------------------- results


def test_pictures_and_coco_json_of_a_folder(bundle: str, photographs: Path, capsys: Capture) -> None:
    document, lines = predict(str(photographs), "--model", bundle, "--width", "0.5", capsys=capsys)
    run = Path("runs/predict-1")
    assert sorted(file.name for file in run.iterdir()) == ["1.jpg", "2.jpg", "3.jpg", "detections.json"]
    written = json.loads((run / "detections.json").read_text())
    assert document == {"run": str(run), **written, "broken": {}}
    assert [image["file_name"] for image in written["images"]] == [str(photographs / f"{n}.png") for n in (1, 2, 3)]
    assert written["categories"] == [{"id": 10, "name": "red"}, {"id": 20, "name": "green"}]
    assert written["annotations"]
    assert [found["id"] for found in written["annotations"]] == list(range(1, len(written["annotations"]) + 1))
    for found in written["annotations"]:
        x, y, w, h = found["bbox"]
        assert 0 <= x < x + w <= 96.001
        assert 0 <= y < y + h <= 72.001
        assert found["category_id"] in (10, 20)
        assert found["image_id"] in (1, 2, 3)
        assert 0.25 <= found["score"] <= 1
    assert len(lines) == 3
    for number, line in enumerate(lines, 1):
        assert line.startswith(f"{photographs / f'{number}.png'}: 96x72, ")
        with Image.open(run / f"{number}.jpg") as drawn:
            assert (drawn.format, drawn.size) == ("JPEG", (96, 72))
            difference = read_image(drawn).astype(int) - read_image(photographs / f"{number}.png")
            assert abs(difference).max() > 60  # something is drawn


def test_masks_are_in_the_json(photographs: Path, capsys: Capture) -> None:
    masks = str(slimdet.save(tiny_model((1.0,), masks=True), "masks"))
    document, _ = predict(str(photographs / "2.png"), "--model", masks, capsys=capsys)
    assert [category["name"] for category in document["categories"]] == ["1", "2"]
    assert document["annotations"]
    assert {tuple(found["segmentation"]["size"]) for found in document["annotations"]} == {(72, 96)}


def test_people_get_a_summary(bundle: str, photographs: Path, capsys: Capture) -> None:
    words = ["predict", str(photographs / "*.png"), "--model", bundle, "--conf", "0.99"]
    assert main([*words, "--out", "here"]) == 0
    out, err = capsys.readouterr()
    assert out == "3 images, 0 detections; pictures and detections.json in here\n"
    assert err.count("nothing found") == 3
    assert main([*words, "--out", "here"]) == 2
    assert "already exists" in capsys.readouterr().err


def test_photographs_of_one_name_get_pictures_of_their_own(bundle: str, capsys: Capture) -> None:
    sizes = {"a/x.png": (50, 40), "b/X.png": (60, 40), "c/x-2.png": (70, 40), "c/x.jpg": (80, 40)}
    files = [picture(name, size) for name, size in sizes.items()]
    document, _ = predict(*files, "--model", bundle, "--conf", "1", capsys=capsys)
    assert [image["file_name"] for image in document["images"]] == list(sizes)
    drawn = sorted(Path(document["run"]).glob("*.jpg"))
    assert len({file.name.lower() for file in drawn}) == len(drawn)
    assert sorted(read_image(file).shape[1] for file in drawn) == [50, 60, 70, 80]


def test_conf_is_the_least_score_also_under_what_torchvision_keeps(capsys: Capture) -> None:
    model = tiny_model((1.0,))
    model.get_parameter("roi_heads.box_predictor.cls_score.bias").data[0] = 4  # background: 0.96; the classes: 0.02
    shy, photograph = str(slimdet.save(model, "shy")), picture("a.png")

    def scores(conf: float) -> list[float]:
        document, _ = predict(photograph, "--model", shy, "--conf", str(conf), capsys=capsys)
        return [found["score"] for found in document["annotations"]]

    everything = sorted(scores(0), reverse=True)
    middle = everything[len(everything) // 2]
    assert 0 < everything[-1] < middle < everything[0] < 0.05
    assert sorted(scores(middle), reverse=True) == [score for score in everything if score >= middle]
    assert scores(0.05) == []


# ------------------------------------------------------------------------------------------------- mistakes


def test_broken_files_are_named_counted_and_skipped(bundle: str, capsys: Capture) -> None:
    whole = Path(picture("whole.jpg", (200, 160))).read_bytes()
    Path("cut.jpg").write_bytes(whole[: len(whole) // 2])
    Path("empty.png").touch()
    Path("text.jpg").write_text("not an image")
    picture("line.png", (3000, 1))  # nothing is left of it at the model's size
    good = ["line.png", "cut.jpg", "whole.jpg", "empty.png", picture("last.png"), "text.jpg"]
    document, lines = predict(*good, "--model", bundle, "--conf", "1", code=2, capsys=capsys)
    bad = {"line.png", "cut.jpg", "empty.png", "text.jpg"}
    assert document["broken"].keys() == bad
    assert {line.split()[1].strip(":") for line in lines if line.startswith("skipped ")} == bad
    assert lines[-1] == "slimdet: 4 of 6 files could not be read, see above"
    assert [image["file_name"] for image in document["images"]] == ["whole.jpg", "last.png"]
    assert read_image("runs/predict-1/whole.jpg").shape == (160, 200, 3)
    assert read_image("runs/predict-1/last.jpg").shape == (40, 60, 3)
    assert json.loads(Path("runs/predict-1/detections.json").read_text())["images"] == document["images"]


def test_names_do_not_steer_the_terminal(bundle: str, capsys: Capture) -> None:
    Path("a\x1b[2J.jpg").write_text("not an image")
    document, lines = predict("a\x1b[2J.jpg", "--model", bundle, code=2, capsys=capsys)
    assert list(document["broken"]) == ["a\x1b[2J.jpg"]
    assert lines[0].startswith("skipped a\\x1b[2J.jpg: ")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"roi_heads.box_roi_pool": {"sampling_ratio": 300}}, "sampling_ratio to 300, which is not in -1 to 16"),
        ({"transform": {"image_std": [0, 0, 0]}}, "image_std to [0, 0, 0], which is not in 1e-06 to "),
        ({"backbone.body.bn1": {"eps": -5}}, "was opened, but fails when it runs: batch_norm eps must be"),
    ],
)
def test_settings_that_cannot_be_run_are_named(settings: dict, said: str, bundle: str, capsys: Capture) -> None:
    altered = Path(shutil.copytree(bundle, "altered"))
    document = json.loads((altered / "model.json").read_text())
    document["architecture"]["settings"] = settings
    (altered / "model.json").write_text(json.dumps(document))
    assert main(["predict", picture("a.png"), "--model", "altered", "--engine", "torch"]) == 2
    assert said in capsys.readouterr().err


def test_only_broken_files(bundle: str, capsys: Capture) -> None:
    Path("text.jpg").write_text("not an image")
    document, _ = predict("text.jpg", "--model", bundle, code=2, capsys=capsys)
    assert (document["images"], document["annotations"]) == ([], [])


def test_more_files_than_a_batch_keep_their_order(bundle: str, capsys: Capture) -> None:
    names = [f"{number:02}.png" for number in range(11)]
    for number, name in enumerate(names):
        picture(name, (40 + number, 40)) if number % 4 else Path(name).write_text("not an image")
    document, lines = predict(*names, "--model", bundle, "--conf", "1", "--batch", "2", code=2, capsys=capsys)
    good = [number for number in range(11) if number % 4]
    assert [image["file_name"] for image in document["images"]] == [names[number] for number in good]
    assert [image["id"] for image in document["images"]] == [number + 1 for number in good]
    assert [image["width"] for image in document["images"]] == [40 + number for number in good]
    told = [line.split(":")[0] for line in lines if ".png" in line and "skipped" not in line]
    assert told == [names[number] for number in good]
    assert list(document["broken"]) == [names[number] for number in range(0, 11, 4)]


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_who_stops_it_finds_no_thread_and_no_half_file(
    stop: BaseException, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [picture(f"{number}.png") for number in range(9)]
    drawn, written = [], Path.write_bytes

    def write(path: Path, content: Any) -> int:
        drawn.append(path)
        if len(drawn) == 3:
            written(path, bytes(content)[:100])
            raise stop
        return written(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(type(stop)) as caught:
        run(files, bundle)
    if isinstance(stop, OSError):
        assert re.search(r"predict-1/\d\.jpg", str(caught.value))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("slimdet")]
    left = list(Path("runs/predict-1").iterdir())
    assert all(read_image(file).shape == (40, 60, 3) for file in left)
    assert {file.name for file in left} <= {f"{number}.jpg" for number in range(9)}


def test_no_space_is_a_users_problem_that_names_the_picture(
    bundle: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["predict", picture("a.png"), "--model", bundle]) == 2
    assert "runs/predict-1/a.jpg" in capsys.readouterr().err.splitlines()[-1]
    assert os.listdir("runs/predict-1") == []


def test_two_at_once_never_share_a_folder(bundle: str) -> None:
    files, start = [picture("a.png")], threading.Barrier(2)

    def one(out: str | None) -> Path | None:
        start.wait(60)
        try:
            return run(files, bundle, out=out).run
        except ConfigError as error:
            assert str(error).startswith("--out same ")  # noqa: PT017
            return None

    with ThreadPoolExecutor(2) as pool:
        assert {str(path) for path in pool.map(one, [None, None])} == {"runs/predict-1", "runs/predict-2"}
        assert None in list(pool.map(one, ["same", "same"]))  # both, where they come at the very same moment


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.png", "--width", "0.6"], "width 0.6 is not one of 0.5, 1.0"),
        (["a.png", "--imgsz", "8"], "--imgsz 8 is too small"),
        (["a.png", "--device", "cuda:99"], "--device cuda:99"),
        (["*.jpeg"], "*.jpeg: no such file, folder or pattern"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words: list[str], said: str, bundle: str, capsys: Capture) -> None:
    picture("a.png")
    assert main(["predict", *words, "--model", bundle]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err
    assert os.listdir() == ["a.png"]


def test_conf_below_what_was_exported_is_refused_and_torch_takes_it(capsys: Capture) -> None:
    words = [picture("a.png"), "--model", "bundled", "--width", "0.25", "--conf", "0.001"]
    assert main(["predict", *words]) == 2
    assert "conf 0.001 is below 0.05" in capsys.readouterr().err
    assert os.listdir() == ["a.png"]
    document, _ = predict(*words, "--engine", "torch", capsys=capsys)
    assert 0.001 <= min(found["score"] for found in document["annotations"]) < 0.05
