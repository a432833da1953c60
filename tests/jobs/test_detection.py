"""A job's mistakes are told before Ray starts; with Ray, every image is looked at exactly once, whoever is killed."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import slimdet
from slimdet.cli.verbs import main
from slimdet.jobs import JobSettings, detect
from slimdet.jobs.detection import _RayWorker

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'slimdet[ray]'")
IMAGES, BROKEN = 120, (7, 70)
LOOPBACK = "127.0.0.2"  # Ray puts the machine's own address in the place of 127.0.0.1


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, noise = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(noise.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")
    for number in BROKEN:
        (folder / f"{number:03}.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"width": 0.6}, "width 0.6 is not one of 0.5, 1.0"),
        ({"deadline": datetime.now() - timedelta(days=1)}, "has passed"),
        ({"conf": 0.5}, "other conf"),
    ],
)
def test_mistakes_come_before_the_work(
    fields: dict[str, Any], said: str, bundle: str, images: Path, tmp_path: Path
) -> None:
    weights = slimdet.Runtime(bundle).manifest.weights_sha256
    (tmp_path / "job.json").write_text(json.dumps({"weights": weights, "conf": 0.25, "block": 256}))
    with pytest.raises(slimdet.ConfigError if "width" not in fields else slimdet.WidthError, match=re.escape(said)):
        detect([str(images)], bundle, JobSettings(**fields), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["job.json"]


def test_a_disk_that_cannot_be_written_to_keeps_its_error(bundle: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    worker = _RayWorker(bundle, JobSettings(), tmp_path / "file")
    told = worker({"files": [[str(images / "000.png")]], "rounds": [1]})
    number, _, file = json.loads(told["failed"][0])
    assert number == errno.ENOTDIR
    assert str(tmp_path) in file


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_who_has_no_ray_is_told_how_to_get_it(bundle: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = images.parent / "no-ray"
    assert main(["job", str(images), "--model", bundle, "--out", str(out)]) == 2
    assert "pip install 'slimdet[ray]'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- with Ray


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes of one CPU each, connected to."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "node_ip_address": LOOPBACK}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    ray.init(address=cluster.address, _node_ip_address=LOOPBACK, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def assert_each_image_once(out: Path) -> None:
    lines = [json.loads(line) for part in out.glob("part-*.jsonl") for line in part.read_text().splitlines()]
    names = Counter(Path(line["file_name"]).stem for line in lines)
    assert names == {f"{number:03}": 1 for number in range(IMAGES)}
    assert {int(Path(line["file_name"]).stem) for line in lines if "error" in line} == set(BROKEN)
    assert {path.name for path in out.iterdir()} - {"job.json"} == {path.name for path in out.glob("part-*.jsonl")}


def workers_of(pids: list[int]) -> list[int]:
    """Processes of Ray's that run our worker, children of these."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()[1:]]
    return [int(pid) for pid, parent, args in rows if int(parent) in pids and args.startswith("ray::MapWorker")]


@needs_ray
def test_a_killed_worker_on_two_nodes(two_nodes: Any, bundle: str, images: Path, tmp_path: Path) -> None:
    raylets = [info.process.pid for node in two_nodes.list_all_nodes() for info in node.all_processes.get("raylet", [])]
    assert len(raylets) == 2
    killed: list[int] = []

    def kill(*_: Any) -> None:
        if not killed:
            found = workers_of(raylets)
            assert len({*found}) == 2
            killed.append(found[0])
            os.kill(found[0], signal.SIGKILL)

    job = detect([str(images)], bundle, JobSettings(block=4), tmp_path / "out", kill)
    assert killed
    assert (job.images, job.broken, job.resumed, job.workers) == (IMAGES, len(BROKEN), 0, 2)
    assert_each_image_once(tmp_path / "out")
    again = detect([str(images)], bundle, JobSettings(block=4), tmp_path / "out")
    assert (again.images, again.resumed, again.workers) == (IMAGES, IMAGES, 0)


@needs_ray
def test_a_killed_driver_is_resumed(two_nodes: Any, bundle: str, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "slimdet", "job", str(images), "--model", bundle, "--block", "4", "--out", str(out)]
    environment = os.environ | {"RAY_ADDRESS": two_nodes.address}
    driver = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while len(list(out.glob("part-*.jsonl"))) < 3 and time.monotonic() < end and driver.poll() is None:
        time.sleep(0.02)
    driver.kill()
    told = driver.communicate()[1]
    before = len(list(out.glob("part-*.jsonl")))
    assert 3 <= before < IMAGES / 4, told
    job = detect([str(images)], bundle, JobSettings(block=4, deadline=datetime.now() + timedelta(hours=1)), out)
    assert job.images == IMAGES
    assert job.resumed >= 12
    assert job.in_time
    assert_each_image_once(out)
