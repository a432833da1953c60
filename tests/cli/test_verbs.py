"""Every verb: its help, what it says to mistakes, and its one JSON document."""

import argparse
import inspect
import json
import os
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import slimdet
from slimdet.benchmarking.settings import BenchmarkSettings
from slimdet.bundle.card import Card
from slimdet.cli import doctor
from slimdet.cli.command import parser_of
from slimdet.cli.flags import did_you_mean
from slimdet.cli.verbs import VERBS, main
from slimdet.exporting.settings import ExportSettings
from slimdet.models.builders import faster_rcnn
from slimdet.report.settings import ProfileSettings, ValSettings
from slimdet.runtime.prediction import PredictSettings
from slimdet.search.settings import TuneSettings
from slimdet.training import runs
from slimdet.training.recipes import DECIDES
from slimdet.training.settings import CalibrateSettings, TrainSettings

PARSERS = {name: parser_of(verb) for name, verb in VERBS.items()}
FLAGS = [
    (verb, flag, action)
    for verb, parser in PARSERS.items()
    for action in parser._actions
    for flag in action.option_strings[-1:]
    if flag not in ("--help", "--json")
]
TESTS = str(Path(__file__).parent)  # something that exists
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    detector = faster_rcnn(3, "resnet18", "light", weights=None, imgsz=64)
    model = slimdet.slim(detector, widths=(0.5, 1.0))
    return slimdet.save(model, tmp_path_factory.mktemp("models") / "small", Card(("cat", "dog")))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one image with one cat."""
    folder = tmp_path_factory.mktemp("scene")
    (folder / "images").mkdir()
    Image.new("RGB", (80, 64), "grey").save(folder / "images" / "a.png")
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 40, 40], "area": 1600, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (folder / "coco.json").write_text(json.dumps(coco))
    (folder / "data.yaml").write_text("val:\n  images: images\n  annotations: coco.json\n")
    return folder


def mistake(words: list[str], capsys: Capture) -> str:
    """What `slimdet words` complains about: one line, exit code 2, nothing on stdout, no traceback."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("slimdet: ")
    assert err.count("\n") == 1
    return err


def filled_in(verb: str, but: str = "") -> list[str]:
    """The verb with all that it requires, each value of the right kind; without the flag `but`."""
    words = [verb]
    for action in PARSERS[verb]._actions:
        if action.required and but not in (action.dest, *action.option_strings):
            number = "width" in action.dest or action.dest == "budget_ms"
            words += [*action.option_strings[:1], "0.5" if number else TESTS]
    return words


def document(words: list[str], capsys: Capture, code: int = 0) -> dict:
    """What `slimdet words --json` prints."""
    capsys.readouterr()
    assert main([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


# ------------------------------------------------------------------------------------------------- help


def test_threads_wait_briefly_unless_the_user_has_said_how(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert main(["--version"]) == 0
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert main(["--version"]) == 0
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_with_flags_that_exist(verb: str, capsys: Capture) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    example = text.split("Example:\n")[1].strip().splitlines()[0]
    words = shlex.split(example)
    assert words[:2] == ["slimdet", verb]
    given = [word.split("=")[0] for word in words if word.startswith("--")]
    assert set(given) <= set(PARSERS[verb]._option_string_actions)
    required = {
        action.option_strings[0] for action in PARSERS[verb]._actions if action.required and action.option_strings
    }
    assert required <= set(given)


@pytest.mark.parametrize(("verb", "flag", "action"), FLAGS, ids=[f"{verb}{flag}" for verb, flag, _ in FLAGS])
def test_every_flag_is_explained(verb: str, flag: str, action: argparse.Action) -> None:
    assert action.help, f"{verb} {flag} has no help"


SETTINGS = {
    "train": TrainSettings,
    "calibrate": CalibrateSettings,
    "val": ValSettings,
    "predict": PredictSettings,
    "profile": ProfileSettings,
    "export": ExportSettings,
    "tune": TuneSettings,
    "benchmark": BenchmarkSettings,
}


NOT_FLAGS = {
    "train": {"momentum", "data", "recipe", *DECIDES},  # --data has no default
    "val": {"width_threads", "memory"},  # it measures accuracy
}


@pytest.mark.parametrize("verb", SETTINGS)
def test_settings_are_flags_with_their_defaults(verb: str) -> None:
    flags = {action.dest: action.default for action in PARSERS[verb]._actions}
    of_settings = {field.name: field.default for field in fields(SETTINGS[verb])}
    not_flags = NOT_FLAGS.get(verb, {"width_threads"})
    assert {name: flags.get(name, "no flag") for name in of_settings.keys() - not_flags} == {
        name: default for name, default in of_settings.items() if name not in not_flags
    }


def test_help_says_which_flags_a_recipe_decides() -> None:
    decided = {action.dest for action in PARSERS["train"]._actions if str(action.default) == "by --recipe"}
    assert decided == set(DECIDES)
    assert "(default by --recipe)" in PARSERS["train"].format_help()
    assert PARSERS["train"].get_default("recipe") == "default"


def test_every_verb_has_a_line_in_the_overview(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert f"  {name:<10} {(inspect.getdoc(verb) or '').splitlines()[0]}" in text


# ------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("verb", VERBS)
def test_a_misspelled_verb(verb: str, capsys: Capture) -> None:
    assert f"did you mean {verb}?" in mistake([verb[:-1] + "x"], capsys)


@pytest.mark.parametrize(("verb", "flag", "action"), FLAGS, ids=[f"{verb}{flag}" for verb, flag, _ in FLAGS])
def test_a_misspelled_flag(verb: str, flag: str, action: argparse.Action, capsys: Capture) -> None:
    misspelled = flag[:-1] + "_"
    said = mistake([*filled_in(verb, flag), misspelled, "1"], capsys)
    assert f"unknown flag {misspelled}" in said
    assert did_you_mean(misspelled, PARSERS[verb]._option_string_actions) in said


TYPED = [(verb, flag) for verb, flag, action in FLAGS if action.type not in (str, Path)]


@pytest.mark.parametrize(("verb", "flag"), TYPED, ids=map("".join, TYPED))
def test_a_value_of_the_wrong_kind(verb: str, flag: str, capsys: Capture) -> None:
    words = [*filled_in(verb, flag), f"{flag}=no-such-thing"]
    assert flag in mistake(words, capsys)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "predict"])  # it takes any number
def test_an_argument_too_many(verb: str, capsys: Capture) -> None:
    assert "one_too_many" in mistake([*filled_in(verb), "one_too_many"], capsys)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if len(filled_in(verb)) > 1])
def test_what_is_required(verb: str, capsys: Capture) -> None:
    assert "required" in mistake([verb], capsys)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if PARSERS[verb]._get_positional_actions()])
def test_a_file_that_is_not_there(verb: str, capsys: Capture, scene: Path) -> None:
    words = [*filled_in(verb, PARSERS[verb]._get_positional_actions()[0].dest), str(scene / "coco.jsn")]
    assert "did you mean coco.json?" in mistake(words, capsys)


READERS = [verb for verb in VERBS if "--model" in PARSERS[verb]._option_string_actions and verb != "train"]


@pytest.mark.parametrize("verb", READERS)
def test_a_misspelled_model(verb: str, capsys: Capture, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle.parent)
    words = filled_in(verb, "--model")
    assert "did you mean small?" in mistake([*words, "--model", "smal"], capsys)
    assert "did you mean bundled?" in mistake([*words, "--model", "bundle"], capsys)


@pytest.mark.parametrize("verb", READERS)
def test_a_folder_that_is_no_bundle(verb: str, capsys: Capture, tmp_path: Path, scene: Path) -> None:
    there = str(scene / ("images" if verb == "video" else "data.yaml"))
    words = [word.replace(TESTS, there) for word in filled_in(verb, "--model")]
    assert "is not a bundle" in mistake([*words, "--model", str(tmp_path)], capsys)


WIDE = [verb for verb in READERS if "--width" in PARSERS[verb]._option_string_actions]


@pytest.mark.parametrize("verb", [verb for verb in WIDE if verb != "calibrate"])  # which adds widths
@pytest.mark.parametrize("width", ["0.6", "0", "1.5", "-0.5", "nan", "half"])
def test_a_width_that_is_not_there(verb: str, width: str, capsys: Capture, bundle: Path, scene: Path) -> None:
    words = [verb, "--model", str(bundle), "--width", width]
    if verb in ("predict", "video", "job"):
        words.append(str(scene / "images"))
    if verb == "val":
        words += ["--data", str(scene / "coco.json"), "--images", str(scene / "images")]
    said = mistake(words, capsys)
    assert "0.5, 1.0" in said if width == "0.6" else "--width" in said


# ------------------------------------------------------------------------------------------------- results


def test_profile(bundle: Path, capsys: Capture) -> None:
    widths = document(["profile", "--model", str(bundle), "--repeats", "1"], capsys)["widths"]
    assert list(widths) == ["0.5", "1.0"]
    for costs in widths.values():
        assert {"parameters", "macs", "latency_ms", "memory_mb"} <= set(costs)


def test_check(scene: Path, capsys: Capture, tmp_path: Path) -> None:
    found = document(["check", "--data", str(scene / "data.yaml")], capsys)
    assert found["faults"] == []
    assert found["splits"]["val"]["classes"] == {"cat": 1, "dog": 0}
    assert main(["check", "--data", str(scene / "data.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "val: 1 images (0 without objects), 80x64 pixels" in shown
    assert "100% medium" in shown
    coco = json.loads((scene / "coco.json").read_text())
    coco["images"][0]["file_name"] = "b.png"
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    words = ["check", "--data", str(tmp_path / "coco.json"), "--images", str(scene / "images")]
    (fault,) = document(words, capsys, code=2)["faults"]
    assert (fault["kind"], fault["id"]) == ("missing image", "1")
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert "missing image (id 1)" in out
    assert "1 faults in" in err
    (tmp_path / "coco.json").write_text("[]")
    assert document(words, capsys, code=2)["splits"] == {}


def test_convert(scene: Path, capsys: Capture, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "yolo" / folder / "train").mkdir(parents=True)
    shutil.copy(scene / "images" / "a.png", tmp_path / "yolo" / "images" / "train")
    (tmp_path / "yolo" / "labels" / "train" / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    (tmp_path / "yolo" / "data.yaml").write_text("path: .\ntrain: images/train\nnames: [cat, dog]\n")
    written = document(["convert", str(tmp_path / "yolo"), "--out", str(tmp_path / "coco")], capsys)
    assert Path(written["data"]).parent == tmp_path / "coco"
    assert json.loads(Path(written["train"]).read_text())["annotations"][0]["bbox"] == [30, 16, 20, 32]
    assert document(["check", "--data", written["data"]], capsys)["faults"] == []
    said = mistake(["convert", str(tmp_path / "yolo"), "--out", str(tmp_path / "coco")], capsys)
    assert "already exists" in said


def test_doctor(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", doctor.PACKAGES[:1])
    assert document(["doctor"], capsys)["packages"].keys() >= {"numpy"}
    assert main(["doctor"]) == 0
    assert "devices: cpu" in capsys.readouterr().out


def test_only_written_flags_are_asked_for(
    capsys: Capture, tmp_path: Path, bundle: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def train(**fields: Any) -> runs.Training:
        asked.update(fields)
        return runs.Training(tmp_path, bundle, 3, {})

    monkeypatch.setattr(runs, "train", train)
    words = ["train", "--data", str(scene / "data.yaml"), "--recipe", "fast", "--no-sort", "--batch=4"]
    assert main(words) == 0
    asked.pop("callbacks")
    assert asked == {"out": None, "data": scene / "data.yaml", "recipe": "fast", "sort": False, "batch": 4}


def test_only_written_flags_stand_beside_resume(
    capsys: Capture, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def resume(folder: Path, **changes: Any) -> runs.Training:
        asked.update(changes, folder=folder)
        return runs.Training(folder, bundle, 3, {})

    monkeypatch.setattr(runs, "resume", resume)
    assert main(["train", "--resume", str(tmp_path), "--epochs", "24", "--no-evaluate"]) == 0
    asked.pop("callbacks")  # what shows it
    assert asked == {"folder": tmp_path, "epochs": 24.0, "evaluate": False}
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path), "--out", "elsewhere"]) == 2
    assert "goes on in its own folder; leave out --out elsewhere" in capsys.readouterr().err
