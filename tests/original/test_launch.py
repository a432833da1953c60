"""Where a process stands among others, whoever started it."""

import multiprocessing
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest

from slimdet.errors import ConfigError
from slimdet.original import launch
from slimdet.original.launch import find_place
from slimdet.training.processes.distributed import Place


def test_places() -> None:
    assert find_place("none", environment={"RANK": "3", "WORLD_SIZE": "8"}) == Place(0, 1, 0)
    torchrun = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert find_place("pytorch", environment=torchrun) == Place(3, 8, 1)
    assert find_place("pytorch", local_rank=1, environment={"RANK": "3", "WORLD_SIZE": "8"}) == Place(3, 8, 1)
    slurm = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
    assert find_place("slurm", environment=slurm) == Place(5, 8, 1)
    mpi = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    assert find_place("mpi", environment=mpi) == Place(1, 2, 1)
    assert find_place("mpi", environment={"PMI_RANK": "1", "PMI_SIZE": "2"}) == Place(1, 2, 0)


@pytest.mark.parametrize(("launcher", "how"), [("pytorch", "torchrun"), ("slurm", "srun"), ("mpi", "mpirun")])
def test_a_launcher_that_did_not_start_this(launcher: str, how: str) -> None:
    with pytest.raises(ConfigError, match=how):
        find_place(launcher, environment={})


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("one", "2"), ("-1", "2"), ("0", "")])
def test_variables_that_are_no_place(rank: str, world: str) -> None:
    with pytest.raises(ConfigError, match="SLURM_PROCID"):
        find_place("slurm", environment={"SLURM_PROCID": rank, "SLURM_NTASKS": world, "SLURM_LOCALID": "0"})


def test_children_are_ended_with_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a SIGINT that reached the launcher alone; one of the children does not listen to SIGTERM."""
    context = multiprocessing.get_context("fork")

    processes: Any = [context.Process(target=_sleep, args=(deaf,)) for deaf in (False, True)]

    def interrupted() -> bool:
        raise KeyboardInterrupt

    def start(target: object, arguments: object, nprocs: int, join: bool) -> SimpleNamespace:
        for process in processes:
            process.start()
        return SimpleNamespace(processes=processes, join=interrupted)

    monkeypatch.setattr(launch, "spawn", start)
    monkeypatch.setattr(launch.stop, "__defaults__", (0.1,))
    with pytest.raises(KeyboardInterrupt):
        launch.spawn_all(print, (), 2)
    assert not any(process.is_alive() for process in processes)


def _sleep(deaf: bool) -> None:
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
