"""What tools/train.py does."""

import os
import socket
import sys
from pathlib import Path

import torch
from torch import distributed

from slimdet.errors import ConfigError
from slimdet.original.configs.config import Config, read_config
from slimdet.original.launch import find_place, join, spawn_all
from slimdet.original.training.trainer import Trainer
from slimdet.training.processes.distributed import Place


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
    say = _say if place.rank == 0 else _silent
    if gpus < 1:
        raise ConfigError(f"--gpus {gpus} must be at least 1")
    if launcher != "none" and gpus > 1:
        raise ConfigError(f"--gpus starts processes, and so does --launcher {launcher}; use one of them")
    settings = read_config(config, warn=say)
    _check(settings)
    if work_dir or settings.work_dir:
        settings["work_dir"] = work_dir or settings.work_dir
    else:
        raise ConfigError("no folder to write to; give --work_dir or set work_dir in the config")
    if gpus == 1:
        _train(settings, config, place, validate, seed, connect=launcher != "none")
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn_all(_one_of, (gpus, port, config, settings.work_dir, validate, seed), gpus)


def _one_of(rank: int, world: int, port: int, config: str, work_dir: str, validate: bool, seed: int) -> None:
    os.environ["MASTER_PORT"] = str(port)
    settings = read_config(config, warn=_silent)
    settings["work_dir"] = work_dir
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
    _train(settings, config, Place(rank, world, rank), validate, seed, connect=True)


def _train(settings: Config, config: str, place: Place, validate: bool, seed: int, connect: bool) -> None:
    torch.backends.cudnn.allow_tf32 = False  # the original's digits
    if connect:
        wanted = (settings.dist_params or {}).get("backend", "nccl")
        join(place, wanted if torch.cuda.is_available() else "gloo")
    say = _say if place.rank == 0 else _silent
    try:
        folder = Path(settings.work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(settings, folder, Path(config).read_text(encoding="utf-8"), seed, place)
        trainer.start(say)
        trainer.train(validate, say)
    finally:
        if connect:
            distributed.destroy_process_group()


def _check(settings: Config) -> None:
    for name in ("train_cfg", "optimizer"):
        if settings[name] is None:
            raise ConfigError(f"the config has no {name}, which training needs")
    if settings.workflow not in ([("train", 1)], (("train", 1),), [["train", 1]]):
        raise ConfigError(f"workflow={settings.workflow} is not supported; use [('train', 1)] and --validate")
    dataset = settings.data.train
    if dataset is not None:
        for name, needed in (("with_label", settings.model.bbox_head), ("with_mask", settings.model.mask_head)):
            if needed and not dataset[name]:
                raise ConfigError(f"data.train.{name}=False, but the detector learns from them; set it to True")
        if dataset.test_mode:
            raise ConfigError("data.train.test_mode=True leaves out what is trained on; set it to False")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _silent(message: str) -> None:
    pass
