"""Several processes that train one model: who this process is, and the few messages between them.

Every process holds the whole model and computes its share of each step's images. One message a step, a flat list of
numbers, sums the gradients; with them travel the norms' running statistics and the losses, so that after each step all
processes hold the same model. torch's DistributedDataParallel is not used: its reducer waits for every parameter in
every backward pass, and a width has norms of its own.

torchrun starts the processes and says in the environment who is who; inside Ray Train, Lightning Fabric or a script
that has called `torch.distributed.init_process_group`, that group is used.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from slimdet.errors import ConfigError
from slimdet.messages import first_line

T = TypeVar("T")
_HOW = "start it as: torchrun --nproc_per_node=N -m slimdet train ..."


@dataclass(frozen=True)
class Place:
    """This process among `world`: its rank, and its rank among those on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the process that makes files and speaks."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The accelerator of this process, or the CPU."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.local % torch.cuda.device_count())

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes; return it."""
        if self.world > 1:
            with _others_may_end():
                distributed.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with _others_may_end():
            distributed.all_gather_object(values, value)
        return values

    def first(self, value: T) -> T:
        """What rank 0 has here."""
        values = [value]
        if self.world > 1:
            with _others_may_end():
                distributed.broadcast_object_list(values)
        return values[0]

    def copy_first(self, module: nn.Module) -> None:
        """Give a module the parameters and buffers that it has in rank 0."""
        if self.world > 1:
            with torch.no_grad(), _others_may_end():
                for tensor in (*module.parameters(), *module.buffers()):
                    one = tensor.detach().contiguous()
                    distributed.broadcast(one, 0)
                    tensor.copy_(one)


@contextmanager
def _others_may_end() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # DistBackendError too
        said = re.sub(r"^\[\S+\] ", "", first_line(error)).split(". ")[0]  # gloo begins with a line of its source
        raise ConfigError(f"another process of this run ended ({said}); its own message says why") from error


# ---------------------------------------------------------------------------------------------- joining


def find_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Where torchrun put this process; alone where it was not started by torchrun.

    Raises:
        ConfigError: its variables are no numbers.
    """
    if distributed.is_available() and distributed.is_initialized():
        rank = distributed.get_rank()
        return Place(rank, distributed.get_world_size(), int(environment.get("LOCAL_RANK", rank)))
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(name in environment for name in names):
        return Place()
    given = [environment[name] for name in names]
    if not all(text.isdecimal() for text in given) or int(given[0]) >= int(given[1]):
        shown = ", ".join(f"{name}={text!r}" for name, text in zip(names, given, strict=True))
        raise ConfigError(f"{shown} are not a rank, a number of processes and a rank on this machine; {_HOW}")
    return Place(*map(int, given))


def join(place: Place, backend: str | None = None) -> None:
    """Connect this process with the others.

    Args:
        backend: "gloo", or "nccl", for which every process needs an accelerator of its own; by default nccl for
            tensors on accelerators where there are enough of them, gloo otherwise.

    Raises:
        ConfigError: they cannot be reached, or there are fewer accelerators.
    """
    count = torch.cuda.device_count()
    enough = place.local < count or count == 1  # where one is seen, slurm may have given each process its own
    if backend == "nccl" and count and not enough:
        raise ConfigError(
            f"nccl needs an accelerator for every process, and this machine has {count} for {place.local + 1} or "
            "more; start fewer, or take gloo"
        )
    if backend is None:
        local_world = int(os.environ.get("LOCAL_WORLD_SIZE", place.local + 1))
        backend = "cpu:gloo,cuda:nccl" if count >= local_world else "gloo"
    if count:
        torch.cuda.set_device(place.device)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    try:
        store, rank, world = next(rendezvous("env://", place.rank, place.world))
        # torchrun's store outlives a start, and the addresses that dead processes left in it shall not be read.
        store = PrefixStore(f"start {find_restarts().done}", store)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"cannot join {place.world} processes over {backend}: {first_line(error)}") from None


@contextmanager
def joined() -> Iterator[Place]:
    """Yield the place of this process, connected with the others; who joined here leaves at the end.

    Raises:
        ConfigError: as `find_place` and `join`.
    """
    place = find_place()
    if place.world == 1 or distributed.is_initialized():
        yield place
        return
    join(place)
    if not place.main:
        logging.getLogger("slimdet").setLevel(logging.WARNING)  # rank 0 says what all do
    try:
        yield place
    finally:
        distributed.destroy_process_group()


@dataclass(frozen=True)
class Restarts:
    """How torchrun treats a process that ends: how often it was started again, and how often it may be."""

    done: int = 0
    allowed: int = 0


def find_restarts(environment: Mapping[str, str] = os.environ) -> Restarts:
    """What torchrun's variables say; none where it did not start this process."""
    names = ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS")
    return Restarts(*(int(environment.get(name, 0)) for name in names))


# ---------------------------------------------------------------------------------------------- a step's message


def flat_gradients(parameters: Sequence[nn.Parameter]) -> Tensor:
    """All gradients as one list, so that one message carries them, and for each whether it is there.

    A parameter without a gradient counts as zero, since another process may have one (a batch without objects has no
    mask gradient).
    """
    there = parameters[0].new_tensor([p.grad is not None for p in parameters])
    return torch.cat([*((p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters), there])


def set_gradients(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    """The reverse of `flat_gradients`, after a sum over processes.

    A parameter that no process has a gradient for has none: momentum and weight decay leave it alone, as they do in
    one process with the norms of widths that a step does not train.
    """
    *gradients, there = flat.split([*(p.numel() for p in parameters), len(parameters)])
    for parameter, gradient, is_there in zip(parameters, gradients, there.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) if is_there else None


@torch.no_grad()
def reduce_step(
    place: Place,
    parameters: Sequence[nn.Parameter],
    statistics: Sequence[Tensor],
    weight: float,
    numbers: Sequence[Tensor] = (),
) -> None:
    """Make one step of all processes' parts: a single all-reduce over one flat list.

    Args:
        place: this process; alone, nothing happens.
        parameters: all that are trained; their gradients become the sum of all processes'.
        statistics: running means and variances, which become the mean of all processes'. The variances are means of
            the processes' own: the variance between their means is not in them.
        weight: of this process's statistics in that mean; the weights of all add up to 1.
        numbers: losses, flags, which become sums too.
    """
    if place.world == 1:
        return
    gradients = flat_gradients(parameters)
    rest = [*(weight * one for one in statistics), *numbers]
    flat = place.sum(torch.cat([gradients, *(one.flatten() for one in rest)]))
    set_gradients(parameters, flat[: len(gradients)])
    parts = flat[len(gradients) :].split([one.numel() for one in rest])
    for tensor, part in zip((*statistics, *numbers), parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def running_statistics(model: nn.Module) -> list[Tensor]:
    """The floating-point buffers of norms that training moves: running means and variances of batch norms."""
    return [
        buffer
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for buffer in module.buffers(recurse=False)
        if buffer.is_floating_point()
    ]
