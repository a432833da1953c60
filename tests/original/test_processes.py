"""The original's commands in two processes, started by every launcher, do what one process does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ports import free_port
from slimdet.original.commands import run_test
from slimdet.original.configs.config import read_config
from slimdet.original.detector import checkpoint
from slimdet.original.detector.detector import WIDTHS
from slimdet.original.training.trainer import Trainer

Small = Callable[[str], tuple[Path, Path]]
TOOLS = Path(__file__).parents[2] / "tools"
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def by(launcher: str, script: str, *flags: str) -> list[str]:
    """The command line that starts a tool in two processes."""
    module = {"torchrun": "torch.distributed.run", "launch": "torch.distributed.launch"}[launcher]
    starter = [sys.executable, "-m", module, "--nproc_per_node=2", f"--master_port={free_port()}"]
    return [*starter, str(TOOLS / script), *flags, "--launcher", "pytorch"]


def ended(command: Sequence[str], environment: dict[str, str] = ONE_THREAD) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("launcher", ["torchrun", "launch"])
def test_testing(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str], launcher: str) -> None:
    config, weights = map(str, small("mask"))
    run_test(config, weights, width_mult=["0.5", "0.25"], eval=["bbox", "segm"], out=str(tmp_path / "one.pkl"))
    printed = capsys.readouterr().out
    flags = ["--width_mult", "0.5", "0.25", "--eval", "bbox", "segm", "--out", str(tmp_path / "two.pkl")]
    done = ended(by(launcher, "test.py", config, weights, *flags))
    assert done.stdout == printed  # every number, once
    for width in (0.25, 0.5):
        one, two = ((tmp_path / f"{name}_{width}.pkl.json").read_text() for name in ("one", "two"))
        assert one == two
        assert json.loads(one)


def test_testing_without_a_launcher(small: Small, tmp_path: Path) -> None:
    config, weights = map(str, small("rpn"))
    for name, more in (("one", {}), ("two", {"gpus": 2})):
        run_test(config, weights, width_mult=["0.75"], out=str(tmp_path / f"{name}.pkl"), **more)
    assert (tmp_path / "one.pkl.json").read_text() == (tmp_path / "two.pkl.json").read_text()


def test_a_process_that_fails_ends_all(small: Small, tmp_path: Path) -> None:
    config, weights = small("rpn")
    settings = read_config(config)
    coco = json.loads(Path(settings.data.test.ann_file).read_text())
    coco["images"][1]["file_name"] = "absent.png"  # the second process's only one
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "x.py").write_text(config.read_text().replace(settings.data.test.ann_file, str(tmp_path / "coco.json")))
    out = tmp_path / "x.pkl"
    command = by("torchrun", "test.py", str(tmp_path / "x.py"), str(weights), "--out", str(out))
    done = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, timeout=300, check=False)
    assert done.returncode != 0
    assert "test.py: there is no image" in done.stderr
    assert not out.exists()


@pytest.fixture
def config(small: Small, tmp_path: Path) -> Path:
    """A training of four epochs, two iterations each."""
    text = small("mask")[0].read_text().replace("pretrained='modelzoo://resnet50'", "pretrained=None")
    for old, new in (("total_epochs = 12", "total_epochs = 4"), ("imgs_per_gpu=2", "imgs_per_gpu=1")):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "train.py"
    path.write_text(text.replace("interval=50", "interval=1"))
    return path


def logged(work_dir: Path, mode: str) -> list[dict[str, Any]]:
    """What all runs in a folder logged, in order."""
    lines = [line for file in sorted(work_dir.glob("*.log.json")) for line in file.read_text().splitlines()]
    return [entry for entry in map(json.loads, lines) if entry["mode"] == mode]


def one_process(config: Path, work_dir: Path, validate: bool) -> dict[str, torch.Tensor]:
    """The weights after a training by one process, which computes both shares of each batch, one after the other."""
    work_dir.mkdir()
    trainer = Trainer(read_config(config), work_dir, shares=(0, 1), world=2)
    trainer.train(validate, print)
    return checkpoint.read(work_dir / "latest.pth")["state_dict"]


def assert_same(one: dict[str, torch.Tensor], two: Path) -> None:
    found = checkpoint.read(two / "latest.pth")["state_dict"]
    assert found.keys() == one.keys()
    assert all(torch.allclose(value, one[name], rtol=0, atol=1e-7) for name, value in found.items())


@pytest.mark.slow  # a minute; the trainer's resuming is tested in its own process
def test_training_killed_and_taken_up_again(config: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"
    flags = [str(config), "--work_dir", str(two), "--validate"]
    with (tmp_path / "stderr").open("w") as stderr:
        running = subprocess.Popen(
            by("launch", "train.py", *flags), stderr=stderr, env=ONE_THREAD, start_new_session=True
        )
        limit = time.monotonic() + 240
        while not (two / "latest.pth").exists() and running.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    assert not (two / "epoch_4.pth").exists(), "killed too late"
    whole = [checkpoint.read(file)["meta"]["epoch"] for file in two.glob("epoch_*.pth")]
    assert max(whole) < 4
    script = [str(TOOLS / "dist_train.sh"), str(config), "2", "--work_dir", str(two), "--validate"]
    environment = {**ONE_THREAD, "PYTHON": sys.executable, "MASTER_PORT": str(free_port())}
    assert f"resumed from {two}/latest.pth" in ended(script, environment).stderr

    weights = one_process(config, tmp_path / "one", validate=True)
    assert_same(weights, two)
    wanted = {(entry["epoch"], entry["iter"]): entry["widths"] for entry in logged(tmp_path / "one", "train")}
    assert len(wanted) == 8
    found = logged(two, "train")
    assert {(entry["epoch"], entry["iter"]) for entry in found} == set(wanted)
    for entry in found:
        for width, losses in wanted[entry["epoch"], entry["iter"]].items():
            assert entry["widths"][width] == pytest.approx(losses, rel=1e-5, abs=1e-6)
    measured, wanted_numbers = logged(two, "val"), logged(tmp_path / "one", "val")
    assert [entry["width"] for entry in measured[-4:]] == list(WIDTHS)
    for entry, numbers in zip(measured[-4:], wanted_numbers[-4:], strict=True):
        assert entry == pytest.approx(numbers, abs=1e-6)


NAMES = {
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
}


@pytest.mark.parametrize(
    "launcher", ["pytorch", *(pytest.param(name, marks=pytest.mark.slow) for name in ("slurm", "mpi"))]
)
def test_training_started_by_what_sets_the_environment_alone(config: Path, tmp_path: Path, launcher: str) -> None:
    config.write_text(config.read_text().replace("total_epochs = 4", "total_epochs = 2"))
    port, running = str(free_port()), []
    for rank in (0, 1):
        environment = dict(zip(NAMES[launcher], (str(rank), "2", str(rank)), strict=True))
        command = [sys.executable, str(TOOLS / "train.py"), str(config), "--work_dir", str(tmp_path / "two")]
        command += ["--launcher", launcher]
        running.append(subprocess.Popen(command, env={**ONE_THREAD, **environment, "MASTER_PORT": port}))
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    assert_same(one_process(config, tmp_path / "one", validate=False), tmp_path / "two")
