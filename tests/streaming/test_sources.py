"""Frames come in order, at their own times, from whatever holds them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimdet.errors import DataError
from slimdet.streaming.sources import open_video

from .conftest import UNEVEN


def test_a_clip_keeps_its_times(uneven: Path) -> None:
    video = open_video(uneven)
    frames = list(video.open())
    assert [frame.number for frame in frames] == list(range(len(UNEVEN)))
    assert [round(1000 * frame.time_s) for frame in frames] == list(UNEVEN)
    assert frames[0].image.shape == (64, 96, 3)
    assert frames[0].image.dtype == np.uint8
    brightness = [float(frame.image.mean()) for frame in frames]
    assert brightness == sorted(brightness)
    assert not video.live
    assert len(list(video.open())) == len(UNEVEN)  # again


def test_a_folder_is_a_video_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name, grey in (("b.png", 90), ("a.png", 10), ("c.jpg", 200)):
        Image.new("RGB", (20, 10), (grey,) * 3).save(tmp_path / name)
    video = open_video(tmp_path)
    assert video.frames == 3
    assert [round(float(frame.image.mean()), -1) for frame in video.open()] == [10, 90, 200]


def test_what_is_no_video_is_named(tmp_path: Path, uneven: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    with pytest.raises(DataError, match=r"notes\.mp4: not a video that can be read"):
        open_video(text)
    with pytest.raises(DataError, match=r"absent\.mp4: no such video, folder of pictures, camera"):
        open_video(tmp_path / "absent.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no picture in this folder"):
        open_video(tmp_path / "empty")
    with pytest.raises(DataError, match="video99"):
        list(open_video("99").open())


def test_a_clip_that_is_cut_off_gives_what_there_is(write_clip: Callable[..., Path], tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", range(0, 4000, 40), (320, 240))
    cut = Path(shutil.copy(whole, tmp_path / "cut.mkv"))
    with cut.open("r+b") as handle:
        handle.truncate(whole.stat().st_size // 2)
    count = 0
    try:
        for _ in open_video(cut).open():
            count += 1
    except DataError as error:
        assert "cut off or damaged after" in str(error)  # noqa: PT017  # containers differ in whether they tell
    assert 10 < count < 100
