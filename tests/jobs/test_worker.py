"""What a worker writes, without Ray."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import slimdet
from slimdet.jobs import JobSettings, parts
from slimdet.jobs.listing import Block
from slimdet.jobs.worker import TRIES, Worker


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> Block:
    """Five images, of which the second is none."""
    folder, noise = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    files = [folder / f"{number}.png" for number in range(5)]
    for file in files:
        Image.fromarray(noise.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(file)
    files[1].write_bytes(b"no image")
    return Block(tuple(map(str, files)), 1)


def lines(folder: Path, block: Block) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / block.part).read_text().splitlines()]


def test_a_part_has_a_line_for_each_image_and_says_what_is_broken(bundle: str, block: Block, tmp_path: Path) -> None:
    Worker(bundle, JobSettings(width=0.5, batch=2), tmp_path)(block)
    found = lines(tmp_path, block)
    assert [one["file_name"] for one in found] == list(block.files)
    assert "cannot" in found[1]["error"] or "not an image" in found[1]["error"]
    runtime = slimdet.Runtime(bundle, 0.5, threads=1)
    for one in (found[0], *found[2:]):
        expected = runtime(one["file_name"])
        assert one["point"] == expected.point.entry
        assert [box["name"] for box in one["detections"]] == expected.names
        assert one["detections"]
        assert (one["width"], one["height"]) == (60, 40)
    assert [file.name for file in tmp_path.iterdir()] == [block.part]
    tally = parts.tallied(tmp_path)
    assert (len(tally.files), tally.broken, tally.points.total()) == (5, 1, 4)


def test_a_part_that_is_there_is_not_made_again(bundle: str, block: Block, tmp_path: Path) -> None:
    parts.write(tmp_path / block.part, [])
    Worker(bundle, JobSettings(), tmp_path)(block)
    assert lines(tmp_path, block) == []


def test_a_block_that_ends_workers_is_given_up(bundle: str, block: Block, tmp_path: Path) -> None:
    (tmp_path / f"{parts.STARTED}{block.part}").write_bytes(b"." * TRIES)
    Worker(bundle, JobSettings(), tmp_path)(block)
    assert all(f"{TRIES} workers ended" in one["error"] for one in lines(tmp_path, block))
    assert parts.tallied(tmp_path).broken == 5


@pytest.mark.parametrize(("hours", "width"), [(1, 1.0), (-1, 0.5)])
def test_the_deadline_chooses_the_point(hours: float, width: float, bundle: str, block: Block, tmp_path: Path) -> None:
    deadline = datetime.now() + timedelta(hours=hours)
    Worker(bundle, JobSettings(width=0.5, deadline=deadline), tmp_path)(block)
    assert {one["point"]["width"] for one in lines(tmp_path, block) if "point" in one} == {width}


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-0.jsonl").write_text('{"file_name": "a.jp')
    with pytest.raises(slimdet.DataError, match=r"part-0\.jsonl is no part"):
        parts.tallied(tmp_path)
