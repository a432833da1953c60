"""A video from its file to what is kept of it."""

import gc
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import slimdet
from slimdet.assets import PHOTOGRAPHS
from slimdet.cli.verbs import main
from slimdet.errors import ConfigError
from slimdet.streaming.outputs import read_lines
from slimdet.streaming.recording import record
from slimdet.streaming.settings import VideoSettings
from slimdet.streaming.sources import Frame

from .conftest import UNEVEN, av

pytest.importorskip("trackers", reason="needs the extra 'video'")
PAN = 12  # frames


@pytest.fixture(scope="module")
def pan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of frames: a window that moves over a photograph with animals."""
    folder = tmp_path_factory.mktemp("pan")
    photograph = Image.open(sorted(PHOTOGRAPHS.glob("*.jpg"))[0]).convert("RGB").resize((360, 260))
    for number in range(PAN):
        photograph.crop((4 * number, 2 * number, 300 + 4 * number, 220 + 2 * number)).save(folder / f"{number:03d}.png")
    return folder


def times_of(clip: Path) -> list[int]:
    with av.open(str(clip)) as container:
        return [round(1000 * float(frame.pts * frame.time_base)) for frame in container.decode(video=0)]


def test_a_clip_keeps_its_speed_and_every_frame(uneven: Path, tmp_path: Path) -> None:
    found = record(uneven, "bundled", VideoSettings(width=0.25, threads=1), tmp_path / "out")
    assert (found.frames, found.looked, found.dropped) == (len(UNEVEN), len(UNEVEN), 0)
    assert times_of(found.run / "video.mp4") == list(UNEVEN)
    half = record(uneven, "bundled", VideoSettings(width=0.25, threads=1, stride=2), tmp_path / "half")
    assert times_of(half.run / "video.mp4") == list(UNEVEN[::2])


def test_what_is_found_is_what_an_image_gives(pan: Path, tmp_path: Path) -> None:
    found = record(pan, "bundled", VideoSettings(width=0.5, threads=1), tmp_path / "out", clip=False)
    lines = list(read_lines(found.run / "frames.jsonl"))
    detector = slimdet.Runtime("bundled", width=0.5, threads=1)
    assert sum(len(line["objects"]) for line in lines) > 0
    for line, file in zip(lines, sorted(pan.iterdir()), strict=True):
        alone = detector(file)
        assert [one["name"] for one in line["objects"]] == alone.names
        np.testing.assert_allclose([one["box"] for one in line["objects"]], alone.boxes, atol=0.01)
    coco = json.loads((found.run / "detections.json").read_text())
    assert len(coco["images"]) == PAN
    assert len(coco["annotations"]) == sum(len(line["objects"]) for line in lines)
    assert [category["name"] for category in coco["categories"]] == list(detector.classes)
    assert not (found.run / "video.mp4").exists()
    assert found.mean_ap == pytest.approx(detector.manifest.metrics["0.5"]["bbox"]["AP"])


def test_boxes_are_carried_between_looks(pan: Path, tmp_path: Path) -> None:
    settings = VideoSettings(width=1.0, threads=1, track=True, every=3)
    found = record(pan, "bundled", settings, tmp_path / "out", overlay=True)
    lines = list(read_lines(found.run / "frames.jsonl"))
    assert [line["looked"] for line in lines] == [True, False, False] * 4
    assert found.looked == 4
    ids = [{one["id"] for one in line["objects"] if "id" in one} for line in lines[3:]]
    assert set.intersection(*ids)  # the animal keeps its id all along
    rows = (found.run / "tracks.txt").read_text().splitlines()
    assert len(rows) == sum(len([one for one in line["objects"] if "id" in one]) for line in lines)
    assert all(len(row.split(",")) == 9 for row in rows)
    assert {int(row.split(",")[0]) for row in rows} <= set(range(1, PAN + 1))


def test_a_budget_moves_the_point(pan: Path) -> None:
    with slimdet.video(pan, threads=1, budget_ms=1e6) as roomy:
        assert {seen.point.width for seen in roomy} == {1.0}
    with slimdet.video(pan, threads=1, budget_ms=0.001) as tight:
        seen = list(tight)
    assert {one.point.width for one in seen} == {0.25}
    assert all(one.late for one in seen)
    with slimdet.video(pan, threads=1, fps=0.001, track=True) as slow:
        assert {(one.point.width, one.every) for one in slow} == {(1.0, 1)}
    with slimdet.video(pan, threads=1, fps=1e5, track=True) as quick:
        assert [one.every for one in quick][-1] > 1


def test_an_interrupt_keeps_what_was_seen(pan: Path, tmp_path: Path) -> None:
    def after_five(watch: Any, seen: Any) -> None:
        if seen.frame.number == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        record(pan, "bundled", VideoSettings(width=0.25, threads=1), tmp_path / "out", on_frame=after_five)
    assert len(list(read_lines(tmp_path / "out" / "frames.jsonl"))) == 5
    assert len(times_of(tmp_path / "out" / "video.mp4")) == 5
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())["images"]) == 5


def test_the_command(uneven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["video", str(uneven), "--model", "bundled", "--width", "0.25", "--threads", "1", "--no-clip"]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["frames"] == len(UNEVEN)
    assert Path(document["run"]) == tmp_path / "out"
    assert main([*words, "--out", str(tmp_path / "other")]) == 0
    assert "8 frames at" in capsys.readouterr().out
    assert main(["video", str(tmp_path / "absent.mp4"), "--model", "bundled"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget_ms": 0.0}, "--budget-ms 0.0 must be above 0"),
        ({"fps": -1.0}, "--fps -1.0 must be above 0"),
        ({"stride": 0}, "--stride 0 must be 1 or more"),
        ({"every": 2}, "needs --track"),
        ({"fps": 5.0, "budget_ms": 5.0}, "give one of them"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VideoSettings(**fields)


def test_longer_needs_no_more_memory(write_clip: Callable[..., Path], tmp_path: Path) -> None:
    """A frame that was handed out is not held: of all pictures few are alive at a time."""
    alive: list[int] = []
    clip = write_clip(tmp_path / "long.mkv", range(0, 2400, 40))

    def count(watch: Any, seen: Any) -> None:
        if seen.frame.number % 10 == 9:
            alive.append(sum(type(one) is Frame for one in gc.get_objects()))

    record(clip, "bundled", VideoSettings(width=0.25, threads=1), tmp_path / "out", clip=False, on_frame=count)
    assert len(alive) == 6
    assert max(alive) <= 6
