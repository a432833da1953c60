"""What tools/train.py does."""

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from slimdet.errors import ConfigError
from slimdet.seed.config import Config, read_config
from slimdet.seed.launch import Place, find_place, join
from slimdet.seed.training import Trainer


def train(
    config: str,
    *,
    work_dir: str | None = None,
    validate: bool = False,
    gpus: int = 1,
    seed: int = 0,
    launcher: str = "none",
    local_rank: int | None = None,
) -> None:
    """Train the detector of a config; checkpoints and logs go into its work_dir.

    A work_dir that holds latest.pth is gone on with.

    Raises:
        SlimdetError: whatever the user got wrong, in one line.
    """
    place = find_place(launcher, local_rank)
    if gpus < 1:
        raise ConfigError(f"--gpus {gpus} must be at least 1")
    if launcher != "none" and gpus > 1:
        raise ConfigError(f"--gpus starts processes, and so does --launcher {launcher}; use one of them")
    settings = read_config(config, warn=_say if place.rank == 0 else lambda message: None)
    _check(settings)
    if work_dir or settings.work_dir:
        settings["work_dir"] = work_dir or settings.work_dir
    else:
        raise ConfigError("no folder to write to; give --work_dir or set work_dir in the config")
    if gpus > 1:
        port = str(29500 + hash(settings.work_dir) % 1000)
        try:
            spawn(_one_of, (gpus, port, config, settings.work_dir, validate, seed), nprocs=gpus)
        except (ProcessRaisedException, ProcessExitedException) as error:
            raise ConfigError(f"a training process failed: {str(error).strip().splitlines()[-1]}") from None
        return
    _train(settings, config, place, validate, seed, connect=launcher != "none")


def _one_of(rank: int, world: int, port: str, config: str, work_dir: str, validate: bool, seed: int) -> None:
    import os

    os.environ["MASTER_PORT"] = port
    settings = read_config(config, warn=lambda message: None)
    settings["work_dir"] = work_dir
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
    _train(settings, config, Place(rank, world, rank), validate, seed, connect=True)


def _train(settings: Config, config: str, place: Place, validate: bool, seed: int, connect: bool) -> None:
    if connect:
        on_gpu = place.device.type == "cuda" and torch.cuda.device_count() >= place.local + 1
        if place.device.type == "cuda":
            torch.cuda.set_device(place.device)
        wanted = (settings.dist_params or {}).get("backend", "nccl")
        join(place, wanted if on_gpu else "gloo")
    try:
        folder = Path(settings.work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(settings, folder, Path(config).read_text(), seed, place)
        trainer.start(_say if place.rank == 0 else lambda message: None)
        trainer.train(validate, _say if place.rank == 0 else lambda message: None)
    finally:
        if connect:
            distributed.destroy_process_group()


def _check(settings: Config) -> None:
    for name in ("train_cfg", "optimizer"):
        if settings[name] is None:
            raise ConfigError(f"the config has no {name}, which training needs")
    if [tuple(entry) for entry in settings.workflow] != [("train", 1)]:
        raise ConfigError(f"workflow={settings.workflow} is not supported; use [('train', 1)] and --validate")
    hooks = {hook.type for hook in (settings.log_config or {}).get("hooks", ())}
    if "TensorboardLoggerHook" in hooks:
        _say("warning: log_config.hooks: TensorboardLoggerHook has no effect; logs are text and JSON lines")
    if settings.log_level != "INFO":
        _say(f"warning: log_level={settings.log_level!r} has no effect; everything is logged")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
