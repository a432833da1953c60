"""Which of how many processes this is, for every way the original's commands are started."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from slimdet.errors import ConfigError
from slimdet.training.processes import distributed
from slimdet.training.processes.distributed import Place

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")
# Environment variables that hold rank, number of processes and rank on this machine; the first set that is there.
_VARIABLES = {
    "pytorch": (("RANK", "WORLD_SIZE", "LOCAL_RANK"),),
    "slurm": (("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),),
    "mpi": (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ),
}
_HOW = {
    "pytorch": "torchrun --nproc_per_node=N tools/... --launcher pytorch",
    "slurm": "srun --ntasks=N python tools/... --launcher slurm",
    "mpi": "mpirun -np N python tools/... --launcher mpi",
}


def find_place(launcher: str, local_rank: int | None = None, environment: Mapping[str, str] = os.environ) -> Place:
    """Read from the environment where `launcher` put this process.

    Args:
        local_rank: what the launcher passed as --local_rank; counts where the environment does not say.

    Raises:
        ConfigError: the launcher did not start this process, or its variables are no numbers.
    """
    if launcher == "none":
        return Place()
    for names in _VARIABLES[launcher]:
        if names[0] in environment and names[1] in environment:
            local = environment.get(names[2], str(local_rank or 0))
            given = [environment[names[0]], environment[names[1]], local]
            if not all(text.isdecimal() for text in given) or int(given[0]) >= int(given[1]):
                shown = ", ".join(f"{name}={text!r}" for name, text in zip(names, given, strict=True))
                raise ConfigError(f"--launcher {launcher}: {shown} are not a rank, a number of processes and a rank")
            return Place(*map(int, given))
    names = " and ".join(_VARIABLES[launcher][0][:2])
    raise ConfigError(f"--launcher {launcher} needs {names} in the environment; start it as: {_HOW[launcher]}")


def join(place: Place, backend: str = "gloo") -> None:
    """Connect this process with the others.

    Args:
        backend: as `slimdet.training.processes.distributed.join` takes it.

    Raises:
        ConfigError: they cannot be reached, or there are fewer accelerators.
    """
    os.environ.setdefault("MASTER_ADDR", _first_machine())
    distributed.join(place, backend)


def spawn_all(target: Callable[..., None], arguments: tuple[Any, ...], processes: int) -> None:
    """Run `target(rank, *arguments)` in so many processes; whatever ends this one ends them too.

    Raises:
        ConfigError: one of them failed.
    """
    context: Any = spawn(target, arguments, nprocs=processes, join=False)
    try:
        while not context.join():
            pass
    except (ProcessRaisedException, ProcessExitedException) as error:
        raise ConfigError(f"a training process failed: {str(error).strip().splitlines()[-1]}") from None
    finally:  # a signal to this process alone has not reached them
        stop(context.processes)


def stop(processes: Sequence[BaseProcess], patience: float = 10) -> None:
    """End processes: SIGTERM, and after `patience` seconds for all of them SIGKILL."""
    for process in processes:
        process.terminate()
    end = time.monotonic() + patience
    for process in processes:
        process.join(max(0, end - time.monotonic()))
        process.kill()
        process.join()


def _first_machine() -> str:
    machines = os.environ.get("SLURM_JOB_NODELIST")
    if not machines or os.environ.get("SLURM_NNODES", "1") == "1":
        return "127.0.0.1"
    listed = subprocess.run(["scontrol", "show", "hostnames", machines], capture_output=True, text=True, check=True)
    return listed.stdout.split()[0]
